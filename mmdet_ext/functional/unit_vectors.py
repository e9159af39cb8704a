"""Directions and lengths of vectors, whatever their length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: A vector shorter than this has the gradient of one of this length.
SHORTEST = 1e-4


class _Unit(torch.autograd.Function):
    """x / |x| along the last dimension, and |x|; a gradient that no short vector makes large."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        # Divided by the largest component first: squares of 1e-30 and of 1e30 leave float32.
        peak = x.abs().amax(1, keepdim=True) if x.shape[1] else x.new_ones(len(x), 1)
        peak = torch.where(peak > 0, peak, 1)
        scaled = (x / peak).float()
        length = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
        unit = torch.where(length > 0, scaled / length, 0)
        norm = (length * peak).squeeze(1).float()
        ctx.save_for_backward(unit, norm)
        return unit, norm

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_unit: Tensor, grad_norm: Tensor) -> Tensor:
        unit, norm = ctx.saved_tensors
        across = grad_unit - (grad_unit * unit).sum(1, keepdim=True) * unit
        result: Tensor = across / norm[:, None].clamp(min=SHORTEST) + grad_norm[:, None] * unit
        return result


def unit_vectors(x: Tensor) -> tuple[Tensor, Tensor]:
    """Directions and lengths of vectors: u = x / |x|, and |x|.

    Args:
        x: vectors, (N, D), any float type, of any length that it holds; computed in float32.

    Returns:
        u (N, D) and |x| (N,), float32. A zero vector has the direction 0 and the length 0.
        Vectors shorter than 1e-4 get the gradient of one of that length: large, never infinite.

    >>> unit_vectors(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    (tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]]), tensor([5., 0.]))
    """
    wide = x if x.dtype == torch.float64 else x.float()
    unit, norm = _Unit.apply(wide)  # type: ignore[no-untyped-call]
    return unit, norm
