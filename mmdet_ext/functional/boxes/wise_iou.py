"""Wise-IoU loss of aligned boxes, which weights pairs by their distance and outlier degree."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from mmdet_ext.functional.boxes._coordinates import squared_norm
from mmdet_ext.functional.boxes._powers import bounded_power
from mmdet_ext.functional.boxes.iou_losses import iou_loss
from mmdet_ext.functional.boxes.pair import BoxPair, over_pairs
from mmdet_ext.functional.numerics.checks import check_number, check_one_of

__all__ = ['WiseVersion', 'wise_iou_loss']

WiseVersion = Literal['v1', 'v2', 'v3']

#: Smallest mean loss that `wise_iou_loss` divides by.
MEAN_FLOOR = 1e-2

#: Largest delta * log(alpha) of `wise_iou_loss`, which keeps the factor of v3 below 1000.
MOST_FOCUS = 10.0


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
    r"""Compute the Wise-IoU loss of aligned box pairs, in one of its three versions.

    .. math::
        L_{v1} = e^{\rho^2 / c^2} (1 - IoU), \quad
        L_{v2} = \beta^\gamma L_{v1}, \quad
        L_{v3} = \frac{\beta}{\delta \alpha^{\beta - \delta}} L_{v1}, \quad
        \beta = \frac{1 - IoU}{m}

    with :math:`\rho` the distance between the centres of ``pred`` and ``target``, :math:`c` the
    diagonal of the smallest box around both, and :math:`m` the ``mean_iou_loss``. No gradient
    flows through :math:`c` and :math:`\beta`. The outlier degree :math:`\beta` compares a pair with
    the mean: v2 gives more weight to pairs of a large loss, v3 to those in between.

    Args:
        pred: (..., 4) corners x1, y1, x2, y2 in pixels; half precision is computed in float32.
        target: (..., 4), the same shape.
        version: 'v1', 'v2' or 'v3'.
        gamma: exponent of v2, above 0.
        alpha: base of v3, above 1.
        delta: outlier degree at which v3's factor is 1, above 0.
        mean_iou_loss: mean of 1 - IoU, which the paper keeps as a running mean. None takes the
            mean over the pairs of this call, so that the loss has no state. The divisor is at
            least `MEAN_FLOOR`.
        counted_mask: (...) bool, the pairs of this mean; None is all.
        eps: smallest squared length to divide by, px**2; its square root is the smallest side.
        power: exponent of the IoU and of the squared ratio of distance and diagonal, above 0.
        inner_ratio: factor on both boxes' sides for 1 - IoU, above 0.

    Returns:
        Tensor: (...), at least 0, float32 or float64; v1 in [0, e]. Exactly 0 for equal boxes of
        any size, also where all pairs are equal. The gradient is finite, in float16 too.

    Raises:
        ValueError: for an option out of its range, or if the shapes differ or do not end in 4.

    >>> wise_iou_loss(torch.tensor([0., 0., 2., 2.]), torch.tensor([1., 0., 3., 2.]), 'v1')
    tensor(0.7200)

    The result is exp(1/13) 2/3.

    References:
        Tong et al., Wise-IoU: Bounding Box Regression Loss with Dynamic Focusing Mechanism, 2023,
        section III.
    """
    _check_wise_options(version, gamma, alpha, delta)
    # The factors of distance (up to e) and outlier degree steepen the slope of the overlap. Larger
    # floors keep the gradient finite in float16.
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


def _check_wise_options(version: str, gamma: float, alpha: float, delta: float) -> None:
    """Raise ValueError, naming the option, unless the options of `wise_iou_loss` are valid."""
    check_one_of('version', version, WiseVersion)
    for name, value, bound, why in (
        ('gamma', gamma, 0, "it is the exponent of 'v2'"),
        ('alpha', alpha, 1, "at 1 or below, 'v3' would favour boxes far out"),
        ('delta', delta, 0, "it is the outlier degree at which v3's factor is 1"),
    ):
        check_number(name, value, above=bound, finite=True, why=why)
    if delta * math.log(alpha) > MOST_FOCUS:
        raise ValueError(
            f'alpha**delta must be at most exp({MOST_FOCUS:g}), got alpha={alpha!r} and '
            f"delta={delta!r}: it is how much v3's factor grows; the paper has 1.9 and 3"
        )


def _mean(overlap: Tensor, counted_mask: Tensor | None) -> Tensor:
    """Compute the mean over the counted pairs, 0 for none."""
    if counted_mask is None:
        return overlap.sum() / max(1, overlap.numel())
    return (overlap * counted_mask).sum() / counted_mask.sum().clamp(min=1)


def _wise_iou(pair: BoxPair, power: float, inner_ratio: float) -> Tensor:
    """Compute the first version. No gradient flows through the diagonal."""
    with torch.no_grad():
        diagonal = squared_norm(pair.outer_sides())
    ratio = pair.share(squared_norm(pair.center_gap()), diagonal)
    attention = bounded_power(ratio, power, order=2).exp()
    return attention * pair.overlap_term(power, inner_ratio)
