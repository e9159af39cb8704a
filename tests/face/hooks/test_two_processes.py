"""Both hooks in a distributed training of two processes."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from tests._helpers.configs import CONFIGS
from tests._helpers.face.margin_runs import (
    drawings,
)

# MMEngine sets a CUDA device before it starts a process group, which fails on a CPU. It keeps a
# group that exists.
WORKER = """
import runpy, sys
import torch
torch.distributed.init_process_group('gloo')
runpy.run_path(sys.argv.pop(1), run_name='__main__')
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


@pytest.mark.subprocess
@pytest.mark.slow
def test_two_processes_train_and_one_draws(tmp_path: Path) -> None:
    spec = importlib.util.find_spec('mmpretrain')
    assert spec is not None and spec.origin is not None
    script = Path(spec.origin).parent / '.mim' / 'tools' / 'train.py'
    cfg = Config.fromfile(CONFIGS / 'ablations' / 'margins' / 'digits' / 'arcface_digits.py')
    cfg.train_cfg.max_epochs = 3
    cfg.custom_hooks[0].interval = 1
    # The margin is half way after the first epoch, and at its end after the second.
    cfg.custom_hooks[1].end = 2
    # The default of the runner names a CUDA device.
    cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)
    cfg.env_cfg.dist_cfg.backend = 'gloo'
    cfg.default_hooks.logger.interval = 7
    cfg.dump(tmp_path / 'config.py')
    (tmp_path / 'worker.py').write_text(WORKER)
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'torch.distributed.run',
            '--nproc_per_node=2',
            f'--master_port={port}',
            str(tmp_path / 'worker.py'),
            str(script),
            str(tmp_path / 'config.py'),
            '--work-dir',
            str(tmp_path / 'run'),
            '--launcher',
            'pytorch',
        ],
        env={
            **os.environ,
            'PYTHONPATH': str(CONFIGS.parent),
            'OMP_NUM_THREADS': '1',
            'CUDA_VISIBLE_DEVICES': '',
        },
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert drawings(tmp_path / 'run' / 'scatter') == [f'epoch_{k:06d}.png' for k in range(4)]
    (log,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line['margin_m'] for line in lines if 'margin_m' in line] == [0.0, 0.25, 0.5]
    assert done.stdout.count('4 drawings, ') == 1
