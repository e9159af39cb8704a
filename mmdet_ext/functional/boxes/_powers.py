"""Powers of terms in [0, 1], with bounded slopes."""

from __future__ import annotations

from torch import Tensor

from mmdet_ext.functional.numerics.bounds import at_least

#: Largest factor by which a power below 1 may steepen a term at 0, where its own slope is infinite.
STEEPEST = 16.0

_SMALLEST = 1e-24


def bounded_power(value: Tensor, power: float, order: int = 1) -> Tensor:
    r"""Raise a value to a power, with a bounded slope at 0.

    .. math::
        u \cdot \max(u, f)^{a - 1}

    with :math:`u` the ``value``, :math:`a` the ``power`` and :math:`f` the `power_floor`. For
    :math:`a < 1` the slope of :math:`u^a` is infinite at 0; below :math:`f` the result is the
    secant instead. The slope with respect to a length, of which the value is the ``order``-th
    power, is then at most ``order * STEEPEST``. The result is exact at 0 and from :math:`f` on.

    Args:
        value: any shape, at least 0.
        power: above 0. For 1 the value itself is returned.
        order: order of the value at 0: 1 for a length, 2 for a squared length.

    Returns:
        Tensor: the shape of ``value``.

    >>> import torch
    >>> bounded_power(torch.tensor([0., 0.25]), 0.5)
    tensor([0.0000, 0.5000])
    """
    if power == 1:
        return value
    if power > 1:
        return value.pow(power)
    return value * at_least(value, power_floor(power, order)).pow(power - 1)


def complement_power(distance: Tensor, power: float) -> Tensor:
    """Compute ``1 - (1 - distance)**power``, which is exactly 0 where the distance is 0.

    Args:
        distance: any shape, in [0, 1].
        power: above 0.

    Returns:
        Tensor: the shape of ``distance``, in [0, 1].
    """
    if power == 1:
        return distance
    if power == 2:
        return distance * (2 - distance)
    return 1 - bounded_power(1 - distance, power)


def power_floor(power: float, order: int = 1) -> float:
    """Compute the value below which `bounded_power` takes the secant.

    Args:
        power: above 0, below 1.
        order: as in `bounded_power`.

    >>> power_floor(0.5)
    0.00390625
    """
    missing = 1 - power * order
    if missing <= 0:
        # The slope is bounded anyway; the floor only prevents 0 * infinity.
        return _SMALLEST
    floor: float = STEEPEST ** (-order / missing)
    return max(_SMALLEST, floor)
