"""Facts, slow references and mmdet's faults of quality focal loss; common facts of its family."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.losses import QualityFocalLoss as StockQualityFocalLoss
from torch import Tensor

from mmdet_ext.catalog.loss_cases.quality import dense, labelled, probabilities
from mmdet_ext.functional.classification.quality import (
    quality_focal_loss,
    slide_loss,
    varifocal_loss,
)
from tests._helpers.losses.gradients import graded, seeded
from tests._helpers.losses.slow_scores import double, sigmoid, slopes, slow_entropy, spread, table
from tests._helpers.tolerances import assert_equal_but_rounding

LOG2 = math.log(2)


def slow_quality(x: float, y: float, beta: float) -> float:
    """Compute one element by equation 2."""
    return abs(y - sigmoid(x)) ** beta * slow_entropy(sigmoid(x), y)


@pytest.mark.parametrize('beta', [0.0, 1.0, 2.0, 3.5])
def test_quality_of_a_logit_of_zero(beta: float) -> None:
    # sigma = 1/2: each of the two classes costs log(2) / 2^beta, for a score of 0 and of 1.
    target = torch.tensor([0]), torch.tensor([1.0])
    each = quality_focal_loss(torch.zeros(1, 2), target, beta)
    assert each.item() == pytest.approx(2 * LOG2 / 2**beta)


def test_quality_is_0_only_where_the_probability_is_the_score() -> None:
    score = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)[:, None]
    assert quality_focal_loss(score.logit(), score).max() < 1e-30
    assert quality_focal_loss(score.logit() + 0.01, score).min() > 1e-8
    # At scores of 0 and 1 it is exactly 0 for every exponent.
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
def test_quality_equals_the_slow_reference(beta: float) -> None:
    pred, (label, score) = double(*labelled(seeded(), 100))
    label[::10] = 7  # a label above C is background too
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
def test_quality_equals_mmdet(make: Callable[..., Any], beta: float) -> None:
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


def test_an_ignored_label_costs_nothing_although_mmdet_takes_it_for_background() -> None:
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
def test_exponents_are_refused_where_mmdet_gives_nan(
    beta: float,
) -> None:
    with pytest.raises(ValueError, match='beta must be 0 or at least 1, got'):
        quality_focal_loss(torch.zeros(1, 2), torch.zeros(1, 2), beta)
    # The prediction of this background element is sure and right.
    pred, target = torch.full((1, 2), -200.0), (torch.tensor([2]), torch.zeros(1))
    _, gradient = graded(lambda x: StockQualityFocalLoss(beta=beta)(x, target), pred)
    assert gradient.isnan().all()
    _, gradient = graded(lambda x: quality_focal_loss(x, target, beta=1.0), pred)
    assert torch.equal(gradient, torch.zeros(1, 2))


def test_half_precision_sums_classes_where_mmdet_overflows() -> None:
    pred = torch.full((1, 80), 1e4).half()
    target = torch.tensor([80]), torch.zeros(1).half()
    assert StockQualityFocalLoss()(pred, target).isinf()
    assert quality_focal_loss(pred, target).item() == 80 * pred[0, 0].item()


def test_probabilities_of_0_have_a_gradient_in_half_precision_where_mmdet_has_none() -> None:
    pred, target = torch.tensor([[0.0, 1.0]]).half(), torch.tensor([[1.0, 0.0]]).half()
    value, gradient = graded(lambda p: quality_focal_loss(p, target, activated=True), pred)
    # The tangent of -log at 2^-14 has the value 14 log(2) + 1 at 0 and the slope -2^14. The factor
    # |y - p|^2 has the value 1 and the slope 2.
    cost = 14 * LOG2 + 1
    assert value.item() == pytest.approx(2 * cost)
    expected = torch.tensor([[-1.0, 1.0]]) * (2**14 + 2 * cost)
    torch.testing.assert_close(gradient.float(), expected, rtol=1e-3, atol=0)
    _, stock = graded(lambda p: StockQualityFocalLoss(activated=True)(p, target), pred)
    assert not stock.isfinite().any()


def test_probabilities_equal_mmdet_down_to_the_floor_of_its_gradient() -> None:
    pred = 10 ** torch.linspace(-11.9, -1, 50, dtype=torch.float64)[:, None]
    target = torch.ones_like(pred)
    stock = StockQualityFocalLoss(activated=True, reduction='none')
    torch.testing.assert_close(
        graded(lambda p: quality_focal_loss(p, target, activated=True), pred),
        graded(lambda p: stock(p, target), pred),
        rtol=1e-9,
        atol=0,
    )
    # At 0 mmdet's loss is 100, and the straight line has 12 log(10) + 1.
    nothing, one = torch.zeros(1, 1), torch.ones(1, 1)
    assert stock(nothing, one).item() == 100
    value = quality_focal_loss(nothing, one, activated=True).item()
    assert value == pytest.approx(12 * math.log(10) + 1)


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
    assert_equal_but_rounding(value.reshape(flat[0].shape), flat[0])
    assert_equal_but_rounding(gradient.reshape(24, 5), flat[1])


@pytest.mark.parametrize(('loss', 'make'), FORMS)
def test_the_value_is_the_same_without_a_graph(
    loss: Callable[..., Tensor], make: Callable[..., Any]
) -> None:
    pred, target = make(seeded(), 50)
    value = loss(pred.clone().requires_grad_(), target)
    assert value.requires_grad
    for plain in (pred, pred.clone().requires_grad_()):
        with torch.no_grad():
            found = loss(plain, target)
        assert not found.requires_grad
        assert_equal_but_rounding(found, value.detach())


@pytest.mark.parametrize(('loss', 'make'), FORMS)
def test_compiles_in_one_graph(loss: Callable[..., Tensor], make: Callable[..., Any]) -> None:
    pred, target = make(seeded(), 64)
    compiled = torch.compile(loss, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(
        graded(lambda x: compiled(x, target), pred), graded(lambda x: loss(x, target), pred)
    )


def test_bad_targets_are_reported() -> None:
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
