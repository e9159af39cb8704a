"""Overlap losses of aligned boxes, one value a pair: IoU, GIoU, DIoU, CIoU, Wise-IoU.

Those that compare sides are in `shape_losses`, those that compare corners in `corner_losses`. What
``power`` and ``inner_ratio`` do to all of them is told in `box_pair`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from mmdet_ext.functional.boxes.pair import (
    BoxPair,
    area,
    at_least,
    bounded_power,
    larger,
    over_pairs,
    seen_at_least,
    squared_norm,
)
from mmdet_ext.functional.numerics.checks import check_above, check_one_of
from mmdet_ext.functional.numerics.derivative import with_derivative

IoUMode = Literal['linear', 'square', 'log']
WiseVersion = Literal['v1', 'v2', 'v3']

#: What `wise_iou_loss` takes a mean loss for at least.
MEAN_FLOOR = 1e-2

#: What delta log(alpha) of `wise_iou_loss` may be at most; v3's factor then stays below 1000.
MOST_FOCUS = 10.0


def iou_loss(
    pred: Tensor,
    target: Tensor,
    mode: IoUMode = 'log',
    eps: float = 1e-6,
    power: float = 1.0,
    inner_ratio: float = 1.0,
) -> Tensor:
    r"""IoU loss of aligned box pairs.

    .. math::
        L_{linear} = 1 - IoU, \quad L_{square} = 1 - IoU^2, \quad L_{log} = -\log IoU

    with :math:`IoU` the intersection of ``pred`` and ``target`` over their union.

    Args:
        pred: (..., 4) corners x1, y1, x2, y2 in pixels; half precision is computed in float32.
        target: (..., 4), the same shape.
        mode: 'linear', 'square' or 'log'.
        eps: floor of the areas divided by, px**2, and of the IoU in 'log'.
        power: exponent of the IoU, above 0: ``power`` times the loss in 'log'.
        inner_ratio: factor on both boxes' sides, above 0.

    Returns:
        Tensor: (...), in [0, 1], in 'log' in [0, -log(eps)] times ``power``; float32 or float64.
        Exactly 0 for equal boxes, whatever their size. Boxes apart cost the most, and have no
        gradient. The slope of -log IoU has no bound near 0: where what boxes share is less than
        sqrt(eps) pixels wide or high, the gradient stays what it is there, and below eps too.

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
    """-log IoU**power, the IoU counting as at least eps, with a slope that has a bound.

    The slope is 1 over a side of the intersection, px: below sqrt(eps) px it stays what it is
    there.
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
    """The IoU with a bounded gradient, its exact value, and what it was divided by."""
    floor = pair.union_floor()
    if seen_at_least(union, floor):
        overlap = intersection / union
        return overlap, overlap.detach(), union.detach()
    divisor = larger(union, floor)
    # Not 1 less the distance, which has no digits left for a small IoU; but for boxes nearly
    # without area, of which only the parts outside tell the way.
    shared = torch.where(union < floor, divisor - (union - intersection), intersection)
    with torch.no_grad():
        same = (~pair.differ()).to(union.dtype)
        exact = torch.where(union > 0, intersection / union, same)
    return shared / divisor, exact, divisor.detach()


def giou_loss(
    pred: Tensor, target: Tensor, eps: float = 1e-6, power: float = 1.0, inner_ratio: float = 1.0
) -> Tensor:
    r"""Generalised-IoU loss of aligned box pairs.

    .. math::
        L = 1 - IoU + \frac{C - U}{C}

    with :math:`U` the area of the union of ``pred`` and ``target``, and :math:`C` that of the
    smallest box around both.

    Args:
        pred: (..., 4) corners x1, y1, x2, y2 in pixels; half precision is computed in float32.
        target: (..., 4), the same shape.
        eps: floor of squared lengths divided by, px**2; sides count as at least its square root.
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

    That is 1 - 1/7 + 2/9.

    References:
        Rezatofighi et al., Generalized Intersection over Union: A Metric and A Loss for Bounding
        Box Regression, 2019, algorithm 2.
    """
    return over_pairs(_giou, pred, target, eps, power, inner_ratio)


def _giou(pair: BoxPair, power: float, inner_ratio: float) -> Tensor:
    intersection, union = pair.areas()
    distance = pair.iou_distance((intersection, union)) if inner_ratio == 1 else None
    outer = pair.outer_sides()
    around = area(outer)
    empty = around - union
    # By rounding it may fall below 0. The gradient flows nevertheless: its parts cancel there.
    empty = empty - empty.detach().clamp(max=0)
    empty = empty / larger(around, pair.area_floor(outer))
    return pair.overlap_term(power, inner_ratio, distance) + bounded_power(empty, power)


def diou_loss(
    pred: Tensor, target: Tensor, eps: float = 1e-6, power: float = 1.0, inner_ratio: float = 1.0
) -> Tensor:
    r"""Distance-IoU loss of aligned box pairs.

    .. math::
        L = 1 - IoU + \frac{\rho^2}{c^2}

    with :math:`\rho` the distance between the centres of ``pred`` and ``target``, and :math:`c`
    the diagonal of the smallest box around both.

    Args:
        pred: (..., 4) corners x1, y1, x2, y2 in pixels; half precision is computed in float32.
        target: (..., 4), the same shape.
        eps: floor of squared lengths divided by, px**2; sides count as at least its square root.
        power: exponent of the IoU and of each penalty, above 0.
        inner_ratio: factor on both boxes' sides for the overlap term, above 0.

    Returns:
        Tensor: (...), in [0, 2], float32 or float64. Exactly 0 for equal boxes of any size.
        The gradient is finite, in float16 too. Of an inverted box only the centre is pulled.

    Raises:
        ValueError: for ``eps``, ``power`` or ``inner_ratio`` not above 0, or if the shapes differ
            or do not end in 4.

    >>> diou_loss(torch.tensor([0., 0., 2., 2.]), torch.tensor([1., 0., 3., 2.]))
    tensor(0.7436)

    That is 1 - 1/3 + 1/13.

    References:
        Zheng et al., Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression,
        2020, equation 7.
    """
    return over_pairs(_diou, pred, target, eps, power, inner_ratio)


def _diou(pair: BoxPair, power: float, inner_ratio: float) -> Tensor:
    ratio = pair.center_ratio(pair.outer_sides(), pair.center_gap())
    return pair.overlap_term(power, inner_ratio) + bounded_power(ratio, power, order=2)


def ciou_loss(
    pred: Tensor, target: Tensor, eps: float = 1e-6, power: float = 1.0, inner_ratio: float = 1.0
) -> Tensor:
    r"""Complete-IoU loss of aligned box pairs.

    .. math::
        L = 1 - IoU + \frac{\rho^2}{c^2} + \alpha v, \quad
        v = \frac{4}{\pi^2} \left(\arctan\frac{w^t}{h^t} - \arctan\frac{w}{h}\right)^2, \quad
        \alpha = [IoU > 0.5] \frac{v}{1 - IoU + v}

    with :math:`\rho` the distance between the centres of ``pred`` and ``target``, :math:`c` the
    diagonal of the smallest box around both, :math:`w, h` the sides of ``pred``, and
    :math:`w^t, h^t` those of ``target``. No gradient flows through :math:`\alpha`, which takes the
    IoU without ``power`` and ``inner_ratio``.

    Args:
        pred: (..., 4) corners x1, y1, x2, y2 in pixels; half precision is computed in float32.
        target: (..., 4), the same shape.
        eps: floor of squared lengths divided by, px**2; sides count as at least its square root.
        power: exponent of the IoU and of each penalty, above 0.
        inner_ratio: factor on both boxes' sides for the overlap term, above 0.

    Returns:
        Tensor: (...), in [0, 3), float32 or float64. Exactly 0 for equal boxes, whatever their
        size. The gradient is finite, in float16 too. An inverted box has no area, and only its
        centre is pulled.

    Raises:
        ValueError: for ``eps``, ``power`` or ``inner_ratio`` not above 0, or if the shapes differ
            or do not end in 4.

    >>> ciou_loss(torch.tensor([[0., 0., 2., 2.]]), torch.tensor([[1., 0., 3., 2.]]))
    tensor([0.7436])

    That is 1 - 1/3 + 1/13, and no aspect term, as both are square.

    References:
        Zheng et al., Enhancing Geometric Factors in Model Learning and Inference for Object
        Detection and Instance Segmentation, 2020, equations 8 to 11.
    """
    return over_pairs(_ciou, pred, target, eps, power, inner_ratio)


def _ciou(pair: BoxPair, power: float, inner_ratio: float) -> Tensor:
    distance = pair.iou_distance()
    ratio = pair.center_ratio(pair.outer_sides(), pair.center_gap())
    v = (4 / math.pi**2) * _aspect_gap(pair).square()
    with torch.no_grad():
        tiny = torch.finfo(v.dtype).tiny
        alpha = v / (distance + v).clamp(min=tiny) * (distance < 0.5)
    return (
        pair.overlap_term(power, inner_ratio, distance)
        + bounded_power(ratio, power, order=2)
        + bounded_power(alpha * v, power, order=2)
    )


def _aspect_gap(pair: BoxPair) -> Tensor:
    """arctan(w^t / h^t) - arctan(w / h), with a finite gradient for sides down to zero."""
    width, height = at_least(pair.sides, pair.shortest).unbind(0)
    target_width, target_height = pair.target_sides.clamp(min=pair.shortest).unbind(0)
    # The angle between the two diagonals, at once.
    sine = target_width * height - target_height * width
    return torch.atan2(sine, target_width * width + target_height * height)


def wise_iou_loss(
    pred: Tensor,
    target: Tensor,
    version: WiseVersion = 'v3',
    gamma: float = 0.5,
    alpha: float = 1.9,
    delta: float = 3.0,
    mean_iou_loss: float | Tensor | None = None,
    counted_mask: Tensor | None = None,
    eps: float = 1e-6,
    power: float = 1.0,
    inner_ratio: float = 1.0,
) -> Tensor:
    r"""Wise-IoU loss of aligned box pairs, in its three versions.

    .. math::
        L_{v1} = e^{\rho^2 / c^2} (1 - IoU), \quad
        L_{v2} = \beta^\gamma L_{v1}, \quad
        L_{v3} = \frac{\beta}{\delta \alpha^{\beta - \delta}} L_{v1}, \quad
        \beta = \frac{1 - IoU}{m}

    with :math:`\rho` the distance between the centres of ``pred`` and ``target``, :math:`c` the
    diagonal of the smallest box around both, and :math:`m` the ``mean_iou_loss``. No gradient
    flows through :math:`c` and :math:`\beta`. The outlier degree :math:`\beta` tells how far a
    pair lies from the others; v2 favours those far out, v3 those in between.

    Args:
        pred: (..., 4) corners x1, y1, x2, y2 in pixels; half precision is computed in float32.
        target: (..., 4), the same shape.
        version: 'v1', 'v2' or 'v3'.
        gamma: exponent of v2, above 0.
        alpha: base of v3, above 1.
        delta: outlier degree at which v3's factor is 1, above 0.
        mean_iou_loss: what the paper keeps as a running mean; None takes the mean of 1 - IoU
            over the pairs of this call, which keeps the loss without state. It counts as at least
            `MEAN_FLOOR`.
        counted_mask: (...) bool, the pairs that this mean is over; None is all.
        eps: floor of squared lengths divided by, px**2; sides count as at least its square root.
        power: exponent of the IoU and of the distance's share of the diagonal, above 0.
        inner_ratio: factor on both boxes' sides for 1 - IoU, above 0.

    Returns:
        Tensor: (...), at least 0, float32 or float64; v1 in [0, e]. Exactly 0 for equal boxes,
        whatever their size, if all are. The gradient is finite, in float16 too.

    Raises:
        ValueError: for an option out of its range, or if the shapes differ or do not end in 4.

    >>> wise_iou_loss(torch.tensor([0., 0., 2., 2.]), torch.tensor([1., 0., 3., 2.]), 'v1')
    tensor(0.7200)

    That is exp(1/13) 2/3.

    References:
        Tong et al., Wise-IoU: Bounding Box Regression Loss with Dynamic Focusing Mechanism, 2023,
        section III.
    """
    check_wise_options(version, gamma, alpha, delta)
    # The attention, up to e, and the focus steepen the overlap's slope: its floors are raised, so
    # that the gradient stays finite in float16.
    loss = over_pairs(_wise_iou, pred, target, 2 * eps, power, inner_ratio)
    if version == 'v1':
        return loss
    with torch.no_grad():
        overlap = iou_loss(pred, target, 'linear', eps, power, inner_ratio)
        if mean_iou_loss is None:
            mean_iou_loss = _mean(overlap, counted_mask)
        mean = torch.as_tensor(mean_iou_loss, dtype=loss.dtype, device=loss.device)
        outlying = overlap / mean.clamp(min=MEAN_FLOOR)
        if version == 'v2':
            factor = outlying.pow(gamma)
        else:
            factor = outlying / delta * (math.log(alpha) * (delta - outlying)).exp()
    return factor * loss


def check_wise_options(version: str, gamma: float, alpha: float, delta: float) -> None:
    """Raise ValueError, naming the option, unless these are ones of `wise_iou_loss`."""
    check_one_of('version', version, WiseVersion)
    check_above('gamma', gamma, 0, "it is the exponent of 'v2'")
    check_above('alpha', alpha, 1, "at 1 or below, 'v3' would favour boxes far out")
    check_above('delta', delta, 0, "it is the outlier degree at which v3's factor is 1")
    if delta * math.log(alpha) > MOST_FOCUS:
        raise ValueError(
            f'alpha**delta must be at most exp({MOST_FOCUS:g}), got alpha={alpha!r} and '
            f"delta={delta!r}: it is how much v3's factor grows; the paper has 1.9 and 3"
        )


def _mean(overlap: Tensor, counted_mask: Tensor | None) -> Tensor:
    """The mean of those counted, 0 for none."""
    if counted_mask is None:
        return overlap.sum() / max(1, overlap.numel())
    return (overlap * counted_mask).sum() / counted_mask.sum().clamp(min=1)


def _wise_iou(pair: BoxPair, power: float, inner_ratio: float) -> Tensor:
    """The first version; the diagonal is held fixed."""
    with torch.no_grad():
        diagonal = squared_norm(pair.outer_sides())
    ratio = pair.share(squared_norm(pair.center_gap()), diagonal)
    attention = bounded_power(ratio, power, order=2).exp()
    return attention * pair.overlap_term(power, inner_ratio)
