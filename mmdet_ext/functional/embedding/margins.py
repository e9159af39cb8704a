"""Margins on the cosine between a sample and the centre of its own class.

Each function takes ``cosine``, (N,), the cosine of the angle t between feature and centre, and
returns the score that replaces it, (N,), float64 where the cosine is float64, float32 otherwise.

No function uses the arc cosine, because its slope is unbounded. Angles are added by
cos(t + m) = cos t cos m - sin t sin m. They are multiplied by Chebyshev's polynomials, or, where
the factor is no integer, by way of an angle with a bounded slope. Values are exact; only slopes
are bounded.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.bounds import at_most, inside
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = [
    'adaptive_margin',
    'additive_angular_margin',
    'additive_cosine_margin',
    'angle_of',
    'clipped_multiplicative_margin',
    'combined_margin',
    'magnitude_margin',
    'multiplicative_angular_margin',
    'sine_of',
    'turned_cosine',
]

# Smallest sine used in a slope. It belongs to an angle of about 0.06 degrees.
_SMALLEST_SINE = 1e-3

#: A margin: one number for all samples, or one per sample, (N,).
Margin = float | Tensor


def sine_of(cosine: Tensor) -> Tensor:
    """Compute sin t = sqrt(1 - cos^2 t). The value is exact; the slope takes sin t as >= 1e-3.

    >>> sine_of(torch.tensor([0.6, 1.0, -1.0]))
    tensor([0.8000, 0.0000, 0.0000])
    """
    square = (1 - cosine) * (1 + cosine)
    # Only the value is raised to 0: a cosine rounded to 1 or just above it has the same slope.
    value = square.detach().clamp(min=0).sqrt()
    # d sqrt(u) = du / (2 sqrt(u))
    return value + (square - square.detach()) * (0.5 / value.clamp(min=_SMALLEST_SINE))


def angle_of(cosine: Tensor) -> Tensor:
    """Compute t from 0 to pi. The value is exact; the slope -1 / sin t takes sin t as >= 1e-3.

    >>> angle_of(torch.tensor([0.0, 1.0, -1.0]))
    tensor([1.5708, 0.0000, 3.1416])
    """
    known = cosine.detach()
    sine = ((1 - known) * (1 + known)).clamp(min=0).sqrt()
    return torch.atan2(sine, known) - (cosine - known) / sine.clamp(min=_SMALLEST_SINE)


def turned_cosine(cosine: Tensor, angle: Margin) -> Tensor:
    """Compute cos(t + a) = cos t cos a - sin t sin a.

    Args:
        cosine: cos t, (N,), t from 0 to pi.
        angle: a in radians, of either sign; one for all or (N,).

    Returns:
        Tensor: (N,).

    >>> turned_cosine(torch.tensor([0.0, 1.0]), math.pi / 6)
    tensor([-0.5000,  0.8660])
    """
    (cosine,) = promote_half(cosine)
    angle = _margin_like(cosine, angle)
    return cosine * angle.cos() - sine_of(cosine) * angle.sin()


def _margin_like(cosine: Tensor, margin: Margin) -> Tensor:
    """Return a margin as a tensor of the precision and device of the cosine."""
    return torch.as_tensor(margin, dtype=cosine.dtype, device=cosine.device)


def additive_cosine_margin(cosine: Tensor, margin: Margin) -> Tensor:
    """Compute CosFace's score: cos t - m.

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
    """Compute ArcFace's score.

    It is cos(t + m) up to t + m = pi, and a lowered cosine beyond::

        cos t cos m - sin t sin m    for cos t > -cos m
        cos t - m sin m              otherwise

    With ``easy_margin`` the first line holds for cos t > 0, and the score is cos t otherwise.

    Both pieces fall with t. They do not meet at t = pi - m: the score steps there by
    1 - cos m - m sin m, down for margins up to 2.33 and up for larger ones. With ``easy_margin``
    it steps up by sin m at a right angle.

    Args:
        cosine: cos t, (N,).
        margin: m in radians, from 0 to below pi, 0.5 in the paper; one for all or (N,).
        easy_margin: leave angles above a right angle unchanged.
        straight_through: give the score the gradient of the plain cosine, as InsightFace's program
            does: slope 1 instead of sin(t + m) / sin t.

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
    margin = _margin_like(cosine, margin)
    turned = turned_cosine(known, margin)
    if easy_margin:
        turned = torch.where(known > 0, turned, known)
    else:
        turned = torch.where(known > -margin.cos(), turned, known - margin * margin.sin())
    return turned + (cosine - cosine.detach()) if straight_through else turned


def multiplicative_angular_margin(cosine: Tensor, margin: float) -> Tensor:
    """Compute psi of A-Softmax and L-Softmax.

    It multiplies the angle, and falls over all t from 0 to pi::

        psi(t) = (-1)^k cos(m t) - 2 k     for t from k pi / m to (k + 1) pi / m

    Args:
        cosine: cos t, (N,).
        margin: m, at least 1; 1 changes nothing.

    Returns:
        Tensor: (N,), from 1 down to -(2m - 1) for an integer m. Integers are computed by
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
        # The fold number rises at t = k pi / m, where two pieces meet.
        folds += known <= math.cos(k * math.pi / margin)
    sign = 1 - 2 * (folds % 2)
    return sign * _cosine_of_multiple(cosine, margin) - 2 * folds


