"""Precision of the computation: float32 or float64, never less."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ['promote_half']


def promote_half(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Convert floating-point tensors to one precision of at least float32.

    Areas of boxes of a few hundred pixels overflow float16 and lose their detail in bfloat16, so
    every function computes in float32, or in float64 when an input has it.

    Returns:
        tuple[Tensor, ...]: the tensors in the order given, with their graphs.

    >>> [t.dtype for t in promote_half(torch.zeros(1).half(), torch.zeros(1).double())]
    [torch.float64, torch.float64]
    """
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors)
