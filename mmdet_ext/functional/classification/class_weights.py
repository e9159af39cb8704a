"""Class weights from class counts, which compensate for unequal frequency."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_number, is_real
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = [
    'append_background_weight',
    'count_labels',
    'effective_number_weights',
    'fit_class_weight',
    'inverse_frequency_weights',
    'inverse_log_weights',
    'plain_numbers',
]

Counts = Sequence[float] | Tensor


def inverse_log_weights(counts: Counts, offset: float = 1.10) -> Tensor:
    r"""Compute weights that fall with the logarithm of the class frequency.

    .. math:: w_c = \frac{1}{\ln(o + f_c)}, \quad f_c = \frac{n_c}{\sum_j n_j}

    with :math:`n_c` an entry of ``counts`` and :math:`o` the ``offset``. The weights are not
    normalised: with the offset 1.10 a class that never occurs gets 10.49, and the only class that
    occurs gets 1.35.

    Args:
        counts: (C,), from 0; a list or an array is checked, a tensor is not.
        offset: above 1; a smaller offset gives rare classes larger weights.

    Returns:
        Tensor: (C,), from 1 / ln(offset + 1) to 1 / ln(offset), float32 or float64.

    Raises:
        ValueError: for an ``offset`` not above 1, or counts that are empty or negative.

    >>> inverse_log_weights([3, 1, 0])
    tensor([ 1.6255,  3.3322, 10.4921])

    That is 1 / ln(1.85), 1 / ln(1.35) and 1 / ln(1.10).

    References:
        Paszke et al., ENet: A Deep Neural Network Architecture for Real-Time Semantic
        Segmentation, 2016, where the formula has no number and the offset is 1.02.
    """
    check_number('offset', offset, above=1, why='the logarithm is divided by')
    number = _as_counts(counts)
    # Without any examples, all frequencies are 0.
    frequency = number / _or_one(number.sum())
    return (1 / (offset + frequency).log()).to(_result_dtype(counts))


def inverse_frequency_weights(counts: Counts) -> Tensor:
    r"""Compute weights in inverse proportion to frequency, with the mean 1 over the examples.

    .. math:: w_c = \frac{N}{K n_c}

    with :math:`n_c` an entry of ``counts``, :math:`N` their sum and :math:`K` the number of counts
    above 0. So :math:`\sum_c n_c w_c = N`, and only the proportions of ``counts`` matter.

    Args:
        counts: (C,), from 0; a list or an array is checked, a tensor is not.

    Returns:
        Tensor: (C,), above 0, float32 or float64. A class that never occurs has the weight of the
        rarest class that does. Without any examples all weights are 1.

    Raises:
        ValueError: for counts that are empty or negative.

    >>> inverse_frequency_weights([6, 2, 0])
    tensor([0.6667, 2.0000, 2.0000])

    That is 8 / (2 * 6), 8 / (2 * 2), and the second again.
    """
    number = _as_counts(counts)
    present = number > 0
    weight = _or_one(number.sum()) / (_or_one(present.sum()) * _floored(number))
    return _ones_if_none(weight, present).to(_result_dtype(counts))


def effective_number_weights(counts: Counts, beta: float = 0.9999) -> Tensor:
    r"""Compute weights in inverse proportion to the effective number of examples.

    .. math:: w_c \propto \frac{1 - \beta}{1 - \beta^{n_c}}

    with :math:`n_c` an entry of ``counts`` and :math:`\beta` = ``beta``. The weights are scaled so
    that their mean over the classes that occur is 1. With ``beta`` 0 all weights are equal; as
    ``beta`` approaches 1 they become inversely proportional to frequency.

    Args:
        counts: (C,), numbers of examples, from 0; a list or an array is checked, a tensor is not.
        beta: in [0, 1).

    Returns:
        Tensor: (C,), above 0, float32 or float64. A class that never occurs has the weight of the
        rarest class that does. Without any examples all weights are 1.

    Raises:
        ValueError: for a ``beta`` outside [0, 1), or counts that are empty or negative.

    >>> effective_number_weights([1, 2], beta=0.5)
    tensor([1.2000, 0.8000])

    That is 1 and 1 / 1.5, scaled to the sum 2.

    References:
        Cui et al., Class-Balanced Loss Based on Effective Number of Samples, 2019: the inverse of
        the number in proposition 1.
    """
    why = 'it is raised to the counts'
    check_number('beta', beta, 'from 0 to below 1', least=0, below=1, why=why)
    number = _as_counts(counts)
    present = number > 0
    # 1 - beta^n without loss of digits. A tiny beta stands for 0, which has no logarithm.
    weight = -1 / torch.expm1(_floored(number) * math.log(max(beta, 1e-300)))
    mean = (weight * present).sum() / _or_one(present.sum())
    return _ones_if_none(weight / _or_one(mean), present).to(_result_dtype(counts))


def append_background_weight(weight: Tensor) -> Tensor:
    """Append the mean of the foreground weights (C,) as the background's: (C + 1,).

    >>> append_background_weight(torch.tensor([1., 4.]))
    tensor([1.0000, 4.0000, 2.5000])
    """
    return torch.cat([weight, weight.mean(dim=0, keepdim=True)])


def fit_class_weight(
    weight: Sequence[float] | Tensor, columns: int, like: Tensor, name: str = 'class_weight'
) -> Tensor:
    """Return one weight per column; a missing last one, the background's, is the mean.

    Args:
        weight: (columns,), or (columns - 1,) without the background.
        columns: number of columns.
        like: tensor with the precision and device of the result.
        name: name of the weights in the error.

    Raises:
        ValueError: for another number of weights.

    >>> fit_class_weight([1., 3.], 3, torch.zeros(1))
    tensor([1., 3., 2.])
    """
    fitted = torch.as_tensor(weight, dtype=like.dtype, device=like.device)
    if fitted.dim() == 1 and len(fitted) == columns - 1 > 0:
        fitted = append_background_weight(fitted)
    if fitted.shape != (columns,):
        raise ValueError(
            f'{name} must have one entry per class: {columns}, or {columns - 1} without the '
            f'background, which gets their mean; got {tuple(fitted.shape)}'
        )
    return fitted


def count_labels(labels: Tensor, classes: int) -> Tensor:
    """Count the labels of each class, (classes,) in float32; other labels do not count.

    Args:
        labels: integers of any shape.
        classes: number of classes.

    >>> count_labels(torch.tensor([0, 2, 2, 3, -1]), 3)
    tensor([1., 0., 2.])
    """
    every = torch.arange(classes, device=labels.device)
    # By comparison, as a scatter on a GPU is not equal from run to run.
    return (labels.reshape(-1, 1) == every).sum(0).float()


def plain_numbers(values: Any) -> Any:
    """Convert a tensor or an array to numbers in lists, or to its one number.

    Any other value is returned unchanged.

    >>> plain_numbers(torch.tensor([1, 2])), plain_numbers(torch.tensor(0.5)), plain_numbers('x')
    ([1, 2], 0.5, 'x')
    """
    return values.tolist() if hasattr(values, 'tolist') else values


#: Scheme of class weights by its name in options and tables.
CLASS_WEIGHT_SCHEMES: dict[str, Callable[..., Tensor]] = {
    'inverse_log': inverse_log_weights,
    'inverse_frequency': inverse_frequency_weights,
    'effective_number': effective_number_weights,
}


def _as_counts(counts: Counts) -> Tensor:
    """Return the counts in at least float32; counts of a list are checked, and in float64."""
    if isinstance(counts, Tensor):
        (number,) = promote_half(counts)
    else:
        counts = plain_numbers(counts)
        wrong = [n for n in counts if not (is_real(n) and 0 <= n < math.inf)]
        if wrong:
            raise ValueError(f'counts must be numbers from 0, got {wrong[0]!r} in {list(counts)}')
        number = torch.tensor(counts, dtype=torch.float64)
    if number.dim() != 1 or len(number) == 0:
        raise ValueError(
            f'counts must be one number per class, (C,) with C from 1, got {tuple(number.shape)}'
        )
    return number


def _result_dtype(counts: Counts) -> torch.dtype:
    """Return the precision of the weights for these counts."""
    if isinstance(counts, Tensor):
        return torch.promote_types(counts.dtype, torch.float32)
    return torch.float32


def _floored(number: Tensor) -> Tensor:
    """Replace counts of 0 by the smallest count above 0."""
    rarest = number.masked_fill(number <= 0, math.inf).amin()
    return torch.where(number > 0, number, rarest)


def _or_one(divisor: Tensor) -> Tensor:
    """Replace a divisor of 0 by 1."""
    return torch.where(divisor > 0, divisor, torch.ones_like(divisor))


def _ones_if_none(weight: Tensor, present: Tensor) -> Tensor:
    """Replace all weights by 1 where no class is present."""
    return torch.where(present.any(), weight, torch.ones_like(weight))
