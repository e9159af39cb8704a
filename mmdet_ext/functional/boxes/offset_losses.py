"""Regression losses a coordinate: one value for each difference of prediction and target."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_ext.functional.numerics.derivative import with_derivative
from mmdet_ext.functional.numerics.precision import promote_half

#: exp(80) is the last round power that float32 holds with room to spare.
MAX_GAMMA_TO_ALPHA = 80.0


def smooth_l1_loss(pred: Tensor, target: Tensor, beta: float = 1.0) -> Tensor:
    r"""Absolute error with a parabola around zero.

    .. math::
        L = \begin{cases} d^2 / (2 \beta) & |d| < \beta \\ |d| - \beta / 2 & \text{else}
        \end{cases}, \quad d = x - t

    with :math:`x` an entry of ``pred``, :math:`t` of ``target`` and :math:`\beta` from ``beta``.
    Value and slope are continuous at :math:`|d| = \beta`; the slope lies in [-1, 1].

    Args:
        pred: any shape, any unit; half precision is computed in float32.
        target: the same shape and unit. It gets a gradient where it asks for one.
        beta: where the parabola ends, in the unit of ``pred``, from 0. At 0 the loss is the
            absolute error, whose slope at d = 0 is taken as 0.

    Returns:
        Tensor: the shape of ``pred``, from 0, float32 or float64.

    Raises:
        ValueError: if the shapes differ, or ``beta`` is negative or not finite.

    >>> smooth_l1_loss(torch.tensor([0.5, 3.]), torch.tensor([0., 0.]))
    tensor([0.1250, 2.5000])

    That is 0.5^2 / 2 and 3 - 1/2.

    References:
        Girshick, Fast R-CNN, 2015, equation 3, with beta 1.
    """
    check_beta(beta)
    check_same_shape(pred, target)
    pred, target = promote_half(pred, target)
    return F.smooth_l1_loss(pred, target, reduction='none', beta=beta)


def balanced_l1_loss(
    pred: Tensor, target: Tensor, alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0
) -> Tensor:
    r"""Absolute error whose slope rises with a logarithm, so that small errors count more.

    It is defined by its slope, and is 0 at zero:

    .. math::
        \frac{dL}{d|d|} = \alpha \ln\left(1 + b \frac{\min(|d|, \beta)}{\beta}\right), \quad
        b = e^{\gamma / \alpha} - 1, \quad d = x - t

    with :math:`x` an entry of ``pred``, :math:`t` of ``target``, and :math:`\alpha, \gamma, \beta`
    the options. From :math:`\beta` on the slope is :math:`\gamma`. Integrated, with
    :math:`y = \min(|d|, \beta)`:

    .. math::
        L = \frac{\alpha}{b} (b y + \beta) \ln\left(1 + \frac{b y}{\beta}\right) - \alpha y
            + \gamma (|d| - y)

    The paper has :math:`\beta = 1`; another :math:`\beta` stretches both axes, as it does for
    smooth L1. Value and slope are continuous at :math:`|d| = \beta`.

    Args:
        pred: any shape, any unit; half precision is computed in float32.
        target: the same shape and unit. It gets a gradient where it asks for one.
        alpha: above 0; the smaller, the more small errors count.
        gamma: above 0, slope of large errors; at most 80 times ``alpha``.
        beta: above 0, from where on an error is large, in the unit of ``pred``.

    Returns:
        Tensor: the shape of ``pred``, from 0, float32 or float64. The gradient lies in
        [-gamma, gamma]. It can be differentiated once.

    Raises:
        ValueError: if the shapes differ, or an option is out of its range.

    >>> balanced_l1_loss(torch.tensor([1., 3.]), torch.tensor([0., 0.]))
    tensor([1.0786, 4.0786])

    With b = e^3 - 1 = 19.0855 the first is 1.5 * (1 + 1 / b) - 0.5, and the second 1.5 * 2 more.

    References:
        Pang et al., Libra R-CNN: Towards Balanced Learning for Object Detection, 2019,
        equations 7 to 9.
    """
    check_balanced_options(alpha, gamma, beta)
    check_same_shape(pred, target)
    pred, target = promote_half(pred, target)
    # The graph leads through the difference, and so to both.
    difference = pred - target
    with torch.no_grad():
        b = math.expm1(gamma / alpha)
        error = difference.abs()
        inner = error.clamp(max=beta)
        excess = error.sub_(inner)
        steps = inner.mul_(b / beta)
        log = steps.log1p()
        # (1 + s) ln(1 + s) - s, of which rounding may leave a negative trace next to zero.
        value = torch.addcmul(log, steps, log).sub_(steps).mul_(alpha * beta / b).clamp_(min=0)
        value.add_(excess, alpha=gamma)
        if not difference.requires_grad:
            return value
        derivative = log.mul_(alpha).copysign_(difference)
    return with_derivative(difference, value, derivative)


def check_same_shape(pred: Tensor, target: Tensor) -> None:
    """Raise ValueError, naming both, unless ``pred`` and ``target`` have one shape."""
    if pred.shape != target.shape:
        raise ValueError(
            'pred and target must have one shape, got '
            f'{tuple(pred.shape)} and {tuple(target.shape)}'
        )


def check_beta(beta: float) -> None:
    """Raise ValueError unless ``beta`` is one of `smooth_l1_loss`."""
    if not 0 <= beta < math.inf:
        raise ValueError(
            f'beta must be a number from 0, got {beta}: the error up to which the loss is a '
            'parabola. 0 gives the absolute error'
        )


def check_balanced_options(alpha: float, gamma: float, beta: float) -> None:
    """Raise ValueError, naming the option, unless these are ones of `balanced_l1_loss`."""
    for name, value in (('alpha', alpha), ('gamma', gamma), ('beta', beta)):
        if not 0 < value < math.inf:
            raise ValueError(f'{name} must be a number above 0, got {value}')
    if gamma > MAX_GAMMA_TO_ALPHA * alpha:
        raise ValueError(
            f'gamma must be at most {MAX_GAMMA_TO_ALPHA:g} times alpha, as exp(gamma / alpha) '
            f'is computed, got gamma {gamma} and alpha {alpha}: raise alpha or lower gamma'
        )
