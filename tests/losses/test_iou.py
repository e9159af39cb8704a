"""Registered overlap losses: their options, and the calls that mmdet's heads and configs make."""

from __future__ import annotations

import inspect

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from mmdet_ext import losses
from mmdet_ext.catalog.loss_cases import box_pairs
from mmdet_ext.losses import iou as shells
from mmdet_ext.losses.iou import OverlapLoss

SHARED = ('IoULoss', 'GIoULoss', 'DIoULoss', 'CIoULoss', 'SIoULoss')
OVERLAP = (*SHARED, 'EfficientIoULoss', 'ShapeIoULoss', 'MPDIoULoss', 'WiseIoULoss')


def build(name: str, **options: object) -> nn.Module:
    return MODELS.build({'type': f'mmdet_ext.{name}', **options})


@pytest.mark.parametrize('name', SHARED)
def test_mmdet_options_have_mmdet_order_and_defaults(name: str) -> None:
    theirs = inspect.signature(MODELS.get(f'mmdet.{name}').__init__).parameters
    ours = inspect.signature(getattr(shells, name).__init__).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    assert [p.default for p in theirs.values()] == [ours[n].default for n in theirs]
    own = ['power', 'inner_ratio', *(['aspect_thr'] if name == 'CIoULoss' else [])]
    assert list(ours)[len(theirs) :] == own


@pytest.mark.parametrize('name', SHARED)
def test_heads_call_as_they_call_mmdet_losses(name: str) -> None:
    """As mmdet's own tests call them: weights per box or coordinate, all 0, and no boxes."""
    pred, target = box_pairs(torch.Generator().manual_seed(0), 30)
    weight = torch.rand(30, 4, generator=torch.Generator().manual_seed(1))
    ours, theirs = build(name), MODELS.build({'type': f'mmdet.{name}'})
    for options in (
        {'weight': weight},
        {'weight': weight[:, 0], 'avg_factor': 7},
        {'weight': weight, 'avg_factor': 7.5},
        {'weight': torch.zeros(30), 'avg_factor': 3},
        {'reduction_override': 'sum'},
        {'reduction_override': 'none'},
    ):
        torch.testing.assert_close(
            ours(pred, target, **options), theirs(pred, target, **options), rtol=1e-4, atol=1e-6
        )
    for empty in (ours(pred[:0], target[:0]), ours(pred[:0], target[:0], weight[:0, 0])):
        assert empty.item() == 0
    with pytest.raises(AssertionError):
        ours(pred, target, reduction_override=True)


@pytest.mark.parametrize('name', OVERLAP)
def test_every_overlap_loss_has_power_and_inner_ratio(name: str) -> None:
    pred, target = box_pairs(torch.Generator().manual_seed(0), 30)
    more = {'neg_gamma': True} if name == 'SIoULoss' else {}
    plain = build(name, **more)(pred, target)
    for options in ({'power': 3.0}, {'inner_ratio': 0.7}):
        loss = build(name, **more, **options)
        assert isinstance(loss, OverlapLoss) and abs(loss(pred, target) - plain) > 1e-2
        (option,) = options
        assert f'{option}={options[option]}' in repr(loss)
        with pytest.raises(ValueError, match=f'{option} must be above 0 and finite, got 0'):
            build(name, **more, **{option: 0})
    with pytest.raises(ValueError, match='eps must be above 0 and finite, got -1'):
        build(name, eps=-1)


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('IoULoss', {'mode': 'cubic'}, "mode must be one of .*'log'.*, got 'cubic'"),
        ('SIoULoss', {'power': 3.0}, 'Set neg_gamma=True'),
        ('EfficientIoULoss', {'focal_gamma': 0}, 'focal_gamma must be above 0 and finite, got 0'),
        ('ShapeIoULoss', {'scale': -1}, 'scale must be at least 0 and finite, got -1'),
        ('MPDIoULoss', {'image_size': (640,)}, r'must be \(width, height\), got \(640,\)'),
        ('MPDIoULoss', {'image_size': (640, 0)}, 'image_size must be above 0 and finite, got 0'),
        ('WiseIoULoss', {'version': 'v4'}, "version must be one of .*'v3'.*, got 'v4'"),
        ('WiseIoULoss', {'gamma': 0}, 'gamma must be above 0'),
        ('WiseIoULoss', {'alpha': 1}, 'alpha must be above 1'),
        ('WiseIoULoss', {'delta': 0}, 'delta must be above 0'),
        ('WiseIoULoss', {'delta': 150.0}, r'alpha\*\*delta must be at most exp\(10\)'),
        ('NWDLoss', {'constant': 0}, 'constant must be above 0'),
        ('CIoULoss', {'power': '3'}, "power must be above 0 and finite, got '3'"),
        ('WiseIoULoss', {'gamma': None}, 'gamma must be above 0 and finite, got None'),
        ('MPDIoULoss', {'image_size': 640}, r'must be \(width, height\), got 640'),
    ],
)
def test_bad_options_are_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, **options)


