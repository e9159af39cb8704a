"""Facts, slow references and mmdet's faults of the losses of distributions over values."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.losses import DistributionFocalLoss as StockDistributionFocalLoss
from torch import Tensor

from mmdet_ext.catalog.loss_cases.quality import dense, distributions, hard_distributions, labelled
from mmdet_ext.functional.classification.distribution import (
    distribution_focal_loss,
    generalized_focal_loss,
    neighbour_focal_loss,
)
from mmdet_ext.functional.classification.quality import quality_focal_loss
from tests._helpers.losses.gradients import graded, seeded
from tests._helpers.tolerances import assert_equal_but_rounding

LOG2 = math.log(2)


def slow(row: list[float], y: float, beta: float) -> float:
    """Compute the loss of one distribution by equation 7, in Python numbers."""
    total = sum(math.exp(z) for z in row)
    left = min(int(y), len(row) - 2)
    right = left + 1
    p_left, p_right = math.exp(row[left]) / total, math.exp(row[right]) / total
    entropy = -((right - y) * math.log(p_left) + (y - left) * math.log(p_right))
    return abs(y - (left * p_left + right * p_right)) ** beta * entropy


def by_values(pred: Tensor, target: Tensor, beta: float) -> Tensor:
    """Compute the general form of the two entries of the softmax, by autograd."""
    logs = pred.log_softmax(-1)
    left = target.floor().clamp(max=pred.shape[-1] - 2)
    index = left.long().unsqueeze(-1)
    log_left, log_right = (logs.gather(-1, i).squeeze(-1) for i in (index, index + 1))
    return neighbour_focal_loss(log_left, log_right, target, left, left + 1, beta)


def test_closed_forms_of_the_general_form() -> None:
    log = torch.tensor([0.25, 0.5], dtype=torch.float64).log()
    # y = 3.5 between 3 and 5: the estimate is 3/4 + 5/2, its distance 1/4.
    value = neighbour_focal_loss(log[0], log[1], torch.tensor(3.5), 3.0, 5.0, beta=2)
    assert value.item() == pytest.approx(1 / 16 * (1.5 * 2 * LOG2 + 0.5 * LOG2))
    value = neighbour_focal_loss(log[0], log[1], torch.tensor(3.5), 3.0, 5.0, beta=0)
    assert value.item() == pytest.approx(3.5 * LOG2)
    # The loss is 0 where all probability is on the two values, in the proportion of the target.
    value = neighbour_focal_loss(log[0], torch.tensor(0.75).log(), torch.tensor(3.75), 3.0, 4.0)
    assert value.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize('beta', [0.0, 1.0, 1.5, 2.0])
def test_quality_focal_loss_is_a_case_of_the_general_form(beta: float) -> None:
    pred, scores = (t.double() for t in dense(seeded(), 200))
    expected = graded(
        lambda x: neighbour_focal_loss(F.logsigmoid(-x), F.logsigmoid(x), scores, beta=beta), pred
    )
    value, gradient = graded(lambda x: quality_focal_loss(x, scores, beta), pred)
    torch.testing.assert_close(value, expected[0].sum(1), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, expected[1], rtol=1e-9, atol=1e-12)
    same = graded(lambda x: generalized_focal_loss(x, scores, beta), pred)
    torch.testing.assert_close(same, (value, gradient), rtol=0, atol=0)


def test_distribution_focal_loss_is_a_case_of_the_general_form() -> None:
    pred, target = (t.double() for t in distributions(seeded(), 200))
    expected = graded(lambda x: by_values(x, target, 0.0), pred)
    found = graded(lambda x: distribution_focal_loss(x, target), pred)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    same = graded(lambda x: generalized_focal_loss(x, target, 0.0, use_sigmoid=False), pred)
    torch.testing.assert_close(same, found, rtol=0, atol=0)


@pytest.mark.parametrize('beta', [1.0, 1.5, 2.0, 3.0])
def test_between_the_cases_it_is_the_general_form_of_the_softmax(beta: float) -> None:
    pred, target = (t.double() for t in distributions(seeded(), 200))
    target[:5] = torch.tensor([0.0, 16.0, 3.0, 15.0, 15.5])
    torch.testing.assert_close(
        graded(lambda x: generalized_focal_loss(x, target, beta, use_sigmoid=False), pred),
        graded(lambda x: by_values(x, target, beta), pred),
        rtol=1e-9,
        atol=1e-12,
    )
    expected = [slow(z, y, beta) for z, y in zip(pred.tolist(), target.tolist(), strict=True)]
    torch.testing.assert_close(
        generalized_focal_loss(pred, target, beta, use_sigmoid=False),
        torch.tensor(expected, dtype=torch.float64),
    )


@pytest.mark.parametrize('beta', [0.0, 1.0, 2.0])
def test_two_values_equal_one_class_with_the_difference_of_the_logits(beta: float) -> None:
    pred = torch.randn(50, 2, generator=seeded(), dtype=torch.float64)
    target = torch.rand(50, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(
        graded(lambda x: generalized_focal_loss(x, target, beta, use_sigmoid=False), pred),
        graded(lambda x: quality_focal_loss(x[:, 1:] - x[:, :1], target[:, None], beta), pred),
        rtol=1e-9,
        atol=1e-12,
    )


def test_equal_logits_and_whole_targets() -> None:
    equal = torch.zeros(5, 8)
    targets = torch.tensor([0.0, 2.5, 6.9, 7.0, 3.0])
    torch.testing.assert_close(
        distribution_focal_loss(equal, targets), torch.full((5,), math.log(8))
    )
    pred, _ = distributions(seeded(), 17)
    whole = torch.arange(17)
    torch.testing.assert_close(
        graded(lambda x: distribution_focal_loss(x, whole.float()), pred),
        graded(lambda x: F.cross_entropy(x, whole, reduction='none'), pred),
    )


def test_the_least_loss_of_a_target_is_the_entropy_of_its_weights() -> None:
    # The target has the weights 3/4 on 2 and 1/4 on 3, which the logits give.
    pred = torch.tensor([[-1e4, -1e4, math.log(3), 0.0]], dtype=torch.float64)
    value, gradient = graded(lambda x: distribution_focal_loss(x, torch.tensor([2.25])), pred)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert value.item() == pytest.approx(entropy)
    torch.testing.assert_close(gradient, torch.zeros_like(pred), rtol=0, atol=1e-15)
    # With the distance as a factor the loss is 0.
    focused = generalized_focal_loss(pred, torch.tensor([2.25]), use_sigmoid=False)
    assert focused.item() < 1e-30


@pytest.mark.parametrize('beta', [0.0, 1.0, 2.0])
def test_a_shift_of_all_logits_changes_nothing(beta: float) -> None:
    pred, target = (t.double() for t in distributions(seeded(), 100))
    value, gradient = graded(lambda x: generalized_focal_loss(x, target, beta, False), pred)
    torch.testing.assert_close(
        generalized_focal_loss(pred + 100, target, beta, False), value, rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(gradient.sum(1), torch.zeros(100).double(), rtol=0, atol=1e-10)


@pytest.mark.parametrize('values', [2, 17, 80])
def test_distribution_equals_mmdet_below_the_last_value(values: int) -> None:
    pred, target = (t.double() for t in distributions(seeded(), 300, values))
    target = target.clamp(max=values - 1.001)
    target[:2] = torch.tensor([0.0, values - 2])
    stock = StockDistributionFocalLoss(reduction='none')
    found = graded(lambda x: distribution_focal_loss(x, target), pred)
    # mmdet's right weights are differences with whole numbers, and exact.
    torch.testing.assert_close(
        found, graded(lambda x: stock(x, target), pred), rtol=1e-9, atol=1e-12
    )
    expected = [slow(z, y, 0) for z, y in zip(pred.tolist(), target.tolist(), strict=True)]
    torch.testing.assert_close(found[0], torch.tensor(expected, dtype=torch.float64))


def test_the_last_value_is_a_target_although_mmdet_has_no_right_neighbour() -> None:
    pred, _ = distributions(seeded(), 3, values=5)
    last, beyond = torch.full((3,), 4.0), torch.tensor([4.5, 9.0, 4.0])
    with pytest.raises(IndexError, match='Target 5 is out of bounds'):
        StockDistributionFocalLoss()(pred, last)
    expected = F.cross_entropy(pred, last.long(), reduction='none')
    torch.testing.assert_close(distribution_focal_loss(pred, last), expected)
    torch.testing.assert_close(distribution_focal_loss(pred, beyond), expected)


def test_targets_below_0_are_0_although_mmdet_gives_a_negative_weight() -> None:
    sure = torch.tensor([[0.0, -30.0, -30.0]])
    below = torch.tensor([-0.5])
    # mmdet's loss is 1.5 times the loss of 0 minus half the loss of 1.
    assert StockDistributionFocalLoss()(sure, below).item() == pytest.approx(-15)
    assert distribution_focal_loss(sure, below).item() == pytest.approx(0, abs=1e-6)


def test_large_logits_lose_no_digits() -> None:
    pred = torch.tensor([[1e4, 1e4, -1e4], [-1e4, 0.0, 1e4]])
    value = distribution_focal_loss(pred, torch.tensor([0.5, 0.25]))
    torch.testing.assert_close(value, torch.tensor([LOG2, 0.75 * 2e4 + 0.25 * 1e4]))


def test_above_the_bend_the_focused_loss_grows_as_a_logarithm() -> None:
    # The target is 1.5, and all probability is on the value 0: the cross entropy is E.
    entropy = torch.tensor([1.0, 63.0, 64.0, 65.0, 1e3, 1e4], dtype=torch.float64)
    pred = torch.stack([torch.zeros(6), -entropy, -entropy], 1)
    value = generalized_focal_loss(pred, torch.full((6,), 1.5), use_sigmoid=False)
    for e, found in zip(entropy.tolist()[1:], value.tolist()[1:], strict=True):
        cost = e if e <= 64 else 64 * (1 + math.log(e / 64))
        assert found == pytest.approx(1.5**2 * cost)
    # Plain distribution focal loss has no bend.
    plain = distribution_focal_loss(pred, torch.full((6,), 1.5))
    torch.testing.assert_close(plain[1:], entropy[1:])


@pytest.mark.parametrize('beta', [0.0, 1.0, 2.0])
def test_gradients_stay_in_the_range_of_half_precision(beta: float) -> None:
    pred, target = hard_distributions(seeded(5), 20_000)
    # The worst case: the left value is as likely as others, and the right one is impossible.
    pred[:3] = -1e4
    pred[0, [0, 14]] = pred[1, [0, 1, 14]] = pred[2, [0, 1, 2, 13]] = 1e4
    target[:3] = torch.tensor([14.99, 14.5, 13.5])
    for rows in (pred, pred[:, :2]):
        wanted = target.clamp(0, rows.shape[1] - 1)
        value, gradient = graded(
            lambda x, t=wanted: generalized_focal_loss(x, t, beta, use_sigmoid=False), rows
        )
        assert value.isfinite().all() and value.min() >= 0
        assert gradient.abs().max() <= torch.finfo(torch.float16).max


@pytest.mark.parametrize('make', [labelled, distributions])
def test_generalized_compiles_in_one_graph(make: Callable[..., tuple[Tensor, Tensor]]) -> None:
    pred, target = make(seeded(), 64)

    def loss(x: Tensor) -> Tensor:
        return generalized_focal_loss(x, target, use_sigmoid=make is labelled)

    compiled = torch.compile(loss, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(graded(compiled, pred), graded(loss, pred))


def test_leading_dimensions_are_kept() -> None:
    pred, target = distributions(seeded(), 24)
    flat = distribution_focal_loss(pred, target)
    value = distribution_focal_loss(pred.reshape(2, 3, 4, 17), target.reshape(2, 3, 4))
    assert value.shape == (2, 3, 4)
    assert_equal_but_rounding(value.flatten(), flat)


def test_bad_shapes_and_options_are_reported() -> None:
    for shape, target in (((3, 4), torch.zeros(3, 1)), ((3, 1), torch.zeros(3))):
        with pytest.raises(ValueError, match=r'at least two values, and target \(...\), got'):
            distribution_focal_loss(torch.zeros(shape), target)
    with pytest.raises(ValueError, match='labels with scores are for use_sigmoid=True'):
        generalized_focal_loss(
            torch.zeros(3, 4), (torch.zeros(3), torch.zeros(3)), use_sigmoid=False
        )
    zeros = torch.zeros(3)
    with pytest.raises(ValueError, match='beta must be 0 or at least 1, got 0.5'):
        neighbour_focal_loss(zeros, zeros, zeros, beta=0.5)
    with pytest.raises(ValueError, match='beta must be 0 or at least 1, got 0.5'):
        generalized_focal_loss(torch.zeros(3, 4), zeros, beta=0.5, use_sigmoid=False)
