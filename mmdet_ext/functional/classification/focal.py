"""Focal loss over sigmoid or softmax, per element, with its derivative in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from numbers import Real

import torch
from torch import Tensor

from mmdet_ext.functional.classification.binary_terms import (
    Floor,
    SideWeights,
    ValueAndSlope,
    attach,
    label_terms,
    probability_floor,
    probability_of,
    probability_slope,
    target_terms,
    wants_slope,
)
from mmdet_ext.functional.classification.class_weights import fit_class_weight
from mmdet_ext.functional.classification.labels import check_class_shapes
from mmdet_ext.functional.classification.softmax_maps import map_focal_loss
from mmdet_ext.functional.classification.softmax_terms import label_scale, softmax_label_terms
from mmdet_ext.functional.numerics.checks import check_number, check_that
from mmdet_ext.functional.numerics.map_blocks import by_map_blocks, is_map
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['Alpha', 'check_alpha', 'check_gamma', 'focal_loss']

#: Share of the foreground's weight, or weights of the classes; None where all weigh 1.
Alpha = float | Sequence[float] | Tensor | None


def focal_loss(
    pred: Tensor,
    target: Tensor,
    use_sigmoid: bool = True,
    gamma: float = 2.0,
    alpha: Alpha = 0.25,
    activated: bool = False,
    class_weight: Sequence[float] | Tensor | None = None,
) -> Tensor:
    r"""Compute the focal loss: cross entropy with a lower weight on sure and right predictions.

    .. math:: L = -\alpha_t (1 - p_t)^\gamma \ln p_t

    with :math:`p_t` the probability that ``pred`` gives to the target, :math:`\gamma` = ``gamma``,
    and :math:`\alpha_t` from ``alpha``. With ``use_sigmoid`` each column is a decision of its own:
    :math:`p_t = \sigma(x)` in the label's column and :math:`1 - \sigma(x)` in the others.
    Otherwise :math:`p_t` is the softmax over the columns, at the label.

    Args:
        pred: (N, C) or (N, C, ...) logits; probabilities in [0, 1] where ``activated``. Half
            precision is computed in float32.
        target: labels (N, ...). Negative labels are ignored: their loss is 0. With sigmoid, labels
            from C on are background: negative in all columns. With sigmoid also a target in [0, 1]
            for each element, of the shape of ``pred``; negative elements are ignored.
        use_sigmoid: whether each column is a binary decision. Otherwise the columns are one
            softmax; a detection head then has C + 1 columns, the background last.
        gamma: exponent, from 0; 0 gives cross entropy.
        alpha: a number in [0, 1] is the weight of the foreground; the background has 1 less that
            number. Background is every element outside the label's column for sigmoid, and the
            last column for softmax. None, or a negative number: all weigh 1. One weight per class,
            from 0, as a list, an array or a tensor, applies by label. One more weight is the
            background's; without it the background has the mean of the others.
        activated: whether ``pred`` holds probabilities.
        class_weight: (C,), from 0, one more factor on the loss of each column, positives and
            negatives alike; with softmax on the loss of each label. None: all 1.

    Returns:
        Tensor: from 0, float32 or float64; the shape of ``pred`` for sigmoid, of the labels for
        softmax. The gradient is finite, in float16 too, and only ``pred`` has one.

    Raises:
        ValueError: for shapes that do not fit, a negative ``gamma`` or an ``alpha`` above 1; with
            softmax on a CPU, for a label from C on. A GPU then stops with an error of its own.

    >>> focal_loss(torch.zeros(1, 2), torch.tensor([0]))
    tensor([[0.0433, 0.1300]])

    That is 0.25 and 0.75 times 0.5^2 ln 2. Background in the sigmoid form, and an ignored label:

    >>> focal_loss(torch.zeros(2, 2), torch.tensor([2, -1]))
    tensor([[0.1300, 0.1300],
            [0.0000, 0.0000]])

    The logarithm of a probability continues as a straight line below 1e-12, because its gradient
    would exceed the range of numbers. For float16 the line begins at 6.1e-5, or with class weights
    above 2 at 2^-15 times the largest weight.

    References:
        Lin et al., Focal Loss for Dense Object Detection, 2017, equations 4 and 5.
    """
    check_gamma(gamma)
    check_class_shapes(pred, target, dense=use_sigmoid)
    with torch.no_grad():
        weights = _side_weights(alpha, class_weight, pred, use_sigmoid)
        floor = _weighted_floor(pred.dtype, weights) if activated else None
    form = _sigmoid_focal if use_sigmoid else _softmax_focal
    return form(pred, target, gamma, weights, floor)


def check_gamma(gamma: float) -> None:
    """Raise ValueError unless the exponent of focal loss is finite and at least 0."""
    check_number('gamma', gamma, 'from 0', least=0, finite=True, why='it is the exponent of 1 - p')


def check_alpha(alpha: float) -> None:
    """Raise ValueError for a weight of the foreground above 1. A negative one means none."""
    why = 'the background weighs 1 - alpha. Give a list to weigh classes'
    check_that(alpha <= 1, 'alpha', alpha, 'at most 1', why)


def _sigmoid_focal(
    pred: Tensor, target: Tensor, gamma: float, weights: SideWeights | None, floor: Floor
) -> Tensor:
    """Compute the form with sigmoid, for labels or for targets of each element."""
    dense = target.dim() == pred.dim()
    kernel = partial(_label_kernel, gamma=gamma, weights=weights, floor=floor)
    if is_map(pred) and not dense:
        return by_map_blocks(kernel, pred, target)
    (pred,) = promote_half(pred)
    values, slope = pred.detach(), wants_slope(pred)
    with torch.no_grad():
        if dense:
            terms = _dense_terms(values, target, gamma, weights, floor, slope)
        else:
            terms = kernel(values, target, wanted=slope)
    return attach(pred, terms)


def _softmax_focal(
    pred: Tensor, label: Tensor, gamma: float, weights: SideWeights | None, floor: Floor
) -> Tensor:
    """Compute the form with softmax, whose labels all are positives of a class."""
    ignored = label < 0
    weight = None if weights is None else weights.positive
    if is_map(pred) and floor is None:
        return map_focal_loss(pred, label, gamma, weight)
    (pred,) = promote_half(pred)
    values, slope = pred.detach(), wants_slope(pred)
    with torch.no_grad():
        terms = softmax_label_terms(values, label, ignored, gamma, floor, slope)
        scale = label_scale(pred, label, ignored, weight)
    return (attach(pred, terms) * scale).squeeze(1)


def _label_kernel(
    pred: Tensor,
    label: Tensor,
    wanted: bool,
    gamma: float,
    weights: SideWeights | None,
    floor: Floor,
) -> ValueAndSlope:
    """Compute focal terms of labels, for sigmoid."""
    return label_terms(pred, label, label < 0, gamma, weights, floor, wanted)


def _dense_terms(
    pred: Tensor,
    target: Tensor,
    gamma: float,
    weights: SideWeights | None,
    floor: Floor,
    slope: bool,
) -> ValueAndSlope:
    """Compute focal terms for a target in [0, 1] for each element; below 0 is ignored.

    With t the target: (alpha t + (1 - alpha) (1 - t)) w^gamma CE, w = (1 - p) t + p (1 - t).
    """
    truth = target.to(pred.dtype)
    scale = None if weights is None else _soft_alpha(weights, truth)
    if not gamma:
        value, derivative = target_terms(pred, truth, floor=floor, slope=slope)
    else:
        p = probability_of(pred, floor)
        wrong = torch.lerp(p, 1 - p, truth)
        rise = probability_slope(p, floor) if slope else 1.0
        value, derivative = target_terms(pred, truth, None, floor, slope, probability=p)
        if derivative is not None:
            # The value times the derivative of ln(w). The quotient is bounded.
            wrong.clamp_(min=torch.finfo(wrong.dtype).tiny)
            bend = (value / wrong).mul_(rise)
            derivative.addcmul_(bend, 1 - 2 * truth, value=gamma)
        factor = wrong.pow_(gamma)
        scale = factor if scale is None else scale.mul_(factor)
    ignored = target < 0
    for table in (value, derivative):
        if table is not None:
            if scale is not None:
                table.mul_(scale)
            table.masked_fill_(ignored, 0)
    return value, derivative


def _soft_alpha(weights: SideWeights, truth: Tensor) -> Tensor:
    """Mix the weights of positives and negatives by the targets of the elements."""
    positive, negative = weights
    if truth.dim() > 1:
        trailing = (1,) * (truth.dim() - 2)
        positive, negative = positive.reshape(-1, *trailing), negative.reshape(-1, *trailing)
    return ((positive - negative) * truth).add_(negative)


def _weighted_floor(dtype: torch.dtype, weights: SideWeights | None) -> float | Tensor:
    """Return the floor of probabilities; in float16 the largest weight times 1 / p must fit."""
    floor = probability_floor(dtype)
    if dtype != torch.float16 or weights is None:
        return floor
    # Half of float16's range is left for the part of gamma. The result stays a tensor: to read it
    # would wait for a GPU.
    most = torch.maximum(weights.positive.amax(), weights.negative.amax())
    return (most * 2.0**-15).clamp(min=floor, max=1.0)


def _side_weights(
    alpha: Alpha, class_weight: Sequence[float] | Tensor | None, pred: Tensor, use_sigmoid: bool
) -> SideWeights | None:
    """Return the weights of positives and negatives; None where all weigh 1.

    With softmax those of the positives are the weights of all labels, the background's included.
    """
    weight = _class_alpha(alpha, pred, use_sigmoid)
    if weight is None and class_weight is None:
        return None
    columns = pred.shape[1] if pred.dim() > 1 else 1
    dtype = torch.promote_types(pred.dtype, torch.float32)
    if weight is None:
        weight = torch.ones(columns + use_sigmoid, dtype=dtype, device=pred.device)
    positive, negative = (weight[:-1], weight[-1]) if use_sigmoid else (weight, weight)
    if class_weight is None:
        return SideWeights(positive, negative)
    factor = torch.as_tensor(class_weight, dtype=dtype, device=pred.device)
    check_that(
        factor.shape == (columns,),
        'class_weight',
        tuple(factor.shape),
        f'one number per column, ({columns},)',
    )
    return SideWeights(positive * factor, negative * factor)


def _class_alpha(alpha: Alpha, pred: Tensor, use_sigmoid: bool) -> Tensor | None:
    """Return the weights of the classes and of the background, last; None where all weigh 1."""
    if alpha is None:
        return None
    columns = pred.shape[1] if pred.dim() > 1 else 1
    foreground = columns if use_sigmoid else columns - 1
    like = pred.new_empty(0, dtype=torch.promote_types(pred.dtype, torch.float32))
    # Among numpy's numbers, which are all Real, only float64 is a float.
    if not isinstance(alpha, (float, Real)):
        return fit_class_weight(alpha, foreground + 1, like, 'alpha')
    alpha = float(alpha)
    if alpha < 0:
        return None
    check_alpha(alpha)
    return torch.cat([like.new_full((foreground,), alpha), like.new_full((1,), 1 - alpha)])
