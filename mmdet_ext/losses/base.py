"""The host's call of a loss, once for all losses."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmdet_ext.functional.numerics.reduction import Reduction, check_reduction, weighted_reduce


class ElementwiseLoss(nn.Module):
    """A loss that gives one value an element, called as OpenMMLab's heads call their losses.

    A subclass writes `elementwise` and, where it has options, ``__init__``.

    Args:
        reduction: what `forward` does with the elements' losses: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.

    Raises:
        ReductionError: for another ``reduction``, a ValueError and an AssertionError.
    """

    def __init__(self, reduction: Reduction = 'mean', loss_weight: float = 1.0) -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction: Reduction = reduction
        self.loss_weight = loss_weight

    def elementwise(self, pred: Tensor, target: Any) -> Tensor:
        """One loss an element; ``target`` is a tensor, or a tuple where the family has it so."""
        raise NotImplementedError(f'{type(self).__name__} does not define elementwise')

    def forward(
        self,
        pred: Tensor,
        target: Any,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: Reduction | None = None,
    ) -> Tensor:
        """The weighted and reduced loss.

        Args:
            pred: predictions, as `elementwise` takes them.
            target: targets, likewise.
            weight: one weight an element; one a sample, (N,), for losses (N, C); or (..., k)
                to be averaged over k.
            avg_factor: what a mean divides by, instead of the number of elements.
            reduction_override: used instead of ``reduction`` where given.

        Returns:
            Tensor: a scalar, or one value an element for 'none'. With no elements, or all
            weights zero: a zero that keeps the graph.

        Raises:
            ReductionError, ValueError: as :func:`mmdet_ext.functional.numerics.reduction.weighted_reduce`.
            TypeError: for any other keyword.
        """
        reduction = self.reduction if reduction_override is None else reduction_override
        check_reduction(reduction)  # before work that would be for nothing
        each = self.elementwise_weighed(pred, target, weight)
        return self.loss_weight * weighted_reduce(each, weight, avg_factor, reduction)

    def elementwise_weighed(self, pred: Tensor, target: Any, weight: Tensor | None) -> Tensor:
        """`elementwise`, of a loss to which it matters which elements count; not yet weighted."""
        return self.elementwise(pred, target)

    def extra_repr(self) -> str:
        """The options, as printed with a model."""
        options = {k: v for k, v in vars(self).items() if k[0] != '_' and k != 'training'}
        return ', '.join(f'{name}={value!r}' for name, value in options.items())