def test_linear_is_an_older_option_for_the_mode() -> None:
    pred, target = box_pairs(torch.Generator().manual_seed(0), 30)
    with pytest.warns(DeprecationWarning, match="mode='linear'"):
        old = build('IoULoss', linear=True)
    assert old.mode == 'linear'
    assert torch.equal(old(pred, target), build('IoULoss', mode='linear')(pred, target))


@pytest.mark.parametrize('version', ['v2', 'v3'])
def test_wise_iou_is_reduced_like_other_losses(version: str) -> None:
    pred, target = box_pairs(torch.Generator().manual_seed(0), 30)
    loss = build('WiseIoULoss', version=version, loss_weight=2.0)
    each = loss(pred, target, reduction_override='none')
    weight = torch.linspace(0.1, 1, 30)
    torch.testing.assert_close(loss(pred, target), each.mean())
    torch.testing.assert_close(
        loss(pred, target, weight, avg_factor=4.0), (each * weight).sum() / 4.0
    )
    assert torch.equal(loss(pred, target), loss(pred, target)) and not loss.state_dict()


@pytest.mark.parametrize('version', ['v1', 'v2', 'v3'])
@pytest.mark.parametrize('coordinates', [False, True])
def test_wise_iou_ignores_boxes_of_weight_0(version: str, coordinates: bool) -> None:
    """RetinaNet with decoded boxes passes all anchors; those without a ground truth weigh 0."""
    pred, target = box_pairs(torch.Generator().manual_seed(0), 10)
    loss = build('WiseIoULoss', version=version)
    weight = torch.ones(10, 4) if coordinates else torch.ones(10)
    alone = pred.clone().requires_grad_()
    expected = loss(alone, target, weight, avg_factor=10)
    expected.backward()
    more = torch.cat([pred, pred.repeat(99, 1) + 50]).requires_grad_()
    targets = torch.cat([target, torch.zeros(990, 4)])
    weights = torch.cat([weight, torch.zeros(990, *weight.shape[1:])])
    value = loss(more, targets, weights, avg_factor=10)
    value.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(more.grad[:10], alone.grad)
    assert not more.grad[10:].any()


def test_nwd_has_a_gradient_for_boxes_apart_where_iou_has_none() -> None:
    target = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    pred = (target + 10).requires_grad_()
    build('IoULoss', mode='linear')(pred, target).backward()
    assert pred.grad is not None and not pred.grad.any()
    build('NWDLoss')(pred, target).backward()
    assert (pred.grad > 0).all()


def test_every_registered_loss_is_an_attribute_of_the_package() -> None:
    assert losses.CIoULoss is MODELS.get('mmdet_ext.CIoULoss')
    assert {*OVERLAP, 'NWDLoss', 'FocalLoss', 'SmoothL1Loss', 'OHEMLoss'} <= set(losses.__all__)
    for name in losses.__all__:
        # mmdet_ext.detection registers classes of its own on top of some losses.
        assert issubclass(MODELS.get(f'mmdet_ext.{name}'), getattr(losses, name))
