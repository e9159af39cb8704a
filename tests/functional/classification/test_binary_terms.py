"""Facts of the terms that the binary losses are made of."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.classification.binary_terms import (
    SideWeights,
    label_terms,
    probability_of,
    probability_slope,
    side_terms,
    target_terms,
)
from tests._helpers.losses.gradients import graded, seeded
from tests._helpers.tolerances import TOLERANCES

EXACT = TOLERANCES[torch.float64]
FLOOR = 1e-12


def logits(*shape: int) -> Tensor:
    return 3 * torch.randn(*shape, generator=seeded(), dtype=torch.float64)


def slow_side(pred: Tensor, positive: bool, gamma: float | Tensor) -> Tensor:
    """Compute the focal cost of positives or negatives from logits, by autograd."""
    wrong = -pred if positive else pred
    return -(wrong.sigmoid() ** gamma) * torch.nn.functional.logsigmoid(-wrong)


@pytest.mark.parametrize('positive', [False, True])
@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0, torch.tensor([0.5, 1.0, 2.0, 7.0])], ids=str)
def test_sides_equal_the_slow_reference(positive: bool, gamma: float | Tensor) -> None:
    pred = logits(20, 4)
    expected = graded(lambda x: slow_side(x, positive, gamma), pred)
    torch.testing.assert_close(side_terms(pred, positive, gamma), expected, **EXACT)
    value, slope = side_terms(pred, positive, gamma, slope=False)
    torch.testing.assert_close(value, expected[0], **EXACT)
    assert slope is None


@pytest.mark.parametrize('positive', [False, True])
@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
def test_sides_of_probabilities_equal_those_of_their_logits(positive: bool, gamma: float) -> None:
    pred = logits(20, 4)
    p = pred.sigmoid()
    value, slope = side_terms(pred, positive, gamma)
    by_p, slope_by_p = side_terms(p, positive, gamma, FLOOR)
    assert slope_by_p is not None
    torch.testing.assert_close(by_p, value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(slope_by_p * p * (1 - p), slope, rtol=1e-9, atol=1e-12)


def test_a_target_of_1_or_0_is_a_positive_or_a_negative() -> None:
    for pred, floor in ((logits(20, 4), None), (logits(20, 4).sigmoid(), FLOOR)):
        for truth in (0, 1):
            target = torch.full_like(pred, truth)
            found, expected = (
                target_terms(pred, target, floor=floor),
                side_terms(pred, bool(truth), floor=floor),
            )
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_targets_mix_the_weighted_costs_of_both_sides() -> None:
    pred, truth = logits(20, 4), logits(20, 4).flip(0).sigmoid()
    weight = torch.tensor([0.5, 1.0, 2.0, 0.0], dtype=torch.float64)
    for given, floor in ((pred, None), (pred.sigmoid(), FLOOR)):
        up, down = (side_terms(given, positive, floor=floor) for positive in (True, False))
        for found, yes, no in zip(target_terms(given, truth, weight, floor), up, down, strict=True):
            assert yes is not None and no is not None
            expected = weight * truth * yes + (1 - truth) * no
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_given_probability_changes_nothing_and_predictions_are_left_alone() -> None:
    pred, truth = logits(20, 4), logits(20, 4).flip(0).sigmoid()
    before = pred.clone()
    expected = target_terms(pred, truth)
    found = target_terms(pred, truth, probability=probability_of(pred))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    p = pred.sigmoid()
    kept = p.clone()
    target_terms(p, truth, floor=FLOOR, probability=probability_of(p, FLOOR))
    assert torch.equal(pred, before) and torch.equal(p, kept)


def test_the_slope_of_a_probability() -> None:
    _, expected = graded(torch.sigmoid, logits(20))
    torch.testing.assert_close(probability_slope(logits(20).sigmoid()), expected, **EXACT)
    assert probability_slope(logits(20).sigmoid(), FLOOR) == 1.0


def test_below_the_floor_the_logarithm_is_its_tangent() -> None:
    floor = 1e-3
    p = torch.tensor([0.0, floor / 2, floor], dtype=torch.float64)
    value, slope = side_terms(p, True, floor=floor)
    expected = [-math.log(floor) + 1, -math.log(floor) + 0.5, -math.log(floor)]
    assert value.tolist() == pytest.approx(expected)
    assert slope is not None and slope.tolist() == pytest.approx([-1 / floor] * 3)


def test_labels_are_positives_of_their_column_and_negatives_of_the_others() -> None:
    pred = logits(4, 3)
    label, ignored = torch.tensor([0, 2, 3, -1]), torch.tensor([False, False, False, True])
    gamma = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    weights = SideWeights(
        torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([0.1, 0.2, 0.3]).double()
    )
    found = label_terms(pred, label, ignored, gamma, weights)
    up, down = (side_terms(pred, positive, gamma) for positive in (True, False))
    for table, yes, no in zip(found, up, down, strict=True):
        assert table is not None and yes is not None and no is not None
        expected = no * weights.negative
        for row, column in ((0, 0), (1, 2)):
            expected[row, column] = yes[row, column] * weights.positive[column]
        expected[3] = 0
        torch.testing.assert_close(table, expected, **EXACT)
