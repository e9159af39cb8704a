"""Losses for classes of unequal frequency."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from mmdet_ext.functional.classification.cross_entropy import IGNORE_INDEX
from mmdet_ext.functional.classification.equalized_focal import (
    check_focal_options,
    equalized_focal_loss,
    focal_gradient_sums,
    gradient_ratio,
)
from mmdet_ext.functional.classification.labels import without_weightless
from mmdet_ext.functional.classification.long_tail import class_adjustment, logit_adjusted_loss
from mmdet_ext.functional.numerics.checks import check_number, check_that
from mmdet_ext.functional.numerics.reduction import Reduction
from mmdet_ext.losses.base import Elements
from mmdet_ext.losses.class_counts import resolve_counts
from mmdet_ext.losses.labels import LabelLoss
from mmdet_ext.registry import MODELS

Counts = Sequence[float] | str | PathLike[str]


@MODELS.register_module()
class LogitAdjustedLoss(LabelLoss):
    """Cross entropy of logits plus class frequencies, so that rare classes are learned too.

    It serves heads with softmax (Faster R-CNN) and, with ``use_sigmoid``, heads with sigmoid (ATSS,
    RetinaNet, FCOS). The adjustment is used in training only: in inference a head uses its logits
    unchanged. Formulae, the role of the background and edge cases:
    :func:`mmdet_ext.functional.classification.long_tail.logit_adjusted_loss`.

    Args:
        counts: number of examples of each class, in the order of the labels; or the path of a json
            file with a list ``counts``. With foreground classes only, the background counts as
            often as the most frequent of them. With softmax the background may follow as the last.
            A class that never occurs counts as often as the rarest class that does.
        tau: factor on the adjustment, from 0, which is plain cross entropy; the paper has 1.
        use_sigmoid: whether each class is a binary decision.
        ignore_index: one more label to ignore, such as 255; negative labels are always ignored.
        reduction: 'none', 'mean' or 'sum'. Ignored samples cost 0 and count in a mean, unless
            an ``avg_factor`` or ``avg_non_ignore`` is given.
        loss_weight: factor on the result.
        avg_non_ignore: whether a mean without ``avg_factor`` counts only elements that are not
            ignored.
        loss_name: key of the loss in what a decode head returns, which must contain 'loss'. None:
            'loss_logit_adjusted'.

    Raises:
        FileNotFoundError, TypeError, ValueError: for counts that are missing or wrong, a negative
            ``tau``, or another ``reduction``.
    """

    def __init__(
        self,
        counts: Counts,
        tau: float = 1.0,
        use_sigmoid: bool = False,
        ignore_index: int = IGNORE_INDEX,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
        avg_non_ignore: bool = False,
        loss_name: str | None = None,
    ) -> None:
        super().__init__(reduction, loss_weight, loss_name, avg_non_ignore)
        self.adjustment = class_adjustment(resolve_counts(counts), tau)
        self.tau = tau
        self.use_sigmoid = use_sigmoid
        self.ignore_index = ignore_index

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of logits (N, C): (N,) with softmax, (N, C) with sigmoid."""
        ignored = IGNORE_INDEX if self.ignore_index is None else self.ignore_index
        return logit_adjusted_loss(pred, target, self.adjustment, self.use_sigmoid, ignored)


@MODELS.register_module()
class BalancedSoftmaxLoss(LogitAdjustedLoss):
    """Cross entropy of a softmax weighted by class frequency: LogitAdjustedLoss with tau 1.

    Formula and edge cases:
    :func:`mmdet_ext.functional.classification.long_tail.balanced_softmax_loss`.

    Args:
        counts: number of examples of each class, as `LogitAdjustedLoss` takes them.
        use_sigmoid: False. Configs state it, because heads read it from the config.
        ignore_index: one more label to ignore, such as 255; negative labels are always ignored.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.
        avg_non_ignore: whether a mean without ``avg_factor`` counts only elements that are not
            ignored.
        loss_name: key of the loss in what a decode head returns, which must contain 'loss'. None:
            'loss_balanced_softmax'.

    Raises:
        FileNotFoundError, TypeError, ValueError: as `LogitAdjustedLoss`; also for ``use_sigmoid``.
    """

    def __init__(
        self,
        counts: Counts,
        use_sigmoid: bool = False,
        ignore_index: int = IGNORE_INDEX,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
        avg_non_ignore: bool = False,
        loss_name: str | None = None,
    ) -> None:
        if use_sigmoid:
            raise ValueError(
                'use_sigmoid must be False, got True: balanced softmax is a softmax. '
                'LogitAdjustedLoss has a form with sigmoid'
            )
        super().__init__(
            counts,
            ignore_index=ignore_index,
            reduction=reduction,
            loss_weight=loss_weight,
            avg_non_ignore=avg_non_ignore,
            loss_name=loss_name,
        )


