"""Precision of the computation: never less than float32."""

from __future__ import annotations

import torch
from torch import Tensor


def promote_half(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Give floating tensors in one precision of at least float32.

    Areas of boxes of a few hundred pixels overflow float16 and lose all detail in bfloat16, so
    every function here computes in float32 (or float64 when any input is).

    >>> [t.dtype for t in promote_half(torch.zeros(1).half(), torch.zeros(1).double())]
    [torch.float64, torch.float64]
    """
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors)
