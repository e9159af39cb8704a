"""Losses of distributions over the values 0 to n, and their general form."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from mmdet_ext.functional.classification.binary_terms import ValueAndSlope
from mmdet_ext.functional.classification.quality import (
    QualityTarget,
    check_focus,
    quality_focal_loss,
)
from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.functional.numerics.row_blocks import by_row_blocks

__all__ = ['distribution_focal_loss', 'generalized_focal_loss', 'neighbour_focal_loss']

#: Cross entropy above which the focused loss continues as a logarithm. It is the loss of a
#: probability of exp(-64), which training does not reach.
ENTROPY_BEND = 64.0


def neighbour_focal_loss(
    log_left: Tensor,
    log_right: Tensor,
    target: Tensor,
    left: float | Tensor = 0.0,
    right: float | Tensor = 1.0,
    beta: float = 2.0,
) -> Tensor:
    r"""Compute the generalized focal loss of two probabilities.

    The quality focal loss and the distribution focal loss are special cases of it.

    .. math::
        L = -\left|y - (y_l p_l + y_r p_r)\right|^\beta
            \left((y_r - y) \log p_l + (y - y_l) \log p_r\right)

    with :math:`\log p_l, \log p_r` = ``log_left, log_right``, :math:`y` = ``target``,
    :math:`y_l, y_r` = ``left, right`` and :math:`\beta` = ``beta``.

    Args:
        log_left: (...) logarithm of the probability of the left value, finite and at most 0;
            half precision is computed in float32.
        log_right: logarithm of the probability of the right value, broadcastable.
        target: (...), from ``left`` to ``right``, broadcastable.
        left: value at or below the target.
        right: value above the target.
        beta: exponent of the distance to the target, 0 or at least 1.

    Returns:
        Tensor: (...), at least 0, float32 or float64. All tensors have gradients, by autograd.

    Raises:
        ValueError: for another ``beta``.

    >>> half = torch.tensor([0.5]).log()
    >>> neighbour_focal_loss(half, half, torch.tensor([1.]))
    tensor([0.1733])

    That is log(2) / 4, the quality focal loss of a logit 0 with a score 1.

    References:
        Li et al., Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for
        Dense Object Detection, 2020, equation 7.
    """
    check_focus(beta)
    log_left, log_right, target = promote_half(log_left, log_right, target)
    entropy = (target - right) * log_left + (left - target) * log_right
    if beta == 0:
        return entropy
    estimate = left * log_left.exp() + right * log_right.exp()
    return (target - estimate).abs().pow(beta) * entropy


def generalized_focal_loss(
    pred: Tensor, target: QualityTarget, beta: float = 2.0, use_sigmoid: bool = True
) -> Tensor:
    r"""Compute the generalized focal loss of class scores, or of a distribution over 0 to n.

    .. math::
        L = -\left|y - (y_l p_l + y_r p_r)\right|^\beta
            \left((y_r - y) \log p_l + (y - y_l) \log p_r\right)

    with :math:`y` = ``target`` and :math:`\beta` = ``beta``. With ``use_sigmoid``
    :math:`y_l, y_r = 0, 1`, :math:`p_r` is the sigmoid of ``pred`` and :math:`p_l = 1 - p_r`; the
    sum over the classes is the quality focal loss. Otherwise :math:`y_l, y_r = y_l + 1` are the
    values around :math:`y`, and :math:`p_l, p_r` their entries of the softmax of ``pred``; with
    ``beta`` 0 it is the distribution focal loss.

    Args:
        pred: (..., C) logits of classes, or (..., n + 1) of values; half precision is computed
            in float32.
        target: with ``use_sigmoid`` scores (..., C) in [0, 1], or labels and scores (...), as in
            :func:`~mmdet_ext.functional.classification.quality.quality_focal_loss`; otherwise
            values (...), clamped into [0, n].
        beta: exponent of the distance to the target, 0 or at least 1.
        use_sigmoid: whether ``pred`` scores classes; otherwise it is a distribution over values.

    Returns:
        Tensor: (...), at least 0, float32 or float64. The target has no gradient.

    Raises:
        ValueError: for other shapes, or another ``beta``.

    >>> pred = torch.zeros(1, 4)
    >>> generalized_focal_loss(pred, torch.tensor([2.5]), use_sigmoid=False)
    tensor([2.1661])

    That is (2.5 - 5 / 4)^2 log(4). For distributions with ``beta`` other than 0, a cross entropy E
    above 64 counts as 64 (1 + log(E / 64)). With n up to 16 and ``beta`` up to 2 the gradient then
    stays in float16's range for all logits up to 1e4. It grows as :math:`n^\beta`.

    References:
        Li et al., Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for
        Dense Object Detection, 2020, equation 7.
    """
    if use_sigmoid:
        return quality_focal_loss(pred, target, beta)
    if not isinstance(target, Tensor):
        raise ValueError(
            'target must be a tensor of values (...), got a tuple: labels with scores are for '
            'use_sigmoid=True'
        )
    check_focus(beta)
    return _value_loss(pred, target, beta)


def distribution_focal_loss(pred: Tensor, target: Tensor) -> Tensor:
    r"""Compute the distribution focal loss: cross entropy with the two values around the target.

    .. math::
        L = -(y_r - y) \log p_l - (y - y_l) \log p_r

    with :math:`p_l, p_r` the entries of the softmax of ``pred`` for the whole numbers
    :math:`y_l, y_r = y_l + 1` around :math:`y` = ``target``.

    Args:
        pred: (..., n + 1) logits of the values 0 to n; half precision is computed in float32.
        target: (...), clamped into [0, n], in units of the values.

    Returns:
        Tensor: (...), at least 0, float32 or float64. The target has no gradient.

    Raises:
        ValueError: if the leading dimensions differ, or ``pred`` has fewer than two values.

    >>> distribution_focal_loss(torch.tensor([[0., 0., 0., 0.]]), torch.tensor([2.25]))
    tensor([1.3863])

    That is log(4), for every target. At :math:`y = n` all weight is on the value n. The least loss
    is the entropy of the weights of the two values, which is 0 only for whole targets.

    References:
        Li et al., Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for
        Dense Object Detection, 2020, equation 6.
    """
    return _value_loss(pred, target, beta=0.0)


def _value_loss(pred: Tensor, target: Tensor, beta: float) -> Tensor:
    """Compute the generalized focal loss of distributions over values."""
    if pred.shape[:-1] != target.shape or pred.shape[-1] < 2:
        raise ValueError(
            'pred must be (..., n + 1) with at least two values, and target (...), got '
            f'{tuple(pred.shape)} and {tuple(target.shape)}'
        )
    wide, target = promote_half(pred, target)
    return by_row_blocks(partial(_value_kernel, beta=beta), wide, target)


def _value_kernel(x: Tensor, y: Tensor, beta: float, wanted: bool) -> ValueAndSlope:
    """Compute the loss (n,) of a block of distributions (n, values) with targets (n,)."""
    last = x.shape[1] - 1
    y = y.clamp(0, last).unsqueeze(1)
    left = y.floor().clamp(max=last - 1)
    ends = torch.cat([left, left + 1], 1)
    index = ends.long()
    right_weight = y - left
    weights = torch.cat([1 - right_weight, right_weight], 1)
    shifted = x - x.amax(1, keepdim=True)
    at_ends = shifted.gather(1, index)
    p = shifted.exp_()
    total = p.sum(1, keepdim=True)
    # Every term is at least 0: no cancellation between large logits.
    entropy = total.log() - (weights * at_ends).sum(1, keepdim=True)
    if beta == 0 and not wanted:
        return entropy.squeeze(1), None
    p_ends = p.gather(1, index) / total
    if beta == 0:
        derivative = p.div_(total).scatter_(1, index, p_ends - weights)
        return entropy.squeeze(1), derivative
    estimate = (ends * p_ends).sum(1, keepdim=True)
    gap = estimate - y
    bend = ENTROPY_BEND / entropy.clamp(min=ENTROPY_BEND)
    cost = torch.where(bend < 1, ENTROPY_BEND * (1 - bend.log()), entropy)
    power = gap.abs().pow(beta - 1)
    value = power * gap.abs() * cost
    if not wanted:
        return value.squeeze(1), None
    # The derivative has a part by the entropy and one by the estimate. The estimate's derivative
    # by logit k is p_k (y_k - estimate), with y_k = 0 for values other than the two.
    by_entropy = power * gap.abs() * bend
    by_estimate = beta * power * gap.sign() * cost
    at_ends = by_entropy * (p_ends - weights) + by_estimate * p_ends * (ends - estimate)
    rest = (by_entropy - by_estimate * estimate) / total
    return value.squeeze(1), p.mul_(rest).scatter_(1, index, at_ends)
