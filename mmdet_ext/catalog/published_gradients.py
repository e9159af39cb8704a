"""The gradients that the simulation of the DIoU paper went by.

The paper's program (github.com/Zzh-tju/DIoU, 2020) has them written out. They give its published
curves, and they are not the derivatives of the losses:

- The overlap terms' step of w and h is twice as long.
- GIoU of boxes apart takes the product of the inner sides, one or both below 0, for an
  intersection. Where they are apart along one axis only, this weakens the pull along it: hence the
  large published errors of GIoU in horizontal and vertical cases.
- DIoU's distance term adds to the centre's pull what the derivative subtracts, the growth of the
  outer box; it takes both sides of that box where one counts, and shrinks a side that reaches over
  the target at both ends. Boxes apart are pulled several times as hard as by the derivative.
- CIoU's aspect term lacks the factor 1 / (w^2 + h^2), as the paper says (equation 12), and has no
  threshold on the IoU.

Everything here has boxes as rows, coordinates first: (4, N).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

#: Boxes and targets as rows x, y, w, h, (4, N) -> the derivative of a loss, (4, N).
Gradient = Callable[[Tensor, Tensor], Tensor]

PUBLISHED = ('IoU', 'GIoU', 'DIoU', 'CIoU')


def published_gradient(name: str) -> Gradient:
    """The gradient of IoU, GIoU, DIoU or CIoU as the authors' program has it.

    Args:
        name: one of PUBLISHED.

    Raises:
        ValueError: for another name.
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
    """Rows x, y, w, h to rows x1, y1, x2, y2."""
    half = boxes[2:] / 2
    return torch.cat([boxes[:2] - half, boxes[:2] + half])


def overlap(boxes: Tensor, targets: Tensor) -> Tensor:
    """IoU of boxes with sides above 0, rows x, y, w, h, shape (N,)."""
    reach = (boxes[2:] + targets[2:]) / 2 - (boxes[:2] - targets[:2]).abs_()
    # Where one box lies within the other's span, they share the shorter side, not the reach.
    inner = torch.minimum(reach, torch.minimum(boxes[2:], targets[2:])).clamp_(min=0)
    intersection = inner[0] * inner[1]
    areas = boxes[2] * boxes[3] + targets[2] * targets[3]
    return intersection / (areas - intersection)


def _overlap(boxes: Tensor, targets: Tensor, outer_term: bool) -> Tensor:
    (low, high), (target_low, target_high) = (corners(b).split(2) for b in (boxes, targets))
    inner = torch.minimum(high, target_high) - torch.maximum(low, target_low)
    intersection = inner[0] * inner[1]
    union = boxes[2] * boxes[3] + targets[2] * targets[3] - intersection
    # A corner's derivative of an area is the other side's length: flip(0) swaps w and h.
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
    gap = torch.atan(targets[2] / targets[3]) - torch.atan(boxes[2] / boxes[3])
    v = 4 / math.pi**2 * gap.square()
    alpha = v / (1 - overlap(boxes, targets) + v + 1e-7)
    pull = 8 / math.pi**2 * alpha * gap
    return torch.stack([pull * boxes[3], -pull * boxes[2]])
