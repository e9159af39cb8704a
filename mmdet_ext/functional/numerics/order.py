"""Places and orders of values, by NumPy where a CPU has them: PyTorch takes several times as long.

What is sorted are whole numbers of 64 bits, a value above its place, so that no places need to be
sorted beside the values, and equal values keep their order.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ['descending_order', 'places_of', 'sorted_whole']


def places_of(mask: Tensor) -> Tensor:
    """Return the places (K,) at which the mask (E,) is True, int64, in ascending order.

    >>> places_of(torch.tensor([True, False, True]))
    tensor([0, 2])
    """
    if mask.device.type == 'cpu':
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero()[:, 0]


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
