"""Overlap losses of aligned boxes that compare their sides: SIoU, Efficient-IoU and Shape-IoU."""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext.functional.boxes._coordinates import (
    area,
    larger,
    squared_norm,
)
from mmdet_ext.functional.boxes._powers import bounded_power
from mmdet_ext.functional.boxes.pair import BoxPair, over_pairs
from mmdet_ext.functional.numerics.bounds import at_least, not_negative
from mmdet_ext.functional.numerics.checks import check_number, check_that

__all__ = ['efficient_iou_loss', 'shape_iou_loss', 'siou_loss']


def siou_loss(
    pred: Tensor,
    target: Tensor,
    eps: float = 1e-6,
    neg_gamma: bool = False,
    power: float = 1.0,
    inner_ratio: float = 1.0,
) -> Tensor:
    r"""Compute the SCYLLA-IoU loss of aligned box pairs.

    .. math::
        L = 1 - IoU + \frac{\Delta + \Omega}{2}, \quad
        \Delta = \sum_{t \in x, y} 1 - e^{-\gamma \rho_t^2}, \quad
        \gamma = 2 - \Lambda, \quad
        \Lambda = \frac{2 |d_x d_y|}{d_x^2 + d_y^2}, \quad
        \Omega = \sum_{s \in w, h} (1 - e^{-\omega_s})^4

    with :math:`d_x, d_y` the gap of the centres of ``pred`` and ``target``, :math:`\rho_x, \rho_y`
    the ratios of the gap to the sides of the smallest box around both, and
    :math:`\omega_w, \omega_h` the absolute differences of the boxes' sides, divided by the longer
    side of the two. :math:`\Lambda` is the sine of twice the angle of the gap, which the paper
    writes with arcsin and cos. With ``neg_gamma=False``, mmdet's default, :math:`\gamma` has the
    opposite sign. Distance then lowers the loss, which is cut off at 0, and boxes far apart have no
    loss.

    Args:
        pred: (..., 4) corners x1, y1, x2, y2 in pixels; half precision is computed in float32.
        target: (..., 4), the same shape.
        eps: smallest squared length to divide by, px**2; its square root is the smallest side.
        neg_gamma: True for the formula above, which is the paper's; False for mmdet's variant.
        power: exponent of the IoU and of the penalty, above 0. With ``neg_gamma=False`` it must be
            1, because the penalty is then negative.
        inner_ratio: factor on both boxes' sides for the overlap term, above 0.

    Returns:
        Tensor: (...), in [0, 3), float32 or float64. Exactly 0 for equal boxes of any size.
        The gradient is finite, in float16 too. mmdet's loss is cut off at 2, without a gradient
        above.

    Raises:
        ValueError: for an option out of its range, or if the shapes differ or do not end in 4.

    >>> pair = torch.tensor([0., 0., 2., 2.]), torch.tensor([1., 0., 3., 2.])
    >>> siou_loss(*pair, neg_gamma=True)
    tensor(0.7663)

    The result is 2/3 + (1 - exp(-2/9)) / 2.

    References:
        Gevorgyan, SIoU Loss: More Powerful Learning for Bounding Box Regression, 2022, the sections
        on the angle, distance, shape and IoU cost.
    """
    variant = "the penalty of that variant falls below 0. Set neg_gamma=True, the paper's formula"
    wanted = '1 with neg_gamma=False'
    check_that(power == 1 or neg_gamma, 'power', power, wanted, variant)
    return over_pairs(_siou, pred, target, eps, power, inner_ratio, neg_gamma)


def _siou(pair: BoxPair, power: float, inner_ratio: float, neg_gamma: bool) -> Tensor:
    gap, outer = pair.center_gap(), pair.outer_sides()
    squares = gap.square()
    floor = max(pair.eps**2, torch.finfo(gap.dtype).tiny)
    angle = 2 * area(gap).abs() / at_least(squares.sum(0), floor)
    ratio = pair.share(squares, outer.square())
    gamma = (angle - 2) if neg_gamma else (2 - angle)
    distance_cost = -(gamma * ratio).expm1().sum(0)
    penalty = (distance_cost + _shape_cost(_side_gap(pair))) / 2
    loss = pair.overlap_term(power, inner_ratio) + bounded_power(penalty, power, order=2)
    return loss if neg_gamma else not_negative(loss)


