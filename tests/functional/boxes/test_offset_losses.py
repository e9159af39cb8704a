"""Regression losses per coordinate: facts, slow references, and errors of mmdet's losses."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from mmdet.models.losses import BalancedL1Loss as MmdetBalancedL1Loss
from mmdet.models.losses import SmoothL1Loss as MmdetSmoothL1Loss
from torch import Tensor

from mmdet_ext.catalog.loss_cases.regression import box_deltas, hard_deltas
from mmdet_ext.functional.boxes.offset_losses import balanced_l1_loss, smooth_l1_loss
from tests._helpers.tolerances import TOLERANCES

EXACT = TOLERANCES[torch.float64]
LOSSES = pytest.mark.parametrize('loss', [smooth_l1_loss, balanced_l1_loss])
Loss = Callable[..., Tensor]


def slow_smooth(d: float, beta: float) -> float:
    d = abs(d)
    return d * d / 2 / beta if d < beta else d - beta / 2


def balanced_slope(d: float, alpha: float, gamma: float, beta: float) -> float:
    """Compute the slope of the paper for errors of at least 0, with both axes stretched by beta."""
    b = math.exp(gamma / alpha) - 1
    return alpha * math.log(b * d / beta + 1) if d < beta else gamma


def slow_balanced(d: float, alpha: float, gamma: float, beta: float) -> float:
    """Integrate that slope, by Simpson's rule up to beta and as a rectangle beyond."""
    end, steps = min(abs(d), beta), 2000
    points = [balanced_slope(end * k / steps, alpha, gamma, beta) for k in range(steps + 1)]
    weights = [1] + [4, 2] * (steps // 2 - 1) + [4, 1]
    inner = sum(w * p for w, p in zip(weights, points, strict=True)) * end / steps / 3
    return inner + gamma * (abs(d) - end)


def gradients(loss: Loss, error: Tensor, **options: float) -> tuple[Tensor, Tensor]:
    """Compute the gradients with respect to prediction and target."""
    pred, target = (torch.zeros_like(error).add_(t).requires_grad_() for t in (error, 0.0))
    loss(pred, target, **options).sum().backward()
    assert pred.grad is not None and target.grad is not None
    return pred.grad, target.grad


def test_smooth_l1_by_hand() -> None:
    error = torch.tensor([0.0, 0.5, -0.5, 1.0, -3.0]).double()
    zero = torch.zeros_like(error)
    assert smooth_l1_loss(error, zero).tolist() == [0.0, 0.125, 0.125, 0.5, 2.5]
    assert smooth_l1_loss(error, zero, beta=2.0).tolist() == [0.0, 0.0625, 0.0625, 0.25, 2.0]
    assert smooth_l1_loss(error, zero, beta=0.0).tolist() == [0.0, 0.5, 0.5, 1.0, 3.0]


def test_balanced_l1_by_hand() -> None:
    # gamma = alpha ln 2 makes b = 1: L(1) = alpha (2 ln 2 - 1), then slope alpha ln 2.
    alpha, gamma = 0.5, 0.5 * math.log(2)
    error = torch.tensor([0.0, 1.0, -1.0, 3.0]).double()
    at_one = alpha * (2 * math.log(2) - 1)
    expected = [0.0, at_one, at_one, at_one + 2 * gamma]
    value = balanced_l1_loss(error, torch.zeros_like(error), alpha, gamma)
    assert value.tolist() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize('beta', [0.1, 1.0, 3.0])
def test_values_equal_the_slow_references(beta: float) -> None:
    pred, target = (t.double() for t in box_deltas(torch.Generator().manual_seed(0), 30))
    errors = (pred - target).flatten().tolist()
    smooth = [slow_smooth(d, beta) for d in errors]
    assert smooth_l1_loss(pred, target, beta).flatten().tolist() == pytest.approx(smooth, rel=1e-13)
    for alpha, gamma in ((0.5, 1.5), (1.0, 1.0)):
        value = balanced_l1_loss(pred, target, alpha, gamma, beta).flatten().tolist()
        slow = [slow_balanced(d, alpha, gamma, beta) for d in errors]
        assert value == pytest.approx(slow, rel=1e-7, abs=1e-10)


@pytest.mark.parametrize('beta', [0.1, 1.0, 3.0])
def test_slope_of_balanced_l1_is_that_of_the_paper(beta: float) -> None:
    error = torch.linspace(-2 * beta, 2 * beta, 41).double()
    by_pred, by_target = gradients(balanced_l1_loss, error, beta=beta)
    expected = [
        math.copysign(balanced_slope(abs(d), 0.5, 1.5, beta), d) if d else 0.0
        for d in error.tolist()
    ]
    assert by_pred.tolist() == pytest.approx(expected, rel=1e-12)
    assert torch.equal(by_target, -by_pred)


@LOSSES
@pytest.mark.parametrize('beta', [0.1, 1.0, 3.0])
def test_value_and_slope_are_continuous_at_beta(loss: Loss, beta: float) -> None:
    step = 1e-9
    error = torch.tensor([beta - step, beta, beta + step], dtype=torch.float64)
    below, at, above = loss(error, torch.zeros_like(error), beta=beta).tolist()
    slope = 1.5 if loss is balanced_l1_loss else 1.0
    assert at - below == pytest.approx(slope * step, rel=1e-4)
    assert above - at == pytest.approx(slope * step, rel=1e-4)
    by_pred, _ = gradients(loss, error, beta=beta)
    assert by_pred.tolist() == pytest.approx([slope] * 3, rel=1e-7)


@LOSSES
def test_only_the_error_counts_and_its_sign_does_not(loss: Loss) -> None:
    pred, target = (t.double() for t in box_deltas(torch.Generator().manual_seed(1), 100))
    plain = loss(pred, target)
    torch.testing.assert_close(loss(target, pred), plain, **EXACT)
    torch.testing.assert_close(loss(pred - 0.5, target - 0.5), plain, rtol=1e-9, atol=1e-9)
    # If prediction, target and beta are in another unit, so is the loss.
    torch.testing.assert_close(loss(7 * pred, 7 * target, beta=7.0), 7 * plain, **EXACT)


def test_value_and_both_gradients_equal_mmdet_where_it_is_right() -> None:
    generator = torch.Generator().manual_seed(0)
    for ours, theirs in (
        (smooth_l1_loss, MmdetSmoothL1Loss(reduction='none')),
        (lambda p, t: smooth_l1_loss(p, t, 0.11), MmdetSmoothL1Loss(0.11, reduction='none')),
        (balanced_l1_loss, MmdetBalancedL1Loss(reduction='none')),
        (
            lambda p, t: balanced_l1_loss(p, t, 1.0, 2.0),
            MmdetBalancedL1Loss(1.0, 2.0, reduction='none'),
        ),
    ):
        results = []
        for loss in (ours, theirs):
            inputs = box_deltas(generator.manual_seed(1), 500)
            leaves = [t.double().requires_grad_() for t in inputs]
            each = loss(*leaves)
            results.append((each, *torch.autograd.grad(each.sum(), leaves)))
        torch.testing.assert_close(results[0], results[1], **EXACT)


def test_beta_0_is_l1_which_mmdet_refuses() -> None:
    pred, target = (t.double() for t in box_deltas(torch.Generator().manual_seed(2), 50))
    assert torch.equal(smooth_l1_loss(pred, target, 0.0), (pred - target).abs())
    by_pred, by_target = gradients(smooth_l1_loss, torch.tensor([-2.0, 0.0, 1e-6]), beta=0.0)
    assert by_pred.tolist() == [-1.0, 0.0, 1.0] and by_target.tolist() == [1.0, 0.0, -1.0]
    with pytest.raises(AssertionError):
        MmdetSmoothL1Loss(beta=0.0)(pred, target)


def test_mmdet_balanced_l1_with_beta_2_is_negative_and_pushes_off_the_target() -> None:
    error = torch.tensor([0.01]).double()
    zero = torch.zeros_like(error)
    theirs = MmdetBalancedL1Loss(beta=2.0, reduction='none')
    assert theirs(error, zero).item() < -0.001
    by_pred, _ = gradients(theirs, error)
    # The slope at 0 is alpha (1 - beta) / beta = -0.25: a descent makes the error larger.
    assert by_pred.item() < -0.15
    assert balanced_l1_loss(error, zero, beta=2.0).item() > 0
    assert gradients(balanced_l1_loss, error, beta=2.0)[0].item() > 0
    # For beta below 1 mmdet's slope jumps from -0.5 to 0.5 where prediction equals target.
    theirs = MmdetBalancedL1Loss(beta=0.5, reduction='none')
    tiny = torch.tensor([-1e-9, 1e-9]).double()
    assert gradients(theirs, tiny)[0].tolist() == pytest.approx([-0.5, 0.5], rel=1e-3)
    assert gradients(balanced_l1_loss, tiny, beta=0.5)[0].abs().max() < 1e-6


def test_a_sum_in_half_precision_is_finite_where_mmdet_is_infinite() -> None:
    pred, target = (torch.full((40_000, 4), v).half() for v in (3.0, 1.0))
    assert MmdetSmoothL1Loss()(pred, target, avg_factor=40_000).isinf()
    each = smooth_l1_loss(pred, target)
    assert each.dtype == torch.float32 and each.sum().item() == 160_000 * 1.5


@LOSSES
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_never_nan_and_bounded_gradients(loss: Loss, dtype: torch.dtype) -> None:
    pred, target = (t.to(dtype) for t in hard_deltas(torch.Generator().manual_seed(3), 20_000))
    pred.requires_grad_()
    each = loss(pred, target)
    each.sum().backward()
    assert pred.grad is not None and torch.isfinite(each).all() and each.min() >= 0
    assert pred.grad.abs().max() <= (1.5 if loss is balanced_l1_loss else 1.0) * 1.01
    # A visible error has a loss and a gradient.
    large = (pred.detach() - target).abs() > 1e-3
    assert (each[large] > 0).all() and (pred.grad[large] != 0).all()


def test_balanced_l1_keeps_one_tensor_for_its_backward_pass() -> None:
    pred, target = box_deltas(torch.Generator().manual_seed(0), 100)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        balanced_l1_loss(pred.requires_grad_(), target)
    assert [tuple(t.shape) for t in kept] == [(100, 4)]


@LOSSES
def test_bad_shapes_and_options_are_named(loss: Loss) -> None:
    with pytest.raises(ValueError, match=r'got \(3, 4\) and \(3, 1\)'):
        loss(torch.zeros(3, 4), torch.zeros(3, 1))
    with pytest.raises(ValueError, match='beta must be .* got -1'):
        loss(torch.zeros(1), torch.zeros(1), beta=-1.0)


def test_bad_options_of_balanced_l1_are_named() -> None:
    pred = torch.zeros(1)
    for options, message in (
        ({'alpha': 0.0}, 'alpha must be a number above 0, got 0.0'),
        ({'gamma': math.nan}, 'gamma must be a number above 0, got nan'),
        ({'beta': 0.0}, 'beta must be a number above 0, got 0.0'),
        ({'alpha': 0.01}, 'gamma must be at most 80 times alpha'),
    ):
        with pytest.raises(ValueError, match=message):
            balanced_l1_loss(pred, pred, **options)
    # The limit itself works in float32.
    at_limit = balanced_l1_loss(torch.tensor([0.5, 2.0]), torch.zeros(2), alpha=0.1, gamma=8.0)
    assert torch.isfinite(at_limit).all() and (at_limit > 0).all()
