"""Boxes as corners (x1, y1, x2, y2) in pixels, and the overlaps between them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.precision import promote_half


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


def iou_of_planes(
    planes: Sequence[Tensor],
    sides: Sequence[Tensor],
    eps: float = 1e-6,
    work: Sequence[Tensor] | None = None,
) -> Tensor:
    """IoU of boxes given coordinate by coordinate, that broadcast against each other.

    The same as `box_iou`, with three tables in all, which is what large tables are about.

    Args:
        planes: x1, y1, x2, y2 and area of the ones, px.
        sides: x1, y1, x2, y2 of the others, px; of at least float32, as the planes.
        eps: floor of the union's area, px**2.
        work: three tensors to overwrite, of the shape that both broadcast to: new ones cost a
            processor more time than what is computed in them.

    Returns:
        Tensor: of the shape that both broadcast to, in [0, 1]; the first of ``work``.

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


def box_nwd(boxes: Tensor, others: Tensor, constant: float = 12.8) -> Tensor:
    r"""Normalised Gaussian Wasserstein distance, a similarity that needs no overlap.

    .. math::
        NWD = e^{-W / C}

    with :math:`W` the `box_wasserstein` of ``boxes`` and ``others`` and :math:`C` the
    ``constant``.

    Args:
        boxes: (..., 4) corners, px; half precision is computed in float32.
        others: (..., 4), broadcastable with ``boxes``.
        constant: px, above 0; of the order of the objects' size. 12.8 is what the paper's authors
            take for AI-TOD.

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
    r"""Wasserstein distance of boxes taken as Gaussians, px.

    .. math::
        W^2 = (x - x')^2 + (y - y')^2 + \frac{(w - w')^2 + (h - h')^2}{4}

    with :math:`x, y` the centre and :math:`w, h` the sides of ``boxes``, :math:`x', y', w', h'`
    those of ``others``: half the sum of the squared differences of their corners' coordinates.

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
