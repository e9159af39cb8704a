"""Boxes as corners (x1, y1, x2, y2) in pixels, and the overlaps between them."""

from __future__ import annotations

from typing import NamedTuple

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


class Overlap(NamedTuple):
    """Areas of aligned box pairs, each of shape (...)."""

    intersection: Tensor
    union: Tensor


def box_overlap(boxes: Tensor, others: Tensor) -> Overlap:
    """Intersection and union areas of aligned pairs.

    Sides of negative length count as zero, so that an inverted box has no area.

    Args:
        boxes: (..., 4) corners, float32 or float64.
        others: (..., 4), broadcastable with ``boxes``.

    Returns:
        Overlap: areas in px**2. For equal boxes intersection and union are equal exactly.

    >>> box_overlap(torch.tensor([0., 0., 2., 1.]), torch.tensor([1., 0., 3., 1.]))
    Overlap(intersection=tensor(1.), union=tensor(3.))
    """
    low = torch.maximum(boxes[..., :2], others[..., :2])
    high = torch.minimum(boxes[..., 2:], others[..., 2:])
    inner = (high - low).clamp(min=0)
    side = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    other_side = (others[..., 2:] - others[..., :2]).clamp(min=0)
    intersection = inner[..., 0] * inner[..., 1]
    union = side[..., 0] * side[..., 1] + other_side[..., 0] * other_side[..., 1] - intersection
    return Overlap(intersection, union)


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
    intersection, union = box_overlap(boxes, others)
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
    low = torch.maximum(boxes[..., :2], others[..., :2])
    high = torch.minimum(boxes[..., 2:], others[..., 2:])
    inner = (high - low).clamp(min=0)
    side = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return inner[..., 0] * inner[..., 1] / (side[..., 0] * side[..., 1]).clamp(min=eps)
