"""Losses of class scores that say how good a box is: targets between 0 and 1."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from mmdet_ext.functional.classification.focal import probability_floor
from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.functional.numerics.row_blocks import by_row_blocks

#: Scores (..., C); or label and score (...), for scores that are 0 but at the label.
QualityTarget = Tensor | tuple[Tensor, Tensor]

#: (pred, scores) -> probability, its derivative by pred, cross entropy, its derivative by pred.
Terms = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | float, Tensor, Tensor]]

#: How far below the mean Slide's weights begin, and the least mean of a batch.
SLIDE_BAND = 0.1
SLIDE_LEAST_MEAN = 0.2


def quality_focal_loss(
    pred: Tensor, target: QualityTarget, beta: float = 2.0, activated: bool = False
) -> Tensor:
    r"""Quality focal loss: cross entropy with a score, less the nearer the prediction is to it.

    .. math::
        L = -\sum_c |y_c - \sigma_c|^\beta
            \left((1 - y_c) \log(1 - \sigma_c) + y_c \log \sigma_c\right)

    with :math:`\sigma` the sigmoid of ``pred``, or ``pred`` itself where it is ``activated``,
    :math:`y` the scores of ``target``, and :math:`\beta` = ``beta``.

    Args:
        pred: (..., C) logits, or probabilities in [0, 1]; half precision is computed in float32.
        target: (..., C) scores in [0, 1]; or labels (...) and their scores (...), for scores
            that are 0 but at the label. A label of C or more is background, one below 0 is
            ignored.
        beta: 0 for cross entropy, or at least 1.
        activated: ``pred`` are probabilities.

    Returns:
        Tensor: (...), at least 0, the sum over classes, float32 or float64. With ``beta`` above
        0 it is 0 where all :math:`\sigma = y`. No gradient flows to the target.

    Raises:
        ValueError: for other shapes, or another ``beta``: between 0 and 1 the gradient would have
            no bound as :math:`\sigma` nears :math:`y`.

    >>> quality_focal_loss(torch.tensor([[0., 0.]]), (torch.tensor([1]), torch.tensor([1.])))
    tensor([0.3466])

    That is twice log(2) / 4. Of probabilities, the logarithm goes on as a straight line below
    1e-12, for float16 below 6.1e-5, as its gradient would leave the range of numbers.

    References:
        Li et al., Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for
        Dense Object Detection, 2020, equation 2.
    """
    check_focus(beta)
    floor = probability_floor(pred.dtype)
    terms: Terms = partial(_probability_terms, floor=floor) if activated else _logit_terms
    wide, scores = _promoted(pred, target)
    return by_row_blocks(partial(_quality_kernel, terms=terms, beta=beta), wide, *scores)


def varifocal_loss(
    pred: Tensor,
    target: Tensor,
    alpha: float = 0.75,
    gamma: float = 2.0,
    iou_weighted: bool = True,
) -> Tensor:
    r"""Varifocal loss: positives count by their score, negatives by how wrong they are.

    .. math::
        L = \begin{cases}
            -q \left(q \log p + (1 - q) \log(1 - p)\right) & q > 0 \\
            -\alpha p^\gamma \log(1 - p) & q = 0
        \end{cases}

    with :math:`p` the sigmoid of ``pred``, :math:`q` = ``target``, :math:`\alpha` = ``alpha``
    and :math:`\gamma` = ``gamma``. Gradients flow through :math:`p^\gamma`.

    Args:
        pred: (..., C) logits; half precision is computed in float32.
        target: (..., C) scores in [0, 1], 0 for a negative; a score below 0 counts as 0.
        alpha: factor of the negatives, at least 0.
        gamma: exponent of the negatives, at least 0.
        iou_weighted: positives count by :math:`q`; otherwise by 1.

    Returns:
        Tensor: (..., C), at least 0, float32 or float64. No gradient flows to the target.

    Raises:
        ValueError: if the shapes differ, or ``alpha`` or ``gamma`` is below 0.

    >>> varifocal_loss(torch.tensor([[0., 0.]]), torch.tensor([[0.5, 0.]]))
    tensor([[0.3466, 0.1300]])

    That is log(2) / 2, and 0.75 log(2) / 4. A positive costs least at :math:`p = q`, and there
    not 0 but :math:`q` times the entropy of :math:`q`.

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
    r"""Cross entropy with a score, weighted up for scores about their mean.

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
        target: (..., C) scores in [0, 1]; or labels (...) and their scores (...), for scores
            that are 0 but at the label; or labels (...) alone, for scores of 1. A label of C or
            more is background, one below 0 is ignored: its row costs 0.
        mu: in [0, 1]; or 'batch' for the mean of all scores above 0 of this call, but at least
            0.2, so that elements without an object keep the weight 1. If there is none, 0.2.

    Returns:
        Tensor: (..., C), at least 0, float32 or float64. No gradient flows to the target.

    Raises:
        ValueError: for other shapes, or another ``mu``.

    >>> slide_loss(torch.zeros(1, 3), torch.tensor([[0.2, 0.45, 1.]]), mu=0.5)
    tensor([[0.6931, 1.1428, 0.6931]])

    That is log(2) times 1, exp(0.5) and 1. Where all scores are 0 or 1, as of labels alone, it
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
    if beta != 0 and not beta >= 1:
        raise ValueError(
            f'beta must be 0 or at least 1, got {beta}: in between, the gradient has no bound as '
            'the prediction nears the target. Use 0 for cross entropy, or 1'
        )


def check_varifocal(alpha: float, gamma: float) -> None:
    """Raise ValueError, naming it, if one is below 0."""
    for name, value in (('alpha', alpha), ('gamma', gamma)):
        if not value >= 0:
            raise ValueError(f'{name} must be at least 0, got {value}')


def check_mu(mu: float | str) -> None:
    """Raise ValueError unless ``mu`` is 'batch' or a score in [0, 1]."""
    if mu != 'batch' and (isinstance(mu, str) or not 0 <= mu <= 1):
        raise ValueError(f"mu must be 'batch' or a score in [0, 1], got {mu!r}")


def _quality_kernel(
    x: Tensor, *scores: Tensor, terms: Terms, beta: float, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    y = _dense(x, scores)
    probability, rise, entropy, slope = terms(x, y)
    if beta == 0:
        value, derivative = entropy, slope
    else:
        gap = probability - y
        size = gap.abs()
        power = size.pow(beta - 1)
        if wanted:
            derivative = (beta * power).mul_(gap.sign_()).mul_(rise).mul_(entropy)
        focus = power.mul_(size)
        value = entropy.mul_(focus)
        derivative = derivative.addcmul_(focus, slope) if wanted else slope
    return _kept(value.sum(1), scores), _kept(derivative, scores) if wanted else None


def _varifocal_kernel(
    x: Tensor, q: Tensor, alpha: float, gamma: float, iou_weighted: bool, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    q = q.clamp(min=0)
    p = x.sigmoid()
    entropy = _cross_entropy(x, q)
    negative = q == 0
    weight = torch.where(
        negative, p.pow(gamma).mul_(alpha), q if iou_weighted else torch.ones_like(q)
    )
    if not wanted:
        return entropy.mul_(weight), None
    # d log(p^gamma) / dx = gamma (1 - p), for negatives.
    derivative = (1 - p).mul_(gamma).mul_(negative).mul_(entropy).add_(p).sub_(q).mul_(weight)
    return entropy.mul_(weight), derivative


def _slide_kernel(
    x: Tensor, *scores: Tensor, mean: Tensor, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    y = _dense(x, scores)
    weight = torch.exp(1 - torch.maximum(y, mean))
    weight = torch.where(y <= mean - SLIDE_BAND, torch.ones_like(y), weight)
    weight = _kept(weight, scores)
    value = _cross_entropy(x, y).mul_(weight)
    return value, x.sigmoid().sub_(y).mul_(weight) if wanted else None


def _mean_score(wide: Tensor, scores: tuple[Tensor, ...]) -> Tensor:
    """The mean of all scores above 0, but at least SLIDE_LEAST_MEAN."""
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
    """Predictions in at least float32, and beside them (scores,), or (label, score)."""
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
    """One score an element, from either form of target."""
    if len(scores) == 1:
        return scores[0]
    label, score = scores
    classes = x.shape[1]
    positive = (label >= 0) & (label < classes)
    index = label.clamp(0, classes - 1).unsqueeze(1)
    return torch.zeros_like(x).scatter_(1, index, (score * positive).unsqueeze(1))


def _kept(table: Tensor, scores: tuple[Tensor, ...]) -> Tensor:
    """The table, written over with 0 in rows of labels below 0."""
    if len(scores) == 1:
        return table
    kept = (scores[0] >= 0).to(table.dtype)
    return table.mul_(kept if table.dim() == 1 else kept.unsqueeze(1))


def _logit_terms(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    p = x.sigmoid()
    return p, torch.addcmul(p, p, p, value=-1), _cross_entropy(x, y), p - y


def _probability_terms(p: Tensor, y: Tensor, floor: float) -> tuple[Tensor, float, Tensor, Tensor]:
    rest = 1 - p
    entropy = _log_cost(p, floor).mul_(y).add_(_log_cost(rest, floor).mul_(1 - y))
    slope = (1 - y).div_(rest.clamp_(min=floor)).sub_(y / p.clamp(min=floor))
    return p, 1.0, entropy, slope


def _log_cost(p: Tensor, floor: float) -> Tensor:
    """-log(p), and below ``floor`` its tangent there."""
    above = p.clamp(min=floor)
    return (above - p).div_(floor).sub_(above.log_())


def _cross_entropy(x: Tensor, y: Tensor) -> Tensor:
    """Of logits with scores; at least 0, and no less exact where it is small."""
    tail = x.abs().neg_().exp_().log1p_()
    return tail.add_(x.clamp(min=0).addcmul_(x, y, value=-1))
