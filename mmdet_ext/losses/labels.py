"""Base class of the losses of labels: rows of samples, and the pixels of label maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmdet_ext.functional.classification.labels import (
    binary_columns,
    is_label_map,
    without_label,
)
from mmdet_ext.functional.numerics.checks import check_that
from mmdet_ext.functional.numerics.reduction import AVG_FACTOR_EPS, Reduction
from mmdet_ext.losses.base import Elements, ElementwiseLoss, refuse_keywords


class LabelLoss(ElementwiseLoss):
    """Loss of class labels, which also takes the call of MMSegmentation's decode heads.

    That call is ``loss(pred, label, weight=..., ignore_index=255)`` with logits (N, C, H, W),
    labels (N, H, W), and the weights (N, H, W) of a pixel sampler, or None. Pixels with the label
    ``ignore_index``, or a negative one, cost nothing. With sigmoid and one column, that column is
    the probability of the label 1.

    A subclass defines `elementwise` for (N, C) and (N, C, ...). Where it overrides `elements`, its
    weight and divisor are those of rows; `map_elements` has its own for maps.

    Args:
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.
        loss_name: key of the loss in what a decode head returns, which must contain 'loss'.
        avg_non_ignore: whether a mean without ``avg_factor`` counts only elements that are not
            ignored. Otherwise it counts all.

    Raises:
        ValueError: for another ``reduction``, or a ``loss_name`` without 'loss'.
    """

    #: Whether each column is a binary decision.
    use_sigmoid: bool = False
    #: Label to ignore where the call names none; negative labels always are.
    ignore_index: int | None = None

    def __init__(
        self,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
        loss_name: str | None = None,
        avg_non_ignore: bool = False,
    ) -> None:
        super().__init__(reduction, loss_weight, loss_name)
        self.avg_non_ignore = avg_non_ignore

    def call_elements(
        self,
        pred: Tensor,
        target: Any,
        weight: Tensor | None,
        reduction: Reduction,
        ignore_index: int | None = None,
        **own: Any,
    ) -> Elements:
        """Compute `elements` of rows, or `map_elements` of a map of labels."""
        target = self.ignoring(target, self.ignore_index if ignore_index is None else ignore_index)
        if is_label_map(pred, target):
            refuse_keywords(self, own)
            return self.map_elements(pred, target, weight, reduction)
        found = self.elements(pred, target, weight, reduction, **own)
        if self.avg_non_ignore and reduction == 'mean' and found.divisor is None:
            counted = self.counted(pred, target, found.loss)
            return found._replace(divisor=counted + AVG_FACTOR_EPS)
        return found

    def ignoring(self, target: Any, ignore_index: int | None) -> Any:
        """Return the target with -1 in place of ``ignore_index``; distributions stay."""
        if isinstance(target, tuple):
            return (without_label(target[0], ignore_index), *target[1:])
        distributions = target.is_floating_point() and not self.use_sigmoid
        return target if distributions else without_label(target, ignore_index)

    def columns(self, pred: Tensor, label: Tensor) -> Tensor:
        """Return the columns of the labels of a map: with one column, that of the label 1 is 0."""
        if pred.shape[1] != 1:
            return label
        why = 'the softmax of one column is 1. For out_channels=1 set use_sigmoid=True'
        check_that(self.use_sigmoid, 'use_sigmoid', self.use_sigmoid, 'True', why)
        return binary_columns(label)

    def map_elements(
        self, pred: Tensor, label: Tensor, weight: Tensor | None, reduction: Reduction
    ) -> Elements:
        """Compute the loss of a map, and say how to reduce it.

        Args:
            pred: (N, C, ...) logits.
            label: (N, ...) labels; negative ones are ignored.
            weight: (N, ...), one per pixel; the shape of ``pred``; or None.
            reduction: reduction that follows.

        Returns:
            Elements: the loss per pixel (N, ...), summed over the classes, where the reduction
            and the weights allow it.

        Raises:
            ValueError: for softmax of one column, or a label above 1 for sigmoid of one.
        """
        label = self.columns(pred, label)
        loss, _, _ = self.elements(pred, label, weight, reduction)
        by_pixel = weight is None or weight.shape == label.shape
        if by_pixel and loss.dim() > label.dim():
            if reduction != 'none':
                loss = loss.sum(1)
            elif weight is not None:
                weight = weight.unsqueeze(1)
        return Elements(loss, weight, self.map_divisor(pred, label, reduction))

    def map_divisor(
        self, pred: Tensor, label: Tensor, reduction: Reduction
    ) -> Tensor | float | None:
        """Return the divisor of a mean over a map: elements, or those that are not ignored."""
        if reduction != 'mean':
            return None
        columns = pred.shape[1] if self.use_sigmoid else 1
        if self.avg_non_ignore:
            return (label >= 0).sum() * columns + AVG_FACTOR_EPS
        return float(max(1, label.numel() * columns))

    def counted(self, pred: Tensor, target: Any, loss: Tensor) -> Tensor:
        """Count the elements of a loss of rows that are not ignored, by their targets."""
        labels = target[0] if isinstance(target, tuple) else target
        if not self.use_sigmoid and labels.dim() > loss.dim():
            return torch.tensor(loss.numel())  # distributions, which are never ignored
        return (labels >= 0).sum() * (loss.numel() // max(1, labels.numel()))
