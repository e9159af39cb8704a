"""Quality and distribution losses as heads call them, compared with mmdet's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_ext.catalog.loss_cases.quality import dense, distributions, labelled
from mmdet_ext.catalog.synthetic import random_boxes
from tests._helpers.losses.gradients import graded, seeded


def build(name: str, scope: str = 'mmdet_ext', **options: Any) -> nn.Module:
    return MODELS.build({'type': f'{scope}.{name}', **options})


# An mmdet config, and the options of its head that name these losses.
HEADS = {
    'gfl': ('gfl/gfl_r50_fpn_1x_coco.py', ('loss_cls', 'loss_dfl')),
    'gfl, generalized': ('gfl/gfl_r50_fpn_1x_coco.py', ('loss_cls', 'loss_dfl')),
    'vfnet': ('vfnet/vfnet_r50_fpn_1x_coco.py', ('loss_cls',)),
    'tood': ('tood/tood_r50_fpn_1x_coco.py', ('loss_cls',)),
    'rtmdet': ('rtmdet/rtmdet_s_8xb32-300e_coco.py', ('loss_cls',)),
}
GENERALIZED = {
    # GFLHead reads use_sigmoid from the config instead of the loss that it builds.
    'loss_cls': {'type': 'mmdet_ext.GeneralizedFocalLoss', 'use_sigmoid': True},
    'loss_dfl': {
        'type': 'mmdet_ext.GeneralizedFocalLoss',
        'use_sigmoid': False,
        'beta': 0.0,
        'loss_weight': 0.25,
    },
}


def small_head(config: ConfigDict) -> nn.Module:
    """Build the head of a config with few channels and seven classes."""
    options = config.bbox_head
    options.update(
        num_classes=7,
        in_channels=32,
        feat_channels=32,
        train_cfg=config.train_cfg,
        test_cfg=config.test_cfg,
    )
    if 'stacked_convs' in options:
        options.stacked_convs = 1
    if options.type == 'RTMDetSepBNHead':
        options.norm_cfg = {'type': 'BN'}
    torch.manual_seed(0)
    head = MODELS.build(options)
    head.init_weights()
    return head


def head_losses(head: nn.Module) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the losses of two images, one without boxes, and the gradient at the features."""
    generator = seeded()
    levels = len(head.prior_generator.strides)
    features = [
        torch.randn(2, 32, 128 // 2**k, 128 // 2**k, generator=generator).requires_grad_()
        for k in range(3, 3 + levels)
    ]
    samples = []
    for count in (3, 0):
        boxes = random_boxes(generator, count, 128, 128, 16, 80)
        sample = DetDataSample(
            metainfo={
                'img_shape': (128, 128),
                'pad_shape': (128, 128),
                'batch_input_shape': (128, 128),
            }
        )
        sample.gt_instances = InstanceData(
            bboxes=boxes, labels=torch.randint(7, (count,), generator=generator)
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))
        samples.append(sample)
    losses = {
        name: sum(value) if isinstance(value, list) else value
        for name, value in head.loss(tuple(features), samples).items()
    }
    sum(losses.values()).backward()
    return losses, torch.cat([f.grad.flatten() for f in features])


@pytest.mark.parametrize('name', HEADS)
def test_mmdets_heads_get_the_same_losses_from_ours_as_from_mmdets(name: str) -> None:
    # Before its fourth epoch TOODHead uses another loss.
    MessageHub.get_current_instance().update_info('epoch', 4)
    file, options = HEADS[name]
    theirs = get_config(f'mmdet::{file}').model
    ours = get_config(f'mmdet::{file}').model
    for option in options:
        if 'generalized' in name:
            ours.bbox_head[option] = ConfigDict(GENERALIZED[option])
        else:
            ours.bbox_head[option].type = f'mmdet_ext.{ours.bbox_head[option].type}'
    expected, expected_gradient = head_losses(small_head(theirs))
    found, gradient = head_losses(small_head(ours))
    assert set(found) == set(expected) and all(expected[o] > 0 for o in options)
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-7)


