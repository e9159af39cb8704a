"""Base class of the losses: the hook by which a loss changes its weights, keywords and mean."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.numerics.reduction import Reduction
from mmdet_ext.losses.base import Elements, ElementwiseLoss

PRED = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
TARGET = torch.zeros(2, 2)


class PowerLoss(ElementwiseLoss):
    """Power of the error, with the mean over the elements that are not 0."""

    def elements(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None,
        reduction: Reduction,
        power: int = 1,
    ) -> Elements:
        loss = (pred - target) ** power
        return Elements(loss, weight, (loss != 0).sum())


class DifferenceLoss(ElementwiseLoss):
    """Difference, which defines `elementwise` alone."""

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        return pred - target


def test_a_mean_without_avg_factor_is_divided_by_the_divisor_of_the_loss() -> None:
    pred = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    loss = PowerLoss(loss_weight=2.0)
    assert loss(pred, TARGET).item() == 4
    assert loss(pred, TARGET, avg_factor=12).item() == pytest.approx(1)
    assert loss(pred, TARGET, reduction_override='sum').item() == 12
    assert loss(pred, TARGET, reduction_override='none').tolist() == [[2, 4], [6, 0]]
    assert DifferenceLoss(loss_weight=2.0)(pred, TARGET).item() == 3


def test_a_loss_has_keywords_of_its_own() -> None:
    assert PowerLoss(reduction='sum')(PRED, TARGET, power=2).item() == 30
    with pytest.raises(TypeError, match='power'):
        DifferenceLoss()(PRED, TARGET, power=2)


def test_the_weight_that_a_loss_returns_is_applied() -> None:
    loss = PowerLoss(reduction='sum')
    assert loss(PRED, TARGET, torch.tensor([0.0, 1.0])).item() == 7
    assert loss(PRED, TARGET, torch.tensor([0.0, 1.0]), power=2).item() == 25


def test_a_loss_without_elementwise_is_reported() -> None:
    with pytest.raises(NotImplementedError, match='ElementwiseLoss does not define elementwise'):
        ElementwiseLoss()(PRED, TARGET)
