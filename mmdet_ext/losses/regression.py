"""Regression losses per coordinate."""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext.functional.boxes.offset_losses import balanced_l1_loss, smooth_l1_loss
from mmdet_ext.functional.numerics.reduction import Reduction
from mmdet_ext.losses.base import ElementwiseLoss
from mmdet_ext.registry import MODELS

#: Input with which a loss is computed when it is built, to check its options.
_NOTHING = torch.empty(0, 4)


@MODELS.register_module()
class SmoothL1Loss(ElementwiseLoss):
    """Smooth L1 loss that accepts beta 0 and computes half precision in float32.

    mmdet's ``SmoothL1Loss`` refuses beta 0. In float16 it gives infinity where the sum of the
    losses exceeds 65504, even if an ``avg_factor`` then divides it. A row of which a target is not
    finite, such as the offsets of a box without area, weighs 0; in mmdet's loss it makes the
    whole loss infinite or NaN. Elsewhere both agree. Formula and edge cases:
    :func:`mmdet_ext.functional.boxes.offset_losses.smooth_l1_loss`.

    Args:
        beta: error up to which the loss is a parabola, at least 0, in the unit of the predictions.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.

    Raises:
        ValueError: if ``beta`` is negative, or ``reduction`` is none of the three.
    """

    def __init__(
        self, beta: float = 1.0, reduction: Reduction = 'mean', loss_weight: float = 1.0
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        self.beta = beta
        self.elementwise(_NOTHING, _NOTHING)

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the smooth L1 loss of each entry, the shape of ``pred``, such as (N, 4)."""
        return smooth_l1_loss(pred, target, beta=self.beta)


@MODELS.register_module()
class BalancedL1Loss(ElementwiseLoss):
    """Balanced L1 loss of Libra R-CNN, correct for every beta.

    For beta 1, the paper's value, it agrees with mmdet's ``BalancedL1Loss``. For another beta
    mmdet's loss has the slope alpha * (1 - beta) / beta where prediction equals target. Below 1
    this is a kink; above 1 the loss falls below 0 and pushes predictions off the target. A row of
    which a target is not finite weighs 0, as in `SmoothL1Loss`. Formula and edge cases:
    :func:`mmdet_ext.functional.boxes.offset_losses.balanced_l1_loss`.

    Args:
        alpha: above 0; a smaller value gives more weight to small errors.
        gamma: above 0, slope of large errors; at most 80 times ``alpha``.
        beta: above 0, error from which on the slope is constant, in the unit of the predictions.
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
        self.alpha = alpha
        self.gamma = gamma
        self.beta = beta
        self.elementwise(_NOTHING, _NOTHING)

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the balanced L1 loss of each entry, the shape of ``pred``, such as (N, 4)."""
        return balanced_l1_loss(pred, target, self.alpha, self.gamma, self.beta)
