"""Commands of a user: `mim train`, `mim test` and `mim run`, of either family of hosts.

The mim of OneDL knows mmdet by the name of the fork, and this package by its own name as any.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import mmdet_ext.registry  # noqa: F401  lets MMEngine load checkpoints
from mmdet_ext.compat.checkpoint import load_from_local
from mmdet_ext.utils.families import distribution_of, installed_family
from mmdet_ext.utils.mim import mim_name
from tests._helpers.configs import CONFIGS, shrink
from tests._helpers.processes import run_python

LEAF = CONFIGS / 'detection' / 'atss' / 'atss_r18_fpn_demo_shapes.py'


def mim(*words: str | Path, cwd: Path) -> str:
    """Run mim in a new process, and return its output."""
    return run_python('-m', 'mim', *words, cwd=cwd)


@pytest.mark.subprocess
@pytest.mark.slow
def test_train_test_resume(shapes_root: Path, tmp_path: Path) -> None:
    host = mim_name('mmdet')
    config, run = tmp_path / 'tiny.py', tmp_path / 'run'
    shrink(LEAF, shapes_root, log_level='INFO').dump(config)

    mim('train', host, config, '--work-dir', run, cwd=tmp_path)
    first = load_from_local(str(run / 'epoch_1.pth'), 'cpu')
    assert first['meta']['epoch'] == 1 and first['meta']['iter'] == 2

    tested = mim(
        'test',
        host,
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
        host,
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


@pytest.mark.subprocess
@pytest.mark.slow
def test_the_name_of_this_package_trains_and_tests_too(shapes_root: Path, tmp_path: Path) -> None:
    config, run = tmp_path / 'tiny.py', tmp_path / 'run'
    shrink(LEAF, shapes_root, log_level='INFO').dump(config)
    mim('train', 'mmdet_ext', config, '--work-dir', run, cwd=tmp_path)
    words = ['--checkpoint', run / 'epoch_1.pth', '--work-dir', tmp_path / 'tested']
    tested = mim('test', 'mmdet_ext', config, *words, cwd=tmp_path)
    assert re.search(r'coco/bbox_mAP: \d\.\d{4}', tested)


@pytest.mark.subprocess
def test_mim_runs_a_tool_of_ours(tmp_path: Path) -> None:
    words = ['--out', tmp_path / 'shapes', '--train', '2', '--val', '1', '--no-preview']
    printed = mim('run', 'mmdet_ext', 'make_shapes', *words, cwd=tmp_path)
    assert 'make_shapes.py' in printed
    assert len([*(tmp_path / 'shapes' / 'images').rglob('*.jpg')]) == 3


@pytest.mark.parametrize('module', ['mmdet', 'mmpretrain', 'mmseg', 'mmdet_ext'])
def test_mim_knows_the_hosts_by_these_names(module: str) -> None:
    """Show why commands differ by family: 'mmdet' alone is no name of the fork."""
    utils = pytest.importorskip('mim.utils')
    if module == 'mmdet_ext':
        assert utils.module_full_name(module) == module
        return
    known = utils.module_full_name(mim_name(module))
    assert known == distribution_of(module)
    if installed_family() == 'onedl':
        assert utils.module_full_name(module) == ('' if module == 'mmdet' else known)
