"""Overlap losses of aligned boxes, one value per pair: IoU, GIoU, DIoU and CIoU.

The losses that compare sides are in `shape_losses`, those that compare corners in `corner_losses`.
The module `pair` describes the options ``power`` and ``inner_ratio``, which all of them take.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from mmdet_ext.functional.boxes._coordinates import area, larger, seen_at_least
from mmdet_ext.functional.boxes._powers import bounded_power
from mmdet_ext.functional.boxes.pair import BoxPair, over_pairs
from mmdet_ext.functional.numerics.bounds import at_least
from mmdet_ext.functional.numerics.checks import check_number, check_one_of
from mmdet_ext.functional.numerics.derivative import with_derivative

__all__ = [
    'IoUMode',
    'ciou_loss',
    'diou_loss',
    'giou_loss',
    'iou_loss',
]

IoUMode = Literal['linear', 'square', 'log']


def iou_loss(
    pred: Tensor,
    target: Tensor,
    mode: IoUMode = 'log',
    eps: float = 1e-6,
    power: float = 1.0,
    inner_ratio: float = 1.0,
) -> Tensor:
    r"""Compute the IoU loss of aligned box pairs.

    .. math::
        L_{linear} = 1 - IoU, \quad L_{square} = 1 - IoU^2, \quad L_{log} = -\log IoU

    with :math:`IoU` the intersection of ``pred`` and ``target`` over their union.

    Args:
        pred: (..., 4) corners x1, y1, x2, y2 in pixels; half precision is computed in float32.
        target: (..., 4), the same shape.
        mode: 'linear', 'square' or 'log'.
        eps: smallest area to divide by, px**2, and smallest IoU in 'log'.
        power: exponent of the IoU, above 0; in 'log' it multiplies the loss.
        inner_ratio: factor on both boxes' sides, above 0.

    Returns:
        Tensor: (...), float32 or float64; in [0, 1], for 'log' in [0, -log(eps)] times ``power``.
        Exactly 0 for equal boxes of any size. Boxes that are apart have the largest loss and no
        gradient; boxes that share a part of an edge have the one that makes them overlap. The
        slope of -log IoU grows without bound near 0. An intersection narrower than sqrt(eps)
        pixels therefore gets the gradient of one of that width, and an IoU below eps keeps its
        gradient.

    Raises:
        ValueError: for another ``mode``, for ``eps``, ``power`` or ``inner_ratio`` not above 0,
            or if the shapes differ or do not end in 4.

    >>> iou_loss(torch.tensor([0., 0., 2., 2.]), torch.tensor([1., 0., 3., 2.]))
    tensor(1.0986)

    The IoU is 2 / 6.

    References:
        Yu et al., UnitBox: An Advanced Object Detection Network, 2016, algorithm 1.
    """
    check_one_of('mode', mode, IoUMode)
    if mode == 'log':
        return over_pairs(_log_iou, pred, target, eps, power, inner_ratio)
    if mode == 'square':
        power = 2 * power
    return over_pairs(BoxPair.overlap_term, pred, target, eps, power, inner_ratio)


def _log_iou(pair: BoxPair, power: float, inner_ratio: float) -> Tensor:
    """Compute -log IoU**power, with the IoU not below eps and a bounded slope.

    The slope is 1 over a side of the intersection, px, and does not grow below sqrt(eps) px.
    """
    eps = pair.eps
    if inner_ratio != 1:
        pair = pair.scaled(inner_ratio)
    sides = pair.shared_sides()
    intersection = area(sides)
    union = pair.union(intersection)
    overlap, exact, divisor = _floored_overlap(pair, intersection, union)
    with torch.no_grad():
        value = exact.clamp(eps, 1).log_().neg_()
        slope = overlap.maximum(pair.area_floor(sides) / divisor).reciprocal_().neg_()
    loss = with_derivative(overlap, value, slope)
    return loss if power == 1 else power * loss


def _floored_overlap(
    pair: BoxPair, intersection: Tensor, union: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the IoU with a bounded gradient, its exact value, and the divisor used."""
    floor = pair.union_floor()
    if seen_at_least(union, floor):
        overlap = intersection / union
        return overlap, overlap.detach(), union.detach()
    divisor = larger(union, floor)
    # 1 minus the distance would have no digits left for a small IoU. Boxes nearly without area are
    # the exception: only the parts outside of the intersection give them a direction.
    shared = torch.where(union < floor, divisor - (union - intersection), intersection)
    with torch.no_grad():
        same = (~pair.differ()).to(union.dtype)
        exact = torch.where(union > 0, intersection / union, same)
    return shared / divisor, exact, divisor.detach()


