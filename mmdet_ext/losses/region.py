"""Losses of overlap between predicted regions and the ground truth: Dice and Tversky."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_number
from mmdet_ext.functional.numerics.reduction import Reduction
from mmdet_ext.functional.segmentation.dice import check_dice, dice_ce_loss, dice_region_losses
from mmdet_ext.functional.segmentation.ratios import RegionLosses
from mmdet_ext.functional.segmentation.regions import Regions
from mmdet_ext.functional.segmentation.tversky import check_tversky, tversky_region_losses
from mmdet_ext.losses.base import Elements, ElementwiseLoss, refuse_keywords
from mmdet_ext.losses.class_counts import resolve_class_weights
from mmdet_ext.registry import MODELS


class RegionLoss(ElementwiseLoss):
    """Loss with one value per region: an image, or a class of an image.

    It takes the call of mask heads of MMDetection, ``loss(pred, target, weight, avg_factor=...)``
    with masks of the shape of ``pred`` and a weight (N,), and that of decode heads of
    MMSegmentation, ``loss(logit, label, weight=..., ignore_index=255)`` with labels (N, H, W) and
    the weights (N, H, W) of a pixel sampler, which apply within the sums. A subclass defines
    `region_losses`, and takes the options from ``batch`` on as ``**regions``.

    Args:
        use_sigmoid: whether each channel is a binary decision; one channel always is. Otherwise
            softmax over the classes.
        reduction: 'none', 'mean' or 'sum', over images, or over images and classes.
        loss_weight: factor on the result.
        ignore_index: one more label to ignore, where the call names none.
        loss_name: key of the loss in what a decode head returns, which must contain 'loss'.
        per_class: whether each class of an image has a loss of its own.
        batch: whether the sums extend over all images of the call, as nnU-Net's ``batch_dice``.
        include_background: whether class 0 takes part, where there are several classes.
        ignore_absent: whether a region without a ground-truth pixel takes no part: its loss is 0,
            and a mean without ``avg_factor`` does not count it.
        class_weight: one weight per class, one number, or ``dict(type=..., counts=...)`` as for
            `CrossEntropyLoss`. With ``per_class`` it is the factor of each class's loss, otherwise
            of its pixels, as in generalised Dice.

    Raises:
        ValueError: for a negative weight, another ``reduction``, or a ``loss_name`` without 'loss'.
    """

    def __init__(
        self,
        use_sigmoid: bool,
        reduction: Reduction,
        loss_weight: float,
        ignore_index: int,
        loss_name: str | None,
        per_class: bool,
        batch: bool = False,
        include_background: bool = True,
        ignore_absent: bool = False,
        class_weight: Any = None,
    ) -> None:
        super().__init__(reduction, loss_weight, loss_name)
        self.use_sigmoid = use_sigmoid
        self.regions = Regions(
            'sigmoid' if use_sigmoid else 'softmax',
            per_class,
            batch,
            include_background,
            ignore_absent,
            resolve_class_weights(class_weight, 'class_weight'),
            ignore_index,
        )

    def region_losses(
        self, pred: Tensor, target: Tensor, weight: Tensor | None, regions: Regions
    ) -> RegionLosses:
        """Compute the loss of each region, and which of them take part.

        Args:
            pred: (N, C, ...) or (N, ...).
            target: labels (N, ...), or the shape of ``pred``.
            weight: weights of pixels, elements or images, or None.
            regions: what a region is.
        """
        raise NotImplementedError(f'{type(self).__name__} does not define region_losses')

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the loss per region: (N,), or (N, C) for regions per class."""
        return self.region_losses(pred, target, None, self.regions).loss

    def call_elements(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None,
        reduction: Reduction,
        ignore_index: int | None = None,
        **own: Any,
    ) -> Elements:
        """Compute the loss per region; weights of pixels apply within its sums."""
        refuse_keywords(self, own)
        regions = self.regions
        if ignore_index is not None:
            regions = replace(regions, ignore_index=ignore_index)
        of_images = weight is not None and weight.dim() == 1
        if of_images and not regions.batch:
            loss, counted = self.region_losses(pred, target, None, regions)
            left = weight
        else:
            loss, counted = self.region_losses(pred, target, weight, regions)
            left = None
        if not regions.ignore_absent:
            return Elements(loss, left)
        return Elements(loss, left, counted.sum().clamp(min=1))


