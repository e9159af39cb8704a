"""Overlap losses compared with mmdet and torchvision, also where those are wrong."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss
from torchvision.ops import generalized_box_iou_loss as generalized

from mmdet_ext.catalog.loss_cases import box_pairs
from mmdet_ext.catalog.synthetic import fuzz_box_pairs, random_boxes
from mmdet_ext.functional.boxes.iou_losses import ciou_loss, diou_loss, giou_loss, iou_loss
from mmdet_ext.functional.boxes.shape_losses import siou_loss

Loss = Callable[..., Tensor]
# By its name: the package has a function called as the module.
mmdet = importlib.import_module('mmdet.models.losses.iou_loss')

FORMS: dict[str, tuple[Loss, Loss]] = {
    'log': (partial(iou_loss, mode='log'), partial(mmdet.iou_loss, mode='log')),
    'linear': (partial(iou_loss, mode='linear'), partial(mmdet.iou_loss, mode='linear')),
    'square': (partial(iou_loss, mode='square'), partial(mmdet.iou_loss, mode='square')),
    'giou': (giou_loss, mmdet.giou_loss),
    'diou': (diou_loss, mmdet.diou_loss),
    'ciou': (ciou_loss, mmdet.ciou_loss),
    'siou': (siou_loss, mmdet.siou_loss),
    'siou of the paper': (
        partial(siou_loss, neg_gamma=True),
        partial(mmdet.siou_loss, neg_gamma=True),
    ),
}


def both(name: str, pred: Tensor, target: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Compute value and gradient, of our loss and of mmdet's."""
    results = []
    for k, loss in enumerate(FORMS[name]):
        leaf = pred.detach().clone().requires_grad_()
        each = loss(leaf, target, eps=1e-6, **({'reduction': 'none'} if k else {}))
        each.sum().backward()
        assert leaf.grad is not None
        results.append((each.detach(), leaf.grad))
    return results


@pytest.mark.parametrize('name', FORMS)
def test_value_and_gradient_equal_mmdet_on_ordinary_pairs(name: str) -> None:
    pred, target = (t.double() for t in box_pairs(torch.Generator().manual_seed(1), 500))
    ours, theirs = both(name, pred, target)
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(ours[1], theirs[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize('name', ['log', 'giou', 'diou', 'ciou', 'siou of the paper'])
def test_value_equals_mmdet_on_distant_pairs(name: str) -> None:
    generator = torch.Generator().manual_seed(2)
    pred, target = (random_boxes(generator, 2000).double() for _ in range(2))
    ours, theirs = both(name, pred, target)
    assert (ours[0] > 1).sum() > 500
    # mmdet cuts the loss off at 2, without a gradient above.
    bounded = ours[0] if name == 'log' else ours[0].clamp(max=2)
    torch.testing.assert_close(bounded, theirs[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ('ours', 'theirs'), [(giou_loss, generalized), (diou_loss, distance_box_iou_loss)]
)
def test_value_and_gradient_equal_torchvision(ours: Loss, theirs: Loss) -> None:
    generator = torch.Generator().manual_seed(3)
    near, target = (t.double() for t in box_pairs(generator, 300))
    for pred in (near, random_boxes(generator, 300).double()):
        leaves = [pred.clone().requires_grad_() for _ in range(2)]
        values = [loss(leaf, target) for loss, leaf in zip((ours, theirs), leaves, strict=True)]
        torch.testing.assert_close(*values, rtol=0, atol=1e-7)
        torch.stack(values).sum().backward()
        torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-6, atol=1e-8)


def test_ciou_equals_torchvision_where_the_aspect_term_is_on() -> None:
    near, target = (t.double() for t in box_pairs(torch.Generator().manual_seed(4), 300))
    pred = target + (near - target) / 10
    theirs = complete_box_iou_loss(pred, target)
    torch.testing.assert_close(ciou_loss(pred, target), theirs, rtol=0, atol=1e-6)


def test_ciou_equals_torchvision_everywhere_where_the_aspect_ratio_always_counts() -> None:
    near, target = (t.double() for t in box_pairs(torch.Generator().manual_seed(4), 300))
    pred = near.roll(1, 0)  # boxes of other objects: most are apart, and of another shape
    theirs = complete_box_iou_loss(pred, target)
    ours = ciou_loss(pred, target, aspect_thr=None)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert (ours - ciou_loss(pred, target)).abs().max() > 0.01


@pytest.mark.parametrize('name', FORMS)
def test_finite_on_hard_pairs_where_mmdet_is_not(name: str) -> None:
    bad: list[int] = []
    for dtype in (torch.float32, torch.float16):
        pred, target = fuzz_box_pairs(torch.Generator().manual_seed(0), 6000)
        ours, theirs = both(name, pred.to(dtype), target.to(dtype))
        assert all(torch.isfinite(part).all() for part in ours) and (ours[0] >= 0).all()
        bad.append(sum(int((~torch.isfinite(part)).sum()) for part in theirs))
    # In float16 the areas of these boxes overflow, unless mmdet itself converts to float32.
    assert bad[1] > 0 or name in ('log', 'linear', 'square', 'giou')


def test_mmdet_siou_is_nan_and_infinite_where_ours_is_finite() -> None:
    # Both boxes have the width 0.
    flat = torch.tensor([[3.0, 0.0, 3.0, 5.0]])
    ours, theirs = both('siou of the paper', flat, flat)
    assert theirs[0].isnan().all() or theirs[1].isnan().any()
    assert ours[0].item() == 0 and torch.isfinite(ours[1]).all()
    # The gap of the centres is exactly minus the constant that mmdet adds to it.
    gap = 2.0**-20
    target = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    pred = target + gap
    leaf = pred.clone().requires_grad_()
    each = mmdet.siou_loss(leaf, target, eps=gap, neg_gamma=True, reduction='none')
    each.sum().backward()
    assert leaf.grad is not None and not torch.isfinite(leaf.grad).all()
    leaf = pred.clone().requires_grad_()
    siou_loss(leaf, target, eps=gap, neg_gamma=True).sum().backward()
    assert leaf.grad is not None and torch.isfinite(leaf.grad).all()


def test_mmdet_siou_of_equal_boxes_is_above_0() -> None:
    boxes = random_boxes(torch.Generator().manual_seed(0), 200, min_side=1e-3, max_side=1.0)
    ours, theirs = both('siou of the paper', boxes, boxes)
    assert not ours[0].any() and (theirs[0] > 1e-3).sum() > 10


def test_default_siou_rewards_distance_as_in_mmdet() -> None:
    target = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    pred = target + torch.tensor([30.0, 20.0, 30.0, 20.0])
    ours, theirs = both('siou', pred, target)
    assert ours[0].item() == 0 == theirs[0].item()
    assert not ours[1].any() and not theirs[1].any()
    paper, _ = both('siou of the paper', pred, target)
    near, _ = both('siou of the paper', (pred + target) / 2, target)
    assert paper[0].item() > near[0].item() > 1 and paper[1].all()


def test_mmdet_giou_is_a_tenth_off_in_bfloat16() -> None:
    target = random_boxes(torch.Generator().manual_seed(0), 50, 2000, 2000, 200, 900).bfloat16()
    pred = (target.float() + 4).bfloat16()
    reference = giou_loss(pred.double(), target.double())
    ours, theirs = both('giou', pred, target)
    torch.testing.assert_close(ours[0].double(), reference, rtol=1e-4, atol=1e-6)
    assert ((theirs[0].double() - reference).abs() / reference).max() > 0.1
