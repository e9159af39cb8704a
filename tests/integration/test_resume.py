"""Training that continues from a checkpoint of the unmodified MMEngine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

import mmdet_ext.registry  # noqa: F401  lets MMEngine load checkpoints
from mmdet_ext.compat.checkpoint import load_from_local
from tests._helpers.configs import CONFIGS, shrink
from tests._helpers.same import assert_same

LEAF = CONFIGS / 'detection' / 'atss' / 'atss_r18_fpn_demo_shapes.py'


def two_epochs(shapes_root: Path, work_dir: Path, **options: Any) -> Config:
    """Make a config of two epochs that does not depend on the state of a random generator.

    A checkpoint does not hold that state, so that a resumed run would flip other images. The order
    of images follows from seed and epoch, and stays the same.
    """
    cfg = shrink(LEAF, shapes_root, work_dir=str(work_dir), **options)
    cfg.train_cfg.max_epochs = 2
    pipeline = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset.pipeline = [
        step for step in pipeline if step['type'] != 'RandomFlip'
    ]
    cfg.merge_from_dict(dict(val_cfg=None, val_dataloader=None, val_evaluator=None))
    return cfg


@pytest.fixture(scope='module')
def straight(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the checkpoints of both epochs of an uninterrupted run."""
    work_dir = tmp_path_factory.mktemp('straight')
    Runner.from_cfg(two_epochs(shapes_root, work_dir)).train()
    return work_dir


def load(path: Path) -> dict[str, Any]:
    """Load a checkpoint."""
    return load_from_local(str(path), 'cpu')


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(
    straight: Path, shapes_root: Path, tmp_path: Path
) -> None:
    cfg = two_epochs(shapes_root, tmp_path, resume=True, load_from=str(straight / 'epoch_1.pth'))
    Runner.from_cfg(cfg).train()
    assert not (tmp_path / 'epoch_1.pth').exists()
    whole, resumed = load(straight / 'epoch_2.pth'), load(tmp_path / 'epoch_2.pth')
    assert resumed['meta']['epoch'] == 2 and resumed['meta']['iter'] == 4
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        assert whole[part], part
        assert_same(whole[part], resumed[part], part)
    losses = [
        checkpoint['message_hub']['log_scalars']['train/loss'].data[0].tolist()
        for checkpoint in (whole, resumed)
    ]
    assert len(losses[0]) == 4 and losses[0] == losses[1]
    # The second epoch changed the weights, so that the equality above says something.
    first = load(straight / 'epoch_1.pth')['state_dict']
    key = 'bbox_head.atss_cls.weight'
    assert not torch.equal(first[key], whole['state_dict'][key])


@pytest.mark.slow
def test_load_from_loads_the_weights_alone(
    straight: Path, shapes_root: Path, tmp_path: Path
) -> None:
    cfg = two_epochs(shapes_root, tmp_path, load_from=str(straight / 'epoch_2.pth'))
    cfg.randomness.seed = 1  # other initial weights than those loaded
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    assert_same(load(straight / 'epoch_2.pth')['state_dict'], runner.model.state_dict())
    assert runner.epoch == 0 and runner.iter == 0


@pytest.mark.slow
def test_auto_resume_finds_the_last_checkpoint(shapes_root: Path, tmp_path: Path) -> None:
    cfg = two_epochs(shapes_root, tmp_path)
    cfg.train_cfg.max_epochs = 1
    Runner.from_cfg(cfg).train()
    cfg = two_epochs(shapes_root, tmp_path, resume=True)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.epoch == 2 and runner.iter == 4
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_2.pth')
