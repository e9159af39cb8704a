"""Dense heads: weights, options, training and what single heads do differently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.runner import Runner

from mmdet_ext.detection.assigners import ATSSAssigner
from mmdet_ext.functional.assignment.assignment import Assignment
from tests._helpers.configs import CONFIGS, shrink
from tests._helpers.dense_heads import (
    CHANNELS,
    CLASSES,
    HEADS,
    Batch,
    assert_as_mmdet,
    build,
    outcome,
    value,
    with_mmdet_assigner,
)

pytestmark = pytest.mark.usefixtures('epoch')


@pytest.mark.parametrize('name', HEADS)
def test_weights_and_options_equal_mmdet(name: str) -> None:
    ours, theirs = build(name, 'mmdet_ext', 'mmdet'), build(name, 'mmdet')
    assert isinstance(ours, type(theirs))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()))
    with pytest.raises(TypeError, match="no option 'feat_channel'; did you mean 'feat_channels'"):
        build(name, 'mmdet_ext', 'mmdet', feat_channel=3)


@pytest.mark.parametrize('name', HEADS)
def test_a_head_without_train_cfg_infers_as_mmdet(name: str) -> None:
    ours, theirs = (build(name, scope, 'mmdet') for scope in ('mmdet_ext', 'mmdet'))
    config = {key: part for key, part in HEADS[name].items() if key != 'train_cfg'}
    bare = MODELS.build(
        ConfigDict(type=f'mmdet_ext.{name}', num_classes=CLASSES, in_channels=CHANNELS, **config)
    )
    bare.load_state_dict(ours.state_dict())
    features = Batch((1,)).features
    torch.testing.assert_close(bare.eval()(features), theirs.eval()(features), rtol=0, atol=0)


@pytest.mark.slow
def test_two_iterations_of_the_stock_runner_equal_mmdet(shapes_root: Path, tmp_path: Path) -> None:
    config = CONFIGS / 'detection' / 'atss' / 'atss_r18_fpn_demo_shapes.py'
    trained = {}
    for scope in ('mmdet', 'mmdet_ext'):
        cfg = shrink(config, shapes_root, work_dir=str(tmp_path / scope))
        cfg.randomness = dict(seed=0)
        cfg.model.bbox_head.type = f'{scope}.ATSSHead'
        cfg.model.train_cfg.assigner.type = f'{scope}.ATSSAssigner'
        runner = Runner.from_cfg(cfg)
        runner.train()
        assert type(runner.model.bbox_head).__module__.startswith(f'{scope}.')
        trained[scope] = runner.model.state_dict()
    torch.testing.assert_close(trained['mmdet_ext'], trained['mmdet'], rtol=1e-4, atol=1e-6)


def test_tood_computes_the_alignment_that_an_assigner_does_not_give() -> None:
    head, theirs = with_mmdet_assigner('TOODHead'), build('TOODHead', 'mmdet')
    match = head.alignment_assigner.match

    def without_metric(*args: Any, **kwargs: Any) -> Assignment:
        found = match(*args, **kwargs)
        return Assignment(found.gt_index, torch.zeros_like(found.overlap))

    head.alignment_assigner.match = without_metric
    losses = assert_as_mmdet(head, theirs, Batch((4, 0, 3)))
    assert value(losses, 'loss_bbox') > 0
    batch = Batch((2, 1))
    batch.gts[1].labels.fill_(CLASSES)
    head.alignment_assigner = ATSSAssigner(9)
    with pytest.raises(ValueError, match=rf'must be in \[0, {CLASSES}\).*box 0 of image 1'):
        batch.losses(head)


@pytest.mark.parametrize('assigners', ['mmdet', 'mmdet_ext'])
@pytest.mark.parametrize('counts', [(5, 0, 3), (0, 0)], ids=str)
def test_the_l1_loss_of_yolox_equals_mmdet(counts: tuple[int, ...], assigners: str) -> None:
    ours = (
        with_mmdet_assigner('YOLOXHead')
        if assigners == 'mmdet'
        else build('YOLOXHead', 'mmdet_ext')
    )
    theirs = build('YOLOXHead', 'mmdet')
    ours.use_l1 = theirs.use_l1 = True
    losses = assert_as_mmdet(ours, theirs, Batch(counts))
    assert (value(losses, 'loss_l1') > 0) == any(counts)


@pytest.mark.parametrize(
    'rule',
    [
        dict(type='MaxIoUAssigner', pos_iou_thr=0.2, neg_iou_thr=0.2, min_pos_iou=0),
        dict(type='RFLAAssigner', receptive_fields=[16, 32, 64]),
    ],
)
def test_atss_head_accepts_positives_centred_outside_of_their_box(rule: dict[str, Any]) -> None:
    """Mmdet's head fails with an assertion there, as its centerness is undefined outside."""
    counts = (9, 5, 0)
    rule = {**rule, 'type': f'mmdet_ext.{rule["type"]}'}
    theirs = build('ATSSHead', 'mmdet', train_cfg=dict(assigner=rule))
    with pytest.raises(AssertionError):
        Batch(counts).losses(theirs)
    ours = build('ATSSHead', 'mmdet_ext', train_cfg=dict(assigner=rule))
    batch = Batch(counts)
    losses, gradients = outcome(ours, batch)
    assert value(losses, 'loss_centerness') > 0
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)
    outside = ours.centerness_target(
        torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 8.0]]),
        torch.tensor([[5.0, 5.0, 50.0, 50.0], [0.0, 0.0, 8.0, 8.0]]),
    )
    assert outside.tolist() == [0.0, 1.0]


def test_fcos_options_set_after_construction_count_as_in_mmdet() -> None:
    ours, theirs = build('FCOSHead', 'mmdet_ext'), build('FCOSHead', 'mmdet')
    batch = Batch((5, 3))
    first = assert_as_mmdet(ours, theirs, batch)
    for options in (
        dict(center_sampling=True, center_sample_radius=0.5),
        dict(center_sample_radius=1.1),
        dict(regress_ranges=((-1, 12), (12, 30), (30, 1e8))),
    ):
        for head in (ours, theirs):
            vars(head).update(options)
        losses = assert_as_mmdet(ours, theirs, batch)
        assert value(losses, 'loss_cls') != value(first, 'loss_cls'), options
        first = losses
