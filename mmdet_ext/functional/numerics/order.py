"""Places and orders of values, by NumPy where a CPU has them: PyTorch takes several times as long.

What is sorted are whole numbers of 64 bits, a value above its place, so that no places need to be
sorted beside the values, and equal values keep their order.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = [
    'columns_of',
    'counts_up_to',
    'descending_order',
    'places_of',
    'repeated',
    'sorted_whole',
    'where_at_least',
    'where_at_most',
]


def places_of(mask: Tensor) -> Tensor:
    """Return the places (K,) at which the mask (E,) is True, int64, in ascending order.

    >>> places_of(torch.tensor([True, False, True]))
    tensor([0, 2])
    """
    if mask.device.type == 'cpu':
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero()[:, 0]


def where_at_most(one: Tensor, other: Tensor) -> Tensor:
    """Return where values (E,) are at most other ones (E,); NaN never is.

    >>> where_at_most(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.0, 2.0]))
    tensor([ True,  True, False])
    """
    if one.device.type == 'cpu':
        return torch.from_numpy(one.numpy() <= other.numpy())
    return one <= other


def where_at_least(values: Tensor, bound: float) -> Tensor:
    """Return where values (E,) are at least a number; NaN never is.

    >>> where_at_least(torch.tensor([1.0, 2.0, 3.0]), 2)
    tensor([False,  True,  True])
    """
    if values.device.type == 'cpu':
        return torch.from_numpy(values.numpy() >= bound)
    return values >= bound


def repeated(values: Tensor, counts: Tensor, size: int) -> Tensor:
    """Return each of the values (N,) as often as its count (N,) says, ``size`` values in all.

    >>> repeated(torch.tensor([5, 6, 7]), torch.tensor([2, 0, 1]), 3)
    tensor([5, 5, 7])
    """
    if values.device.type == 'cpu':
        return torch.from_numpy(np.repeat(values.numpy(), counts.numpy()))
    return values.repeat_interleave(counts, output_size=size)


def columns_of(table: Tensor) -> Tensor:
    """Return the columns of tables (..., K) after each other, contiguous: (K, ...).

    >>> columns_of(torch.tensor([[1, 2], [3, 4]]))
    tensor([[1, 3],
            [2, 4]])
    """
    if table.device.type == 'cpu':
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(table.numpy(), -1, 0)))
    return table.movedim(-1, 0).contiguous()


def counts_up_to(ordered: Tensor, values: Tensor) -> Tensor:
    """Count how many of the ordered numbers are at most each value, or a few above it, int32.

    On a CPU the count is read from a table of steps, each at most ``ordered[-1] / (4 N)`` wide:
    numbers in the same step as a value count as well. A search takes four times as long.

    Args:
        ordered: (N,) int32, ascending, at least 0.
        values: (M,) int32, at least 0.

    >>> counts_up_to(torch.tensor([1, 3, 3, 9], dtype=torch.int32), torch.tensor([3, 0]).int())
    tensor([3, 0], dtype=torch.int32)
    """
    if ordered.device.type != 'cpu' or not ordered.shape[0]:
        return torch.searchsorted(ordered, values, right=True, out_int32=True)
    steps = 8 * ordered.shape[0]  # or half as many, or more, as the last number falls
    shift = max(int(ordered[-1]).bit_length() - steps.bit_length(), 0)
    table = np.bincount(ordered.numpy() >> shift).cumsum(dtype=np.int32)
    return torch.from_numpy(table.take(values.numpy() >> shift, mode='clip'))


def sorted_whole(values: Tensor) -> tuple[Tensor, Tensor]:
    """Sort whole numbers in ascending order; of equal ones the first comes first.

    Args:
        values: (N,) int32, with N below 2**31.

    Returns:
        tuple[Tensor, Tensor]: the sorted values (N,) int32 and their places (N,) int64.

    >>> sorted_whole(torch.tensor([3, -1, 3], dtype=torch.int32))
    (tensor([-1,  3,  3], dtype=torch.int32), tensor([1, 0, 2]))
    """
    if values.device.type != 'cpu':
        return values.sort(stable=True)
    packed = values.long().bitwise_left_shift_(32)
    packed |= torch.arange(values.shape[0])
    packed.numpy().sort()
    return (packed >> 32).int(), packed & (2**32 - 1)


def descending_order(values: Tensor) -> Tensor:
    """Return the places (N,) of values from the largest to the smallest, as a stable sort has them.

    Args:
        values: (N,) float32 or float64, without NaN.

    >>> descending_order(torch.tensor([0.5, -1.0, 0.5, 2.0]))
    tensor([3, 0, 2, 1])
    """
    if values.device.type != 'cpu' or values.dtype != torch.float32:
        return values.argsort(descending=True, stable=True)
    # Bits of positive numbers are ordered as the numbers, those of negative ones the other way
    # around. Adding 0 makes 0 of -0.
    bits = (values + 0).view(torch.int32)
    bits ^= (bits >> 31) & (2**31 - 1)
    return sorted_whole(~bits)[1]
