"""Gradients of box losses as the program of the DIoU paper computes them.

The authors' program (github.com/Zzh-tju/DIoU, 2020) has these gradients written out. They give the
published curves, but they are not the derivatives of the losses:

- The overlap terms have twice the derivative by w and h.
- GIoU takes the product of the inner sides for the intersection of separate boxes, although one or
  both sides are below 0. For boxes that are separate along one axis only, this weakens the pull
  along that axis, which explains the large published errors of GIoU in horizontal and vertical
  cases.
- The distance term of DIoU adds the growth of the outer box to the pull of the centre, where the
  derivative subtracts it. It takes both sides of the outer box where only one counts, and shrinks a
  side that reaches beyond both ends of the target. Separate boxes are pulled several times as
  strongly as by the derivative.
- The aspect term of CIoU lacks the factor 1 / (w^2 + h^2), as the paper says (equation 12), and has
  no threshold on the IoU.

Boxes are rows here, coordinates first: shape (4, N).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

#: Boxes and targets as rows x, y, w, h, (4, N) -> the derivative of a loss by the boxes, (4, N).
Gradient = Callable[[Tensor, Tensor], Tensor]

PUBLISHED = ('IoU', 'GIoU', 'DIoU', 'CIoU')


def published_gradient(name: str) -> Gradient:
    """Return the gradient of IoU, GIoU, DIoU or CIoU as the authors' program computes it.

    Args:
        name: One of PUBLISHED.

    Raises:
        ValueError: For another name.
    """
    if name not in PUBLISHED:
        raise ValueError(f'published has {", ".join(PUBLISHED)}, got {name!r}')
    has_distance, has_aspect = name in ('DIoU', 'CIoU'), name == 'CIoU'

    def gradient(boxes: Tensor, targets: Tensor) -> Tensor:
        ascent = _overlap(boxes, targets, outer_term=name == 'GIoU')
        if has_distance:
            ascent += _distance(boxes, targets)
        if has_aspect:
            ascent[2:] += _aspect(boxes, targets)
        return -ascent

    return gradient


def corners(boxes: Tensor) -> Tensor:
    """Convert rows x, y, w, h to rows x1, y1, x2, y2, shape (4, N)."""
    half = boxes[2:] / 2
    return torch.cat([boxes[:2] - half, boxes[:2] + half])


def overlap(boxes: Tensor, targets: Tensor) -> Tensor:
    """Compute the IoU of box pairs with sides above 0.

    Args:
        boxes: Rows x, y, w, h, shape (4, N).
        targets: Rows x, y, w, h, shape (4, N).

    Returns:
        IoU per pair, shape (N,).
    """
    reach = (boxes[2:] + targets[2:]) / 2 - (boxes[:2] - targets[:2]).abs_()
    # A box within the other's span shares its whole side, not the reach.
    inner = torch.minimum(reach, torch.minimum(boxes[2:], targets[2:])).clamp_(min=0)
    intersection = inner[0] * inner[1]
    areas = boxes[2] * boxes[3] + targets[2] * targets[3]
    return intersection / (areas - intersection)


def _overlap(boxes: Tensor, targets: Tensor, outer_term: bool) -> Tensor:
    """Compute the published derivative of the IoU, with ``outer_term`` that of the GIoU."""
    (low, high), (target_low, target_high) = (corners(b).split(2) for b in (boxes, targets))
    inner = torch.minimum(high, target_high) - torch.maximum(low, target_low)
    intersection = inner[0] * inner[1]
    union = boxes[2] * boxes[3] + targets[2] * targets[3] - intersection
    # The derivative of an area by a corner is the length of the other side: flip(0) swaps w and h.
    by_low = -inner.flip(0) * (low > target_low)
    by_high = inner.flip(0) * (high < target_high)
    union_by_low, union_by_high = -boxes[2:].flip(0) - by_low, boxes[2:].flip(0) - by_high
    overlaps = (inner > 0).all(0)
    lows = overlaps * (union * by_low - intersection * union_by_low) / union**2
    highs = overlaps * (union * by_high - intersection * union_by_high) / union**2
    if outer_term:
        outer = torch.maximum(high, target_high) - torch.minimum(low, target_low)
        area = outer[0] * outer[1]
        area_by_low = -outer.flip(0) * (low < target_low)
        area_by_high = outer.flip(0) * (high > target_high)
        lows += (area * union_by_low - union * area_by_low) / area**2
        highs += (area * union_by_high - union * area_by_high) / area**2
    return torch.cat([lows + highs, highs - lows])


def _distance(boxes: Tensor, targets: Tensor) -> Tensor:
    """Compute the published derivative of the distance term, negated."""
    (low, high), (target_low, target_high) = (corners(b).split(2) for b in (boxes, targets))
    outer = torch.maximum(high, target_high) - torch.minimum(low, target_low)
    gap = targets[:2] - boxes[:2]
    diagonal, distance = (xy.square().sum(0) for xy in (outer, gap))
    below, above = (low < target_low).float(), (high > target_high).float()
    by_center = 2 * outer.sum(0) * (above - below)
    grow = (below + above) / 2
    by_side = 2 * (torch.where(grow == 1, -1, grow) * outer + grow * outer.flip(0))
    center = (2 * gap * diagonal - by_center * distance) / diagonal**2
    return torch.cat([center, by_side * distance / diagonal**2])


def _aspect(boxes: Tensor, targets: Tensor) -> Tensor:
    """Compute the published derivative of the aspect term by w and h, negated, shape (2, N)."""
    gap = torch.atan(targets[2] / targets[3]) - torch.atan(boxes[2] / boxes[3])
    v = 4 / math.pi**2 * gap.square()
    alpha = v / (1 - overlap(boxes, targets) + v + 1e-7)
    pull = 8 / math.pi**2 * alpha * gap
    return torch.stack([pull * boxes[3], -pull * boxes[2]])