def giou_loss(
    pred: Tensor, target: Tensor, eps: float = 1e-6, power: float = 1.0, inner_ratio: float = 1.0
) -> Tensor:
    r"""Compute the Generalised-IoU loss of aligned box pairs.

    .. math::
        L = 1 - IoU + \frac{C - U}{C}

    with :math:`U` the area of the union of ``pred`` and ``target``, and :math:`C` that of the
    smallest box around both.

    Args:
        pred: (..., 4) corners x1, y1, x2, y2 in pixels; half precision is computed in float32.
        target: (..., 4), the same shape.
        eps: smallest squared length to divide by, px**2; its square root is the smallest side.
        power: exponent of the IoU and of each penalty, above 0.
        inner_ratio: factor on both boxes' sides for the overlap term, above 0.

    Returns:
        Tensor: (...), in [0, 2), float32 or float64. Exactly 0 for equal boxes of any size.
        The gradient is finite, in float16 too.

    Raises:
        ValueError: for ``eps``, ``power`` or ``inner_ratio`` not above 0, or if the shapes differ
            or do not end in 4.

    >>> giou_loss(torch.tensor([0., 0., 2., 2.]), torch.tensor([1., 1., 3., 3.]))
    tensor(1.0794)

    The result is 1 - 1/7 + 2/9.

    References:
        Rezatofighi et al., Generalized Intersection over Union: A Metric and A Loss for Bounding
        Box Regression, 2019, algorithm 2.
    """
    return over_pairs(_giou, pred, target, eps, power, inner_ratio)


def _giou(pair: BoxPair, power: float, inner_ratio: float) -> Tensor:
    """Compute the GIoU loss of measured pairs."""
    intersection, union = pair.areas()
    distance = pair.iou_distance((intersection, union)) if inner_ratio == 1 else None
    outer = pair.outer_sides()
    around = area(outer)
    empty = around - union
    # Rounding may give a value below 0. Only the value is raised to 0: the parts of the gradient
    # cancel there.
    empty = empty - empty.detach().clamp(max=0)
    empty = empty / larger(around, pair.area_floor(outer))
    return pair.overlap_term(power, inner_ratio, distance) + bounded_power(empty, power)


def diou_loss(
    pred: Tensor, target: Tensor, eps: float = 1e-6, power: float = 1.0, inner_ratio: float = 1.0
) -> Tensor:
    r"""Compute the Distance-IoU loss of aligned box pairs.

    .. math::
        L = 1 - IoU + \frac{\rho^2}{c^2}

    with :math:`\rho` the distance between the centres of ``pred`` and ``target``, and :math:`c`
    the diagonal of the smallest box around both.

    Args:
        pred: (..., 4) corners x1, y1, x2, y2 in pixels; half precision is computed in float32.
        target: (..., 4), the same shape.
        eps: smallest squared length to divide by, px**2; its square root is the smallest side.
        power: exponent of the IoU and of each penalty, above 0.
        inner_ratio: factor on both boxes' sides for the overlap term, above 0.

    Returns:
        Tensor: (...), in [0, 2], float32 or float64. Exactly 0 for equal boxes of any size.
        The gradient is finite, in float16 too. For an inverted box only the centre has a gradient.

    Raises:
        ValueError: for ``eps``, ``power`` or ``inner_ratio`` not above 0, or if the shapes differ
            or do not end in 4.

    >>> diou_loss(torch.tensor([0., 0., 2., 2.]), torch.tensor([1., 0., 3., 2.]))
    tensor(0.7436)

    The result is 1 - 1/3 + 1/13.

    References:
        Zheng et al., Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression,
        2020, equation 7.
    """
    return over_pairs(_diou, pred, target, eps, power, inner_ratio)