@MODELS.register_module()
class DiceLoss(RegionLoss):
    """Dice loss of masks, or of label maps.

    Formula and edge cases: :func:`mmdet_ext.functional.segmentation.dice.dice_loss`. By default an
    image is one region with all its classes, as in mmdet's and mmseg's DiceLoss; ``per_class``
    gives the mean of a Dice loss for each class, which most papers mean. Values equal those of
    mmdet's and mmseg's losses, with these exceptions:

    - Ignored pixels are part of no sum. mmseg's loss counts them as background: their predictions
      change it, and are trained towards 0. Its ``ignore_index`` drops the class of that number.
    - With one channel, the label 1 is the object. mmseg's loss takes the label 0 for it, and
      trains the opposite of the mask.
    - Weights of pixels, (N, H, W), apply within the sums. mmseg's loss refuses them.
    - Without images the loss is 0, not NaN; without a pixel that counts it is 0, not 1.
    - Half precision is computed in float32. Theirs overflows at 65,504 pixels.
    - mmdet's loss has no softmax. A keyword that is not listed here raises a TypeError.

    Args:
        use_sigmoid: whether each element is a binary decision; otherwise softmax over dimension 1.
        activate: whether predictions are logits; otherwise probabilities.
        reduction: 'none', 'mean' or 'sum', over images, or over images and classes.
        naive_dice: whether the denominator has the first powers, and both parts the smoothing.
            Otherwise it has squares, as in V-Net, and the smoothing alone.
        loss_weight: factor on the result.
        ignore_index: one more label to ignore, where the call names none.
        eps: smoothing, from 0.
        loss_name: key of the loss in what a decode head returns, which must contain 'loss'.
        smooth: smoothing of both parts of the quotient, from 0. With it, a region without ground
            truth costs little where little is predicted.
        per_class: whether each class of an image has a loss of its own.
        **regions: ``batch``, ``include_background``, ``ignore_absent`` and ``class_weight``, as
            `RegionLoss` takes them.

    Raises:
        ValueError: for a negative smoothing or weight, another ``reduction``, or a ``loss_name``
            without 'loss'.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        activate: bool = True,
        reduction: Reduction = 'mean',
        naive_dice: bool = False,
        loss_weight: float = 1.0,
        ignore_index: int = 255,
        eps: float = 1e-3,
        loss_name: str | None = None,
        smooth: float = 0.0,
        per_class: bool = False,
        **regions: Any,
    ) -> None:
        super().__init__(
            use_sigmoid, reduction, loss_weight, ignore_index, loss_name, per_class, **regions
        )
        if not activate:
            self.regions = replace(self.regions, activation='none')
        self.exponent = 1 if naive_dice else 2
        self.eps = eps
        self.smooth = smooth
        check_dice(self.exponent, eps, smooth)

    def region_losses(
        self, pred: Tensor, target: Tensor, weight: Tensor | None, regions: Regions
    ) -> RegionLosses:
        """Compute the Dice loss of each region."""
        return dice_region_losses(
            pred, target, weight, self.exponent, self.eps, self.smooth, regions
        )

    def forward(
        self,
        pred: Tensor,
        target: Any,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: Reduction | None = None,
        ignore_index: int | None = None,
        **own: Any,
    ) -> Tensor:
        """Compute the weighted and reduced loss.

        Args:
            pred: predictions (N, C, ...) or (N, ...).
            target: labels (N, ...), or a mask of the shape of ``pred``.
            weight: (N,) weighs images; weights of pixels (N, ...), or of the shape of ``pred``,
                apply within the sums.
            avg_factor: divisor of a mean; None for the number of elements. mmdet's DiceLoss has
                the reduction at this place: text is taken for it.
            reduction_override: reduction of this call instead of ``reduction``.
            ignore_index: label to ignore instead of the loss's own.
            **own: no other keyword is taken.

        Returns:
            Tensor: a scalar, or the loss per region for 'none'.
        """
        if isinstance(avg_factor, str):
            avg_factor, reduction_override = reduction_override, avg_factor  # type: ignore[assignment]
        return super().forward(
            pred, target, weight, avg_factor, reduction_override, ignore_index, **own
        )


@MODELS.register_module()
class DiceCELoss(RegionLoss):
    """Sum of Dice loss and cross entropy from one softmax, in one call.

    Formula and edge cases: :func:`mmdet_ext.functional.segmentation.dice.dice_ce_loss`. It keeps no
    table for the backward pass but the gradient itself. By default each class of an image has a
    Dice loss, with first powers, and the cross entropy is a mean over all pixels.

    Args:
        use_sigmoid: whether each channel is a binary decision; one channel always is. Otherwise
            softmax over the classes.
        reduction: 'none', 'mean' or 'sum' over images.
        loss_weight: factor on the result.
        dice_weight: factor of the Dice loss.
        ce_weight: factor of the cross entropy.
        class_weight: weights of the cross entropy: one per class, one number, or ``dict(type=...,
            counts=...)`` as for `CrossEntropyLoss`.
        naive_dice: first powers in the denominator, or squares, as in `DiceLoss`.
        eps: smoothing, as in `DiceLoss`.
        smooth: smoothing of both parts, as in `DiceLoss`.
        per_class: whether each class of an image has a Dice loss, or all classes together.
        avg_non_ignore: whether the mean of the cross entropy counts only pixels of the image that
            are not ignored.
        ignore_index: one more label to ignore, where the call names none.
        loss_name: key of the loss in what a decode head returns, which must contain 'loss'. None:
            'loss_dice_ce'.
        **regions: ``batch``, ``include_background`` and ``ignore_absent`` of Dice, as `RegionLoss`
            takes them.

    Raises:
        ValueError: for a negative smoothing or weight, another ``reduction``, or a ``loss_name``
            without 'loss'.
    """

    def __init__(
        self,
        use_sigmoid: bool = False,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
        dice_weight: float = 1.0,
        ce_weight: float = 1.0,
        class_weight: Any = None,
        naive_dice: bool = True,
        eps: float = 1e-3,
        smooth: float = 0.0,
        per_class: bool = True,
        avg_non_ignore: bool = False,
        ignore_index: int = 255,
        loss_name: str | None = None,
        **regions: Any,
    ) -> None:
        super().__init__(
            use_sigmoid, reduction, loss_weight, ignore_index, loss_name, per_class, **regions
        )
        check_number('dice_weight', dice_weight, least=0, finite=True)
        check_number('ce_weight', ce_weight, least=0, finite=True)
        self.dice_weight = dice_weight
        self.ce_weight = ce_weight
        self.class_weight = resolve_class_weights(class_weight, 'class_weight')
        self.exponent = 1 if naive_dice else 2
        self.eps = eps
        self.smooth = smooth
        self.avg_non_ignore = avg_non_ignore
        check_dice(self.exponent, eps, smooth)

    def region_losses(
        self, pred: Tensor, target: Tensor, weight: Tensor | None, regions: Regions
    ) -> RegionLosses:
        """Compute the sum of both losses for each image."""
        loss = dice_ce_loss(
            pred,
            target,
            weight,
            self.dice_weight,
            self.ce_weight,
            self.exponent,
            self.eps,
            self.smooth,
            self.class_weight,
            self.avg_non_ignore,
            regions,
        )
        return RegionLosses(loss, torch.ones_like(loss, dtype=torch.bool))


@MODELS.register_module()
class TverskyLoss(RegionLoss):
    """Tversky loss: Dice with weights of its false positives and false negatives.

    Formula and edge cases: :func:`mmdet_ext.functional.segmentation.tversky.tversky_loss`. Values
    equal those of mmseg's TverskyLoss, with these exceptions:

    - The ``ignore_index`` of the call, which decode heads give, is used. mmseg's loss uses its own
      alone, and takes other labels beyond the classes for the nearest class.
    - Weights of pixels apply within the sums. mmseg's loss leaves them out without a word.
    - One channel is a sigmoid. mmseg's softmax of one channel is 1, and trains nothing.
    - Without images the loss is 0, where mmseg's raises an error.
    - ``alpha`` and ``beta`` need not add up to 1.

    Args:
        smooth: smoothing of both parts of the quotient, from 0.
        class_weight: weights of the classes, as `RegionLoss` takes them.
        loss_weight: factor on the result.
        ignore_index: one more label to ignore, where the call names none.
        alpha: factor of false positives, from 0.
        beta: factor of false negatives, from 0.
        loss_name: key of the loss in what a decode head returns, which must contain 'loss'.
        gamma: from 1; above 1 it is the focal Tversky loss.
        use_sigmoid: whether each channel is a binary decision; one channel always is.
        reduction: 'none', 'mean' or 'sum', over images and classes.
        per_class: whether each class of an image has a loss of its own.
        **regions: ``batch``, ``include_background`` and ``ignore_absent``, as `RegionLoss` takes
            them.

    Raises:
        ValueError: for a negative factor, smoothing or weight, a ``gamma`` below 1, another
            ``reduction``, or a ``loss_name`` without 'loss'.
    """

    def __init__(
        self,
        smooth: float = 1.0,
        class_weight: Any = None,
        loss_weight: float = 1.0,
        ignore_index: int = 255,
        alpha: float = 0.3,
        beta: float = 0.7,
        loss_name: str | None = None,
        gamma: float = 1.0,
        use_sigmoid: bool = False,
        reduction: Reduction = 'mean',
        per_class: bool = True,
        **regions: Any,
    ) -> None:
        super().__init__(
            use_sigmoid,
            reduction,
            loss_weight,
            ignore_index,
            loss_name,
            per_class,
            class_weight=class_weight,
            **regions,
        )
        self.smooth = smooth
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        check_tversky(alpha, beta, smooth, gamma)

    def region_losses(
        self, pred: Tensor, target: Tensor, weight: Tensor | None, regions: Regions
    ) -> RegionLosses:
        """Compute the Tversky loss of each region."""
        return tversky_region_losses(
            pred, target, weight, self.alpha, self.beta, self.smooth, self.gamma, regions
        )
