"""Bounds on values, with a slope at the bound that does not depend on the release of PyTorch.

The slope of ``Tensor.clamp`` at its bound is 1 up to PyTorch 2.13 and 0 from 2.14 on; with a tensor
as the bound it is 1, then 0.5. Wherever a gradient passes, these functions are used instead:
`not_negative` and `inside` have the slope 1 at the bound, `at_least` and `at_most` the slope 0.
All of them pass NaN on.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import threshold

__all__ = ['at_least', 'at_most', 'inside', 'not_negative']


def not_negative(value: Tensor) -> Tensor:
    """Return the value where it is at least 0, else 0. At 0 itself the gradient is 1.

    >>> x = torch.tensor([-1., 0., 2.], requires_grad=True)
    >>> torch.autograd.grad(not_negative(x).sum(), x)[0]
    tensor([0., 1., 1.])
    """
    return threshold(value, -torch.finfo(torch.float32).tiny, 0.0)


def at_least(value: Tensor, floor: float) -> Tensor:
    """Return the value where it is above the floor, else the floor, without a gradient there.

    >>> x = torch.tensor([0., 1., 2.], requires_grad=True)
    >>> torch.autograd.grad(at_least(x, 1.).sum(), x)[0]
    tensor([0., 0., 1.])
    """
    return threshold(value, floor, floor)


def at_most(value: Tensor, ceiling: float) -> Tensor:
    """Return the value where it is below the ceiling, else the ceiling, without a gradient there.

    >>> x = torch.tensor([0., 1., 2.], requires_grad=True)
    >>> torch.autograd.grad(at_most(x, 1.).sum(), x)[0].tolist() == [1, 0, 0]
    True
    """
    return -threshold(-value, -ceiling, -ceiling)


def inside(value: Tensor, low: float, high: float) -> Tensor:
    """Return the value within bounds, which belong to the inside: the gradient is 1 on them.

    >>> x = torch.tensor([0., 1., 2., 3.], requires_grad=True)
    >>> torch.autograd.grad(inside(x, 1., 2.).sum(), x)[0]
    tensor([0., 1., 1., 0.])
    """
    outside = (value.detach() < low) | (value.detach() > high)
    return torch.where(outside, value.detach().clamp(low, high), value)
