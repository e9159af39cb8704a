"""Terms of binary (sigmoid) losses: value and derivative, from logits or from probabilities.

A prediction is a logit where ``floor`` is None. Otherwise it is a probability, and its logarithm
continues below the floor as the tangent there, so that the derivative 1 / p stays finite.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_ext.functional.numerics.derivative import with_derivative

__all__ = [
    'Floor',
    'SideWeights',
    'ValueAndSlope',
    'attach',
    'label_terms',
    'probability_floor',
    'probability_of',
    'probability_slope',
    'side_terms',
    'target_terms',
    'wants_slope',
]

#: Loss per element, and its derivative by the predictions; None where it is not wanted.
ValueAndSlope = tuple[Tensor, Tensor | None]

#: Probability below which a logarithm continues as its tangent; None for logits.
Floor = float | Tensor | None

#: Floor of float32 and float64, as in torch's binary cross entropy.
PROBABILITY_FLOOR = 1e-12

# softplus(x) is x from here on, in float64 too.
_SOFTPLUS_END = 50.0


class SideWeights(NamedTuple):
    """Weights of the positives and of the negatives of each class.

    Attributes:
        positive: (C,).
        negative: (C,), or () for one weight of all negatives.
    """

    positive: Tensor
    negative: Tensor


def wants_slope(pred: Tensor) -> bool:
    """Return whether autograd needs a derivative by the predictions."""
    return torch.is_grad_enabled() and pred.requires_grad


def attach(pred: Tensor, terms: ValueAndSlope) -> Tensor:
    """Return the value, connected to ``pred`` by its derivative where there is one."""
    value, slope = terms
    return value if slope is None else with_derivative(pred, value, slope)


def probability_floor(dtype: torch.dtype) -> float:
    """Return the probability below which a logarithm continues as its tangent.

    It is chosen so that 1 / p is finite in the precision in which the gradient is returned.

    Args:
        dtype: precision of the predictions as given, not of the computation.

    >>> probability_floor(torch.float32), probability_floor(torch.float16) == 2**-14
    (1e-12, True)
    """
    return max(PROBABILITY_FLOOR, torch.finfo(dtype).tiny)


def probability_of(pred: Tensor, floor: Floor = None) -> Tensor:
    """Return the probability: the sigmoid of a logit, or ``pred`` itself."""
    return pred.sigmoid() if floor is None else pred


def probability_slope(probability: Tensor, floor: Floor = None) -> Tensor | float:
    """Compute the derivative of `probability_of` by the prediction: p (1 - p), or 1."""
    if floor is not None:
        return 1.0
    return torch.addcmul(probability, probability, probability, value=-1)


def target_terms(
    pred: Tensor,
    truth: Tensor,
    positive_weight: Tensor | None = None,
    floor: Floor = None,
    slope: bool = True,
    probability: Tensor | None = None,
) -> ValueAndSlope:
    r"""Compute the binary cross entropy with a target for each element.

    .. math:: L = -w t \ln p - (1 - t) \ln(1 - p)

    with :math:`p` the probability, :math:`t` the ``truth`` and :math:`w` the ``positive_weight``.

    Args:
        pred: logits or probabilities, without a graph.
        truth: targets in [0, 1], the shape of ``pred``.
        positive_weight: weight of the positive part, broadcastable; None for 1.
        floor: floor of probabilities; None for logits.
        slope: whether the derivative is wanted.
        probability: `probability_of` the logits, where the caller has computed it. It is
            overwritten.

    Returns:
        tuple: value, from 0, and derivative, both new tensors.
    """
    share = truth if positive_weight is None else truth * positive_weight
    if floor is not None:
        rest = 1 - pred
        value, floored = _negative_log(pred, floor)
        rest_value, floored_rest = _negative_log(rest, floor)
        value.mul_(share).add_(rest_value.mul_(1 - truth))
        if not slope:
            return value, None
        return value, (1 - truth).div_(floored_rest).sub_(share / floored)
    value = _target_value(pred, truth, None if positive_weight is None else share)
    if not slope:
        return value, None
    derivative = pred.sigmoid() if probability is None else probability
    if positive_weight is not None:
        derivative.mul_(share + (1 - truth))
    return value, derivative.sub_(share)


def side_terms(
    pred: Tensor,
    positive: bool,
    gamma: float | Tensor = 0.0,
    floor: Floor = None,
    slope: bool = True,
) -> ValueAndSlope:
    r"""Compute the focal cost of elements that are all positives, or all negatives.

    .. math:: L = -q^\gamma \ln(1 - q)

    with :math:`q` the probability of the wrong answer: p for negatives, 1 - p for positives.

    Args:
        pred: logits or probabilities, without a graph.
        positive: whether the elements are positives.
        gamma: exponent, from 0; with logits also a tensor that is broadcastable to ``pred``.
        floor: floor of probabilities; None for logits.
        slope: whether the derivative is wanted.

    Returns:
        tuple: value, from 0, and derivative by ``pred``, both new tensors.
    """
    if floor is None:
        return _logit_side(pred, positive, gamma, slope)
    assert not isinstance(gamma, Tensor)
    return _probability_side(pred, positive, gamma, floor, slope)


def label_terms(
    pred: Tensor,
    label: Tensor,
    ignored: Tensor,
    gamma: float | Tensor = 0.0,
    weights: SideWeights | None = None,
    floor: Floor = None,
    slope: bool = True,
) -> ValueAndSlope:
    """Compute the focal cost of each class for labels.

    All elements are computed as negatives. The elements of the labels are then replaced, as there
    is only one per row.

    Args:
        pred: (N, C, ...) logits or probabilities, without a graph.
        label: (N, ...) integers; labels from C on are background.
        ignored: (N, ...), True where the cost is 0.
        gamma: exponent, from 0; with logits also one per class, (C,).
        weights: weights of the classes; None for 1.
        floor: floor of probabilities; None for logits.
        slope: whether the derivative is wanted.

    Returns:
        tuple: value, from 0, and derivative, of the shape of ``pred``.
    """
    classes = pred.shape[1]
    trailing = (1,) * (pred.dim() - 2)
    by_column = gamma.reshape(-1, *trailing) if isinstance(gamma, Tensor) else gamma
    value, derivative = side_terms(pred, False, by_column, floor, slope)
    counts = (~ignored).unsqueeze(1).to(pred.dtype)
    if weights is not None:
        counts = counts * weights.negative.reshape(-1, *trailing)
    index = label.long().clamp(0, max(classes - 1, 0)).unsqueeze(1)
    own_gamma = gamma[index] if isinstance(gamma, Tensor) else gamma
    positive = (~ignored & (label >= 0) & (label < classes)).unsqueeze(1)
    own, own_slope = side_terms(pred.gather(1, index), True, own_gamma, floor, slope)
    for table, column in ((value, own), (derivative, own_slope)):
        if table is not None and column is not None:
            table.mul_(counts)
            if weights is not None:
                column.mul_(weights.positive[index])
            table.scatter_(1, index, torch.where(positive, column, table.gather(1, index)))
    return value, derivative


def _target_value(logit: Tensor, truth: Tensor, share: Tensor | None) -> Tensor:
    """Compute (1 - truth) softplus(x) + share softplus(-x); a ``share`` of None is ``truth``.

    Both softplus terms are the same ln(1 + exp(-abs(x))); one of them is larger by abs(x). No
    rounded numbers are subtracted, so that the value is never below 0 and is exact where small.
    """
    value = logit.abs().neg_().exp_().log1p_()
    if share is None:
        return value.add_(logit.clamp(min=0).addcmul_(logit, truth, value=-1))
    left = 1 - truth
    value.mul_(left + share)
    return value.addcmul_(torch.where(logit > 0, left, share), logit.abs())


def _negative_log(p: Tensor, floor: float | Tensor) -> tuple[Tensor, Tensor]:
    """Compute -ln(p), with its tangent below the floor, and p raised to the floor."""
    floored = p.clamp(min=floor)
    return (floored - p).div_(floor).sub_(floored.log()), floored


def _logit_side(logit: Tensor, positive: bool, gamma: float | Tensor, slope: bool) -> ValueAndSlope:
    """Compute `side_terms` of logits: by x, q^gamma (gamma (1 - q) softplus(x) + q)."""
    wrong_logit = -logit if positive else logit
    value = F.softplus(wrong_logit, threshold=_SOFTPLUS_END)
    by_class = isinstance(gamma, Tensor)
    if not by_class and gamma == 0:
        if not slope:
            return value, None
        wrong = wrong_logit.sigmoid()
        return value, wrong.neg_() if positive else wrong
    wrong = wrong_logit.sigmoid()
    derivative = (1 - wrong).mul_(value).mul_(gamma).add_(wrong) if slope else None
    # With an exponent per class, exp(gamma ln q) takes a fraction of the time of a power.
    factor = (wrong_logit - value).mul_(gamma).exp_() if by_class else wrong.pow_(gamma)
    value.mul_(factor)
    if derivative is not None:
        derivative.mul_(factor.neg_() if positive else factor)
    return value, derivative


def _probability_side(
    p: Tensor, positive: bool, gamma: float, floor: float | Tensor, slope: bool
) -> ValueAndSlope:
    """Compute `side_terms` of probabilities."""
    right, wrong = (p, 1 - p) if positive else (1 - p, p)
    value, floored = _negative_log(right, floor)
    derivative = floored.reciprocal_() if slope else None
    if gamma:
        factor = wrong.pow(gamma)
        if derivative is not None:
            # As a quotient, which is finite down to 0 for a gamma below 1.
            derivative.add_(value / wrong.clamp(min=torch.finfo(p.dtype).tiny), alpha=gamma)
            derivative.mul_(factor)
        value.mul_(factor)
    return value, derivative.neg_() if positive and derivative is not None else derivative
