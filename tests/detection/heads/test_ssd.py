"""SSDHead against mmdet's head, and with other losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_ext.catalog.synthetic import random_boxes
from tests._helpers.configs import shrink

SIZE = 96
MAPS = (12, 6)


def build(scope: str, train_cfg: dict[str, Any] | None = None, **options: Any) -> nn.Module:
    """Build a head of two levels; ``train_cfg`` changes the usual one."""
    train = dict(
        assigner=dict(
            type='MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.5,
            min_pos_iou=0.0,
            ignore_iof_thr=-1,
            gt_max_assign_all=False,
        ),
        sampler=dict(type='PseudoSampler'),
        smoothl1_beta=0.7,
        allowed_border=-1,
        pos_weight=-1,
        neg_pos_ratio=3,
        debug=False,
    )
    torch.manual_seed(0)
    head = MODELS.build(
        ConfigDict(
            type=f'{scope}.SSDHead',
            num_classes=4,
            in_channels=(8, 8),
            anchor_generator=dict(
                type='SSDAnchorGenerator',
                scale_major=False,
                input_size=SIZE,
                strides=[8, 16],
                ratios=([2], [2, 3]),
                min_sizes=[16, 36],
                max_sizes=[36, 60],
            ),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2]),
            train_cfg={**train, **(train_cfg or {})},
            **options,
        )
    )
    head.init_weights()
    return head


def batch(counts: tuple[int, ...]) -> tuple[list[Tensor], list[InstanceData], list[dict[str, Any]]]:
    """Make features, ground truth and meta information of images with so many boxes."""
    generator = torch.Generator().manual_seed(3)
    features = [
        torch.randn(len(counts), 8, side, side, generator=generator, requires_grad=True)
        for side in MAPS
    ]
    gts = [
        InstanceData(
            bboxes=random_boxes(generator, count, SIZE, SIZE, 10, 60),
            labels=torch.randint(4, (count,), generator=generator),
        )
        for count in counts
    ]
    return features, gts, [dict(img_shape=(SIZE, SIZE), pad_shape=(SIZE, SIZE))] * len(counts)


def outcome(
    head: nn.Module, counts: tuple[int, ...]
) -> tuple[dict[str, list[Tensor]], list[Tensor]]:
    """Compute the losses, and the gradients of their sum at the features and all weights."""
    features, gts, metas = batch(counts)
    losses = head.loss_by_feat(*head(features), gts, metas)
    total = sum(part.sum() for parts in losses.values() for part in parts)
    gradients = torch.autograd.grad(total, [*features, *head.parameters()])
    return losses, list(gradients)


@pytest.mark.parametrize('counts', [(5, 2, 9), (4, 0, 1), (0, 0)], ids=str)
@pytest.mark.parametrize('options', [{}, {'neg_pos_ratio': 1, 'smoothl1_beta': 0.2}], ids=str)
def test_default_losses_and_gradients_equal_mmdet(
    counts: tuple[int, ...], options: dict[str, Any]
) -> None:
    ours, theirs = (outcome(build(s, options), counts) for s in ('mmdet_ext', 'mmdet'))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    for value, count in zip(ours[0]['loss_cls'], counts, strict=True):
        # In an image without boxes, mining keeps no negative, in mmdet and here.
        assert (value > 0) == (count > 0)


@pytest.mark.parametrize('counts', [(5, 2, 9), (4, 0, 1), (0, 0)], ids=str)
def test_with_our_assigner_one_match_gives_the_losses_of_mmdet(counts: tuple[int, ...]) -> None:
    rule = dict(
        type='mmdet_ext.MaxIoUAssigner',
        pos_iou_thr=0.5,
        neg_iou_thr=0.5,
        min_pos_iou=0.0,
        gt_max_assign_all=False,
    )
    head, calls = build('mmdet_ext', dict(assigner=rule)), []
    match = head.assigner.match
    head.assigner.match = lambda *args: (calls.append(1), match(*args))[1]
    ours, theirs = outcome(head, counts), outcome(build('mmdet'), counts)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert len(calls) == 1


def test_losses_of_decoded_boxes_equal_mmdet() -> None:
    boxes = dict(reg_decoded_bbox=True)
    ours, theirs = (outcome(build(s, **boxes), (5, 0)) for s in ('mmdet_ext', 'mmdet'))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    'loss_cls',
    [
        dict(type='mmdet_ext.OHEMLoss', loss=dict(type='CrossEntropyLoss')),
        dict(type='mmdet_ext.OHEMLoss', loss=dict(type='mmdet_ext.FocalLoss', use_sigmoid=False)),
        dict(type='mmdet_ext.FocalLoss', use_sigmoid=False),
        dict(type='mmdet_ext.CrossEntropyLoss', label_smoothing=0.1),
    ],
    ids=lambda cfg: cfg['type'] + cfg.get('loss', {}).get('type', ''),
)
def test_any_softmax_loss_is_called_per_image(loss_cls: dict[str, Any]) -> None:
    head = build('mmdet_ext', loss_cls=loss_cls)
    features, gts, metas = batch((5, 2))
    calls: list[tuple[Any, ...]] = []
    head.loss_cls.register_forward_hook(
        lambda module, args, kwargs, output: calls.append((args, kwargs, output)), with_kwargs=True
    )
    losses = head.loss_by_feat(*head(features), gts, metas)
    again = MODELS.build(loss_cls)
    assert len(calls) == len(losses['loss_cls']) == 2
    for (args, kwargs, output), part in zip(calls, losses['loss_cls'], strict=True):
        assert part.shape == (1,) and part.item() == output.item() > 0
        assert args[0].shape == (12 * 12 * 4 + 6 * 6 * 6, 5)
        torch.testing.assert_close(again(*args, **kwargs), output)


def test_an_iou_loss_of_decoded_boxes() -> None:
    head = build('mmdet_ext', reg_decoded_bbox=True, loss_bbox=dict(type='mmdet_ext.CIoULoss'))
    losses, gradients = outcome(head, (5, 0))
    first, second = (part.item() for part in losses['loss_bbox'])
    assert 0 < first < 3 and second == 0
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize(
    'loss_cls',
    [
        dict(
            type='mmdet_ext.OHEMLoss',
            use_sigmoid=True,
            loss=dict(type='CrossEntropyLoss', use_sigmoid=True),
        ),
        dict(type='FocalLoss'),
    ],
    ids=lambda cfg: cfg['type'],
)
def test_sigmoid_losses_are_refused(loss_cls: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match='is a sigmoid loss, but SSDHead gives 5 softmax columns'):
        build('mmdet_ext', loss_cls=loss_cls)


def test_options_are_named_and_weights_equal_mmdet() -> None:
    with pytest.raises(TypeError, match="no option 'loss_clss'; did you mean 'loss_cls'"):
        build('mmdet_ext', loss_clss=None)
    ours, theirs = build('mmdet_ext'), build('mmdet')
    assert list(ours.state_dict()) == list(theirs.state_dict())
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()))


def test_builds_without_training_options() -> None:
    head = MODELS.build(
        dict(
            type='mmdet_ext.SSDHead',
            num_classes=4,
            in_channels=(8, 8),
            anchor_generator=dict(
                type='SSDAnchorGenerator',
                scale_major=False,
                strides=[8, 16],
                ratios=([2], [2, 3]),
                min_sizes=[16, 36],
                max_sizes=[36, 60],
            ),
        )
    )
    assert head.loss_cls.negatives_per_positive == 3 and head.loss_bbox.beta == 1.0


def ssd(root: Path, work_dir: Path) -> Config:
    """Make mmdet's SSD300 config small, with two levels, for the drawn shapes."""
    source = work_dir / 'ssd.py'
    source.write_text("_base_ = 'mmdet::ssd/ssd300_coco.py'\n")
    cfg = shrink(source, root, work_dir=str(work_dir))
    loader = cfg.train_dataloader
    loader.dataset = loader.dataset.dataset  # of RepeatDataset
    cfg.model.backbone = dict(
        _scope_='mmdet',
        type='ResNet',
        depth=18,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(0, 1),
        base_channels=8,
    )
    cfg.model.neck = None
    cfg.model.bbox_head.update(
        type='mmdet_ext.SSDHead',
        in_channels=(8, 16),
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            scale_major=False,
            input_size=96,
            strides=[4, 8],
            ratios=([2], [2, 3]),
            min_sizes=[16, 36],
            max_sizes=[36, 60],
        ),
    )
    return cfg


def test_two_iterations_of_the_stock_runner_change_the_head(
    shapes_root: Path, tmp_path: Path
) -> None:
    runner = Runner.from_cfg(ssd(shapes_root, tmp_path))
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    runner.train()
    assert type(runner.model.bbox_head).__module__ == 'mmdet_ext.detection.heads.dense.ssd'
    assert runner.iter == 2
    after = runner.model.state_dict()
    for name in before:
        if name.startswith('bbox_head.'):
            assert torch.isfinite(after[name]).all()
            assert not torch.equal(before[name], after[name]), name
