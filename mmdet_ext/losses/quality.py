"""Losses of scores that rate the class and the quality of a box together."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from mmdet_ext.functional.classification.labels import without_weightless
from mmdet_ext.functional.classification.quality import (
    QualityTarget,
    check_focus,
    check_mu,
    check_varifocal,
    quality_focal_loss,
    slide_loss,
    varifocal_loss,
)
from mmdet_ext.functional.numerics.checks import check_that
from mmdet_ext.functional.numerics.reduction import Reduction
from mmdet_ext.losses.base import Elements, ElementwiseLoss
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class QualityFocalLoss(ElementwiseLoss):
    """Quality focal loss, of one score for class and overlap, with ignored labels.

    Values and gradients equal those of mmdet's QualityFocalLoss, with three exceptions. A label
    below 0 is ignored, where mmdet's loss treats it as background. A ``beta`` between 0 and 1, for
    which mmdet's gradients are NaN, is refused. The logarithm of a probability continues as a
    straight line below 1e-12, for float16 below 6.1e-5. Where mmdet is installed, the registered
    class is also a subclass of mmdet's, which mmdet's DETR heads look for:
    :mod:`mmdet_ext.detection.losses`. Formula and edge cases:
    :func:`mmdet_ext.functional.classification.quality.quality_focal_loss`.

    Args:
        use_sigmoid: True, the only form.
        beta: exponent of the distance to the target, 0 or at least 1.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.
        activated: whether predictions are probabilities instead of logits.

    Raises:
        ValueError: for ``use_sigmoid=False``, another ``beta`` or another ``reduction``.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        beta: float = 2.0,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        _check_sigmoid(use_sigmoid)
        check_focus(beta)
        self.use_sigmoid = use_sigmoid
        self.beta = beta
        self.activated = activated

    def elementwise(self, pred: Tensor, target: QualityTarget) -> Tensor:
        """Compute the loss (N,) of (N, C), or (N, ...) of maps (N, C, ...) with scores."""
        if isinstance(target, Tensor) and pred.dim() > 2 and target.shape == pred.shape:
            pred, target = pred.movedim(1, -1), target.movedim(1, -1)
        return quality_focal_loss(pred, target, self.beta, self.activated)


@MODELS.register_module()
class VarifocalLoss(ElementwiseLoss):
    """Varifocal loss: cross entropy in which positives weigh by their overlap.

    Values and gradients equal those of mmdet's VarifocalLoss, in half the time and a quarter of the
    memory on a CPU. Formula and edge cases:
    :func:`mmdet_ext.functional.classification.quality.varifocal_loss`.

    Args:
        use_sigmoid: True, the only form.
        alpha: factor of the negatives, at least 0.
        gamma: exponent of the negatives, at least 0.
        iou_weighted: whether positives weigh their score; otherwise they weigh 1.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.

    Raises:
        ValueError: for ``use_sigmoid=False``, ``alpha`` or ``gamma`` below 0, or another
            ``reduction``.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        alpha: float = 0.75,
        gamma: float = 2.0,
        iou_weighted: bool = True,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        _check_sigmoid(use_sigmoid)
        check_varifocal(alpha, gamma)
        self.use_sigmoid = use_sigmoid
        self.alpha = alpha
        self.gamma = gamma
        self.iou_weighted = iou_weighted

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the loss (N, C) of logits and scores, both (N, C)."""
        return varifocal_loss(pred, target, self.alpha, self.gamma, self.iou_weighted)


@MODELS.register_module()
class SlideLoss(ElementwiseLoss):
    """Cross entropy with higher weights for samples whose quality is near the mean.

    Formula and edge cases: :func:`mmdet_ext.functional.classification.quality.slide_loss`.

    Args:
        mu: quality that separates easy from hard samples, in [0, 1]; or 'batch' for the mean
            quality of the positives of a call.
        use_sigmoid: True, the only form. State it, because mmdet's heads read it from the config.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.

    Raises:
        ValueError: for another ``mu``, for ``use_sigmoid=False``, or another ``reduction``.
    """

    no_label_maps = 'its targets are scores; for labels it is the cross entropy'

    def __init__(
        self,
        mu: float | Literal['batch'] = 'batch',
        use_sigmoid: bool = True,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_mu(mu)
        _check_sigmoid(use_sigmoid)
        self.mu = mu
        self.use_sigmoid = use_sigmoid

    def elements(
        self, pred: Tensor, target: QualityTarget, weight: Tensor | None, reduction: Reduction
    ) -> Elements:
        """Compute the loss; samples of weight 0 do not count in the mean of ``mu='batch'``."""
        if self.mu == 'batch' and weight is not None:
            labels, *scores = (target,) if isinstance(target, Tensor) else target
            counted = without_weightless(labels, weight)
            if labels.is_floating_point():  # scores, of which 0 does not count
                counted = counted.clamp(min=0)
            target = (counted, scores[0]) if scores else counted
        return Elements(self.elementwise(pred, target), weight)

    def elementwise(self, pred: Tensor, target: QualityTarget) -> Tensor:
        """Compute the loss (N, C) of logits, with scores, (label, score) or labels (N,)."""
        return slide_loss(pred, target, self.mu)


def _check_sigmoid(use_sigmoid: object) -> None:
    """Raise ValueError unless ``use_sigmoid`` is True."""
    check_that(use_sigmoid is True, 'use_sigmoid', use_sigmoid, 'True', 'there is no other form')
