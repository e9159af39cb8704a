"""Losses of class scores that also rate a box: their targets lie between 0 and 1."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from mmdet_ext.functional.classification.binary_terms import (
    Floor,
    ValueAndSlope,
    probability_floor,
    probability_of,
    probability_slope,
    target_terms,
)
from mmdet_ext.functional.numerics.checks import check_number, check_that, is_number
from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.functional.numerics.row_blocks import by_row_blocks

__all__ = [
    'QualityTarget',
    'check_focus',
    'check_mu',
    'check_varifocal',
    'quality_focal_loss',
    'slide_loss',
    'varifocal_loss',
]

#: Scores (..., C); or label and score (...), for scores that are 0 except at the label.
QualityTarget = Tensor | tuple[Tensor, Tensor]

#: Distance below the mean at which the raised weights of Slide loss begin.
SLIDE_BAND = 0.1
#: Least mean of a batch in Slide loss.
SLIDE_LEAST_MEAN = 0.2


def quality_focal_loss(
    pred: Tensor, target: QualityTarget, beta: float = 2.0, activated: bool = False
) -> Tensor:
    r"""Compute the quality focal loss: cross entropy with scores, lower near the score.

    .. math::
        L = -\sum_c |y_c - \sigma_c|^\beta
            \left((1 - y_c) \log(1 - \sigma_c) + y_c \log \sigma_c\right)

    with :math:`\sigma` the sigmoid of ``pred``, or ``pred`` itself where it is ``activated``,
    :math:`y` the scores of ``target``, and :math:`\beta` = ``beta``.

    Args:
        pred: (..., C) logits, or probabilities in [0, 1]; half precision is computed in float32.
        target: (..., C) scores in [0, 1]; or labels (...) and their scores (...), for scores that
            are 0 except at the label. A label of C or more is background, one below 0 is ignored.
        beta: exponent of the distance to the score: 0 for cross entropy, or at least 1.
        activated: whether ``pred`` holds probabilities.

    Returns:
        Tensor: (...), at least 0, the sum over classes, float32 or float64. With ``beta`` above
        0 it is 0 where all :math:`\sigma = y`. The target has no gradient.

    Raises:
        ValueError: for other shapes, or another ``beta``: between 0 and 1 the gradient would have
            no bound as :math:`\sigma` approaches :math:`y`.

    >>> quality_focal_loss(torch.tensor([[0., 0.]]), (torch.tensor([1]), torch.tensor([1.])))
    tensor([0.3466])

    That is twice log(2) / 4. The logarithm of a probability continues as a straight line below
    1e-12, for float16 below 6.1e-5, because its gradient would exceed the range of numbers.

    References:
        Li et al., Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for
        Dense Object Detection, 2020, equation 2.
    """
    check_focus(beta)
    floor = probability_floor(pred.dtype) if activated else None
    wide, scores = _promoted(pred, target)
    return by_row_blocks(partial(_quality_kernel, beta=beta, floor=floor), wide, *scores)


def varifocal_loss(
    pred: Tensor,
    target: Tensor,
    alpha: float = 0.75,
    gamma: float = 2.0,
    iou_weighted: bool = True,
) -> Tensor:
    r"""Compute the varifocal loss: positives weigh by their score, negatives by their error.

    .. math::
        L = \begin{cases}
            -q \left(q \log p + (1 - q) \log(1 - p)\right) & q > 0 \\
            -\alpha p^\gamma \log(1 - p) & q = 0
        \end{cases}

    with :math:`p` the sigmoid of ``pred``, :math:`q` = ``target``, :math:`\alpha` = ``alpha``
    and :math:`\gamma` = ``gamma``. The gradient includes that of :math:`p^\gamma`.

    Args:
        pred: (..., C) logits; half precision is computed in float32.
        target: (..., C) scores in [0, 1], 0 for a negative; a score below 0 counts as 0.
        alpha: factor of the negatives, at least 0.
        gamma: exponent of the negatives, at least 0.
        iou_weighted: whether positives weigh :math:`q`; otherwise they weigh 1.

    Returns:
        Tensor: (..., C), at least 0, float32 or float64. The target has no gradient.

    Raises:
        ValueError: if the shapes differ, or ``alpha`` or ``gamma`` is below 0.

    >>> varifocal_loss(torch.tensor([[0., 0.]]), torch.tensor([[0.5, 0.]]))
    tensor([[0.3466, 0.1300]])

    That is log(2) / 2, and 0.75 log(2) / 4. The loss of a positive is least at :math:`p = q`,
    where it is not 0 but :math:`q` times the entropy of :math:`q`.

    References:
        Zhang et al., VarifocalNet: An IoU-aware Dense Object Detector, 2021, equation 2.
    """
    check_varifocal(alpha, gamma)
    wide, scores = _promoted(pred, target, dense_only=True)
    kernel = partial(_varifocal_kernel, alpha=alpha, gamma=gamma, iou_weighted=iou_weighted)
    return by_row_blocks(kernel, wide, *scores)


def slide_loss(
    pred: Tensor, target: QualityTarget, mu: float | Literal['batch'] = 'batch'
) -> Tensor:
    r"""Compute the Slide loss: cross entropy with scores, with higher weights around their mean.

    .. math::
        L = -f(x) \left(x \log \sigma + (1 - x) \log(1 - \sigma)\right), \quad
        f(x) = \begin{cases}
            1 & x \le \mu - 0.1 \\
            e^{1 - \mu} & \mu - 0.1 < x < \mu \\
            e^{1 - x} & x \ge \mu
        \end{cases}

    with :math:`\sigma` the sigmoid of ``pred``, :math:`x` the scores of ``target`` and
    :math:`\mu` = ``mu``.

    Args:
        pred: (..., C) logits; half precision is computed in float32.
        target: (..., C) scores in [0, 1]; or labels (...) and their scores (...), for scores that
            are 0 except at the label; or labels (...) alone, for scores of 1. A label of C or more
            is background, one below 0 is ignored: the loss of its row is 0.
        mu: in [0, 1]; or 'batch' for the mean of all scores above 0 of this call. That mean is at
            least 0.2, so that elements without an object keep the weight 1. Without a score above
            0 it is 0.2.

    Returns:
        Tensor: (..., C), at least 0, float32 or float64. The target has no gradient.

    Raises:
        ValueError: for other shapes, or another ``mu``.

    >>> slide_loss(torch.zeros(1, 3), torch.tensor([[0.2, 0.45, 1.]]), mu=0.5)
    tensor([[0.6931, 1.1428, 0.6931]])

    That is log(2) times 1, exp(0.5) and 1. Where all scores are 0 or 1, as for labels alone, it
    is plain cross entropy.

    References:
        Yu et al., YOLO-FaceV2: A Scale and Occlusion Aware Face Detector, 2022, the Slide
        weighting function. The least mean of 0.2 is that of the code published with it.
    """
    check_mu(mu)
    if isinstance(target, Tensor) and target.dim() == pred.dim() - 1:
        target = target, torch.ones_like(target, dtype=torch.float32)
    wide, scores = _promoted(pred, target)
    mean = _mean_score(wide, scores) if isinstance(mu, str) else wide.new_tensor(mu)
    return by_row_blocks(partial(_slide_kernel, mean=mean), wide, *scores)


def check_focus(beta: float) -> None:
    """Raise ValueError unless the exponent of a distance is 0 or at least 1."""
    check_that(
        beta == 0 or beta >= 1,
        'beta',
        beta,
        '0 or at least 1',
        'in between, the gradient has no bound as the prediction nears the target. Use 0 for '
        'cross entropy, or 1',
    )


def check_varifocal(alpha: float, gamma: float) -> None:
    """Raise ValueError unless the options of varifocal loss are at least 0."""
    check_number('alpha', alpha, least=0)
    check_number('gamma', gamma, least=0)


def check_mu(mu: float | str) -> None:
    """Raise ValueError unless ``mu`` is 'batch' or a score in [0, 1]."""
    fits = mu == 'batch' or (is_number(mu) and 0 <= mu <= 1)
    check_that(fits, 'mu', mu, "'batch' or a score in [0, 1]")


def _quality_kernel(
    x: Tensor, *scores: Tensor, beta: float, floor: Floor, wanted: bool
) -> ValueAndSlope:
    """Compute quality focal loss (n,) of a block (n, C)."""
    y = _dense(x, scores)
    if beta == 0:
        value, derivative = target_terms(x, y, floor=floor, slope=wanted)
    else:
        p = probability_of(x, floor)
        gap = p - y
        size = gap.abs()
        power = size.pow(beta - 1)
        rise = probability_slope(p, floor) if wanted else 1.0
        entropy, derivative = target_terms(x, y, None, floor, wanted, probability=p)
        focus = size.mul_(power)
        if derivative is not None:
            by_focus = power.mul_(beta).mul_(gap.sign_()).mul_(rise)
            derivative.mul_(focus).addcmul_(by_focus, entropy)
        value = entropy.mul_(focus)
    return _kept(value.sum(1), scores), None if derivative is None else _kept(derivative, scores)


def _varifocal_kernel(
    x: Tensor, q: Tensor, alpha: float, gamma: float, iou_weighted: bool, wanted: bool
) -> ValueAndSlope:
    """Compute varifocal loss of a block."""
    q = q.clamp(min=0)
    p = x.sigmoid()
    negative = q == 0
    weight = torch.where(
        negative, p.pow(gamma).mul_(alpha), q if iou_weighted else torch.ones_like(q)
    )
    # d log(p^gamma) / dx = gamma (1 - p), for negatives.
    bend = (1 - p).mul_(gamma).mul_(negative) if wanted else None
    entropy, derivative = target_terms(x, q, slope=wanted, probability=p)
    if derivative is not None and bend is not None:
        derivative.addcmul_(bend, entropy).mul_(weight)
    return entropy.mul_(weight), derivative


def _slide_kernel(x: Tensor, *scores: Tensor, mean: Tensor, wanted: bool) -> ValueAndSlope:
    """Compute Slide loss of a block."""
    y = _dense(x, scores)
    weight = torch.exp(1 - torch.maximum(y, mean))
    weight = torch.where(y <= mean - SLIDE_BAND, torch.ones_like(y), weight)
    weight = _kept(weight, scores)
    value, derivative = target_terms(x, y, slope=wanted)
    return value.mul_(weight), None if derivative is None else derivative.mul_(weight)


def _mean_score(wide: Tensor, scores: tuple[Tensor, ...]) -> Tensor:
    """Compute the mean of all scores above 0, at least SLIDE_LEAST_MEAN."""
    score = scores[-1].detach()
    positive = score > 0
    if len(scores) == 2:
        label = scores[0]
        positive &= (label >= 0) & (label < wide.shape[-1])
    mean = (score * positive).sum() / positive.sum().clamp(min=1)
    return mean.clamp(min=SLIDE_LEAST_MEAN)


def _promoted(
    pred: Tensor, target: QualityTarget, dense_only: bool = False
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return predictions in at least float32, and the target as (scores,) or (label, score)."""
    leading = tuple(pred.shape[:-1])
    if isinstance(target, Tensor) or dense_only:
        if not isinstance(target, Tensor) or target.shape != pred.shape:
            got = tuple(target.shape) if isinstance(target, Tensor) else type(target).__name__
            raise ValueError(
                f'target must be scores of the shape of pred, {tuple(pred.shape)}, got {got}'
                + ('' if dense_only else '. For labels, give the tuple (label, score)')
            )
        wide, dense = promote_half(pred, target)
        return wide, (dense,)
    if len(target) != 2:
        raise ValueError(f'target must be scores or (label, score), got {len(target)} parts')
    label, score = target
    if tuple(label.shape) != leading or tuple(score.shape) != leading or pred.shape[-1] < 1:
        raise ValueError(
            f'label and score must have the leading shape of pred, {leading}, and pred a class '
            f'or more; got {tuple(label.shape)}, {tuple(score.shape)} and {tuple(pred.shape)}'
        )
    wide, score = promote_half(pred, score)
    return wide, (label.long(), score)


def _dense(x: Tensor, scores: tuple[Tensor, ...]) -> Tensor:
    """Return one score per element, from either form of target."""
    if len(scores) == 1:
        return scores[0]
    label, score = scores
    classes = x.shape[1]
    positive = (label >= 0) & (label < classes)
    index = label.clamp(0, classes - 1).unsqueeze(1)
    return torch.zeros_like(x).scatter_(1, index, (score * positive).unsqueeze(1))


def _kept(table: Tensor, scores: tuple[Tensor, ...]) -> Tensor:
    """Set the rows of ignored labels to 0, in place."""
    if len(scores) == 1:
        return table
    kept = (scores[0] >= 0).to(table.dtype)
    return table.mul_(kept if table.dim() == 1 else kept.unsqueeze(1))
