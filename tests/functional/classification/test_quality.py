"""Facts, reference twins and stock's faults of the quality losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.losses import QualityFocalLoss as StockQualityFocalLoss
from mmdet.models.losses import VarifocalLoss as StockVarifocalLoss
from torch import Tensor

from mmdet_ext.catalog.loss_cases.quality import dense, hard_dense, labelled, probabilities
from mmdet_ext.functional.classification.quality import (
    quality_focal_loss,
    slide_loss,
    varifocal_loss,
)

LOG2 = math.log(2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def slow_entropy(p: float, y: float) -> float:
    """Cross entropy of a probability within (0, 1) with a score."""
    return -(y * math.log(p) + (1 - y) * math.log(1 - p))


def slow_quality(x: float, y: float, beta: float) -> float:
    """One element, by equation 2."""
    return abs(y - sigmoid(x)) ** beta * slow_entropy(sigmoid(x), y)


def slow_varifocal(
    x: float, q: float, alpha: float = 0.75, gamma: float = 2.0, iou_weighted: bool = True
) -> float:
    """One element, by the two cases of the formula."""
    if q > 0:
        return (q if iou_weighted else 1.0) * slow_entropy(sigmoid(x), q)
    return -alpha * sigmoid(x) ** gamma * math.log(1 - sigmoid(x))


def slow_slide(x: float, score: float, mu: float) -> float:
    """One element, by the three cases of the formula."""
    if score <= mu - 0.1:
        weight = 1.0
    elif score < mu:
        weight = math.exp(1 - mu)
    else:
        weight = math.exp(1 - score)
    return weight * slow_entropy(sigmoid(x), score)


def table(slow: Callable[[float, float], float], pred: Tensor, target: Tensor) -> Tensor:
    """A slow twin over all elements."""
    values = [
        slow(x, y) for x, y in zip(pred.flatten().tolist(), target.flatten().tolist(), strict=True)
    ]
    return torch.tensor(values, dtype=torch.float64).reshape(pred.shape)


def slopes(slow: Callable[[float, float], float], pred: Tensor, target: Tensor) -> Tensor:
    """Derivatives of a slow twin by central differences."""
    step = 1e-5
    up = table(lambda x, y: slow(x + step, y), pred, target)
    down = table(lambda x, y: slow(x - step, y), pred, target)
    return (up - down) / (2 * step)


def graded(loss: Callable[[Tensor], Tensor], pred: Tensor) -> tuple[Tensor, Tensor]:
    """Values, and the gradient of their sum."""
    leaf = pred.detach().clone().requires_grad_()
    value = loss(leaf)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


def spread(label: Tensor, score: Tensor, classes: int) -> Tensor:
    """The dense scores of labels, row by row."""
    scores = torch.zeros(len(label), classes, dtype=score.dtype)
    for row, (k, s) in enumerate(zip(label.tolist(), score.tolist(), strict=True)):
        if 0 <= k < classes:
            scores[row, k] = s
    return scores


def double(pred: Tensor, target: Any) -> tuple[Tensor, Any]:
    if isinstance(target, tuple):
        return pred.double(), (target[0], target[1].double())
    return pred.double(), target.double()


@pytest.mark.parametrize('beta', [0.0, 1.0, 2.0, 3.5])
def test_quality_of_a_logit_of_zero(beta: float) -> None:
    # sigma = 1/2: each of the two classes costs log(2) / 2^beta, whether its score is 0 or 1.
    target = torch.tensor([0]), torch.tensor([1.0])
    each = quality_focal_loss(torch.zeros(1, 2), target, beta)
    assert each.item() == pytest.approx(2 * LOG2 / 2**beta)


def test_quality_is_nothing_where_the_probability_is_the_score_and_only_there() -> None:
    score = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)[:, None]
    assert quality_focal_loss(score.logit(), score).max() < 1e-30
    assert quality_focal_loss(score.logit() + 0.01, score).min() > 1e-8
    # At the ends exactly, whatever the exponent: logits that no score can beat.
    ends = torch.tensor([[1e4, -1e4]])
    for beta in (0.0, 1.0, 2.0):
        value, gradient = graded(
            lambda x, b=beta: quality_focal_loss(x, torch.tensor([[1.0, 0.0]]), b), ends
        )
        assert value.item() == 0 and torch.equal(gradient, torch.zeros(1, 2))


def test_quality_with_exponent_zero_is_cross_entropy() -> None:
    pred, scores = double(*dense(seeded(), 200))
    ours = graded(lambda x: quality_focal_loss(x, scores, beta=0), pred)
    theirs = graded(
        lambda x: F.binary_cross_entropy_with_logits(x, scores, reduction='none').sum(1), pred
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('beta', [1.0, 1.5, 2.0, 3.7])
def test_quality_against_the_slow_twin(beta: float) -> None:
    pred, (label, score) = double(*labelled(seeded(), 100))
    label[::10] = 7  # background beyond C is background
    scores = spread(label, score, 5)

    def slow(x: float, y: float) -> float:
        return slow_quality(x, y, beta)

    expected = table(slow, pred, scores).sum(1), slopes(slow, pred, scores)
    for target in ((label, score), scores):
        found = graded(lambda x, t=target: quality_focal_loss(x, t, beta), pred)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    found = graded(
        lambda x: quality_focal_loss(x.sigmoid(), (label, score), beta, activated=True), pred
    )
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize('beta', [0.0, 1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize('make', [labelled, dense, probabilities])
def test_quality_is_stocks(make: Callable[..., Any], beta: float) -> None:
    pred, target = double(*make(seeded(1), 500))
    activated = make is probabilities
    stock = StockQualityFocalLoss(beta=beta, reduction='none', activated=activated)
    torch.testing.assert_close(
        graded(lambda x: quality_focal_loss(x, target, beta, activated), pred),
        graded(lambda x: stock(x, target), pred),
        rtol=1e-9,
        atol=1e-12,
    )
    if activated:
        label, score = torch.arange(500) % 6, torch.linspace(0, 1, 500).double()
        torch.testing.assert_close(
            graded(lambda x: quality_focal_loss(x, (label, score), beta, True), pred),
            graded(lambda x: stock(x, (label, score)), pred),
            rtol=1e-9,
            atol=1e-12,
        )


def test_an_ignored_label_costs_nothing_where_stock_takes_it_for_background() -> None:
    pred, (_, score) = labelled(seeded(), 4)
    target = torch.tensor([-1, 0, 5, -7]), score
    value, gradient = graded(lambda x: quality_focal_loss(x, target), pred)
    assert torch.equal(value > 0, torch.tensor([False, True, True, False]))
    assert torch.equal(gradient.abs().sum(1) > 0, value > 0)
    background = torch.full((4,), 5), score
    stock = StockQualityFocalLoss(reduction='none')
    assert torch.equal(stock(pred, target)[[0, 3]], stock(pred, background)[[0, 3]])
    torch.testing.assert_close(value[1:3], stock(pred, target)[1:3])


@pytest.mark.parametrize('beta', [0.5, -1.0, math.nan])
def test_exponents_without_a_bounded_gradient_are_refused_where_stock_is_nan(beta: float) -> None:
    with pytest.raises(ValueError, match='beta must be 0 or at least 1, got'):
        quality_focal_loss(torch.zeros(1, 2), torch.zeros(1, 2), beta)
    # A sure and right background element.
    pred, target = torch.full((1, 2), -200.0), (torch.tensor([2]), torch.zeros(1))
    _, gradient = graded(lambda x: StockQualityFocalLoss(beta=beta)(x, target), pred)
    assert gradient.isnan().all()
    _, gradient = graded(lambda x: quality_focal_loss(x, target, beta=1.0), pred)
    assert torch.equal(gradient, torch.zeros(1, 2))


def test_half_precision_sums_classes_where_stock_overflows() -> None:
    pred = torch.full((1, 80), 1e4).half()
    target = torch.tensor([80]), torch.zeros(1).half()
    assert StockQualityFocalLoss()(pred, target).isinf()
    assert quality_focal_loss(pred, target).item() == 80 * pred[0, 0].item()


def test_probabilities_of_nothing_have_a_gradient_in_half_precision_where_stock_has_none() -> None:
    pred, target = torch.tensor([[0.0, 1.0]]).half(), torch.tensor([[1.0, 0.0]]).half()
    value, gradient = graded(lambda p: quality_focal_loss(p, target, activated=True), pred)
    # The tangent of -log at 2^-14: 14 log(2) + 1 there at 0, with the slope 2^14; and the factor
    # |y - p|^2, of slope 2 at its value 1.
    cost = 14 * LOG2 + 1
    assert value.item() == pytest.approx(2 * cost)
    expected = torch.tensor([[-1.0, 1.0]]) * (2**14 + 2 * cost)
    torch.testing.assert_close(gradient.float(), expected, rtol=1e-3, atol=0)
    _, stock = graded(lambda p: StockQualityFocalLoss(activated=True)(p, target), pred)
    assert not stock.isfinite().any()


def test_probabilities_are_stocks_down_to_the_floor_of_its_gradient() -> None:
    pred = 10 ** torch.linspace(-11.9, -1, 50, dtype=torch.float64)[:, None]
    target = torch.ones_like(pred)
    stock = StockQualityFocalLoss(activated=True, reduction='none')
    torch.testing.assert_close(
        graded(lambda p: quality_focal_loss(p, target, activated=True), pred),
        graded(lambda p: stock(p, target), pred),
        rtol=1e-9,
        atol=0,
    )
    # At 0 stock stops at 100, and the line at 12 log(10) + 1.
    nothing, one = torch.zeros(1, 1), torch.ones(1, 1)
    assert stock(nothing, one).item() == 100
    value = quality_focal_loss(nothing, one, activated=True).item()
    assert value == pytest.approx(12 * math.log(10) + 1)


def test_varifocal_closed_forms() -> None:
    zero = torch.zeros(1)
    assert varifocal_loss(zero, zero).item() == pytest.approx(0.75 * LOG2 / 4)
    assert varifocal_loss(zero, zero, alpha=1, gamma=0).item() == pytest.approx(LOG2)
    assert varifocal_loss(zero, torch.tensor([0.3])).item() == pytest.approx(0.3 * LOG2)
    assert varifocal_loss(zero, torch.tensor([0.3]), iou_weighted=False).item() == pytest.approx(
        LOG2
    )
    # A score below 0 is none.
    assert varifocal_loss(zero, torch.tensor([-1.0])).item() == pytest.approx(0.75 * LOG2 / 4)


def test_a_varifocal_positive_costs_least_at_its_score_and_there_its_weighted_entropy() -> None:
    q = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    value, gradient = graded(lambda x: varifocal_loss(x, q), q.logit())
    expected = [s * slow_entropy(s, s) for s in q.tolist()]
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64))
    assert gradient.abs().max() < 1e-15
    for step in (-0.1, 0.1):
        assert (varifocal_loss(q.logit() + step, q) > value + 1e-5).all()


@pytest.mark.parametrize('gamma', [0.0, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize('iou_weighted', [True, False])
def test_varifocal_against_the_slow_twin_and_stock(gamma: float, iou_weighted: bool) -> None:
    pred, scores = double(*dense(seeded(), 100))

    def slow(x: float, q: float) -> float:
        return slow_varifocal(x, q, 0.6, gamma, iou_weighted)

    found = graded(lambda x: varifocal_loss(x, scores, 0.6, gamma, iou_weighted), pred)
    expected = table(slow, pred, scores), slopes(slow, pred, scores)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    stock = StockVarifocalLoss(alpha=0.6, gamma=gamma, iou_weighted=iou_weighted, reduction='none')
    theirs = graded(lambda x: stock(x, scores), pred)
    torch.testing.assert_close(found, theirs, rtol=1e-9, atol=1e-12)


def test_varifocal_small_exponents_are_finite_where_stock_is_nan() -> None:
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
def test_slide_against_the_slow_twin(mu: float) -> None:
    pred, scores = double(*dense(seeded(), 100))
    found = graded(lambda x: slide_loss(x, scores, mu), pred)

    def slow(x: float, y: float) -> float:
        return slow_slide(x, y, mu)

    expected = table(slow, pred, scores), slopes(slow, pred, scores)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_slide_weighs_scores_about_the_mean_by_up_to_e() -> None:
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
    # Of class 0, 4 and 4; neither background (5) nor ignored (-1) counts.
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
    # A mean so low would put them in the band below it, at a weight of exp(0.91) or more.
    unbounded = slide_loss(pred, (label, scores), mu=score)
    assert (unbounded[:4] > 2.2 * value[:4]).all()


@pytest.mark.parametrize('mu', [-0.1, 1.1, 'mean', math.nan])
def test_slide_refuses_other_means(mu: Any) -> None:
    with pytest.raises(ValueError, match="mu must be 'batch' or a score in"):
        slide_loss(torch.zeros(1, 2), torch.zeros(1, 2), mu)


FORMS: list[tuple[Callable[..., Tensor], Callable[..., Any]]] = [
    (quality_focal_loss, labelled),
    (quality_focal_loss, dense),
    (varifocal_loss, dense),
    (slide_loss, labelled),
    (slide_loss, dense),
]


@pytest.mark.parametrize(('loss', 'make'), FORMS)
def test_leading_dimensions_are_kept(loss: Callable[..., Tensor], make: Callable[..., Any]) -> None:
    pred, target = make(seeded(), 24)
    flat = graded(lambda x: loss(x, target), pred)
    shape = (2, 3, 4)
    if isinstance(target, tuple):
        target = tuple(part.reshape(shape) for part in target)
    else:
        target = target.reshape(*shape, 5)
    value, gradient = graded(lambda x: loss(x, target), pred.reshape(*shape, 5))
    assert value.shape[:3] == shape
    assert torch.equal(value.reshape(flat[0].shape), flat[0])
    assert torch.equal(gradient.reshape(24, 5), flat[1])


@pytest.mark.parametrize(('loss', 'make'), FORMS)
def test_without_a_graph_the_value_is_the_same(
    loss: Callable[..., Tensor], make: Callable[..., Any]
) -> None:
    pred, target = make(seeded(), 50)
    value = loss(pred.clone().requires_grad_(), target)
    assert value.requires_grad
    for plain in (pred, pred.clone().requires_grad_()):
        with torch.no_grad():
            found = loss(plain, target)
        assert not found.requires_grad and torch.equal(found, value)


@pytest.mark.parametrize(('loss', 'make'), FORMS)
def test_compiles_in_one_graph(loss: Callable[..., Tensor], make: Callable[..., Any]) -> None:
    pred, target = make(seeded(), 64)
    compiled = torch.compile(loss, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(
        graded(lambda x: compiled(x, target), pred), graded(lambda x: loss(x, target), pred)
    )


def test_bad_targets_are_named() -> None:
    pred = torch.zeros(3, 4)
    label = torch.zeros(3, dtype=torch.long)
    for loss in (quality_focal_loss, varifocal_loss):
        with pytest.raises(ValueError, match=r'of the shape of pred, \(3, 4\), got \(3,\)'):
            loss(pred, label)
    with pytest.raises(ValueError, match=r'give the tuple \(label, score\)'):
        quality_focal_loss(pred, label)
    with pytest.raises(ValueError, match=r'got tuple'):
        varifocal_loss(pred, (label, torch.zeros(3)))
    with pytest.raises(ValueError, match='got 3 parts'):
        quality_focal_loss(pred, (label, torch.zeros(3), torch.zeros(3)))
    for bad in ((label, torch.zeros(2)), (label[:2], torch.zeros(3)), (label, torch.zeros(3, 1))):
        with pytest.raises(ValueError, match=r'leading shape of pred, \(3,\)'):
            slide_loss(pred, bad)
