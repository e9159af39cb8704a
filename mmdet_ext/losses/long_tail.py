"""Losses for classes of unequal frequency."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from mmdet_ext.functional.classification.cross_entropy import IGNORE_INDEX
from mmdet_ext.functional.classification.labels import without_weightless
from mmdet_ext.functional.classification.long_tail import (
    check_focal_options,
    class_adjustment,
    equalized_focal_loss,
    focal_gradient_sums,
    gradient_ratio,
    logit_adjusted_loss,
)
from mmdet_ext.functional.numerics.reduction import Reduction
from mmdet_ext.losses.base import ElementwiseLoss
from mmdet_ext.losses.class_counts import resolve_counts
from mmdet_ext.registry import MODELS

Counts = Sequence[float] | str | PathLike[str]


@MODELS.register_module()
class LogitAdjustedLoss(ElementwiseLoss):
    """Cross entropy with class frequencies in the logits, so that rare classes are not held down.

    For heads with softmax (Faster R-CNN's) and, with ``use_sigmoid``, such with sigmoid (ATSS,
    RetinaNet, FCOS). The adjustment is for training alone: a head tests with its logits as they
    are. Formulae, what happens to the background, and edges:
    :func:`mmdet_ext.functional.classification.long_tail.logit_adjusted_loss`.

    Args:
        counts: how often each class occurs, in the order of the labels; or the path of a json file
            with a list ``counts``. Foreground classes alone: the background counts as often as
            the most frequent of them. With softmax also with the background, last. A class that
            never occurs counts as often as the rarest that does.
        tau: from 0, which is the plain cross entropy, by way of 1, the paper's.
        use_sigmoid: whether classes are taken each for itself.
        ignore_index: one more label to ignore, such as 255; negative ones always are.
        reduction: 'none', 'mean' or 'sum'. What is ignored costs 0 and counts in a mean, unless
            an ``avg_factor`` is given.
        loss_weight: factor on the result.

    Raises:
        FileNotFoundError, TypeError, ValueError: for counts that are missing or wrong, a negative
            ``tau``, or a ``reduction`` that is none of the three.
    """

    def __init__(
        self,
        counts: Counts,
        tau: float = 1.0,
        use_sigmoid: bool = False,
        ignore_index: int = IGNORE_INDEX,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        self.adjustment = class_adjustment(resolve_counts(counts), tau)
        self.tau = tau
        self.use_sigmoid = use_sigmoid
        self.ignore_index = ignore_index

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Loss of logits (N, C): (N,) with softmax, (N, C) with sigmoid."""
        return logit_adjusted_loss(
            pred, target, self.adjustment, self.use_sigmoid, self.ignore_index
        )