def _diou(pair: BoxPair, power: float, inner_ratio: float) -> Tensor:
    """Compute the DIoU loss of measured pairs."""
    ratio = pair.center_ratio(pair.outer_sides(), pair.center_gap())
    return pair.overlap_term(power, inner_ratio) + bounded_power(ratio, power, order=2)


def ciou_loss(
    pred: Tensor,
    target: Tensor,
    eps: float = 1e-6,
    power: float = 1.0,
    inner_ratio: float = 1.0,
    aspect_thr: float | None = 0.5,
) -> Tensor:
    r"""Compute the Complete-IoU loss of aligned box pairs.

    .. math::
        L = 1 - IoU + \frac{\rho^2}{c^2} + \alpha v, \quad
        v = \frac{4}{\pi^2} \left(\arctan\frac{w^t}{h^t} - \arctan\frac{w}{h}\right)^2, \quad
        \alpha = [IoU > t] \frac{v}{1 - IoU + v}

    with :math:`t` the ``aspect_thr``, :math:`\rho` the distance between the centres of ``pred`` and
    ``target``, :math:`c` the diagonal of the smallest box around both, :math:`w, h` the sides of
    ``pred``, and :math:`w^t, h^t` those of ``target``. No gradient flows through :math:`\alpha`,
    which uses the IoU without ``power`` and ``inner_ratio``.

    Args:
        pred: (..., 4) corners x1, y1, x2, y2 in pixels; half precision is computed in float32.
        target: (..., 4), the same shape.
        eps: smallest squared length to divide by, px**2; its square root is the smallest side.
        power: exponent of the IoU and of each penalty, above 0.
        inner_ratio: factor on both boxes' sides for the overlap term, above 0.
        aspect_thr: IoU above which the aspect ratio counts, in [0, 1], as in the paper; None
            where it counts always, as in the authors' first version and in YOLOv5.

    Returns:
        Tensor: (...), in [0, 3), float32 or float64. Exactly 0 for equal boxes of any size.
        The gradient is finite, in float16 too. An inverted box has no area, and only its centre
        has a gradient.

    Raises:
        ValueError: for ``eps``, ``power`` or ``inner_ratio`` not above 0, ``aspect_thr`` outside
            of [0, 1], or if the shapes differ or do not end in 4.

    >>> ciou_loss(torch.tensor([[0., 0., 2., 2.]]), torch.tensor([[1., 0., 3., 2.]]))
    tensor([0.7436])

    The result is 1 - 1/3 + 1/13. The aspect term is 0, because both boxes are squares.

    References:
        Zheng et al., Enhancing Geometric Factors in Model Learning and Inference for Object
        Detection and Instance Segmentation, 2020, equations 8 to 11.
    """
    if aspect_thr is not None:
        check_number('aspect_thr', aspect_thr, least=0, most=1)
    return over_pairs(_ciou, pred, target, eps, power, inner_ratio, aspect_thr)


def _ciou(pair: BoxPair, power: float, inner_ratio: float, aspect_thr: float | None) -> Tensor:
    """Compute the CIoU loss of measured pairs."""
    distance = pair.iou_distance()
    ratio = pair.center_ratio(pair.outer_sides(), pair.center_gap())
    v = (4 / math.pi**2) * _aspect_gap(pair).square()
    with torch.no_grad():
        tiny = torch.finfo(v.dtype).tiny
        alpha = v / (distance + v).clamp(min=tiny)
        if aspect_thr is not None:
            alpha = alpha * (distance < 1 - aspect_thr)
    return (
        pair.overlap_term(power, inner_ratio, distance)
        + bounded_power(ratio, power, order=2)
        + bounded_power(alpha * v, power, order=2)
    )


def _aspect_gap(pair: BoxPair) -> Tensor:
    """Compute arctan(w^t / h^t) - arctan(w / h), with a finite gradient for sides down to 0."""
    width, height = at_least(pair.sides, pair.shortest).unbind(0)
    target_width, target_height = at_least(pair.target_sides, pair.shortest).unbind(0)
    # The difference of the two angles is the angle between the diagonals.
    sine = target_width * height - target_height * width
    return torch.atan2(sine, target_width * width + target_height * height)
