"""Cross entropy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmdet_ext.functional.classification.cross_entropy import (
    IGNORE_INDEX,
    binary_cross_entropy_loss,
    check_smoothing,
    cross_entropy_loss,
    is_ignored,
    mask_cross_entropy_loss,
)
from mmdet_ext.functional.numerics.reduction import Reduction, check_reduction, weighted_reduce
from mmdet_ext.losses.base import ElementwiseLoss
from mmdet_ext.losses.class_counts import resolve_class_weights
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class CrossEntropyLoss(ElementwiseLoss):
    """Cross entropy with label smoothing, class weights from counts, and less memory.

    Formulae: :mod:`mmdet_ext.functional.classification.cross_entropy`. Values are stock's, but for these:

    - Negative labels are ignored in every form, on the CPU as on a GPU. Stock's softmax form
      ignores its default -100 alone: another one raises on the CPU and stops the process of a
      GPU.
    - ``class_weight`` of softmax may be one number, or leave the background out, the last column,
      which then weighs the mean of the others.
    - A weight (N,) with sigmoid targets of each element (N, N) weighs rows; stock's, columns.
    - The mean over no elements is 0, where stock's is NaN.
    - ``use_mask`` takes every reduction, an ``avg_factor``, weights and an ``ignore_index``, all
      of which stock refuses; it gives a scalar, where stock gives shape (1,); and it weighs each
      mask by its class, where stock's ``class_weight`` falls on the columns of the picture.
    - A keyword that is not listed here raises a TypeError.

    Args:
        use_sigmoid: a yes or no for each column; ``class_weight`` then weighs the yes.
        use_mask: a yes or no for each pixel of the mask of an object's class.
        reduction: 'none', 'mean' or 'sum'.
        class_weight: one weight a class, from 0, a list, an array or a tensor; or a number for
            all; or ``dict(type=..., counts=...)`` with 'inverse_log', 'inverse_frequency' or
            'effective_number', and how often each class occurs: a list, or the file that
            ``tools/data/class_counts.py`` writes.
        ignore_index: one more label to ignore, such as 255. None: -100.
        loss_weight: factor on the result.
        avg_non_ignore: a mean without ``avg_factor`` counts only what is not ignored.
        label_smoothing: share of the target that goes to all classes alike, in [0, 1].

    Raises:
        ValueError: for ``use_sigmoid`` with ``use_mask``, ``label_smoothing`` with ``use_mask`` or
            outside [0, 1], a negative weight, or a ``reduction`` that is none of the three.
        TypeError, FileNotFoundError: for ``counts`` that are no list and no file.
    """

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
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        if use_sigmoid and use_mask:
            raise ValueError('use_sigmoid and use_mask are two forms of the loss: set only one')
        check_smoothing(label_smoothing)
        if use_mask and label_smoothing:
            raise ValueError(f'label_smoothing must be 0 with use_mask, got {label_smoothing}')
        self.use_sigmoid = use_sigmoid
        self.use_mask = use_mask
        # The list, not a tensor: heads read it.
        self.class_weight = resolve_class_weights(class_weight, 'class_weight')
        self.ignore_index = ignore_index
        self.avg_non_ignore = avg_non_ignore
        self.label_smoothing = label_smoothing

    def elementwise(self, pred: Tensor, target: Any, ignore_index: int | None = None) -> Tensor:
        """Loss an element.

        Args:
            pred: (N, C) or (N, C, ...) logits.
            target: labels (N, ...); the shape of ``pred``, for targets of each element; for
                ``use_mask`` a pair, masks (N, ...) and the class of each (N,), a negative one
                where the object is ignored.
            ignore_index: used instead of the loss's own where given.

        Returns:
            Tensor: (N, ...), or the shape of ``pred`` for ``use_sigmoid``.
        """
        ignored = self._ignore_index(ignore_index)
        if self.use_mask:
            masks, labels = target
            return mask_cross_entropy_loss(pred, masks, labels, self.class_weight, ignored)
        function = binary_cross_entropy_loss if self.use_sigmoid else cross_entropy_loss
        return function(pred, target, self.class_weight, ignored, self.label_smoothing)

    def forward(
        self,
        cls_score: Tensor,
        label: Any,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: Reduction | None = None,
        ignore_index: int | None = None,
    ) -> Tensor:
        """The weighted and reduced loss.

        Args:
            cls_score: logits, as `elementwise` takes them.
            label: targets, likewise.
            weight: as :class:`~mmdet_ext.losses.base.ElementwiseLoss` has it. With ``use_mask``
                and ``label`` no pair, the class of each mask, as stock's mask heads pass it.
            avg_factor: what a mean divides by, instead of the number of elements.
            reduction_override: used instead of ``reduction`` where given.
            ignore_index: used instead of the loss's own where given.

        Returns:
            Tensor: a scalar, or one value an element for 'none'.

        Raises:
            ReductionError, ValueError, TypeError: as ElementwiseLoss does.
        """
        reduction = self.reduction if reduction_override is None else reduction_override
        check_reduction(reduction)
        if self.use_mask and not isinstance(label, tuple):
            if weight is None:
                raise ValueError(
                    'weight must be the class of each mask, (N,), with use_mask: the loss is of '
                    'the mask of that class. Or give label as (masks, classes)'
                )
            label, weight = (label, weight), None
        loss = self.elementwise(cls_score, label, ignore_index)
        if self.avg_non_ignore and avg_factor is None and reduction == 'mean':
            avg_factor = self._counted(loss, label, ignore_index)
        return self.loss_weight * weighted_reduce(loss, weight, avg_factor, reduction)

    def _ignore_index(self, override: int | None) -> int:
        chosen = self.ignore_index if override is None else override
        return IGNORE_INDEX if chosen is None else chosen

    def _counted(self, loss: Tensor, label: Any, ignore_index: int | None) -> Tensor:
        """How many elements of the loss are not ignored."""
        labels = label[0] if self.use_mask else label
        if not self.use_sigmoid and labels.dim() > loss.dim():
            return torch.tensor(loss.numel())  # distributions: nothing of them is ignored
        ignored = is_ignored(labels, self._ignore_index(ignore_index))
        if self.use_mask:
            ignored = ignored | (label[1] < 0).reshape(-1, *(1,) * (labels.dim() - 1))
        return (~ignored).sum() * (loss.numel() // max(1, labels.numel()))
