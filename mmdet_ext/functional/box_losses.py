"""Regression losses between aligned boxes, one value a pair."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.boxes import promote_half


class BoxPair(NamedTuple):
    """What the overlap losses take from aligned pairs of boxes, computed once.

    Attributes:
        sides: width and height of the predictions, (2, ...), px; 0 where a box is inverted.
        target_sides: of the targets, likewise.
        iou_distance: (...), 1 - IoU.
        center_ratio: (...), squared distance of the centres over the squared diagonal of the
            smallest box around both, in [0, 1].
    """

    sides: Tensor
    target_sides: Tensor
    iou_distance: Tensor
    center_ratio: Tensor


def pair_geometry(pred: Tensor, target: Tensor, eps: float) -> BoxPair:
    """Measure aligned boxes (..., 4) against each other.

    1 - IoU is taken as (union - intersection) / union, which is exactly 0 for equal boxes, even
    for such without area. The union is floored at sqrt(eps) times the longest side, so that its
    gradient stays within 1 / sqrt(eps) a pixel however flat the boxes are: finite in float16.

    Args:
        pred: (..., 4) corners, px.
        target: (..., 4), the same shape.
        eps: px**2; boxes with all sides of at least sqrt(eps) are measured exactly.

    Raises:
        ValueError: if the shapes differ or do not end in 4.
    """
    check_aligned_boxes(pred, target)
    # Coordinates first: everything below runs over contiguous rows.
    rows, target_rows = (t.movedim(-1, 0).contiguous() for t in promote_half(pred, target))
    low, high, target_low, target_high = rows[:2], rows[2:], target_rows[:2], target_rows[2:]
    sides = (high - low).clamp(min=0)
    target_sides = (target_high - target_low).clamp(min=0)
    inner = (torch.minimum(high, target_high) - torch.maximum(low, target_low)).clamp(min=0)
    intersection = inner[0] * inner[1]
    union = sides[0] * sides[1] + target_sides[0] * target_sides[1] - intersection
    outer = torch.maximum(high, target_high) - torch.minimum(low, target_low)
    gap = ((low + high) - (target_low + target_high)) / 2
    diagonal, center_distance = (xy[0].square() + xy[1].square() for xy in (outer, gap))
    with torch.no_grad():
        longest = torch.maximum(sides, target_sides).amax(0)
        union_floor = (longest * math.sqrt(eps)).clamp(min=eps)
        # Only an inverted box has its centre farther off than the diagonal.
        diagonal_floor = center_distance.clamp(min=eps)
    return BoxPair(
        sides,
        target_sides,
        (union - intersection) / torch.maximum(union, union_floor),
        center_distance / torch.maximum(diagonal, diagonal_floor),
    )


def ciou_loss(pred: Tensor, target: Tensor, eps: float = 1e-6) -> Tensor:
    r"""Complete-IoU loss of aligned box pairs.

    .. math::
        L = 1 - IoU + \frac{\rho^2}{c^2} + \alpha v, \quad
        v = \frac{4}{\pi^2} \left(\arctan\frac{w^t}{h^t} - \arctan\frac{w}{h}\right)^2, \quad
        \alpha = [IoU > 0.5] \frac{v}{1 - IoU + v}

    with :math:`\rho` the distance between the centres of ``pred`` and ``target``, :math:`c` the
    diagonal of the smallest box around both, :math:`w, h` the sides of ``pred``, and
    :math:`w^t, h^t` those of ``target``. No gradient flows through :math:`\alpha`.

    Args:
        pred: (..., 4) corners x1, y1, x2, y2 in pixels; half precision is computed in float32.
        target: (..., 4), the same shape.
        eps: floor of squared lengths divided by, px**2; sides count as at least its square root.

    Returns:
        Tensor: (...), in [0, 3), float32 or float64. Exactly 0 for equal boxes, whatever their
        size. The gradient is finite, in float16 too. An inverted box has no area, and only its
        centre is pulled.

    Raises:
        ValueError: if the shapes differ or do not end in 4.

    >>> ciou_loss(torch.tensor([[0., 0., 2., 2.]]), torch.tensor([[1., 0., 3., 2.]]))
    tensor([0.7436])

    That is 1 - 1/3 + 1/13, and no aspect term, as both are square.

    References:
        Zheng et al., Enhancing Geometric Factors in Model Learning and Inference for Object
        Detection and Instance Segmentation, 2020, equations 8 to 11.
    """
    pair = pair_geometry(pred, target, eps)
    gap = _aspect_angle(pair.target_sides, eps) - _aspect_angle(pair.sides, eps)
    v = (4 / math.pi**2) * gap.square()
    with torch.no_grad():
        tiny = torch.finfo(v.dtype).tiny
        alpha = v / (pair.iou_distance + v).clamp(min=tiny) * (pair.iou_distance < 0.5)
    return pair.iou_distance + pair.center_ratio + alpha * v


def _aspect_angle(sides: Tensor, eps: float) -> Tensor:
    """arctan(w / h) in (0, pi / 2), with a finite gradient for sides down to zero."""
    width, height = sides.clamp(min=math.sqrt(eps))
    return torch.atan2(width, height)


def check_aligned_boxes(pred: Tensor, target: Tensor) -> None:
    """Raise ValueError, naming both shapes, unless these are aligned boxes (..., 4)."""
    if pred.shape != target.shape or pred.shape[-1:] != (4,):
        raise ValueError(
            'pred and target must be boxes of one shape (..., 4), got '
            f'{tuple(pred.shape)} and {tuple(target.shape)}'
        )
