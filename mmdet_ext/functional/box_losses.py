"""Regression losses between aligned boxes, one value a pair."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmdet_ext.functional.boxes import box_centers, box_overlap, promote_half


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
        eps: floor of the areas and squared lengths divided by, px**2.

    Returns:
        Tensor: (...), in [0, 3), float32 or float64. Exactly 0 for equal boxes, with a finite
        gradient, whatever their size. An inverted box has no area.

    Raises:
        ValueError: if the shapes differ or do not end in 4.

    >>> ciou_loss(torch.tensor([[0., 0., 2., 2.]]), torch.tensor([[1., 0., 3., 2.]]))
    tensor([0.7436])

    1 - 1/3 + 1/13 and no aspect term, as both are square.

    References:
        Zheng et al., Enhancing Geometric Factors in Model Learning and Inference for Object
        Detection and Instance Segmentation, 2020, equations 8 to 11.
    """
    check_aligned_boxes(pred, target)
    pred, target = promote_half(pred, target)
    intersection, union = box_overlap(pred, target)
    # 1 - IoU taken as (union - intersection) / union: exactly 0 at the optimum.
    iou_distance = (union - intersection) / union.clamp(min=eps)

    corner_low = torch.minimum(pred[..., :2], target[..., :2])
    corner_high = torch.maximum(pred[..., 2:], target[..., 2:])
    diagonal = (corner_high - corner_low).square().sum(-1)
    center_distance = (box_centers(pred) - box_centers(target)).square().sum(-1)

    # A gap of angles needs no quotient of sides, which overflows for flat boxes.
    v = (4 / math.pi**2) * (_aspect_angle(target, eps) - _aspect_angle(pred, eps)).square()
    with torch.no_grad():
        tiny = torch.finfo(v.dtype).tiny
        alpha = v / (iou_distance + v).clamp(min=tiny) * (iou_distance < 0.5)
    return iou_distance + center_distance / diagonal.clamp(min=eps) + alpha * v


def _aspect_angle(boxes: Tensor, eps: float) -> Tensor:
    """arctan(w / h), in (0, pi / 2), finite with its gradient for sides down to zero."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=eps)
    return torch.atan2(sides[..., 0], sides[..., 1])


def check_aligned_boxes(pred: Tensor, target: Tensor) -> None:
    """Raise ValueError, naming both shapes, unless these are aligned boxes (..., 4)."""
    if pred.shape != target.shape or pred.shape[-1:] != (4,):
        raise ValueError(
            'pred and target must be boxes of one shape (..., 4), got '
            f'{tuple(pred.shape)} and {tuple(target.shape)}'
        )
