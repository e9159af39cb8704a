"""Distributed training: two processes with half the batch each equal one with the whole."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

import mmdet_ext.registry  # noqa: F401  lets MMEngine load checkpoints
from mmdet_ext.compat.checkpoint import load_from_local
from tests._helpers.configs import CONFIGS, shrink

LEAF = CONFIGS / 'detection' / 'atss' / 'atss_r18_fpn_demo_shapes.py'
REPO = CONFIGS.parent

# MMEngine sets a CUDA device before it starts a process group, which fails on a CPU. It keeps a
# group that is there already. Then the installed training script of mmdet runs.
WORKER = """
import runpy, sys
import torch
torch.distributed.init_process_group('gloo')
runpy.run_path(sys.argv.pop(1), run_name='__main__')
"""


def recipe(shapes_root: Path, batch_size: int) -> Config:
    """Make a config of two steps of plain SGD over eight images, in the order of the file.

    Statistics of one batch of four and of two batches of two would differ, so that the backbone's
    norms stay in evaluation mode. The norms of the head work per image. Nothing is random.
    """
    cfg = shrink(LEAF, shapes_root)
    cfg.model.backbone.norm_eval = True
    dataset = cfg.train_dataloader.dataset
    dataset.indices = 8
    dataset.pipeline = [step for step in dataset.pipeline if step['type'] != 'RandomFlip']
    cfg.train_dataloader.batch_size = batch_size
    cfg.train_dataloader.sampler.shuffle = False
    cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))
    cfg.param_scheduler = []
    # The default of the runner names a CUDA device.
    cfg.model_wrapper_cfg = dict(device_ids=None, broadcast_buffers=False)
    cfg.env_cfg.dist_cfg.backend = 'gloo'
    cfg.merge_from_dict(dict(val_cfg=None, val_dataloader=None, val_evaluator=None))
    return cfg


def train(cfg: Config, folder: Path, processes: int) -> dict[str, Any]:
    """Train by mmdet's script in new processes, and return the checkpoint."""
    folder.mkdir()
    cfg.dump(folder / 'config.py')
    spec = importlib.util.find_spec('mmdet')
    assert spec is not None and spec.origin is not None
    script = Path(spec.origin).parent / '.mim' / 'tools' / 'train.py'
    words = [str(script), str(folder / 'config.py'), '--work-dir', str(folder / 'run')]
    if processes > 1:
        worker = folder / 'worker.py'
        worker.write_text(WORKER)
        launch = [
            '-m',
            'torch.distributed.run',
            f'--nproc_per_node={processes}',
            f'--master_port={free_port()}',
            str(worker),
        ]
        words = [*launch, *words, '--launcher', 'pytorch']
    # The config is outside of the repository, so that the package must be on the path. With one
    # thread per process, sums are taken in the same order.
    env = {
        **os.environ,
        'PYTHONPATH': str(REPO),
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '',
    }
    done = subprocess.run(
        [sys.executable, *words],
        env=env,
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return load_from_local(str(folder / 'run' / 'epoch_1.pth'), 'cpu')


def free_port() -> int:
    """Return a port of this machine that is free."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return int(probe.getsockname()[1])


@pytest.mark.subprocess
def test_two_gloo_processes_equal_one(shapes_root: Path, tmp_path: Path) -> None:
    one = train(recipe(shapes_root, 4), tmp_path / 'one', processes=1)
    two = train(recipe(shapes_root, 2), tmp_path / 'two', processes=2)
    assert one['meta']['iter'] == two['meta']['iter'] == 2
    assert one['state_dict'].keys() == two['state_dict'].keys()
    for name, value in one['state_dict'].items():
        torch.testing.assert_close(
            two['state_dict'][name],
            value,
            rtol=1e-5,
            atol=1e-6,
            msg=lambda text, name=name: f'{name}: {text}',
        )
