"""Commands of a user: `mim train mmdet`, `mim test mmdet` and `--resume`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mmdet_ext.registry  # noqa: F401  lets MMEngine load checkpoints
from mmdet_ext.compat.checkpoint import load_from_local
from tests._helpers.configs import CONFIGS, shrink

LEAF = CONFIGS / 'detection' / 'atss' / 'atss_r18_fpn_demo_shapes.py'


def mim(*words: str | Path, cwd: Path) -> str:
    """Run mim in a new process, and return its output."""
    env = {
        **os.environ,
        'PYTHONPATH': str(CONFIGS.parent),
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '',
    }
    done = subprocess.run(
        [sys.executable, '-m', 'mim', *map(str, words)],
        env=env,
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.mark.subprocess
@pytest.mark.slow
def test_train_test_resume(shapes_root: Path, tmp_path: Path) -> None:
    config, run = tmp_path / 'tiny.py', tmp_path / 'run'
    shrink(LEAF, shapes_root, log_level='INFO').dump(config)

    mim('train', 'mmdet', config, '--work-dir', run, cwd=tmp_path)
    first = load_from_local(str(run / 'epoch_1.pth'), 'cpu')
    assert first['meta']['epoch'] == 1 and first['meta']['iter'] == 2

    tested = mim(
        'test',
        'mmdet',
        config,
        '--checkpoint',
        run / 'epoch_1.pth',
        '--work-dir',
        tmp_path / 'tested',
        cwd=tmp_path,
    )
    assert f'Load checkpoint from {run / "epoch_1.pth"}' in tested
    assert re.search(
        r'Average Precision +\(AP\) @\[ IoU=0\.50:0\.95 \| area= +all \| maxDets=100 \] = \d\.\d',
        tested,
    )
    assert re.search(r'coco/bbox_mAP: \d\.\d{4}', tested)

    mim(
        'train',
        'mmdet',
        config,
        '--work-dir',
        run,
        '--resume',
        '--cfg-options',
        'train_cfg.max_epochs=2',
        cwd=tmp_path,
    )
    second = load_from_local(str(run / 'epoch_2.pth'), 'cpu')
    assert second['meta']['epoch'] == 2 and second['meta']['iter'] == 4
    # The log of the first epoch is still there: the second run continued the first.
    logged = [
        checkpoint['message_hub']['log_scalars']['train/loss'].data[0].tolist()
        for checkpoint in (first, second)
    ]
    assert len(logged[1]) == 4 and logged[1][:2] == logged[0]
