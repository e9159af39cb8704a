"""Losses of box distributions, and the general form of quality and distribution focal loss."""

from __future__ import annotations

from torch import Tensor

from mmdet_ext.functional.classification.distribution import (
    distribution_focal_loss,
    generalized_focal_loss,
)
from mmdet_ext.functional.classification.quality import QualityTarget, check_focus
from mmdet_ext.functional.numerics.reduction import Reduction
from mmdet_ext.losses.base import ElementwiseLoss
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class GeneralizedFocalLoss(ElementwiseLoss):
    """General form of which quality focal loss and distribution focal loss are special cases.

    In mmdet's heads state ``use_sigmoid=True``, because they read it from the config. Formula and
    edge cases: :func:`mmdet_ext.functional.classification.distribution.generalized_focal_loss`.

    Args:
        use_sigmoid: whether predictions score classes, as for quality focal loss. Otherwise they
            are distributions over the values 0 to n, by softmax; with ``beta`` 0 that is the
            distribution focal loss.
        beta: exponent of the distance to the target, 0 or at least 1.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.

    Raises:
        ValueError: for another ``beta`` or ``reduction``.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        beta: float = 2.0,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_focus(beta)
        self.use_sigmoid = use_sigmoid
        self.beta = beta

    def elementwise(self, pred: Tensor, target: QualityTarget) -> Tensor:
        """Compute the loss of logits (..., C) with scores, or (..., n + 1) with values (...).

        Scores are (..., C), or the tuple (label, score).
        """
        return generalized_focal_loss(pred, target, self.beta, self.use_sigmoid)


@MODELS.register_module()
class DistributionFocalLoss(ElementwiseLoss):
    """Distribution focal loss that also takes targets at the last value.

    mmdet's DistributionFocalLoss raises IndexError there. Below the last value, values and
    gradients are equal. Formula and edge cases:
    :func:`mmdet_ext.functional.classification.distribution.distribution_focal_loss`.

    Args:
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.

    Raises:
        ValueError: for another ``reduction``.
    """

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the loss (N,) of logits (N, n + 1) with values (N,)."""
        return distribution_focal_loss(pred, target)