@MODELS.register_module()
class EqualizedFocalLoss(LabelLoss):
    """Sigmoid focal loss with a larger exponent and weight for classes of few positive gradients.

    Formula: :func:`mmdet_ext.functional.classification.equalized_focal.equalized_focal_loss`. The
    ratio of the positive to the negative gradients of each class comes from one of three sources:

    - ``gradient_ratio``: fixed numbers.
    - ``accumulate=True``, as in the paper: sums over the training so far, in the buffers
      ``positive_gradient`` and ``negative_gradient``. They are part of checkpoints and are summed
      over ranks. Each call in training mode adds the loss's own gradients, before weights,
      ``avg_factor`` and ``loss_weight``. The first call is a plain focal loss. A head that calls
      its loss for each level adds to the sums for each level.
    - Neither: the gradients of the plain focal loss in this call. Nothing is kept between calls,
      but a class without positives in this batch counts as the rarest possible.

    Elements of weight 0 do not count in the gradients, as heads mark ignored elements so.

    Args:
        use_sigmoid: True. Configs state it, because heads read it from the config.
        gamma: exponent of a class whose gradients are balanced, above 0.
        alpha: weight of positives, in [0, 1].
        scale: number added to the exponent of a class without positive gradients, from 0.
        gradient_ratio: one number in [0, 1] per class, or None.
        accumulate: whether gradients are summed up over the training.
        num_classes: C, needed with ``accumulate``.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.
        avg_non_ignore: whether a mean without ``avg_factor`` counts only elements that are not
            ignored.
        loss_name: key of the loss in what a decode head returns, which must contain 'loss'. None:
            'loss_equalized_focal'.

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
        avg_non_ignore: bool = False,
        loss_name: str | None = None,
    ) -> None:
        super().__init__(reduction, loss_weight, loss_name, avg_non_ignore)
        check_focal_options(gamma, alpha, scale)
        why = 'there is no form with softmax'
        check_that(bool(use_sigmoid), 'use_sigmoid', use_sigmoid, 'True', why)
        self.use_sigmoid = True
        self.gamma = gamma
        self.alpha = alpha
        self.scale = scale
        self.gradient_ratio = _checked_ratio(gradient_ratio)
        self.accumulate = accumulate
        if accumulate:
            self._register_sums(num_classes)

    def _register_sums(self, num_classes: int | None) -> None:
        """Add the buffers of the accumulated gradients."""
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

    def elements(
        self, pred: Tensor, target: Tensor, weight: Tensor | None, reduction: Reduction
    ) -> Elements:
        """Compute the loss; with ``accumulate`` in training mode, then add to the sums."""
        target = without_weightless(target, weight)
        if not (self.accumulate and self.training):
            return Elements(self.elementwise(pred, target), weight)
        self._check_columns(pred)
        sums = torch.stack(self._sums(pred, target, self._ratio(pred, target)))
        loss = self.elementwise(pred, target)
        all_reduce(sums, op='sum')
        self.positive_gradient += sums[0]
        self.negative_gradient += sums[1]
        return Elements(loss, weight)

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of each entry of logits (N, C)."""
        ratio = self._ratio(pred, target)
        return equalized_focal_loss(pred, target, ratio, self.gamma, self.alpha, self.scale)

    def _ratio(self, pred: Tensor, target: Tensor) -> Tensor | Sequence[float]:
        """Return the gradient ratio of each class from its source."""
        if self.gradient_ratio is not None:
            return self.gradient_ratio
        if self.accumulate:
            self._check_columns(pred)
            return gradient_ratio(self.positive_gradient, self.negative_gradient)
        return gradient_ratio(*self._sums(pred, target, None))

    def _sums(
        self, pred: Tensor, target: Tensor, ratio: Tensor | Sequence[float] | None
    ) -> tuple[Tensor, Tensor]:
        """Sum the gradients of this call per class."""
        return focal_gradient_sums(pred, target, ratio, self.gamma, self.alpha, self.scale)

    def _check_columns(self, pred: Tensor) -> None:
        """Raise ValueError unless the logits have ``num_classes`` columns."""
        if pred.shape[1] != len(self.positive_gradient):
            raise ValueError(
                f'num_classes is {len(self.positive_gradient)}, but there are logits of '
                f'{pred.shape[1]} classes: give the number of classes that the head has'
            )


def _checked_ratio(ratio: Sequence[float] | None) -> list[float] | None:
    """Return the ratio as numbers in [0, 1], or None."""
    if ratio is None:
        return None
    for value in ratio:
        check_number('gradient_ratio', value, 'numbers from 0 to 1', least=0, most=1)
    return [float(value) for value in ratio]
