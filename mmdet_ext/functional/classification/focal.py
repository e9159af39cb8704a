"""Focal loss over sigmoid or softmax, one value an element, with its derivative in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_ext.functional.classification.class_weights import fit_class_weight
from mmdet_ext.functional.classification.labels import label_index
from mmdet_ext.functional.numerics.derivative import with_derivative
from mmdet_ext.functional.numerics.precision import promote_half

#: A value and its derivative by the predictions; None where nobody asks for it.
Terms = tuple[Tensor, Tensor | None]
Alpha = float | Sequence[float] | Tensor | None
#: For predictions that are probabilities, below which of them a logarithm goes on as its tangent;
#: None where they are logits.
Floor = float | Tensor | None

#: Probabilities below it count as it in a gradient, as in torch's binary cross entropy.
PROBABILITY_FLOOR = 1e-12

# softplus(x) is x from here on, in float64 too.
_SOFTPLUS_END = 50.0


def focal_loss(
    pred: Tensor,
    target: Tensor,
    use_sigmoid: bool = True,
    gamma: float = 2.0,
    alpha: Alpha = 0.25,
    activated: bool = False,
) -> Tensor:
    r"""Focal loss: cross entropy that counts less, the surer a prediction is right.

    .. math:: L = -\alpha_t (1 - p_t)^\gamma \ln p_t

    with :math:`p_t` the probability that ``pred`` gives to the truth, :math:`\gamma` the argument
    ``gamma``, and :math:`\alpha_t` from ``alpha``. With ``use_sigmoid`` each column is a question
    of its own: :math:`p_t = \sigma(x)` where it is the label's and :math:`1 - \sigma(x)`
    elsewhere. Without, :math:`p_t` is the softmax over the columns at the label.

    Args:
        pred: (N, C) or (N, C, ...) logits, half precision is computed in float32; probabilities in
            [0, 1] where ``activated``.
        target: labels (N, ...). Negative ones are ignored: loss 0. For sigmoid, labels from C on
            are background: no column's. Or, for sigmoid, the shape of ``pred``, from 0 to 1: how
            true each element is; negative elements are ignored.
        use_sigmoid: a yes or no for each column; otherwise one of the columns, of which a
            detection head has C + 1, the background last.
        gamma: from 0; 0 leaves cross entropy.
        alpha: a number in [0, 1] is what foreground weighs, and 1 less that number what background
            does: the elements that are not their row's label for sigmoid, the last column for
            softmax. None, or a negative number: all weigh 1. A weight a class, from 0, as a list,
            an array or a tensor, weighs by label; one more is the background's, which otherwise
            weighs the mean of the others.
        activated: ``pred`` holds probabilities.

    Returns:
        Tensor: from 0, float32 or float64; the shape of ``pred`` for sigmoid, and of the labels
        for softmax. The gradient is finite, in float16 too, and goes to ``pred`` alone.

    Raises:
        ValueError: for shapes that do not fit, a negative ``gamma`` or an ``alpha`` above 1; for
            softmax on a CPU, for a label from C on. A GPU then stops with an error of its own.

    >>> focal_loss(torch.zeros(1, 2), torch.tensor([0]))
    tensor([[0.0433, 0.1300]])

    That is 0.25 and 0.75 of 0.5^2 ln 2. Background, in the sigmoid form, and an ignored label:

    >>> focal_loss(torch.zeros(2, 2), torch.tensor([2, -1]))
    tensor([[0.1300, 0.1300],
            [0.0000, 0.0000]])

    Of probabilities, the logarithm goes on as a straight line below 1e-12, as its gradient would
    leave the range of numbers. For float16 that begins at 6.1e-5, or with class weights above 2 at
    2^-15 times the largest of them.

    References:
        Lin et al., Focal Loss for Dense Object Detection, 2017, equations 4 and 5.
    """
    check_gamma(gamma)
    check_class_shapes(pred, target, dense=use_sigmoid)
    dtype = pred.dtype
    (pred,) = promote_half(pred)
    values, slope = pred.detach(), wants_slope(pred)
    with torch.no_grad():
        weight = _class_alpha(alpha, pred, use_sigmoid)
        floor = _weighted_floor(dtype, weight) if activated else None
        if not use_sigmoid:
            ignored = target < 0
            terms = softmax_terms(values, target, ignored, gamma, floor, slope)
            scale = label_scale(pred, target, ignored, weight)
        elif target.dim() == pred.dim():
            terms = _dense_terms(values, target, gamma, weight, floor, slope)
        else:
            terms = sigmoid_terms(values, target, target < 0, gamma, weight, floor, slope)
    value = attach(pred, terms)
    return value if use_sigmoid else (value * scale).squeeze(1)


def check_gamma(gamma: float) -> None:
    """Raise ValueError unless ``gamma`` is a number from 0."""
    if not 0 <= gamma < math.inf:
        raise ValueError(f'gamma must be from 0, got {gamma}: it is the exponent of 1 - p')


def check_class_shapes(pred: Tensor, target: Tensor, dense: bool) -> None:
    """Raise ValueError unless targets are (N, ...), or of the very shape, for (N, C, ...)."""
    labels = pred.shape[:1] + pred.shape[2:]
    if pred.dim() > 1 and target.shape == labels:
        if pred.shape[1] == 0 and target.numel() > 0:
            raise ValueError(
                f'pred must have a class or more in dimension 1 for labels {tuple(labels)}, got '
                f'{tuple(pred.shape)}: look at num_classes of the head'
            )
        return
    if not (dense and target.shape == pred.shape):
        or_dense = ' or, as targets of each element, of the shape of pred' if dense else ''
        raise ValueError(
            f'target must be labels {tuple(labels)} for pred {tuple(pred.shape)}, which has the '
            f'classes in dimension 1{or_dense}; got {tuple(target.shape)}'
        )


def wants_slope(pred: Tensor) -> bool:
    """Whether a derivative is to be computed."""
    return torch.is_grad_enabled() and pred.requires_grad


def attach(pred: Tensor, terms: Terms) -> Tensor:
    """The value, with its derivative by ``pred`` where there is one."""
    value, slope = terms
    return value if slope is None else with_derivative(pred, value, slope)


def probability_floor(dtype: torch.dtype) -> float:
    """Below which probability a logarithm goes on as its tangent, so that 1 / p stays finite.

    Args:
        dtype: of the predictions as they come, not as they are computed.

    >>> probability_floor(torch.float32), probability_floor(torch.float16) == 2**-14
    (1e-12, True)
    """
    return max(PROBABILITY_FLOOR, torch.finfo(dtype).tiny)


def sigmoid_terms(
    pred: Tensor,
    label: Tensor,
    ignored: Tensor,
    gamma: float = 0.0,
    weight: Tensor | None = None,
    floor: Floor = None,
    slope: bool = True,
) -> Terms:
    """Focal terms of labels (N, ...) over (N, C, ...), each column a question of its own.

    All elements are taken as negatives first; then the labels' are put in their places.

    Args:
        pred: (N, C, ...), detached.
        label: (N, ...), integers; from C on: background.
        ignored: (N, ...), True where nothing counts.
        gamma: exponent, from 0.
        weight: (C + 1,), of the positives of each class and of all negatives.
        floor: that of probabilities; None for logits.
        slope: whether the derivative is wanted.
    """
    classes = pred.shape[1]
    value, derivative = _wrong_terms(pred, False, gamma, floor, slope)
    counts = (~ignored).unsqueeze(1).to(pred.dtype)
    if weight is not None:
        counts = counts * weight[classes]
    index = label.long().clamp(0, max(classes - 1, 0)).unsqueeze(1)
    positive = (~ignored & (label >= 0) & (label < classes)).unsqueeze(1)
    right, right_slope = _wrong_terms(pred.gather(1, index), True, gamma, floor, slope)
    for table, own in ((value, right), (derivative, right_slope)):
        if table is not None and own is not None:
            table.mul_(counts)
            if weight is not None:
                own.mul_(weight[index])
            table.scatter_(1, index, torch.where(positive, own, table.gather(1, index)))
    return value, derivative


def softmax_terms(
    pred: Tensor,
    label: Tensor,
    ignored: Tensor,
    gamma: float = 0.0,
    floor: Floor = None,
    slope: bool = True,
) -> Terms:
    """Focal terms (N, 1, ...) of labels (N, ...) over the softmax of (N, C, ...).

    Ignored ones are still to be multiplied by `label_scale`: cheaper than a pass over the table.

    Args: as those of `sigmoid_terms`, with no label from C on.

    Raises: as `label_index`.
    """
    index = label_index(label, ignored, pred.shape[1]).unsqueeze(1)
    if floor is not None:
        value, own = _wrong_terms(pred.gather(1, index), True, gamma, floor, slope)
        table = None if own is None else torch.zeros_like(pred).scatter_(1, index, own)
        return value, table
    log_p = pred.log_softmax(1)
    own_log = log_p.gather(1, index)
    # 1 - p without the rounding of p.
    wrong = -torch.expm1(own_log)
    factor = wrong.pow(gamma)
    value = -factor * own_log
    if not slope:
        return value, None
    # By logit k: factor (p_k - [k is the label]).
    table = log_p.exp_()
    if gamma:
        tiny = torch.finfo(wrong.dtype).tiny
        factor = factor * (1 - gamma * own_log.exp() * own_log / wrong.clamp(min=tiny))
        table.mul_(factor)
    return value, table.scatter_(1, index, table.gather(1, index) - factor)


def label_scale(pred: Tensor, label: Tensor, ignored: Tensor, weight: Tensor | None) -> Tensor:
    """What labels (N, ...) weigh, (N, 1, ...): that of their class (C,), and 0 where ignored."""
    counts = (~ignored).unsqueeze(1).to(pred.dtype)
    if weight is None:
        return counts
    return counts * weight[label.long().masked_fill(ignored, 0)].unsqueeze(1)


def _dense_terms(
    pred: Tensor, target: Tensor, gamma: float, weight: Tensor | None, floor: Floor, slope: bool
) -> Terms:
    """Focal terms where each element has a target of its own, from 0 to 1; below 0 is ignored.

    With t the target: (alpha t + (1 - alpha) (1 - t)) w^gamma CE, w = (1 - p) t + p (1 - t).
    """
    truth = target.to(pred.dtype)
    value, derivative = soft_binary_terms(pred, truth, floor=floor, slope=slope)
    scale = None if weight is None else _soft_alpha(weight, truth)
    if gamma:
        right = pred.sigmoid() if floor is None else pred
        left = 1 - right
        wrong = torch.lerp(right, left, truth)
        if derivative is not None:
            # By the predictions: value times the derivative of ln(w), which is bounded as written.
            wrong.clamp_(min=torch.finfo(wrong.dtype).tiny)
            bend = value / wrong if floor is not None else left.mul_(right).mul_(value).div_(wrong)
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


def _soft_alpha(weight: Tensor, truth: Tensor) -> Tensor:
    """The weights of positives and negatives, by how true each element is."""
    positive, negative = weight[:-1], weight[-1]
    if truth.dim() > 1:
        positive = positive.reshape(-1, *(1,) * (truth.dim() - 2))
    return ((positive - negative) * truth).add_(negative)


def soft_binary_terms(
    pred: Tensor,
    truth: Tensor,
    positive: Tensor | None = None,
    floor: Floor = None,
    slope: bool = True,
) -> Terms:
    """Cross entropy with targets from 0 to 1, whose share of truth weighs ``positive``."""
    share = truth if positive is None else truth * positive
    if floor is not None:
        value, derivative = _probability_terms(pred, False, 0.0, floor, slope)
        own, own_slope = _probability_terms(pred, True, 0.0, floor, slope)
        for table, other in ((value, own), (derivative, own_slope)):
            if table is not None and other is not None:
                table.sub_(table * truth).add_(other.mul_(share))
        return value, derivative
    value = _soft_value(pred, truth, None if positive is None else share)
    if not slope:
        return value, None
    derivative = pred.sigmoid()
    if positive is not None:
        derivative.mul_(share + (1 - truth))
    return value, derivative.sub_(share)


def _soft_value(logit: Tensor, truth: Tensor, share: Tensor | None) -> Tensor:
    """(1 - truth) softplus(x) + share softplus(-x); a ``share`` of None is ``truth``.

    Both are the same ln(1 + exp(-abs(x))), but for the abs(x) that one of them has more. Nothing
    is subtracted that was rounded, so that no value falls below 0.
    """
    value = logit.abs().neg_().exp_().log1p_()
    if share is None:
        return value.add_(logit.clamp(min=0).addcmul_(logit, truth, value=-1))
    left = 1 - truth
    value.mul_(left + share)
    return value.addcmul_(torch.where(logit > 0, left, share), logit.abs())


def _wrong_terms(pred: Tensor, positive: bool, gamma: float, floor: Floor, slope: bool) -> Terms:
    """w^gamma (-ln(1 - w)), with w the probability of the wrong answer: p, or 1 - p of positives.

    The derivative is by ``pred``. Both are new tensors.
    """
    if floor is None:
        return _logit_terms(pred, positive, gamma, slope)
    return _probability_terms(pred, positive, gamma, floor, slope)


def _logit_terms(logit: Tensor, positive: bool, gamma: float, slope: bool) -> Terms:
    """With logits: by x, w^gamma (gamma (1 - w) softplus(x) + w), w = sigmoid(x)."""
    wrong_logit = -logit if positive else logit
    value = F.softplus(wrong_logit, threshold=_SOFTPLUS_END)
    if not slope and not gamma:
        return value, None
    wrong = wrong_logit.sigmoid()
    if not gamma:
        return value, wrong.neg_() if positive else wrong
    derivative = None
    if slope:
        derivative = (1 - wrong).mul_(value).mul_(gamma).add_(wrong)
    factor = wrong.pow_(gamma)
    value.mul_(factor)
    if derivative is not None:
        derivative.mul_(factor.neg_() if positive else factor)
    return value, derivative


def _probability_terms(
    p: Tensor, positive: bool, gamma: float, floor: float | Tensor, slope: bool
) -> Terms:
    """With probabilities; below the floor the logarithm goes on as its tangent."""
    right, wrong = (p, 1 - p) if positive else (1 - p, p)
    floored = right.clamp(min=floor)
    value = (floored - right).div_(floor).sub_(floored.log())
    derivative = floored.reciprocal_() if slope else None
    if gamma:
        factor = wrong.pow(gamma)
        if derivative is not None:
            # As a quotient, which is finite down to 0 for a gamma below 1.
            derivative.add_(value / wrong.clamp(min=torch.finfo(p.dtype).tiny), alpha=gamma)
            derivative.mul_(factor)
        value.mul_(factor)
    return value, derivative.neg_() if positive and derivative is not None else derivative


def _weighted_floor(dtype: torch.dtype, weight: Tensor | None) -> float | Tensor:
    """The floor of probabilities, in float16 raised so that the largest weight by 1 / p fits."""
    floor = probability_floor(dtype)
    if dtype != torch.float16 or weight is None:
        return floor
    # Half of float16's range is left to what gamma adds. Not read, as that would wait for a GPU.
    return (weight.amax() * 2.0**-15).clamp(min=floor, max=1.0)


def _class_alpha(alpha: Alpha, pred: Tensor, use_sigmoid: bool) -> Tensor | None:
    """A weight a class and, for sigmoid, one more, of the negatives; None where all weigh 1."""
    columns = pred.shape[1] if pred.dim() > 1 else 1
    foreground = columns if use_sigmoid else columns - 1
    # Of numpy's numbers, which are Real, float64 alone is a float.
    if isinstance(alpha, (float, Real)):
        alpha = float(alpha)
        if alpha < 0:
            return None
        if not alpha <= 1:
            raise ValueError(
                f'alpha must be at most 1, got {alpha}: the background weighs 1 - alpha. Give a '
                'list to weigh classes'
            )
        return torch.cat([pred.new_full((foreground,), alpha), pred.new_full((1,), 1 - alpha)])
    if alpha is None:
        return None
    return fit_class_weight(alpha, foreground + 1, pred, 'alpha')