def efficient_iou_loss(
    pred: Tensor,
    target: Tensor,
    focal_gamma: float | None = None,
    eps: float = 1e-6,
    power: float = 1.0,
    inner_ratio: float = 1.0,
) -> Tensor:
    r"""Compute the Efficient-IoU loss of aligned box pairs, plain or focal.

    .. math::
        L = IoU^\gamma \left(1 - IoU + \frac{\rho^2}{c_w^2 + c_h^2} + \frac{(w - w^t)^2}{c_w^2}
            + \frac{(h - h^t)^2}{c_h^2}\right)

    with :math:`\rho` the distance between the centres of ``pred`` and ``target``,
    :math:`c_w, c_h` the sides of the smallest box around both, :math:`w, h` the sides of
    ``pred``, :math:`w^t, h^t` those of ``target``, and :math:`\gamma` the ``focal_gamma``. The
    factor :math:`IoU^\gamma` is a weight: no gradient flows through it, and it uses the IoU without
    ``power`` and ``inner_ratio``.

    Args:
        pred: (..., 4) corners x1, y1, x2, y2 in pixels; half precision is computed in float32.
        target: (..., 4), the same shape.
        focal_gamma: above 0, 0.5 in the paper; None for no factor. With the factor, boxes that
            are apart have no loss.
        eps: smallest squared length to divide by, px**2; its square root is the smallest side.
        power: exponent of the IoU and of each penalty, above 0.
        inner_ratio: factor on both boxes' sides for the overlap term, above 0.

    Returns:
        Tensor: (...), in [0, 4], float32 or float64. Exactly 0 for equal boxes of any size.
        The gradient is finite, in float16 too.

    Raises:
        ValueError: for an option out of its range, or if the shapes differ or do not end in 4.

    >>> efficient_iou_loss(torch.tensor([0., 0., 2., 2.]), torch.tensor([0., 0., 2., 1.]))
    tensor(0.7812)

    The result is 1 - 1/2 + (1/4) / 8 + 1 / 4.

    References:
        Zhang et al., Focal and Efficient IOU Loss for Accurate Bounding Box Regression, 2022, the
        sections on the efficient IOU loss and on the focal one.
    """
    if focal_gamma is not None:
        why = 'leave it out for no focal factor'
        check_number('focal_gamma', focal_gamma, above=0, finite=True, why=why)
    return over_pairs(_efficient_iou, pred, target, eps, power, inner_ratio, focal_gamma)


def _efficient_iou(
    pair: BoxPair, power: float, inner_ratio: float, focal_gamma: float | None
) -> Tensor:
    distance = pair.iou_distance() if inner_ratio == 1 or focal_gamma is not None else None
    outer = pair.outer_sides()
    centers = pair.center_ratio(outer, pair.center_gap())
    sides = ((pair.sides - pair.target_sides) / at_least(outer, pair.shortest)).square()
    penalty = bounded_power(centers, power, 2) + bounded_power(sides, power, 2).sum(0)
    loss = pair.overlap_term(power, inner_ratio, distance) + penalty
    if focal_gamma is None or distance is None:
        return loss
    return (1 - distance.detach()).pow(focal_gamma) * loss


def shape_iou_loss(
    pred: Tensor,
    target: Tensor,
    scale: float = 0.0,
    eps: float = 1e-6,
    power: float = 1.0,
    inner_ratio: float = 1.0,
) -> Tensor:
    r"""Compute the Shape-IoU loss of aligned box pairs.

    .. math::
        L = 1 - IoU + \frac{a_x d_x^2 + a_y d_y^2}{c^2} + \frac{1}{2} \sum_{s \in w, h}
            (1 - e^{-\omega_s})^4, \quad
        a_x = \frac{2 (h^t)^s}{(w^t)^s + (h^t)^s}, \quad a_y = 2 - a_x, \quad
        \omega_w = a_x \frac{|w - w^t|}{\max(w, w^t)}

    with :math:`d_x, d_y` the gap of the centres of ``pred`` and ``target``, :math:`c` the diagonal
    of the smallest box around both, :math:`w, h` and :math:`w^t, h^t` the sides of ``pred`` and
    ``target``, and :math:`s` the ``scale``; :math:`\omega_h` is formed alike with :math:`a_y`. A
    wide target gives more weight to differences in y and in height.

    Args:
        pred: (..., 4) corners x1, y1, x2, y2 in pixels; half precision is computed in float32.
        target: (..., 4), the same shape.
        scale: at least 0; 0 weights both axes alike. The paper chooses it by the size of the
            objects in the data set.
        eps: smallest squared length to divide by, px**2; its square root is the smallest side.
        power: exponent of the IoU and of each penalty, above 0.
        inner_ratio: factor on both boxes' sides for the overlap term, above 0.

    Returns:
        Tensor: (...), in [0, 5), float32 or float64. Exactly 0 for equal boxes of any size.
        The gradient is finite, in float16 too.

    Raises:
        ValueError: for an option out of its range, or if the shapes differ or do not end in 4.

    >>> pair = torch.tensor([0., 0., 2., 1.]), torch.tensor([1., 0., 3., 1.])
    >>> shape_iou_loss(*pair, scale=1)
    tensor(0.7333)

    The result is 1 - 1/3 + (2/3) / 10.

    References:
        Zhang and Zhang, Shape-IoU: More Accurate Metric considering Bounding Box Shape and Scale,
        2023, section III.
    """
    check_number('scale', scale, least=0, finite=True)
    return over_pairs(_shape_iou, pred, target, eps, power, inner_ratio, scale)


def _shape_iou(pair: BoxPair, power: float, inner_ratio: float, scale: float) -> Tensor:
    target_sides = at_least(pair.target_sides, pair.shortest).log()
    # The weight of an axis grows with the target's side along the other axis.
    across = 2 * (scale * (target_sides.flip(0) - target_sides)).sigmoid()
    diagonal = squared_norm(pair.outer_sides())
    ratio = (across * pair.share(pair.center_gap().square(), diagonal)).sum(0)
    shape = _shape_cost(across * _side_gap(pair)) / 2
    penalty = bounded_power(ratio, power, 2) + bounded_power(shape, power, 2)
    return pair.overlap_term(power, inner_ratio) + penalty


def _side_gap(pair: BoxPair) -> Tensor:
    """Compute the absolute difference of the sides over the longer side, (2, ...), in [0, 1]."""
    longer = at_least(larger(pair.sides, pair.target_sides), pair.shortest)
    return (pair.sides - pair.target_sides).abs() / longer


def _shape_cost(gap: Tensor) -> Tensor:
    """Sum (1 - exp(-gap))**4 over both axes."""
    return torch.expm1(-gap).square().square().sum(0)
