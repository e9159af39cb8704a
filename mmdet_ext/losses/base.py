"""Base class of the losses: the call that OpenMMLab's heads make, implemented once."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

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
    divisor: Tensor | None = None


class ElementwiseLoss(nn.Module):
    """Loss with one value per element, which OpenMMLab's heads call as their own losses.

    A subclass defines `elementwise` and, where it has options, ``__init__``. A subclass whose
    losses depend on the weights, or that has keywords or a mean of its own, overrides `elements`
    instead of `forward`.

    Args:
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.

    Raises:
        ReductionError: for another ``reduction``; it is a ValueError and an AssertionError.
    """

    def __init__(self, reduction: Reduction = 'mean', loss_weight: float = 1.0) -> None:
        super().__init__()
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

    def forward(
        self,
        pred: Tensor,
        target: Any,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: Reduction | None = None,
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
        loss, weight, divisor = self.elements(pred, target, weight, reduction, **own)
        if divisor is not None and avg_factor is None and reduction == 'mean':
            return self.loss_weight * weighted_reduce(loss, weight, reduction='sum') / divisor
        return self.loss_weight * weighted_reduce(loss, weight, avg_factor, reduction)

    def extra_repr(self) -> str:
        """Return the options, as they are printed with a model."""
        options = {k: v for k, v in vars(self).items() if k[0] != '_' and k != 'training'}
        return ', '.join(f'{name}={value!r}' for name, value in options.items())
