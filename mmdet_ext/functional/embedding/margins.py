"""What a margin does to the cosine between a sample and its own class centre.

All take ``cosine``, (N,), the cosine of the angle t between feature and centre, and give what
stands in its place, (N,), float64 where the cosine is, float32 otherwise. None uses the arc
cosine, whose slope has no bound: angles are added by cos(t + m) = cos t cos m - sin t sin m, and
multiplied by Chebyshev's polynomials, or, for a factor that is no integer, by an angle whose slope
is bounded. Values are exact, bounds hold for the slope alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.precision import promote_half

# Slopes are those of an angle whose sine is at least this, about 0.06 degrees.
_SMALLEST_SINE = 1e-3

#: A margin, one for all or one a sample, (N,).
Margin = float | Tensor


def sine_of(cosine: Tensor) -> Tensor:
    """sin t = sqrt(1 - cos^2 t), exact in value; the slope is that of a sine of at least 1e-3.

    >>> sine_of(torch.tensor([0.6, 1.0, -1.0]))
    tensor([0.8000, 0.0000, 0.0000])
    """
    square = ((1 - cosine) * (1 + cosine)).clamp(min=0)
    value = square.detach().sqrt()
    # d sqrt(u) = du / (2 sqrt(u))
    return value + (square - square.detach()) * (0.5 / value.clamp(min=_SMALLEST_SINE))


def angle_of(cosine: Tensor) -> Tensor:
    """t from 0 to pi, exact in value; the slope -1 / sin t is that of a sine of at least 1e-3.

    >>> angle_of(torch.tensor([0.0, 1.0, -1.0]))
    tensor([1.5708, 0.0000, 3.1416])
    """
    known = cosine.detach()
    sine = ((1 - known) * (1 + known)).clamp(min=0).sqrt()
    return torch.atan2(sine, known) - (cosine - known) / sine.clamp(min=_SMALLEST_SINE)


def turned_cosine(cosine: Tensor, angle: Margin) -> Tensor:
    """cos(t + a) = cos t cos a - sin t sin a, for t from 0 to pi and an angle a of either sign.

    >>> turned_cosine(torch.tensor([0.0, 1.0]), math.pi / 6)
    tensor([-0.5000,  0.8660])
    """
    (cosine,) = promote_half(cosine)
    angle = _beside(cosine, angle)
    return cosine * angle.cos() - sine_of(cosine) * angle.sin()


def _beside(cosine: Tensor, margin: Margin) -> Tensor:
    """A margin as a tensor that can be computed with the cosine."""
    return torch.as_tensor(margin, dtype=cosine.dtype, device=cosine.device)


def additive_cosine_margin(cosine: Tensor, margin: Margin) -> Tensor:
    """CosFace: cos t - m.

    Args:
        cosine: cos t, (N,).
        margin: m, 0.35 in the paper; one for all or (N,).

    Returns:
        Tensor: (N,).

    References:
        Wang et al., CosFace: Large Margin Cosine Loss for Deep Face Recognition, CVPR 2018, eq. 4.

    >>> additive_cosine_margin(torch.tensor([0.75]), 0.25)
    tensor([0.5000])
    """
    (cosine,) = promote_half(cosine)
    return cosine - margin


def additive_angular_margin(
    cosine: Tensor, margin: Margin, *, easy_margin: bool = False, straight_through: bool = False
) -> Tensor:
    """ArcFace: cos(t + m) as long as t + m is at most pi, and a lowered cosine beyond::

        cos t cos m - sin t sin m    for cos t > -cos m
        cos t - m sin m              otherwise
        cos t                        otherwise with ``easy_margin``, and the bound is 0

    Both pieces fall with t. At t = pi - m they do not meet: the score steps by
    1 - cos m - m sin m, down for margins up to 2.33 and up for larger ones. With ``easy_margin``
    it steps up by sin m at a right angle.

    Args:
        cosine: cos t, (N,).
        margin: m in radians, from 0 to below pi, 0.5 in the paper; one for all or (N,).
        easy_margin: leave angles above a right one alone.
        straight_through: let the gradient pass as if it were the plain cosine, as InsightFace's
            program does: slope 1 instead of sin(t + m) / sin t.

    Returns:
        Tensor: (N,).

    References:
        Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR 2019,
        eq. 3.

    >>> additive_angular_margin(torch.tensor([0.0, 1.0]), math.pi / 6)
    tensor([-0.5000,  0.8660])
    """
    (cosine,) = promote_half(cosine)
    known = cosine.detach() if straight_through else cosine
    margin = _beside(cosine, margin)
    turned = turned_cosine(known, margin)
    if easy_margin:
        turned = torch.where(known > 0, turned, known)
    else:
        turned = torch.where(known > -margin.cos(), turned, known - margin * margin.sin())
    return turned + (cosine - cosine.detach()) if straight_through else turned


def multiplicative_angular_margin(cosine: Tensor, margin: float) -> Tensor:
    """psi of A-Softmax and L-Softmax: cos(m t), going on falling from 0 to pi::

        psi(t) = (-1)^k cos(m t) - 2 k     for t from k pi / m to (k + 1) pi / m

    Args:
        cosine: cos t, (N,).
        margin: m, at least 1; 1 changes nothing.

    Returns:
        Tensor: from 1 down to -(2m - 1) for integers m, (N,). Integers are computed by
        Chebyshev's polynomials, whose slope is exact everywhere.

    References:
        Liu et al., Large-Margin Softmax Loss for Convolutional Neural Networks, ICML 2016, eq. 5.
        Liu et al., SphereFace: Deep Hypersphere Embedding for Face Recognition, CVPR 2017, eq. 7.

    >>> multiplicative_angular_margin(torch.tensor([1.0, 0.0, -1.0]), 4)
    tensor([ 1., -3., -7.])
    """
    (cosine,) = promote_half(cosine)
    known = cosine.detach().clamp(-1, 1)
    folds = torch.zeros_like(known)
    for k in range(1, math.ceil(margin)):
        # From here on t >= k pi / m, where both pieces meet.
        folds += known <= math.cos(k * math.pi / margin)
    sign = 1 - 2 * (folds % 2)
    return sign * _cosine_of_multiple(cosine, margin) - 2 * folds


def _cosine_of_multiple(cosine: Tensor, factor: float) -> Tensor:
    """cos(m t)."""
    if factor != int(factor):
        return torch.cos(factor * angle_of(cosine))
    before, now = torch.ones_like(cosine), cosine
    for _ in range(int(factor) - 1):
        before, now = now, 2 * cosine * now - before
    return now


def combined_margin(cosine: Tensor, m1: float, m2: Margin, m3: Margin) -> Tensor:
    """The three margins in one: cos(m1 t + m2) - m3.

    For m1 = 1 it is ArcFace's cosine less m3, so (1, m, 0) is ArcFace, (1, 0, m) CosFace. Otherwise
    what goes beyond pi goes on falling as psi does, so (m, 0, 0) is SphereFace's. Up to pi the
    score is continuous in m1. Beyond, ArcFace's rule and psi's differ, so that it jumps as m1
    leaves 1: for cos t = -0.99 and m2 = 0.5 from -1.23 to -1.06.

    Args:
        cosine: cos t, (N,).
        m1: factor on the angle, at least 1.
        m2: added to the angle, in radians, from 0 to below pi; one for all or (N,).
        m3: taken from the cosine; one for all or (N,).

    Returns:
        Tensor: (N,).

    References:
        Deng et al., ArcFace, CVPR 2019, eq. 4.

    >>> combined_margin(torch.tensor([0.0]), 1.0, math.pi / 6, 0.25)
    tensor([-0.7500])
    """
    (cosine,) = promote_half(cosine)
    if m1 == 1:
        return additive_angular_margin(cosine, m2) - m3
    if isinstance(m2, (int, float)) and m2 == 0:
        return multiplicative_angular_margin(cosine, m1) - m3
    angle = m1 * angle_of(cosine) + m2
    folds = torch.floor(angle.detach() / math.pi)
    return (1 - 2 * (folds % 2)) * torch.cos(angle) - 2 * folds - m3


def clipped_multiplicative_margin(cosine: Tensor, margin: float) -> Tensor:
    """SphereFace-R v1: cos(min(m t, pi)).

    Args:
        cosine: cos t, (N,).
        margin: m, at least 1.

    Returns:
        Tensor: (N,); -1, without slope, from t = pi / m on.

    References:
        Liu et al., SphereFace Revived: Unifying Hyperspherical Face Recognition, TPAMI 2022.

    >>> clipped_multiplicative_margin(torch.tensor([1.0, 0.5, -1.0]), 1.5)
    tensor([ 1.0000e+00, -4.3711e-08, -1.0000e+00])
    """
    (cosine,) = promote_half(cosine)
    return torch.cos((margin * angle_of(cosine)).clamp(max=math.pi))


def adaptive_margin(cosine: Tensor, quality: Tensor, margin: Margin) -> Tensor:
    """AdaFace: cos(t + g_angle) - g_add, the margin turned by a picture's quality q::

        g_angle = -m q     g_add = m q + m

    so q = -1 is ArcFace, q = 0 CosFace, q = 1 an ArcFace of -m less 2 m.

    Args:
        cosine: cos t, (N,).
        quality: q from -1 to 1, (N,): the feature's length, standardised.
        margin: m, 0.4 in the paper; one for all or (N,).

    Returns:
        Tensor: (N,). The angle stays between 0 and pi.

    References:
        Kim et al., AdaFace: Quality Adaptive Margin for Face Recognition, CVPR 2022, eqs. 15, 16.

    >>> adaptive_margin(torch.tensor([0.5]), torch.tensor([0.0]), 0.4)
    tensor([0.1000])
    """
    cosine, quality = promote_half(cosine, quality)
    margin = _beside(cosine, margin)
    turn = -margin * quality
    turned = turned_cosine(cosine, turn)
    known = cosine.detach()
    # t + turn above pi, or below 0: the ends of the angle.
    turned = torch.where((turn > 0) & (known < -turn.cos()), -1.0, turned)
    turned = torch.where((turn < 0) & (known > turn.cos()), 1.0, turned)
    return turned - (margin * quality + margin)


def magnitude_margin(
    norm: Tensor, norms: tuple[float, float], margins: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """MagFace: a margin that grows with the feature's length a, and the price of short ones::

        m(a) = m_low + (a - l) (m_high - m_low) / (u - l)
        g(a) = 1 / a + a / u^2

    Args:
        norm: a, (N,); held between l and u.
        norms: l and u, (10, 110) in the paper.
        margins: m_low and m_high, in radians, (0.45, 0.8) in the paper.

    Returns:
        m(a) and g(a), (N,) each.

    References:
        Meng et al., MagFace: A Universal Representation for Face Recognition and Quality
        Assessment, CVPR 2021, eq. 3 and section 3.2.

    >>> magnitude_margin(torch.tensor([10.0, 60.0]), (10, 110), (0.25, 0.75))[0]
    tensor([0.2500, 0.5000])
    """
    low, high = norms
    (length,) = promote_half(norm)
    length = length.clamp(low, high)
    slope = (margins[1] - margins[0]) / (high - low)
    return margins[0] + (length - low) * slope, 1 / length + length / high**2
