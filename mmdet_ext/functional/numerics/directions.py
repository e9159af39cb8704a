"""Directions and lengths of vectors of any length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ['shortest_length', 'unit_vectors']

#: A shorter vector gets the gradient of a vector of this length.
SHORTEST = 1e-4


def unit_vectors(
    x: Tensor, *, shortest: float = SHORTEST, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Compute directions u = x / |x| and lengths |x| of vectors.

    Args:
        x: vectors, (N, D), of any floating-point type and of any length that the type holds.
        shortest: length from which on the gradient is exact. `shortest_length` computes the value
            that float16 needs.
        dtype: precision of the results, float32 or float64.

    Returns:
        tuple[Tensor, Tensor]: u (N, D) and |x| (N,). A zero vector has the direction 0 and the
        length 0. Vectors shorter than ``shortest`` get the gradient of a vector of that length:
        large, but finite.

    >>> unit_vectors(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    (tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]]), tensor([5., 0.]))
    """
    wide = x if x.dtype == torch.float64 else x.float()
    unit, norm = _Unit.apply(wide, shortest, dtype)  # type: ignore[no-untyped-call]
    return unit, norm


def shortest_length(dtype: torch.dtype, slope: float, largest: float) -> float:
    """Compute the shortest length whose exact gradient fits the precision it is cast to.

    A loss with the slope s with respect to the direction u = x / |x| has a gradient of the size
    s / |x| with respect to x. The result bounds the gradient before any loss scaler multiplies it,
    so that the scaler still sees an overflow that it causes.

    Args:
        dtype: precision that the gradient is cast to.
        slope: s of the loss, such as the scale of a loss on s cos t.
        largest: largest s / |x| allowed in float16, well below its limit of 65,504.

    Returns:
        float: slope / largest for float16, but at least `SHORTEST`; `SHORTEST` for other types.

    >>> shortest_length(torch.float16, 64.0, 1024.0), shortest_length(torch.float32, 64.0, 1024.0)
    (0.0625, 0.0001)
    """
    return max(SHORTEST, slope / largest) if dtype == torch.float16 else SHORTEST


class _Unit(torch.autograd.Function):
    """Autograd node of `unit_vectors`: x / |x| and |x| along the last dimension."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shortest: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        # Divided by the largest component first: the squares of 1e-30 and 1e30 leave float32.
        peak = x.abs().amax(1, keepdim=True) if x.shape[1] else x.new_ones(len(x), 1)
        peak = torch.where(peak > 0, peak, 1)
        scaled = (x / peak).to(dtype)
        length = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
        unit = torch.where(length > 0, scaled / length, 0)
        norm = (length * peak).squeeze(1).to(dtype)
        ctx.save_for_backward(unit, norm)
        ctx.shortest = shortest
        return unit, norm

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_unit: Tensor, grad_norm: Tensor) -> tuple[Tensor, None, None]:
        unit, norm = ctx.saved_tensors
        across = grad_unit - (grad_unit * unit).sum(1, keepdim=True) * unit
        result = across / norm[:, None].clamp(min=ctx.shortest) + grad_norm[:, None] * unit
        return result, None, None
