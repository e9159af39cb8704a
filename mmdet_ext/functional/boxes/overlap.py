"""Overlaps and distances of boxes, given as corners (x1, y1, x2, y2) in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.bounds import at_least, not_negative
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = [
    'box_centers',
    'box_iou',
    'box_nwd',
    'box_wasserstein',
    'concentric_iou',
    'iou_of_planes',
    'pairwise_box_iof',
]


def box_centers(boxes: Tensor) -> Tensor:
    """Compute the centres (x, y), shape (..., 2), of boxes (..., 4)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2.0


def box_iou(boxes: Tensor, others: Tensor, eps: float = 1e-6) -> Tensor:
    """Compute the intersection over union of aligned boxes: ``|A n B| / max(|A u B|, eps)``.

    Args:
        boxes: (..., 4) corners; half precision is computed in float32.
        others: (..., 4), broadcastable with ``boxes``.
        eps: smallest area of the union to divide by, px**2.

    Returns:
        Tensor: (...), in [0, 1]; 0 for pairs in which both boxes have no area. Boxes that touch
        have the gradient of boxes that overlap.

    >>> box_iou(torch.tensor([0., 0., 2., 1.]), torch.tensor([1., 0., 3., 1.]))
    tensor(0.3333)
    """
    boxes, others = promote_half(boxes, others)
    intersection = _intersection(boxes, others)
    union = _area(boxes) + _area(others) - intersection
    return intersection / at_least(union, eps)


def iou_of_planes(
    planes: Sequence[Tensor],
    sides: Sequence[Tensor],
    eps: float = 1e-6,
    work: Sequence[Tensor] | None = None,
) -> Tensor:
    """Compute the IoU of boxes given by coordinates, which broadcast against each other.

    The result is that of `box_iou`. Only three tables are allocated, so that large tables of
    boxes x priors take less memory.

    Args:
        planes: x1, y1, x2, y2 (px) and area (px**2) of the first boxes, of at least float32.
        sides: x1, y1, x2, y2 of the second boxes, px, of at least float32.
        eps: smallest area of the union to divide by, px**2.
        work: three tensors of the broadcast shape, which are overwritten. On a CPU, allocating
            new ones takes longer than the computation.

    Returns:
        Tensor: the broadcast shape, in [0, 1]; the first tensor of ``work`` where that is given.

    >>> a, b = torch.tensor([0., 0., 2., 1., 2.]), torch.tensor([1., 0., 3., 1.])
    >>> iou_of_planes(a, b)
    tensor(0.3333)
    """
    x1, y1, x2, y2, own = planes
    left, top, right, bottom = sides
    shared, low, high = (None, None, None) if work is None else work
    shared, low = torch.minimum(x2, right, out=shared), torch.maximum(x1, left, out=low)
    shared.sub_(low).clamp_(min=0)
    high = torch.minimum(y2, bottom, out=high)
    torch.maximum(y1, top, out=low)
    shared.mul_(high.sub_(low).clamp_(min=0))
    area = ((right - left) * (bottom - top)).clamp(min=0)
    union = torch.add(own, area, out=high).sub_(shared).clamp_(min=eps)
    return shared.div_(union)


def concentric_iou(sides: Tensor, others: Tensor, eps: float = 1e-6) -> Tensor:
    """Compute the IoU of boxes laid on one centre: ``m / max(w h + w' h' - m, eps)``.

    w, h are ``sides``, w', h' ``others``, and m the smaller width times the smaller height.

    Args:
        sides: (..., 2) width and height, px; below 0 counts as 0.
        others: (..., 2), broadcastable with ``sides``.
        eps: floor of the union's area, px**2.

    Returns:
        Tensor: (...), in [0, 1].

    >>> concentric_iou(torch.tensor([4., 2.]), torch.tensor([2., 4.]))
    tensor(0.3333)
    """
    sides, others = sides.clamp(min=0), others.clamp(min=0)
    shared = torch.minimum(sides, others).prod(-1)
    return shared / (sides.prod(-1) + others.prod(-1) - shared).clamp(min=eps)


