"""Cross entropy losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmdet_ext.functional.classification.class_weights import fit_class_weight
from mmdet_ext.functional.classification.cross_entropy import (
    IGNORE_INDEX,
    binary_cross_entropy_loss,
    check_smoothing,
    cross_entropy_loss,
    mask_cross_entropy_loss,
)
from mmdet_ext.functional.numerics.reduction import AVG_FACTOR_EPS, Reduction
from mmdet_ext.losses.base import Elements
from mmdet_ext.losses.class_counts import resolve_class_weights
from mmdet_ext.losses.labels import LabelLoss
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class CrossEntropyLoss(LabelLoss):
    """Cross entropy with label smoothing, class weights from counts, and less memory.

    Formulae: :mod:`mmdet_ext.functional.classification.cross_entropy`. Values equal those of
    mmdet's CrossEntropyLoss, with these exceptions:

    - Negative labels are ignored in every form, on the CPU and on a GPU. mmdet's softmax form
      ignores only its default -100: another negative label raises on the CPU and stops the process
      on a GPU.
    - ``class_weight`` of softmax may be one number, or lack the weight of the background, the last
      column, which then is the mean of the others.
    - With sigmoid targets of each element (N, N), a weight (N,) weighs rows; mmdet's loss weighs
      columns.
    - The mean over no elements is 0, where mmdet's is NaN.
    - ``use_mask`` takes every reduction, an ``avg_factor``, weights and an ``ignore_index``, all
      of which mmdet's loss refuses. It returns a scalar, where mmdet's returns shape (1,). It
      weighs each mask by its class, where mmdet's ``class_weight`` applies to image columns.
    - A keyword that is not listed here raises a TypeError.

    Args:
        use_sigmoid: whether each column is a binary decision; ``class_weight`` then weighs the
            positives.
        use_mask: whether each pixel of the mask of the object's class is a binary decision.
        reduction: 'none', 'mean' or 'sum'.
        class_weight: one weight per class, from 0, as a list, an array or a tensor; or a number
            for all; or ``dict(type=..., counts=...)`` with 'inverse_log', 'inverse_frequency' or
            'effective_number', and the number of examples of each class: a list, or the file that
            ``tools/data/class_counts.py`` writes.
        ignore_index: one more label to ignore, such as 255. None: -100.
        loss_weight: factor on the result.
        avg_non_ignore: whether a mean without ``avg_factor`` counts only elements that are not
            ignored.
        label_smoothing: share of the target that is spread evenly over all classes, in [0, 1].
        loss_name: key of the loss in what a decode head returns, which must contain 'loss'. None:
            'loss_ce'.

    Raises:
        ValueError: for ``use_sigmoid`` with ``use_mask``, ``label_smoothing`` with ``use_mask`` or
            outside [0, 1], a negative weight, another ``reduction``, or a ``loss_name`` without
            'loss'.
        TypeError, FileNotFoundError: for ``counts`` that are neither a list nor a file.
    """

    short_name = 'ce'

    def __init__(
        self,
        use_sigmoid: bool = False,
        use_mask: bool = False,
        reduction: Reduction = 'mean',
        class_weight: Any = None,
        ignore_index: int | None = None,
        loss_weight: float = 1.0,
        avg_non_ignore: bool = False,
        label_smoothing: float = 0.0,
        loss_name: str | None = None,
    ) -> None:
        super().__init__(reduction, loss_weight, loss_name, avg_non_ignore)
        if use_sigmoid and use_mask:
            raise ValueError('use_sigmoid and use_mask are two forms of the loss: set only one')
        check_smoothing(label_smoothing)
        if use_mask and label_smoothing:
            raise ValueError(f'label_smoothing must be 0 with use_mask, got {label_smoothing}')
        self.use_sigmoid = use_sigmoid
        self.use_mask = use_mask
        # A list instead of a tensor, because heads read it.
        self.class_weight = resolve_class_weights(class_weight, 'class_weight')
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def elementwise(self, pred: Tensor, target: Any, ignore_index: int | None = None) -> Tensor:
        """Compute the cross entropy per element.

        Args:
            pred: (N, C) or (N, C, ...) logits.
            target: labels (N, ...); or targets of each element, of the shape of ``pred``; for
                ``use_mask`` a pair of masks (N, ...) and the class of each (N,), which is negative
                where the object is ignored.
            ignore_index: used instead of the loss's own where given.

        Returns:
            Tensor: (N, ...), or the shape of ``pred`` for ``use_sigmoid``.
        """
        chosen = self.ignore_index if ignore_index is None else ignore_index
        ignored = IGNORE_INDEX if chosen is None else chosen
        if self.use_mask:
            masks, labels = target
            return mask_cross_entropy_loss(pred, masks, labels, self.class_weight, ignored)
        function = binary_cross_entropy_loss if self.use_sigmoid else cross_entropy_loss
        return function(pred, target, self.class_weight, ignored, self.label_smoothing)

    def elements(
        self, pred: Tensor, target: Any, weight: Tensor | None, reduction: Reduction
    ) -> Elements:
        """Compute the cross entropy, with targets below 0 in place of the label to ignore."""
        return Elements(self.elementwise(pred, target, IGNORE_INDEX), weight)

    def call_elements(
        self,
        pred: Tensor,
        target: Any,
        weight: Tensor | None,
        reduction: Reduction,
        ignore_index: int | None = None,
        **own: Any,
    ) -> Elements:
        """Compute the elements of rows or of a map of labels.

        With ``use_mask`` and a target that is no pair, ``weight`` is the class of each mask, as
        mmdet's mask heads pass it.
        """
        if self.use_mask and not isinstance(target, tuple):
            if weight is None:
                raise ValueError(
                    'weight must be the class of each mask, (N,), with use_mask: the loss is of '
                    'the mask of that class. Or give label as (masks, classes)'
                )
            target, weight = (target, weight), None
        return super().call_elements(pred, target, weight, reduction, ignore_index, **own)

    def map_divisor(
        self, pred: Tensor, label: Tensor, reduction: Reduction
    ) -> Tensor | float | None:
        """Return the divisor of a mean over a map: with weights of classes, those of its pixels."""
        weights = self.class_weight
        if self.use_sigmoid or reduction != 'mean' or weights is None or len(weights) == 1:
            return super().map_divisor(pred, label, reduction)
        by_class = fit_class_weight(weights, pred.shape[1], pred.new_empty(0, dtype=torch.float32))
        kept = (label >= 0) & (label < len(by_class))
        return (by_class[label.where(kept, 0).long()] * kept).sum() + AVG_FACTOR_EPS

    def forward(  # type: ignore[override]
        self,
        cls_score: Tensor,
        label: Any,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: Reduction | None = None,
        ignore_index: int | None = None,
    ) -> Tensor:
        """Compute the weighted and reduced loss, by the argument names of mmdet's loss.

        Args:
            cls_score: logits, as `elementwise` takes them.
            label: targets, as `elementwise` takes them.
            weight: weight as in :class:`~mmdet_ext.losses.base.ElementwiseLoss`; with ``use_mask``
                and a ``label`` that is no pair, the class of each mask.
            avg_factor: divisor of a mean; None for the number of elements.
            reduction_override: reduction of this call instead of ``reduction``.
            ignore_index: used instead of the loss's own where given.

        Returns:
            Tensor: a scalar, or the loss per element for 'none'.

        Raises:
            ReductionError, ValueError, TypeError: as ElementwiseLoss does.
        """
        return super().forward(
            cls_score, label, weight, avg_factor, reduction_override, ignore_index=ignore_index
        )

    def counted(self, pred: Tensor, target: Any, loss: Tensor) -> Tensor:
        """Count the elements of the loss that are not ignored."""
        if not self.use_mask:
            return super().counted(pred, target, loss)
        masks, labels = target
        absent = (labels < 0).reshape(-1, *(1,) * (masks.dim() - 1))
        return (~((masks < 0) | absent)).sum()