def _cosine_of_multiple(cosine: Tensor, factor: float) -> Tensor:
    """Compute cos(m t)."""
    if factor != int(factor):
        return torch.cos(factor * angle_of(cosine))
    before, now = torch.ones_like(cosine), cosine
    for _ in range(int(factor) - 1):
        before, now = now, 2 * cosine * now - before
    return now


def combined_margin(cosine: Tensor, m1: float, m2: Margin, m3: Margin) -> Tensor:
    """Compute the score with three margins at once: cos(m1 t + m2) - m3.

    (1, m, 0) is ArcFace, (1, 0, m) is CosFace, and (m, 0, 0) is psi of SphereFace.

    Beyond m1 t + m2 = pi, the score follows ArcFace's rule for m1 = 1, and goes on falling as psi
    does for other m1. So it is continuous in m1 up to pi. Beyond pi it jumps as m1 leaves 1: for
    cos t = -0.99 and m2 = 0.5 from -1.23 to -1.06.

    Args:
        cosine: cos t, (N,).
        m1: factor on the angle, at least 1.
        m2: added to the angle, in radians, from 0 to below pi; one for all or (N,).
        m3: subtracted from the cosine; one for all or (N,).

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
    """Compute the score of SphereFace-R v1: cos(min(m t, pi)).

    Args:
        cosine: cos t, (N,).
        margin: m, at least 1.

    Returns:
        Tensor: (N,). From t = pi / m on it is -1 with slope 0.

    References:
        Liu et al., SphereFace Revived: Unifying Hyperspherical Face Recognition, TPAMI 2022.

    >>> clipped_multiplicative_margin(torch.tensor([1.0, 0.5, -1.0]), 1.5)
    tensor([ 1.0000e+00, -4.3711e-08, -1.0000e+00])
    """
    (cosine,) = promote_half(cosine)
    return torch.cos(at_most(margin * angle_of(cosine), math.pi))


def adaptive_margin(cosine: Tensor, quality: Tensor, margin: Margin) -> Tensor:
    """Compute AdaFace's score, whose margin depends on the quality q of the image.

    The score is::

        cos(t + g_angle) - g_add     with g_angle = -m q and g_add = m q + m

    q = -1 gives ArcFace, q = 0 gives CosFace, and q = 1 gives cos(t - m) - 2 m.

    Args:
        cosine: cos t, (N,).
        quality: q from -1 to 1, (N,): the standardised length of the feature.
        margin: m, 0.4 in the paper; one for all or (N,).

    Returns:
        Tensor: (N,). The angle t + g_angle is clamped to 0 and pi.

    References:
        Kim et al., AdaFace: Quality Adaptive Margin for Face Recognition, CVPR 2022, eqs. 15, 16.

    >>> adaptive_margin(torch.tensor([0.5]), torch.tensor([0.0]), 0.4)
    tensor([0.1000])
    """
    cosine, quality = promote_half(cosine, quality)
    margin = _margin_like(cosine, margin)
    turn = -margin * quality
    turned = turned_cosine(cosine, turn)
    known = cosine.detach()
    # Clamp t + turn where it leaves 0 to pi.
    turned = torch.where((turn > 0) & (known < -turn.cos()), -1.0, turned)
    turned = torch.where((turn < 0) & (known > turn.cos()), 1.0, turned)
    return turned - (margin * quality + margin)


def magnitude_margin(
    norm: Tensor, norms: tuple[float, float], margins: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Compute MagFace's margin and penalty from the length of the feature.

    The margin m grows with the length a, and the penalty g falls with it::

        m(a) = m_low + (a - l) (m_high - m_low) / (u - l)
        g(a) = 1 / a + a / u^2

    Args:
        norm: a, (N,); clamped to l and u, and without a gradient outside of them.
        norms: l and u, (10, 110) in the paper.
        margins: m_low and m_high, in radians, (0.45, 0.8) in the paper.

    Returns:
        tuple: m(a) and g(a), (N,) each.

    References:
        Meng et al., MagFace: A Universal Representation for Face Recognition and Quality
        Assessment, CVPR 2021, eq. 3 and section 3.2.

    >>> magnitude_margin(torch.tensor([10.0, 60.0]), (10, 110), (0.25, 0.75))[0]
    tensor([0.2500, 0.5000])
    """
    low, high = norms
    (length,) = promote_half(norm)
    length = inside(length, low, high)
    slope = (margins[1] - margins[0]) / (high - low)
    return margins[0] + (length - low) * slope, 1 / length + length / high**2