def box_nwd(boxes: Tensor, others: Tensor, constant: float = 12.8) -> Tensor:
    r"""Compute the normalised Gaussian Wasserstein distance, a similarity without need of overlap.

    .. math::
        NWD = e^{-W / C}

    with :math:`W` the `box_wasserstein` of ``boxes`` and ``others`` and :math:`C` the
    ``constant``.

    Args:
        boxes: (..., 4) corners, px; half precision is computed in float32.
        others: (..., 4), broadcastable with ``boxes``.
        constant: px, above 0; about the size of the objects. The paper's authors use 12.8 for
            AI-TOD.

    Returns:
        Tensor: (...), in [0, 1]; exactly 1 for equal boxes.

    >>> box_nwd(torch.tensor([0., 0., 2., 2.]), torch.tensor([3., 4., 5., 6.]), constant=5)
    tensor(0.3679)

    The centres are 5 px apart, which gives exp(-1).

    References:
        Wang et al., A Normalized Gaussian Wasserstein Distance for Tiny Object Detection, 2021,
        equation 8.
    """
    return (box_wasserstein(boxes, others) / -constant).exp()


def box_wasserstein(boxes: Tensor, others: Tensor) -> Tensor:
    r"""Compute the Wasserstein distance of boxes regarded as Gaussians, px.

    .. math::
        W^2 = (x - x')^2 + (y - y')^2 + \frac{(w - w')^2 + (h - h')^2}{4}

    with :math:`x, y` the centre and :math:`w, h` the sides of ``boxes``, :math:`x', y', w', h'`
    those of ``others``. This is half the sum of the squared differences of all corner coordinates.

    Args:
        boxes: (..., 4) corners, px; half precision is computed in float32.
        others: (..., 4), broadcastable with ``boxes``.

    Returns:
        Tensor: (...), at least 0; exactly 0 for equal boxes, where the gradient is 0.

    >>> box_wasserstein(torch.tensor([0., 0., 2., 2.]), torch.tensor([3., 4., 5., 6.]))
    tensor(5.)

    References:
        Wang et al., A Normalized Gaussian Wasserstein Distance for Tiny Object Detection, 2021,
        equation 7.
    """
    boxes, others = promote_half(boxes, others)
    distance: Tensor = torch.linalg.vector_norm(boxes - others, dim=-1)
    return distance / math.sqrt(2)


def pairwise_box_iof(boxes: Tensor, others: Tensor, eps: float = 1e-6) -> Tensor:
    """Compute the part of each box that lies in each other box: ``|A n B| / max(|A|, eps)``.

    Args:
        boxes: (..., N, 4) corners.
        others: (..., M, 4) corners.
        eps: smallest area of a box to divide by, px**2.

    Returns:
        Tensor: (..., N, M), in [0, 1].

    >>> pairwise_box_iof(torch.tensor([[0., 0., 2., 1.]]), torch.tensor([[1., 0., 9., 9.]]))
    tensor([[0.5000]])
    """
    boxes, others = promote_half(boxes, others)
    boxes, others = boxes[..., :, None, :], others[..., None, :, :]
    return _intersection(boxes, others) / at_least(_area(boxes), eps)


def _area(boxes: Tensor) -> Tensor:
    """Compute the areas of boxes, px**2; 0 for an inverted box."""
    side = not_negative(boxes[..., 2:] - boxes[..., :2])
    return side[..., 0] * side[..., 1]


def _intersection(boxes: Tensor, others: Tensor) -> Tensor:
    """Compute the intersections of boxes that broadcast against each other, px**2."""
    low = torch.maximum(boxes[..., :2], others[..., :2])
    high = torch.minimum(boxes[..., 2:], others[..., 2:])
    inner = not_negative(high - low)
    return inner[..., 0] * inner[..., 1]
