"""Facts, slow references and mmdet's faults of varifocal loss and Slide loss."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.losses import VarifocalLoss as StockVarifocalLoss

from mmdet_ext.catalog.loss_cases.quality import dense, hard_dense, labelled
from mmdet_ext.functional.classification.quality import slide_loss, varifocal_loss
from tests._helpers.losses.gradients import graded, seeded
from tests._helpers.losses.slow_scores import double, sigmoid, slopes, slow_entropy, spread, table

LOG2 = math.log(2)


def slow_varifocal(
    x: float, q: float, alpha: float = 0.75, gamma: float = 2.0, iou_weighted: bool = True
) -> float:
    """Compute one element by the two cases of the formula."""
    if q > 0:
        return (q if iou_weighted else 1.0) * slow_entropy(sigmoid(x), q)
    return -alpha * sigmoid(x) ** gamma * math.log(1 - sigmoid(x))


def slow_slide(x: float, score: float, mu: float) -> float:
    """Compute one element by the three cases of the formula."""
    if score <= mu - 0.1:
        weight = 1.0
    elif score < mu:
        weight = math.exp(1 - mu)
    else:
        weight = math.exp(1 - score)
    return weight * slow_entropy(sigmoid(x), score)


def test_varifocal_closed_forms() -> None:
    zero = torch.zeros(1)
    assert varifocal_loss(zero, zero).item() == pytest.approx(0.75 * LOG2 / 4)
    assert varifocal_loss(zero, zero, alpha=1, gamma=0).item() == pytest.approx(LOG2)
    assert varifocal_loss(zero, torch.tensor([0.3])).item() == pytest.approx(0.3 * LOG2)
    assert varifocal_loss(zero, torch.tensor([0.3]), iou_weighted=False).item() == pytest.approx(
        LOG2
    )
    # A score below 0 counts as 0.
    assert varifocal_loss(zero, torch.tensor([-1.0])).item() == pytest.approx(0.75 * LOG2 / 4)


def test_a_varifocal_positive_costs_least_at_its_score_namely_its_weighted_entropy() -> None:
    q = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    value, gradient = graded(lambda x: varifocal_loss(x, q), q.logit())
    expected = [s * slow_entropy(s, s) for s in q.tolist()]
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64))
    assert gradient.abs().max() < 1e-15
    for step in (-0.1, 0.1):
        assert (varifocal_loss(q.logit() + step, q) > value + 1e-5).all()


@pytest.mark.parametrize('gamma', [0.0, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize('iou_weighted', [True, False])
def test_varifocal_equals_the_slow_reference_and_mmdet(gamma: float, iou_weighted: bool) -> None:
    pred, scores = double(*dense(seeded(), 100))

    def slow(x: float, q: float) -> float:
        return slow_varifocal(x, q, 0.6, gamma, iou_weighted)

    found = graded(lambda x: varifocal_loss(x, scores, 0.6, gamma, iou_weighted), pred)
    expected = table(slow, pred, scores), slopes(slow, pred, scores)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    stock = StockVarifocalLoss(alpha=0.6, gamma=gamma, iou_weighted=iou_weighted, reduction='none')
    theirs = graded(lambda x: stock(x, scores), pred)
    torch.testing.assert_close(found, theirs, rtol=1e-9, atol=1e-12)


def test_small_exponents_of_varifocal_are_finite_where_mmdet_gives_nan() -> None:
    pred, scores = hard_dense(seeded(), 100)
    _, gradient = graded(lambda x: varifocal_loss(x, scores, gamma=0.5), pred)
    assert gradient.isfinite().all() and gradient.abs().max() <= 3
    _, gradient = graded(lambda x: StockVarifocalLoss(gamma=0.5)(x, scores), pred)
    assert gradient.isnan().any()


@pytest.mark.parametrize(('name', 'option'), [('alpha', -0.1), ('gamma', -1), ('gamma', math.nan)])
def test_varifocal_refuses_options_below_zero(name: str, option: float) -> None:
    with pytest.raises(ValueError, match=f'{name} must be at least 0, got {option}'):
        varifocal_loss(torch.zeros(1), torch.zeros(1), **{name: option})


@pytest.mark.parametrize('mu', [0.0, 0.05, 0.3, 0.5, 1.0])
def test_slide_equals_the_slow_reference(mu: float) -> None:
    pred, scores = double(*dense(seeded(), 100))
    found = graded(lambda x: slide_loss(x, scores, mu), pred)

    def slow(x: float, y: float) -> float:
        return slow_slide(x, y, mu)

    expected = table(slow, pred, scores), slopes(slow, pred, scores)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_slide_weighs_scores_around_the_mean_by_up_to_e() -> None:
    scores = torch.tensor([0.0, 0.39, 0.41, 0.49, 0.51, 0.75, 1.0])
    weight = slide_loss(torch.zeros(7), scores, mu=0.5) / LOG2
    e = math.e
    expected = [1, 1, e**0.5, e**0.5, e**0.49, e**0.25, 1]
    torch.testing.assert_close(weight, torch.tensor(expected))


def test_slide_of_labels_alone_is_cross_entropy() -> None:
    pred, (label, _) = labelled(seeded(), 100)
    scores = spread(label, torch.ones(100), 5)
    expected = F.binary_cross_entropy_with_logits(pred, scores, reduction='none')
    torch.testing.assert_close(slide_loss(pred, label), expected)
    torch.testing.assert_close(slide_loss(pred, scores), expected)


def test_slide_mean_of_a_batch_is_that_of_its_positives() -> None:
    pred, _ = labelled(seeded(), 5)
    # The positives are of class 0, 4 and 4; background (5) and ignored (-1) do not count.
    label = torch.tensor([0, 5, 4, -1, 4])
    score = torch.tensor([0.3, 0.9, 0.6, 0.9, 0.9])
    mean = (0.3 + 0.6 + 0.9) / 3
    value, gradient = graded(lambda x: slide_loss(x, (label, score)), pred)
    expected = table(lambda x, y: slow_slide(x, y, mean), pred, spread(label, score, 5)).float()
    expected[3] = 0
    torch.testing.assert_close(value, expected)
    assert torch.equal(gradient[3], torch.zeros(5)) and gradient[1].abs().min() > 0
    rows = torch.tensor([0, 1, 2, 4])
    of_scores = slide_loss(pred[rows], spread(label, score, 5)[rows])
    torch.testing.assert_close(of_scores, expected[rows])


@pytest.mark.parametrize('score', [0.0, 0.01, 0.09])
def test_slide_keeps_the_weight_of_background_without_or_with_poor_positives(
    score: float,
) -> None:
    pred = torch.linspace(-3, 3, 10).reshape(5, 2)
    label, scores = torch.tensor([2, 2, 2, 2, 0]), torch.full((5,), score)
    value = slide_loss(pred, (label, scores))
    torch.testing.assert_close(value[:4], F.softplus(pred[:4]))
    # With a mean that low they would be in the band below it, with a weight of at least exp(0.91).
    unbounded = slide_loss(pred, (label, scores), mu=score)
    assert (unbounded[:4] > 2.2 * value[:4]).all()


@pytest.mark.parametrize('mu', [-0.1, 1.1, 'mean', math.nan])
def test_slide_refuses_other_means(mu: Any) -> None:
    with pytest.raises(ValueError, match="mu must be 'batch' or a score in"):
        slide_loss(torch.zeros(1, 2), torch.zeros(1, 2), mu)
