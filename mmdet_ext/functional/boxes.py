"""Boxes as corners (x1, y1, x2, y2) in pixels, and the overlaps between them."""

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


def box_centers(boxes: Tensor) -> Tensor:
    """Centres ((x1 + x2) / 2, (y1 + y2) / 2), shape (..., 2), of boxes (..., 4)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2.0


def box_iou(boxes: Tensor, others: Tensor, eps: float = 1e-6) -> Tensor:
    """Intersection over union of aligned pairs: ``|A n B| / max(|A u B|, eps)``.

    Args:
        boxes: (..., 4) corners; half precision is computed in float32.
        others: (..., 4), broadcastable with ``boxes``.
        eps: floor of the union's area, px**2.

    Returns:
        Tensor: (...), in [0, 1]; 0 where both boxes have no area.

    >>> box_iou(torch.tensor([0., 0., 2., 1.]), torch.tensor([1., 0., 3., 1.]))
    tensor(0.3333)
    """
    boxes, others = promote_half(boxes, others)
    intersection = _intersection(boxes, others)
    union = _area(boxes) + _area(others) - intersection
    return intersection / union.clamp(min=eps)


def pairwise_box_iof(boxes: Tensor, others: Tensor, eps: float = 1e-6) -> Tensor:
    """Share of each box that lies in each other box: ``|A n B| / max(|A|, eps)``.

    Args:
        boxes: (..., N, 4) corners.
        others: (..., M, 4) corners.
        eps: floor of the area, px**2.

    Returns:
        Tensor: (..., N, M), in [0, 1].

    >>> pairwise_box_iof(torch.tensor([[0., 0., 2., 1.]]), torch.tensor([[1., 0., 9., 9.]]))
    tensor([[0.5000]])
    """
    boxes, others = promote_half(boxes, others)
    boxes, others = boxes[..., :, None, :], others[..., None, :, :]
    return _intersection(boxes, others) / _area(boxes).clamp(min=eps)


def _area(boxes: Tensor) -> Tensor:
    """Areas, px**2; 0 for an inverted box."""
    side = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return side[..., 0] * side[..., 1]


def _intersection(boxes: Tensor, others: Tensor) -> Tensor:
    """Areas of the intersections of boxes that broadcast against each other, px**2."""
    low = torch.maximum(boxes[..., :2], others[..., :2])
    high = torch.minimum(boxes[..., 2:], others[..., 2:])
    inner = (high - low).clamp(min=0)
    return inner[..., 0] * inner[..., 1]
