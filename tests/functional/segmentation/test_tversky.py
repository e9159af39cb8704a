"""Tversky loss: the papers' formula, its special cases, and behaviour at the edges."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from mmdet_ext.functional.segmentation.dice import dice_loss
from mmdet_ext.functional.segmentation.regions import Regions
from mmdet_ext.functional.segmentation.tversky import tversky_loss, tversky_region_losses
from tests._helpers.losses.gradients import gradient, seeded
from tests._helpers.losses.slow_regions import slow_regions, slow_tversky
from tests._helpers.tolerances import TOLERANCES

DOUBLE = TOLERANCES[torch.float64]
PRED = 2 * torch.randn(3, 3, 5, 7, generator=seeded(), dtype=torch.float64)
LABEL = torch.randint(0, 3, (3, 5, 7), generator=seeded(1))
LABEL[0, :2] = 255
LABEL[2] = 0


@pytest.mark.parametrize('activation', ['softmax', 'sigmoid'])
@pytest.mark.parametrize('gamma', [1.0, 4 / 3, 3.0])
@pytest.mark.parametrize('per_class', [False, True])
def test_equals_the_formula_of_the_papers(activation: str, gamma: float, per_class: bool) -> None:
    pred = PRED.clone().requires_grad_()
    formula = partial(slow_tversky, alpha=0.2, beta=1.3, smooth=0.1, gamma=gamma)
    for weight in (None, torch.rand(LABEL.shape, generator=seeded(2)).double()):
        for batch in (False, True):
            regions = Regions(activation, per_class, batch)  # type: ignore[arg-type]
            found = tversky_loss(pred, LABEL, weight, 0.2, 1.3, 0.1, gamma, regions)
            expected = slow_regions(pred, LABEL, weight, regions, formula)
            torch.testing.assert_close(found, expected, **DOUBLE)
            factors = torch.linspace(0.5, 1.5, found.numel()).double().reshape(found.shape)
            torch.testing.assert_close(
                gradient(found * factors, pred), gradient(expected * factors, pred), **DOUBLE
            )


def test_halves_are_the_dice_loss_with_first_powers() -> None:
    dice = dice_loss(PRED, LABEL, exponent=1, eps=0.6)
    torch.testing.assert_close(tversky_loss(PRED, LABEL, None, 0.5, 0.5, 0.3), dice, **DOUBLE)


def test_ones_are_the_jaccard_loss() -> None:
    """1 - intersection / union, of two of three pixels each with one in common."""
    pred = torch.tensor([[60.0, 60.0, -60.0]]).reshape(1, 1, 3)
    loss = tversky_loss(pred, torch.tensor([[1, 0, 1]]), None, 1.0, 1.0, 0.0)
    torch.testing.assert_close(loss, torch.tensor([[2 / 3]]))


def test_beta_weighs_what_is_missed_and_alpha_what_is_too_much() -> None:
    label = torch.tensor([[1, 1, 0, 0]])
    missed = torch.tensor([[[60.0, -60.0, -60.0, -60.0]]])
    too_much = torch.tensor([[[60.0, 60.0, 60.0, -60.0]]])
    for pred, alpha, beta, expected in (
        (missed, 0.0, 1.0, 1 / 2),
        (missed, 1.0, 0.0, 0.0),
        (too_much, 1.0, 0.0, 1 / 3),
        (too_much, 0.0, 1.0, 0.0),
    ):
        loss = tversky_loss(pred, label, None, alpha, beta, 0.0)
        torch.testing.assert_close(loss, torch.tensor([[expected]]))


def test_a_region_that_is_absent_and_not_predicted_costs_nothing_and_keeps_a_finite_slope() -> None:
    for gamma in (1.0, 3.0):
        for smooth in (0.0, 1.0):
            pred = torch.full((1, 1, 9), -200.0, requires_grad=True)
            loss = tversky_loss(pred, torch.zeros(1, 9).long(), smooth=smooth, gamma=gamma)
            assert loss.item() == 0
            assert torch.isfinite(gradient(loss, pred)).all()


def test_the_slope_of_a_focal_loss_that_nears_0_is_bounded() -> None:
    for logit in (5.0, 12.0, 16.0, 30.0, 1e4):
        for dtype in (torch.float32, torch.float16):
            pred = torch.full((1, 1, 4), logit, dtype=dtype, requires_grad=True)
            loss = tversky_loss(pred, torch.ones(1, 4).long(), smooth=0.0, gamma=3.0)
            grad = gradient(loss, pred)
            assert torch.isfinite(grad).all() and grad.abs().max() <= 1


def test_absent_classes_are_ignored_by_option() -> None:
    _, counted = tversky_region_losses(PRED, LABEL, regions=Regions(ignore_absent=True))
    assert counted.tolist() == [[True] * 3, [True] * 3, [True, False, False]]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(alpha=-0.1), 'alpha must be at least 0 and finite, got -0.1'),
        (dict(alpha=0.0, beta=0.0), r'alpha \+ beta must be above 0, got 0.0'),
        (dict(smooth=-1.0), 'smooth must be at least 0'),
        (dict(gamma=0.75), 'gamma must be at least 1 and finite, got 0.75: 1 / gamma is the expo'),
        (dict(regions=Regions('none')), "activation must be 'softmax' or 'sigmoid'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tversky_loss(PRED, LABEL, **options)  # type: ignore[arg-type]
