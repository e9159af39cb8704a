"""Measures of box pairs, shared by the overlap losses, and the bounds of their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmdet_ext.catalog.loss_cases import box_pairs
from mmdet_ext.catalog.synthetic import fuzz_box_pairs
from mmdet_ext.functional.boxes import pair as pair_module
from mmdet_ext.functional.boxes._coordinates import larger, not_negative
from mmdet_ext.functional.boxes._powers import (
    STEEPEST,
    bounded_power,
    complement_power,
    power_floor,
)
from mmdet_ext.functional.boxes.checks import check_overlap_options
from mmdet_ext.functional.boxes.iou_losses import ciou_loss, giou_loss, iou_loss
from mmdet_ext.functional.boxes.pair import BoxPair
from tests._helpers.tolerances import assert_equal_but_rounding


def slope(values: Tensor, power: float, order: int = 1) -> Tensor:
    leaf = values.clone().requires_grad_()
    bounded_power(leaf, power, order).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def pair(pred: list[float], target: list[float], eps: float = 1e-6) -> BoxPair:
    p, t = torch.tensor(pred, dtype=torch.float32), torch.tensor(target, dtype=torch.float32)
    return BoxPair(p[:2], p[2:], t[:2], t[2:], eps)


@pytest.mark.parametrize('power', [0.1, 0.5, 0.9, 1.0, 2.0, 3.0])
def test_power_is_exact_at_zero_and_from_the_floor_on(power: float) -> None:
    floor = power_floor(power) if power < 1 else 1e-3
    values = torch.tensor([0.0, floor, 2 * floor, 0.3, 1.0], dtype=torch.float64)
    values = values.clamp(max=1)
    torch.testing.assert_close(bounded_power(values, power), values**power, rtol=1e-12, atol=0)
    assert bounded_power(values, power)[0] == 0


@pytest.mark.parametrize('order', [1, 2])
@pytest.mark.parametrize('power', [0.05, 0.3, 0.5, 0.7, 0.99])
def test_slope_of_a_power_is_bounded(power: float, order: int) -> None:
    length = torch.logspace(-18, 0, 2000, dtype=torch.float64)
    length = torch.cat([torch.zeros(1, dtype=torch.float64), length])
    # The slope with respect to the length whose order-th power is the value.
    steepness = slope(length**order, power, order) * order * length ** (order - 1)
    assert steepness.max() <= order * STEEPEST * (1 + 1e-9)
    assert torch.isfinite(steepness).all()


def test_a_power_of_one_computes_nothing() -> None:
    value = torch.rand(3)
    assert bounded_power(value, 1.0) is value
    assert complement_power(value, 1.0) is value


def test_complement_of_a_power() -> None:
    distance = torch.tensor([0.0, 0.25, 0.5, 1.0])
    for power in (0.5, 2.0, 3.0):
        expected = torch.tensor([1 - (1 - d) ** power for d in distance.tolist()])
        torch.testing.assert_close(complement_power(distance, power), expected)


def test_larger_and_not_negative_have_the_gradients_of_pytorch() -> None:
    one = torch.tensor([1.0, 2.0, 3.0, -0.0], requires_grad=True)
    other = torch.tensor([2.0, 2.0, 1.0, -1.0], requires_grad=True)
    for mine, theirs in (
        (larger(one, other), torch.maximum(one, other)),
        # The slope at 0 is in test_bounds: that of clamp depends on the release of PyTorch.
        (not_negative(one - other - 0.5), (one - other - 0.5).clamp(min=0)),
    ):
        assert torch.equal(mine, theirs)
        gradients = [torch.autograd.grad(v.sum(), (one, other)) for v in (mine, theirs)]
        torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_lengths_and_areas_by_hand() -> None:
    measured = pair([0, 0, 4, 2], [1, 1, 7, 3])
    intersection, union = measured.areas()
    assert intersection.item() == 3 and union.item() == 8 + 12 - 3
    assert measured.outer_sides().tolist() == [7, 3]
    assert measured.center_gap().tolist() == [-2, -1]
    assert measured.iou_distance().item() == pytest.approx(14 / 17)
    assert measured.union_floor().item() == pytest.approx(6e-3)


def test_scaled_boxes_keep_their_centres() -> None:
    measured = pair([0, 0, 4, 2], [1, 1, 7, 3])
    scaled = measured.scaled(0.5)
    assert scaled.sides.tolist() == [2, 1] and scaled.target_sides.tolist() == [3, 1]
    assert scaled.center_gap().tolist() == measured.center_gap().tolist()
    assert scaled.eps == 1e-6 and measured.scaled(2.0).eps == pytest.approx(4e-6)


def test_scaled_boxes_keep_their_precision_far_from_the_origin() -> None:
    pred, target = box_pairs(torch.Generator().manual_seed(0), 500)
    # Multiples of 1/4, which float32 represents at any place of the image.
    pred, target = ((boxes * 4).round() / 4 + 4096 for boxes in (pred, target))
    value = giou_loss(pred, target, inner_ratio=0.7)
    expected = giou_loss(pred.double(), target.double(), inner_ratio=0.7)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('count', [16_384, 16_385, 40_000])
def test_blocks_give_the_same_as_all_pairs_at_once(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pred, target = box_pairs(torch.Generator().manual_seed(0), count)

    def run(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        leaf = pred.to(dtype).view(count // 5 if count % 5 == 0 else 1, -1, 4).requires_grad_()
        each = ciou_loss(leaf, target.view_as(leaf), power=2.0, inner_ratio=0.7)
        each.square().sum().backward()
        assert leaf.grad is not None and each.shape == leaf.shape[:-1]
        return each.detach(), leaf.grad

    # A gradient in half precision is rounded to that precision.
    for dtype, rounding in ((torch.float32, 1e-5), (torch.float16, 2e-3)):
        monkeypatch.setattr(pair_module, 'MANY_PAIRS', 1)
        blocks = run(dtype)
        with torch.no_grad():
            unrecorded = ciou_loss(pred.to(dtype), target, power=2.0, inner_ratio=0.7)
        assert_equal_but_rounding(unrecorded.view_as(blocks[0]), blocks[0])
        monkeypatch.setattr(pair_module, 'MANY_PAIRS', 10**9)
        torch.testing.assert_close(blocks, run(dtype), rtol=rounding, atol=1e-7)


def test_targets_get_a_gradient_if_they_require_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_module, 'MANY_PAIRS', 16_384)
    pred, target = (t.double() for t in box_pairs(torch.Generator().manual_seed(0), 20_000))
    for few in (slice(0, 50), slice(None)):
        leaves = [t[few].clone().requires_grad_() for t in (pred, target)]
        giou_loss(*leaves).sum().backward()
        swapped = [t[few].clone().requires_grad_() for t in (target, pred)]
        giou_loss(*swapped).sum().backward()
        assert leaves[1].grad is not None and leaves[1].grad.abs().sum() > 0
        torch.testing.assert_close(leaves[0].grad, swapped[1].grad, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(leaves[1].grad, swapped[0].grad, rtol=1e-9, atol=1e-12)


def test_options_are_checked() -> None:
    for name, value in (('eps', 0.0), ('power', -1.0), ('inner_ratio', 0.0), ('power', math.nan)):
        options = {'eps': 1e-6, 'power': 1.0, 'inner_ratio': 1.0, name: value}
        with pytest.raises(ValueError, match=f'{name} must be above 0 and finite, got {value}'):
            check_overlap_options(**options)


def test_the_gradient_of_log_iou_is_bounded_for_the_smallest_overlap() -> None:
    target = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    for overlap in (1e-2, 1e-4, 1e-6, 1e-7):
        pred = torch.tensor([[1 - overlap, 0.0, 2 - overlap, 1.0]]).requires_grad_()
        loss = iou_loss(pred, target)
        loss.sum().backward()
        inner = 1 - pred.detach()[0, 0].item()
        iou = inner / (2 - inner)
        assert loss.item() == pytest.approx(-math.log(max(iou, 1e-6)), rel=1e-5)
        # The slope is 1 over the side of the intersection, which counts as at least 1e-3 px.
        slope = 1 / max(inner, 1e-3)
        assert pred.grad is not None
        assert pred.grad.abs().max().item() == pytest.approx(slope, rel=0.02)


def test_inverted_boxes_have_no_overlap_and_a_gradient_of_their_centre() -> None:
    pred, target = fuzz_box_pairs(torch.Generator().manual_seed(0), 600)
    large = (target[4::6, 2:] - target[4::6, :2]).amin(-1) > 0.1
    pred, target = pred[4::6][large].requires_grad_(), target[4::6][large] * 1.5
    linear = iou_loss(pred, target, 'linear')
    (none,) = torch.autograd.grad(linear.sum(), pred)
    assert torch.equal(linear, torch.ones(len(pred))) and not none.any()
    ciou_loss(pred, target).sum().backward()
    assert pred.grad is not None and pred.grad.any(-1).all()
