"""Regression losses per coordinate: one value for each difference of prediction and target.

A row (the last dimension) of which a target is not finite weighs 0: its losses and gradients are
0. Coders of boxes give such targets for a box without area, as the logarithm of its side is minus
infinity. A prediction that is not finite is never hidden, in such a row neither.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_ext.functional.boxes.checks import check_same_shape
from mmdet_ext.functional.numerics.checks import check_number
from mmdet_ext.functional.numerics.derivative import with_derivative
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['balanced_l1_loss', 'smooth_l1_loss']

#: Largest gamma / alpha of `balanced_l1_loss`: float32 overflows above exp(88).
MAX_GAMMA_TO_ALPHA = 80.0


def smooth_l1_loss(pred: Tensor, target: Tensor, beta: float = 1.0) -> Tensor:
    r"""Compute the smooth L1 loss: the absolute error, with a parabola around 0.

    .. math::
        L = \begin{cases} d^2 / (2 \beta) & |d| < \beta \\ |d| - \beta / 2 & \text{else}
        \end{cases}, \quad d = x - t

    with :math:`x` an entry of ``pred``, :math:`t` of ``target`` and :math:`\beta` from ``beta``.
    Value and slope are continuous at :math:`|d| = \beta`; the slope lies in [-1, 1].

    Args:
        pred: any shape, any unit; half precision is computed in float32.
        target: the same shape and unit. It gets a gradient if it requires one. A row (the last
            dimension) with a number that is not finite has the loss 0.
        beta: error at which the parabola ends, in the unit of ``pred``, at least 0. With 0 the loss
            is the absolute error, whose slope at d = 0 is 0.

    Returns:
        Tensor: the shape of ``pred``, at least 0, float32 or float64.

    Raises:
        ValueError: if the shapes differ, or ``beta`` is negative or not finite.

    >>> smooth_l1_loss(torch.tensor([0.5, 3.]), torch.tensor([0., 0.]))
    tensor([0.1250, 2.5000])

    The results are 0.5^2 / 2 and 3 - 1/2.

    References:
        Girshick, Fast R-CNN, 2015, equation 3, with beta 1.
    """
    why = 'the error up to which the loss is a parabola. 0 gives the absolute error'
    check_number('beta', beta, 'a number from 0', least=0, finite=True, why=why)
    check_same_shape(pred, target)
    pred, target = promote_half(pred, target)
    target = _finite_targets(pred, target)
    return F.smooth_l1_loss(pred, target, reduction='none', beta=beta)


def balanced_l1_loss(
    pred: Tensor, target: Tensor, alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0
) -> Tensor:
    r"""Compute the balanced L1 loss, whose slope rises with a logarithm up to large errors.

    Small errors thus have a larger part in the gradient than in smooth L1. The loss is 0 for d = 0,
    and defined by its slope:

    .. math::
        \frac{dL}{d|d|} = \alpha \ln\left(1 + b \frac{\min(|d|, \beta)}{\beta}\right), \quad
        b = e^{\gamma / \alpha} - 1, \quad d = x - t

    with :math:`x` an entry of ``pred``, :math:`t` of ``target``, and :math:`\alpha, \gamma, \beta`
    the options. From :math:`\beta` on, the slope is :math:`\gamma`. The integral, with
    :math:`y = \min(|d|, \beta)`, is

    .. math::
        L = \frac{\alpha}{b} (b y + \beta) \ln\left(1 + \frac{b y}{\beta}\right) - \alpha y
            + \gamma (|d| - y)

    The paper has :math:`\beta = 1`; another :math:`\beta` stretches both axes, as in smooth L1.
    Value and slope are continuous at :math:`|d| = \beta`.

    Args:
        pred: any shape, any unit; half precision is computed in float32.
        target: the same shape and unit. It gets a gradient if it requires one. A row (the last
            dimension) with a number that is not finite has the loss 0.
        alpha: above 0; a smaller value gives more weight to small errors.
        gamma: above 0, slope of large errors; at most 80 times ``alpha``.
        beta: above 0, error from which on the slope is constant, in the unit of ``pred``.

    Returns:
        Tensor: the shape of ``pred``, at least 0, float32 or float64. The gradient lies in
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
    _check_balanced_options(alpha, gamma, beta)
    check_same_shape(pred, target)
    pred, target = promote_half(pred, target)
    target = _finite_targets(pred, target)
    # The graph leads through the difference, and so to both inputs.
    difference = pred - target
    with torch.no_grad():
        b = math.expm1(gamma / alpha)
        error = difference.abs()
        inner = error.clamp(max=beta)
        excess = error.sub_(inner)
        steps = inner.mul_(b / beta)
        log = steps.log1p()
        # (1 + s) ln(1 + s) - s. Close to 0, rounding may make it slightly negative.
        value = torch.addcmul(log, steps, log).sub_(steps).mul_(alpha * beta / b).clamp_(min=0)
        value.add_(excess, alpha=gamma)
        if not difference.requires_grad:
            return value
        derivative = log.mul_(alpha).copysign_(difference)
    return with_derivative(difference, value, derivative)


def _finite_targets(pred: Tensor, target: Tensor) -> Tensor:
    """Return the targets, with the predictions in place of rows that are not finite.

    The difference is then exactly 0, or NaN where the prediction is not finite itself. A weight
    of 0 would leave NaN, as 0 times infinity.
    """
    on_cpu = target.device.type == 'cpu' and not torch.compiler.is_compiling()
    # On a CPU a look at the values is faster than the selection: a sum is finite only if its
    # summands are.
    if target.numel() == 0 or (on_cpu and math.isfinite(target.detach().sum().item())):
        return target
    size = target.detach().abs()
    largest = size.amax(-1, keepdim=True) if target.dim() > 1 else size
    return target.where(largest < torch.inf, pred.detach())


def _check_balanced_options(alpha: float, gamma: float, beta: float) -> None:
    """Raise ValueError, naming the option, unless the options of `balanced_l1_loss` are valid."""
    for name, value in (('alpha', alpha), ('gamma', gamma), ('beta', beta)):
        check_number(name, value, 'a number above 0', above=0, finite=True)
    if gamma > MAX_GAMMA_TO_ALPHA * alpha:
        raise ValueError(
            f'gamma must be at most {MAX_GAMMA_TO_ALPHA:g} times alpha, as exp(gamma / alpha) '
            f'is computed, got gamma {gamma} and alpha {alpha}: raise alpha or lower gamma'
        )
