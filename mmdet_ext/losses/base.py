"""Base class of the losses: the call that OpenMMLab's heads make, implemented once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from mmdet_ext.functional.numerics.checks import check_that
from mmdet_ext.functional.numerics.reduction import Reduction, check_reduction, weighted_reduce


class Elements(NamedTuple):
    """Losses per element, and how to reduce them.

    Attributes:
        loss: loss per element.
        weight: weight that the reduction has still to apply; None where there is none.
        divisor: divisor of a mean for which the head gives no ``avg_factor``; None for the number
            of elements.
    """

    loss: Tensor
    weight: Tensor | None = None
    divisor: Tensor | float | None = None


class NamedLoss(nn.Module):
    """Loss with a name, by which the heads of MMSegmentation list it.

    Args:
        loss_name: key of the loss in what a head returns. Heads add the values of losses of one
            name, and MMEngine trains with the values whose key contains 'loss'. None:
            `default_loss_name`.

    Raises:
        ValueError: for a name without 'loss'.
    """

    #: What follows ``loss_`` in the name by default; empty for the name of the class.
    short_name: ClassVar[str] = ''

    def __init__(self, loss_name: str | None = None) -> None:
        super().__init__()
        self._loss_name = self.default_loss_name() if loss_name is None else loss_name
        check_loss_name(self._loss_name)

    @property
    def loss_name(self) -> str:
        """Return the key of the loss in what a head returns."""
        return self._loss_name

    @classmethod
    def default_loss_name(cls) -> str:
        """Return ``loss_`` and the short name: ``loss_logit_adjusted`` of LogitAdjustedLoss."""
        return f'loss_{cls.short_name or _snake_case(cls.__name__.removesuffix("Loss"))}'

    def extra_repr(self) -> str:
        """Return the options, as they are printed with a model."""
        options = {k: v for k, v in vars(self).items() if k[0] != '_' and k != 'training'}
        return ', '.join(f'{name}={value!r}' for name, value in options.items())


def refuse_keywords(loss: nn.Module, own: Mapping[str, object]) -> None:
    """Raise TypeError for a keyword that a call of the loss does not have."""
    if own:
        raise TypeError(f'{type(loss).__name__} takes no keyword {next(iter(own))!r}')


def check_loss_name(loss_name: object) -> None:
    """Raise ValueError unless the name contains 'loss', as MMEngine asks for."""
    named = isinstance(loss_name, str) and 'loss' in loss_name
    why = 'MMEngine trains with the values of such names alone. Write loss_... before it'
    check_that(named, 'loss_name', loss_name, "a name with 'loss' in it", why)


class ElementwiseLoss(NamedLoss):
    """Loss with one value per element, which OpenMMLab's heads call as their own losses.

    A subclass defines `elementwise` and, where it has options, ``__init__``. A subclass whose
    losses depend on the weights, or that has keywords or a mean of its own, overrides `elements`
    instead of `forward`. A loss of labels, also of those of the pixels of an image, derives from
    :class:`~mmdet_ext.losses.labels.LabelLoss`.

    Args:
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.
        loss_name: as :class:`NamedLoss` takes it.

    Raises:
        ReductionError: for another ``reduction``; it is a ValueError and an AssertionError.
    """

    #: Why the loss takes no labels of pixels, for the error.
    no_label_maps: ClassVar[str] = 'its targets are not labels of classes'

    def __init__(
        self,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
        loss_name: str | None = None,
    ) -> None:
        super().__init__(loss_name)
        check_reduction(reduction)
        self.reduction: Reduction = reduction
        self.loss_weight = loss_weight

    def elementwise(self, pred: Tensor, target: Any) -> Tensor:
        """Compute the loss per element, without weights.

        Args:
            pred: predictions.
            target: targets, a tensor, or a tuple of tensors where the loss takes several.
        """
        raise NotImplementedError(f'{type(self).__name__} does not define elementwise')

    def elements(
        self, pred: Tensor, target: Any, weight: Tensor | None, reduction: Reduction
    ) -> Elements:
        """Compute the loss per element, and say how to reduce it.

        Args:
            pred: predictions, as `elementwise` takes them.
            target: targets, as `elementwise` takes them.
            weight: weight of the call, or None.
            reduction: reduction that follows, for losses that can then save work.
        """
        return Elements(self.elementwise(pred, target), weight)

    def call_elements(
        self,
        pred: Tensor,
        target: Any,
        weight: Tensor | None,
        reduction: Reduction,
        ignore_index: int | None = None,
        **own: Any,
    ) -> Elements:
        """Compute `elements` for a call of a head, which may name a label to ignore.

        Raises:
            TypeError: for an ``ignore_index``, which only losses of labels have.
        """
        if ignore_index is not None:
            raise TypeError(
                f'{type(self).__name__} takes no ignore_index, and does not fit the decode heads '
                f'of MMSegmentation, which give one label per pixel: {self.no_label_maps}. Take a '
                'loss of labels there, such as CrossEntropyLoss, FocalLoss or DiceLoss'
            )
        return self.elements(pred, target, weight, reduction, **own)

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
            pred: predictions, as `elementwise` takes them.
            target: targets, as `elementwise` takes them.
            weight: one weight per element; one per sample, (N,), for losses (N, C); or (..., k),
                of which the mean over k is used.
            avg_factor: divisor of a mean, such as the number of positives; None for the number of
                elements.
            reduction_override: reduction of this call instead of ``reduction``.
            ignore_index: one more label to ignore, such as 255; for losses of labels alone.
            **own: keywords of the loss itself, as its `elements` takes them.

        Returns:
            Tensor: a scalar, or the loss per element for 'none'. Without elements, or with all
            weights 0, it is a zero with a graph.

        Raises:
            ReductionError, ValueError: as
                :func:`~mmdet_ext.functional.numerics.reduction.weighted_reduce`.
            TypeError: for a keyword that the loss does not have.
        """
        reduction = self.reduction if reduction_override is None else reduction_override
        check_reduction(reduction)  # before any computation
        loss, weight, divisor = self.call_elements(
            pred, target, weight, reduction, ignore_index, **own
        )
        if divisor is not None and avg_factor is None and reduction == 'mean':
            return self.loss_weight * weighted_reduce(loss, weight, reduction='sum') / divisor
        return self.loss_weight * weighted_reduce(loss, weight, avg_factor, reduction)


def _snake_case(name: str) -> str:
    """Return a class name in small letters, words joined by underscores.

    >>> _snake_case('LogitAdjusted'), _snake_case('DiceCE'), _snake_case('CIoU')
    ('logit_adjusted', 'dice_ce', 'c_iou')
    """
    ends = r'(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])'
    return re.sub(ends, '_', name.replace('IoU', 'Iou')).lower()