@MODELS.register_module()
class BalancedSoftmaxLoss(LogitAdjustedLoss):
    """Cross entropy of a softmax weighed by class frequency: LogitAdjustedLoss with tau 1.

    Formula and edges: :func:`mmdet_ext.functional.classification.long_tail.balanced_softmax_loss`.

    Args:
        counts: as `LogitAdjustedLoss` takes them.
        use_sigmoid: False. Configs name it, as heads read it from there.
        ignore_index: one more label to ignore, such as 255; negative ones always are.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.

    Raises:
        FileNotFoundError, TypeError, ValueError: as `LogitAdjustedLoss`; for ``use_sigmoid``.
    """

    def __init__(
        self,
        counts: Counts,
        use_sigmoid: bool = False,
        ignore_index: int = IGNORE_INDEX,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        if use_sigmoid:
            raise ValueError(
                'use_sigmoid must be False, got True: balanced softmax is a softmax. '
                'LogitAdjustedLoss has a form with sigmoid'
            )
        super().__init__(
            counts, ignore_index=ignore_index, reduction=reduction, loss_weight=loss_weight
        )


@MODELS.register_module()
class EqualizedFocalLoss(ElementwiseLoss):
    """Sigmoid focal loss whose focus and weight rise for classes that get few positive gradients.

    Formula: :func:`mmdet_ext.functional.classification.long_tail.equalized_focal_loss`. The ratio of positive to
    negative gradients of each class comes from one of three places:

    - ``gradient_ratio``: fixed numbers.
    - ``accumulate=True``, as in the paper: sums over the training so far, kept in the buffers
      ``positive_gradient`` and ``negative_gradient``. They go into checkpoints, are summed over
      ranks, and grow with each call in training mode, by this loss's own gradients before
      weights, ``avg_factor`` and ``loss_weight``. The first call is a plain focal loss. A head
      that calls its loss level by level adds level by level.
    - neither: this call's own gradients, those of the plain focal loss. Nothing is kept between
      calls, but a class without positives in this batch counts as one that is rarest of all.

    Elements of weight 0 do not count in the gradients, as heads mark ignored ones so.

    Args:
        use_sigmoid: True. Configs name it, as heads read it from there.
        gamma: above 0, focus of a class whose gradients are balanced.
        alpha: in [0, 1], weight of positives.
        scale: from 0, what is added to the focus of a class without positive gradients.
        gradient_ratio: one number in [0, 1] a class, or None.
        accumulate: whether gradients are summed up over the training.
        num_classes: C, needed with ``accumulate``.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.

    Raises:
        ValueError: if an option is out of its range, missing, or excludes another.
    """

    positive_gradient: Tensor
    negative_gradient: Tensor

    def __init__(
        self,
        use_sigmoid: bool = True,
        gamma: float = 2.0,
        alpha: float = 0.25,
        scale: float = 8.0,
        gradient_ratio: Sequence[float] | None = None,
        accumulate: bool = False,
        num_classes: int | None = None,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_focal_options(gamma, alpha, scale)
        if not use_sigmoid:
            raise ValueError('use_sigmoid must be True, got False: there is no form with softmax')
        self.use_sigmoid = True
        self.gamma = gamma
        self.alpha = alpha
        self.scale = scale
        self.gradient_ratio = _checked_ratio(gradient_ratio)
        self.accumulate = accumulate
        if accumulate:
            self._register_sums(num_classes)

    def _register_sums(self, num_classes: int | None) -> None:
        if self.gradient_ratio is not None:
            raise ValueError(
                'accumulate excludes gradient_ratio: the ratio is either summed up '
                'or fixed. Leave one of them out'
            )
        if num_classes is None or num_classes < 1:
            raise ValueError(
                f'accumulate needs num_classes, from 1, got {num_classes!r}: the number of '
                'foreground classes, as the head has it'
            )
        for name in ('positive_gradient', 'negative_gradient'):
            self.register_buffer(name, torch.zeros(num_classes))

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: Reduction | None = None,
    ) -> Tensor:
        """As every loss; with ``accumulate`` in training mode, adds to the sums after that."""
        target = without_weightless(target, weight)
        if not (self.accumulate and self.training):
            return super().forward(pred, target, weight, avg_factor, reduction_override)
        self._check_columns(pred)
        sums = torch.stack(self._sums(pred, target, self._ratio(pred, target)))
        loss = super().forward(pred, target, weight, avg_factor, reduction_override)
        all_reduce(sums, op='sum')
        self.positive_gradient += sums[0]
        self.negative_gradient += sums[1]
        return loss

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Loss of each entry of logits (N, C)."""
        ratio = self._ratio(pred, target)
        return equalized_focal_loss(pred, target, ratio, self.gamma, self.alpha, self.scale)

    def _ratio(self, pred: Tensor, target: Tensor) -> Tensor | Sequence[float]:
        if self.gradient_ratio is not None:
            return self.gradient_ratio
        if self.accumulate:
            self._check_columns(pred)
            return gradient_ratio(self.positive_gradient, self.negative_gradient)
        return gradient_ratio(*self._sums(pred, target, None))

    def _sums(
        self, pred: Tensor, target: Tensor, ratio: Tensor | Sequence[float] | None
    ) -> tuple[Tensor, Tensor]:
        return focal_gradient_sums(pred, target, ratio, self.gamma, self.alpha, self.scale)

    def _check_columns(self, pred: Tensor) -> None:
        if pred.shape[-1] != len(self.positive_gradient):
            raise ValueError(
                f'num_classes is {len(self.positive_gradient)}, but there are logits of '
                f'{pred.shape[-1]} classes: give the number of classes that the head has'
            )


def _checked_ratio(ratio: Sequence[float] | None) -> list[float] | None:
    if ratio is None:
        return None
    wrong = [value for value in ratio if not 0 <= value <= 1]
    if wrong:
        raise ValueError(f'gradient_ratio must be numbers from 0 to 1, got {wrong[0]!r}')
    return [float(value) for value in ratio]
