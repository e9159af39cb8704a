"""Tests of the hook that gives a dense head another assigner."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

from mmdet_ext.detection.hooks import AssignerSwitchHook
from tests._helpers.configs import CONFIGS, shrink

LEAF = CONFIGS / 'ablations' / 'assigners' / 'bccd' / 'gfl_batched_4e_bccd.py'
LATER = dict(type='mmdet_ext.DynamicSoftLabelAssigner', topk=5)


def runner_of(
    shapes_root: Path, folder: Path, hook: dict[str, Any], epochs: int = 3, **options: Any
):
    cfg: Config = shrink(LEAF, shapes_root)
    cfg.train_cfg.max_epochs = epochs
    cfg.train_cfg.val_interval = epochs + 1
    cfg.custom_hooks = [hook]
    cfg.work_dir = str(folder)
    for key, value in options.items():
        cfg[key] = value
    return Runner.from_cfg(cfg)


def used(runner: Any) -> list[str]:
    """Train, and return the assigner of each epoch."""
    names: list[str] = []
    head = runner.model.bbox_head
    inner = head.loss_by_feat

    def noted(*args: Any, **kwargs: Any) -> Any:
        if len(names) <= runner.epoch:
            names.append(type(head.assigner).__name__)
        return inner(*args, **kwargs)

    head.loss_by_feat = noted
    runner.train()
    return names


def test_the_other_assigner_decides_from_its_epoch_on(shapes_root: Path, tmp_path: Path) -> None:
    hook = dict(type='mmdet_ext.AssignerSwitchHook', begin=2, assigner=LATER)
    assert used(runner_of(shapes_root, tmp_path, hook)) == [
        'ATSSAssigner',
        'ATSSAssigner',
        'DynamicSoftLabelAssigner',
    ]


def test_an_epoch_beyond_the_training_changes_nothing(shapes_root: Path, tmp_path: Path) -> None:
    hook = dict(type='mmdet_ext.AssignerSwitchHook', begin=9, assigner=LATER)
    assert used(runner_of(shapes_root, tmp_path, hook, epochs=2)) == ['ATSSAssigner'] * 2


def test_resumed_training_has_the_assigner_of_its_epoch(shapes_root: Path, tmp_path: Path) -> None:
    hook = dict(type='mmdet_ext.AssignerSwitchHook', begin=1, assigner=LATER)
    straight = runner_of(shapes_root, tmp_path / 'straight', hook, epochs=3)
    straight.train()
    used(runner_of(shapes_root, tmp_path / 'stopped', hook, epochs=2))
    resumed = runner_of(
        shapes_root,
        tmp_path / 'stopped',
        hook,
        epochs=3,
        resume=True,
        load_from=str(tmp_path / 'stopped' / 'epoch_2.pth'),
    )
    resumed.train()
    assert type(resumed.model.bbox_head.assigner).__name__ == 'DynamicSoftLabelAssigner'
    assert resumed.epoch == straight.epoch == 3


@pytest.mark.parametrize('begin', [0, -1, 1.5, True, None])
def test_a_begin_out_of_range_is_refused(begin: Any) -> None:
    with pytest.raises(ValueError, match='begin'):
        AssignerSwitchHook(begin=begin, assigner=LATER)


def test_a_loop_of_steps_takes_steps_alone(shapes_root: Path, tmp_path: Path) -> None:
    hook = dict(type='mmdet_ext.AssignerSwitchHook', begin=1, assigner=LATER)
    loop = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=9)
    kept = dict(train_cfg=loop, default_hooks={})
    with pytest.raises(ValueError, match='by_epoch=False'):
        runner_of(shapes_root, tmp_path / 'epochs', hook, **kept).train()
    runner = runner_of(shapes_root, tmp_path / 'steps', dict(hook, by_epoch=False), **kept)
    runner.train()
    assert type(runner.model.bbox_head.assigner).__name__ == 'DynamicSoftLabelAssigner'


def test_a_model_without_an_assigner_is_refused() -> None:
    hook = AssignerSwitchHook(begin=1, assigner=LATER)
    for model, found in (
        (nn.Linear(1, 1), 'Linear has no bbox_head'),
        (SimpleNamespace(bbox_head=nn.Linear(1, 1)), 'has Linear, which has none'),
    ):
        runner = SimpleNamespace(model=model, train_loop=None, epoch=0)
        with pytest.raises(ValueError, match=found):
            hook.before_train(runner)


def test_a_rule_that_does_not_fit_is_refused_before_training(
    shapes_root: Path, tmp_path: Path
) -> None:
    leaf = CONFIGS / 'ablations' / 'heads' / 'bccd' / 'fcos_0_equal_weights_12e_bccd.py'
    cfg = shrink(leaf, shapes_root)
    rule = dict(type='mmdet_ext.MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4)
    cfg.custom_hooks = [dict(type='mmdet_ext.AssignerSwitchHook', begin=1, assigner=rule)]
    cfg.work_dir = str(tmp_path)
    runner = Runner.from_cfg(cfg)
    with pytest.raises(ValueError, match='FCOSHead has points with strides'):
        runner.train()


def test_mmdets_heads_and_assigners_take_part(shapes_root: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    leaf = CONFIGS / 'detection' / 'atss' / 'atss_r18_fpn_stock_12e_bccd.py'
    cfg = shrink(leaf, shapes_root)
    cfg.train_cfg.max_epochs = 2
    cfg.train_cfg.val_interval = 9
    rule = dict(type='ATSSAssigner', topk=4)
    cfg.custom_hooks = [dict(type='mmdet_ext.AssignerSwitchHook', begin=1, assigner=rule)]
    cfg.work_dir = str(tmp_path)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.model.bbox_head.assigner.topk == 4
