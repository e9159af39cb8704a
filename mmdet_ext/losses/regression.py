"""Regression losses a coordinate."""

from __future__ import annotations

from torch import Tensor

from mmdet_ext.functional.boxes.offset_losses import (
    balanced_l1_loss,
    check_balanced_options,
    check_beta,
    smooth_l1_loss,
)
from mmdet_ext.functional.numerics.reduction import Reduction
from mmdet_ext.losses.base import ElementwiseLoss
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class SmoothL1Loss(ElementwiseLoss):
    """Smooth L1 loss that is L1 at beta 0 and computes half precision in float32.

    Stock's ``SmoothL1Loss`` refuses beta 0, and in float16 gives infinity where the sum of the
    losses passes 65504, even if an ``avg_factor`` is to divide it. Elsewhere both agree. Formula
    and edges: :func:`mmdet_ext.functional.boxes.offset_losses.smooth_l1_loss`.

    Args:
        beta: error up to which the loss is a parabola, from 0, in the unit of the predictions.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.

    Raises:
        ValueError: if ``beta`` is negative, or ``reduction`` is none of the three.
    """

    def __init__(
        self, beta: float = 1.0, reduction: Reduction = 'mean', loss_weight: float = 1.0
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_beta(beta)
        self.beta = beta

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Smooth L1 loss of each entry, the shape of ``pred``, such as (N, 4)."""
        return smooth_l1_loss(pred, target, beta=self.beta)


@MODELS.register_module()
class BalancedL1Loss(ElementwiseLoss):
    """Balanced L1 loss of Libra R-CNN, right for every beta.

    For beta 1, the paper's, it agrees with stock's ``BalancedL1Loss``. For another beta stock's has
    a slope of alpha * (1 - beta) / beta where prediction equals target: a kink below 1, and above 1
    a loss below 0 that pushes predictions off the target. Formula and edges:
    :func:`mmdet_ext.functional.boxes.offset_losses.balanced_l1_loss`.

    Args:
        alpha: above 0; the smaller, the more small errors count.
        gamma: above 0, slope of large errors; at most 80 times ``alpha``.
        beta: above 0, from where on an error is large, in the unit of the predictions.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.

    Raises:
        ValueError: if an option is out of its range, or ``reduction`` is none of the three.
    """

    def __init__(
        self,
        alpha: float = 0.5,
        gamma: float = 1.5,
        beta: float = 1.0,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_balanced_options(alpha, gamma, beta)
        self.alpha = alpha
        self.gamma = gamma
        self.beta = beta

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Balanced L1 loss of each entry, the shape of ``pred``, such as (N, 4)."""
        return balanced_l1_loss(pred, target, self.alpha, self.gamma, self.beta)
