"""From one loss per element to what the caller asked for."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.checks import OptionError

Reduction = Literal['none', 'mean', 'sum']
REDUCTIONS: tuple[Reduction, ...] = ('none', 'mean', 'sum')

#: Added to avg_factor, so that a batch without positives (avg_factor 0) divides by no zero.
AVG_FACTOR_EPS = torch.finfo(torch.float32).eps


class ReductionError(OptionError):
    """No such reduction."""


def check_reduction(reduction: object) -> None:
    """Raise ReductionError, naming what there is, unless ``reduction`` is one of REDUCTIONS."""
    if reduction not in REDUCTIONS:
        raise ReductionError(f'reduction must be one of {REDUCTIONS}, got {reduction!r}')


def weighted_reduce(
    loss: Tensor,
    weight: Tensor | None = None,
    avg_factor: float | Tensor | None = None,
    reduction: Reduction = 'mean',
) -> Tensor:
    """Weigh and reduce a loss given per element.

    none: ``w_i l_i``; sum: ``sum_i w_i l_i``; mean: ``sum_i w_i l_i / n`` with n the number of
    elements, or ``/ (avg_factor + 1.2e-7)`` where an avg_factor is given. The mean over no
    elements is 0, and keeps the graph.

    Args:
        loss: any shape.
        weight: the shape of ``loss``, or of its leading dimensions, as heads give one weight a
            sample (N,) for losses (N, C); or one dimension more, (..., k), as they give one a box
            coordinate: the mean over it counts.
        avg_factor: what to divide the sum by, such as the number of positives.
        reduction: 'none', 'mean' or 'sum'.

    Returns:
        Tensor: the shape of ``loss`` for 'none', else a scalar.

    Raises:
        ReductionError: for another ``reduction``.
        ValueError: for 'sum' together with ``avg_factor``; for a
            ``weight`` that does not fit ``loss``.

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
            # Elements of one weight are summed first: no weighted copy of the whole table.
            loss = loss.flatten(weight.dim()).sum(-1)
        loss = loss * weight.reshape(weight.shape + (1,) * (loss.dim() - weight.dim()))
    if reduction == 'none':
        return loss
    total = loss.sum()
    if avg_factor is not None:
        return total / (avg_factor + AVG_FACTOR_EPS)
    # Not loss.mean(), whose backward pass fills a table of equal gradients.
    return total if reduction == 'sum' else total / max(1, count)


def _element_weight(loss: Tensor, weight: Tensor) -> Tensor:
    """The weight by the leading dimensions of the loss, or of its very shape."""
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
            f'{tuple(loss.shape)}: give one weight an element, one for all below a leading '
            'index, (N,) for (N, C), or (..., k) to be averaged over k'
        )
    return weight
