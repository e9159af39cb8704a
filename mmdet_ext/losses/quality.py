"""Losses of joint class and quality, and of box distributions."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from mmdet_ext.functional.classification.distribution import (
    distribution_focal_loss,
    generalized_focal_loss,
)
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
from mmdet_ext.functional.numerics.reduction import Reduction
from mmdet_ext.losses.base import ElementwiseLoss
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class GeneralizedFocalLoss(ElementwiseLoss):
    """The one form of which quality focal and distribution focal loss are special cases.

    In mmdet's heads write ``use_sigmoid=True`` out: they read it from the config.
    Formula and edges: :func:`mmdet_ext.functional.classification.distribution.generalized_focal_loss`.

    Args:
        use_sigmoid: scores of classes, as quality focal loss; otherwise distributions over the
            values 0 to n, by softmax, which ``beta`` 0 makes the distribution focal loss.
        beta: exponent of the distance to the target, 0 or at least 1.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.

    Raises:
        ValueError: for another ``beta``, or if ``reduction`` is none of the three.
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
        """Of logits (..., C) with scores or (label, score), or (..., n + 1) with values (...)."""
        return generalized_focal_loss(pred, target, self.beta, self.use_sigmoid)


@MODELS.register_module()
class QualityFocalLoss(ElementwiseLoss):
    """Quality focal loss, of one score for class and overlap, with ignored labels.

    Values and gradients are stock's, but for three things: a label below 0 is ignored, where
    stock takes it for background; a ``beta`` between 0 and 1, for which stock gives NaN
    gradients, is refused; and the logarithm of a probability goes on as a straight line below
    1e-12, for float16 below 6.1e-5. Where mmdet is installed it is registered as a subclass of
    stock's too, which mmdet's DETR heads look for: :mod:`mmdet_ext.detection.losses`.
    Formula and edges: :func:`mmdet_ext.functional.classification.quality.quality_focal_loss`.

    Args:
        use_sigmoid: True; there is no other.
        beta: exponent of the distance to the target, 0 or at least 1.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.
        activated: predictions are probabilities, not logits.

    Raises:
        ValueError: for ``use_sigmoid=False``, another ``beta``, or if ``reduction`` is none of
            the three.
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
        """Of (N, C), or (N, C, ...) with scores; the classes are summed: (N,) or (N, ...)."""
        if isinstance(target, Tensor) and pred.dim() > 2 and target.shape == pred.shape:
            pred, target = pred.movedim(1, -1), target.movedim(1, -1)
        return quality_focal_loss(pred, target, self.beta, self.activated)


@MODELS.register_module()
class DistributionFocalLoss(ElementwiseLoss):
    """Distribution focal loss that takes targets up to the last value itself.

    There stock raises IndexError. Below, values and gradients are stock's.
    Formula and edges: :func:`mmdet_ext.functional.classification.distribution.distribution_focal_loss`.

    Args:
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.

    Raises:
        ValueError: if ``reduction`` is none of the three.
    """

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Of logits (N, n + 1) with values (N,), shape (N,)."""
        return distribution_focal_loss(pred, target)


@MODELS.register_module()
class VarifocalLoss(ElementwiseLoss):
    """Varifocal loss: cross entropy in which positives count by their overlap.

    Values and gradients are stock's, at half the time and a quarter of the memory on a CPU.
    Formula and edges: :func:`mmdet_ext.functional.classification.quality.varifocal_loss`.

    Args:
        use_sigmoid: True; there is no other.
        alpha: factor of the negatives, at least 0.
        gamma: exponent of the negatives, at least 0.
        iou_weighted: positives count by their score; otherwise by 1.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.

    Raises:
        ValueError: for ``use_sigmoid=False``, ``alpha`` or ``gamma`` below 0, or if
            ``reduction`` is none of the three.
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
        """Of logits with scores, both (N, C), shape (N, C)."""
        return varifocal_loss(pred, target, self.alpha, self.gamma, self.iou_weighted)


@MODELS.register_module()
class SlideLoss(ElementwiseLoss):
    """Cross entropy weighted up for samples whose quality is about the mean of all.

    Formula and edges: :func:`mmdet_ext.functional.classification.quality.slide_loss`.

    Args:
        mu: the quality that parts easy from hard, in [0, 1]; or 'batch' for the mean quality of
            a call's positives.
        use_sigmoid: True; there is no other. Heads of mmdet read it from the config: write it out.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.

    Raises:
        ValueError: for another ``mu``, for ``use_sigmoid=False``, or if ``reduction`` is none of
            the three.
    """

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

    def forward(
        self,
        pred: Tensor,
        target: QualityTarget,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: Reduction | None = None,
    ) -> Tensor:
        """As ElementwiseLoss; what weighs 0 does not count in the mean of ``mu='batch'``."""
        if self.mu == 'batch' and weight is not None:
            labels, *scores = (target,) if isinstance(target, Tensor) else target
            counted = without_weightless(labels, weight)
            if labels.is_floating_point():  # scores themselves, of which 0 does not count
                counted = counted.clamp(min=0)
            target = (counted, scores[0]) if scores else counted
        return super().forward(pred, target, weight, avg_factor, reduction_override)

    def elementwise(self, pred: Tensor, target: QualityTarget) -> Tensor:
        """Of logits (N, C) with scores (N, C), (label, score), or labels (N,); shape (N, C)."""
        return slide_loss(pred, target, self.mu)


def _check_sigmoid(use_sigmoid: object) -> None:
    if use_sigmoid is not True:
        raise ValueError(f'use_sigmoid must be True, got {use_sigmoid!r}: there is no other form')
