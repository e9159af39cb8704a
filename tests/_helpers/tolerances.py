"""Allowed differences between a result and its float64 reference."""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor


def assert_equal_but_rounding(found: Tensor, expected: Tensor, scale: float = 1.0) -> None:
    """Assert that two computations of one result differ by no more than their last digits.

    Processors add in different orders, and compute exp and log of a vector and of its last elements
    by different code. So results of other shapes, blocks or code paths may differ in the last
    digits; `torch.equal` is for one call made twice on the same shapes. The bounds are some 50
    units in the last place: a wrong answer on random numbers is far beyond.

    Args:
        found: any shape.
        expected: the same shape and precision.
        scale: magnitude of the numbers that the results are sums of.
    """
    rounding = 50 * torch.finfo(found.dtype).eps
    torch.testing.assert_close(found, expected, rtol=rounding, atol=rounding * scale)


class Tolerance(TypedDict):
    """Tolerance in the form of :func:`torch.testing.assert_close`."""

    rtol: float
    atol: float


#: Tolerance per precision of the inputs. Half precision is computed in float32, so that only the
#: rounding of the inputs matters; tests round the inputs of the reference too.
TOLERANCES: dict[torch.dtype, Tolerance] = {
    torch.float64: {'rtol': 1e-12, 'atol': 1e-12},
    torch.float32: {'rtol': 1e-5, 'atol': 1e-6},
    torch.float16: {'rtol': 1e-5, 'atol': 1e-6},
    torch.bfloat16: {'rtol': 1e-5, 'atol': 1e-6},
}