def test_quality_sums_the_second_dimension_of_maps_as_mmdet() -> None:
    pred = 2 * torch.randn(2, 5, 3, 4, generator=seeded())
    scores = torch.rand(2, 5, 3, 4, generator=seeded())
    for keywords in ({}, {'reduction_override': 'none'}, {'avg_factor': 7.0}):
        ours, mmdet = (
            graded(build('QualityFocalLoss', scope), pred, scores, **keywords)
            for scope in ('mmdet_ext', 'mmdet')
        )
        torch.testing.assert_close(ours, mmdet)


@pytest.mark.parametrize('options', [{}, {'beta': 1.0}])
def test_generalized_equals_quality_in_every_reduction(options: dict[str, float]) -> None:
    pred, target = labelled(seeded(), 20)
    weight = torch.rand(20, generator=seeded())
    for keywords in ({}, {'avg_factor': 7.0}, {'reduction_override': 'sum'}):
        ours = graded(build('GeneralizedFocalLoss', **options), pred, target, weight, **keywords)
        for scope in ('mmdet_ext', 'mmdet'):
            quality = build('QualityFocalLoss', scope, **options)
            expected = graded(quality, pred, target, weight, **keywords)
            torch.testing.assert_close(ours, expected)


def test_weights_of_samples_and_of_elements_as_in_mmdet() -> None:
    pred, scores = dense(seeded(), 20)
    weight = torch.rand(20, 5, generator=seeded())
    ours, mmdet = (
        graded(build('VarifocalLoss', scope), pred, scores, weight, avg_factor=3.0)
        for scope in ('mmdet_ext', 'mmdet')
    )
    torch.testing.assert_close(ours, mmdet)
    pred, target = distributions(seeded(), 20)
    ours, mmdet = (
        graded(build('DistributionFocalLoss', scope), pred, target, weight[:, 0], avg_factor=4.0)
        for scope in ('mmdet_ext', 'mmdet')
    )
    torch.testing.assert_close(ours, mmdet)


def test_slide_reductions_use_the_mean_score_of_all_elements() -> None:
    loss = build('SlideLoss', loss_weight=2.0)
    pred, target = labelled(seeded(), 20)
    each = loss(pred, target, reduction_override='none')
    assert each.shape == (20, 5)
    mean = target[1][target[0] < 5].mean().item()
    fixed = build('SlideLoss', mu=mean, loss_weight=2.0)
    torch.testing.assert_close(each, fixed(pred, target, reduction_override='none'))
    weight = torch.rand(20, generator=seeded()).clamp(min=0.1)
    torch.testing.assert_close(loss(pred, target), each.mean())
    torch.testing.assert_close(
        loss(pred, target, weight, avg_factor=3), (each * weight[:, None]).sum() / 3
    )
    # A sample of weight 0 is neither in the sum nor in the mean score.
    first = torch.arange(20) < 10
    half = (target[0][:10], target[1][:10])
    torch.testing.assert_close(
        loss(pred, target, first.float(), avg_factor=1.0),
        loss(pred[:10], half, reduction_override='sum'),
    )


@pytest.mark.parametrize('name', ['QualityFocalLoss', 'VarifocalLoss'])
def test_softmax_is_refused_when_built(name: str) -> None:
    with pytest.raises(ValueError, match='use_sigmoid must be True, got False'):
        build(name, use_sigmoid=False)


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('QualityFocalLoss', {'beta': 0.5}, 'beta must be 0 or at least 1, got 0.5'),
        ('GeneralizedFocalLoss', {'beta': -1.0}, 'beta must be 0 or at least 1, got -1.0'),
        ('VarifocalLoss', {'alpha': -0.5}, 'alpha must be at least 0, got -0.5'),
        ('VarifocalLoss', {'gamma': -2.0}, 'gamma must be at least 0, got -2.0'),
        ('SlideLoss', {'mu': 2.0}, r"mu must be 'batch' or a score in \[0, 1\], got 2.0"),
        ('SlideLoss', {'mu': 'mean'}, "got 'mean'"),
    ],
)
def test_options_are_checked_when_built(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, **options)
