"""Weighting and reduction of losses given per element."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.checks import OptionError, check_one_of

__all__ = ['Reduction', 'ReductionError', 'check_reduction', 'weighted_reduce']

Reduction = Literal['none', 'mean', 'sum']

#: Added to avg_factor, so that a batch without positives (avg_factor 0) does not divide by zero.
AVG_FACTOR_EPS = torch.finfo(torch.float32).eps


class ReductionError(OptionError):
    """Error for an unknown reduction."""


def check_reduction(reduction: object) -> None:
    """Raise ReductionError unless ``reduction`` is 'none', 'mean' or 'sum'."""
    check_one_of('reduction', reduction, Reduction, ReductionError)


def weighted_reduce(
    loss: Tensor,
    weight: Tensor | None = None,
    avg_factor: float | Tensor | None = None,
    reduction: Reduction = 'mean',
) -> Tensor:
    r"""Weight and reduce a loss given per element.

    .. math::
        L_{none} = w_i l_i, \quad L_{sum} = \sum_i w_i l_i, \quad
        L_{mean} = \frac{1}{n} \sum_i w_i l_i

    with :math:`l_i` the elements of ``loss``, :math:`w_i` their ``weight``, and :math:`n` the
    number of elements, or ``avg_factor`` + 1.2e-7 where that is given.

    Args:
        loss: any shape.
        weight: the shape of ``loss``, or of its leading dimensions: heads give one weight per
            sample, (N,), for losses (N, C). Or one dimension more, (..., k): heads give one weight
            per box coordinate, of which the mean counts. None weights all elements alike.
        avg_factor: divisor of the sum, such as the number of positives. Only with 'mean' and
            'none', which ignores it.
        reduction: 'none', 'mean' or 'sum'.

    Returns:
        Tensor: the shape of ``loss`` for 'none', else a scalar. The mean over no elements is 0,
        and keeps the graph.

    Raises:
        ReductionError: for another ``reduction``.
        ValueError: for 'sum' together with ``avg_factor``; for a ``weight`` that does not fit
            ``loss``.

    >>> weighted_reduce(torch.tensor([1., 3.]), torch.tensor([1., 0.]))
    tensor(0.5000)
    """
    check_reduction(reduction)
    if avg_factor is not None and reduction == 'sum':
        raise ValueError(
            "avg_factor can not be used with reduction='sum': it says what a mean divides "
            "by. Use reduction='mean' or leave avg_factor out"
        )
    count = loss.numel()
    if weight is not None:
        weight = _element_weight(loss, weight)
        if reduction != 'none' and weight.dim() < loss.dim():
            # Elements with one weight are summed first: no weighted copy of the whole table.
            loss = loss.flatten(weight.dim()).sum(-1)
        loss = loss * weight.reshape(weight.shape + (1,) * (loss.dim() - weight.dim()))
    if reduction == 'none':
        return loss
    total = loss.sum()
    if avg_factor is not None:
        return total / (avg_factor + AVG_FACTOR_EPS)
    # Not loss.mean(), whose backward pass fills a table with equal gradients.
    return total if reduction == 'sum' else total / max(1, count)


def _element_weight(loss: Tensor, weight: Tensor) -> Tensor:
    """Return the weight in the shape of the loss, of its leading dimensions, or broadcastable."""
    if weight.dim() == loss.dim() + 1 and weight.shape[:-1] == loss.shape:
        return weight.mean(-1)
    if weight.shape == loss.shape[: weight.dim()]:
        return weight
    fits = weight.dim() == loss.dim() and all(
        size in (1, wanted) for size, wanted in zip(weight.shape, loss.shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f'weight of shape {tuple(weight.shape)} does not fit a loss of shape '
            f'{tuple(loss.shape)}: give one weight per element, one for all below a leading '
            'index, (N,) for (N, C), or (..., k) to be averaged over k'
        )
    return weight
