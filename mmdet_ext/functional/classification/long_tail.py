"""Classification losses for classes of unequal frequency, one value an element."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_ext.functional.classification.class_weights import plain_numbers
from mmdet_ext.functional.classification.cross_entropy import (
    IGNORE_INDEX,
    binary_cross_entropy_loss,
    cross_entropy_loss,
)
from mmdet_ext.functional.classification.focal import check_class_shapes
from mmdet_ext.functional.classification.labels import split_labels
from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.functional.numerics.row_blocks import by_row_blocks

#: A value an element and, where it is wanted, its derivative by the logits.
Terms = tuple[Tensor, Tensor | None]

# softplus(x) is x from here on, in float64 too.
_SOFTPLUS_END = 50.0


def class_adjustment(counts: Sequence[float], tau: float = 1.0) -> list[float]:
    r"""What `logit_adjusted_loss` adds to each class's logit.

    .. math:: a_j = \tau \ln \frac{n_j}{\max_k n_k}

    with :math:`n_j` an entry of ``counts`` and :math:`\tau` from ``tau``. The most frequent class
    gets 0. A class that never occurs counts as often as the rarest that does.

    Args:
        counts: one number a class, from 0, at least one above 0; only proportions matter.
        tau: from 0, where nothing is added.

    Returns:
        list[float]: one number a class, at most 0.

    Raises:
        ValueError: for a negative ``tau``, or counts that are negative or all 0.

    >>> class_adjustment([8, 4, 0])
    [0.0, -0.6931471805599453, -0.6931471805599453]
    """
    counts = plain_numbers(counts)
    if not 0 <= tau < math.inf:
        raise ValueError(f'tau must be a number from 0, got {tau}: it scales the log of frequency')
    wrong = [count for count in counts if not 0 <= count < math.inf]
    if wrong or not any(counts):
        raise ValueError(
            'counts must be numbers from 0, at least one above 0, got '
            f'{wrong[0] if wrong else list(counts)!r}'
        )
    rarest = min(count for count in counts if count > 0)
    most = max(counts)
    return [tau * math.log(max(count, rarest) / most) for count in counts]


def logit_adjusted_loss(
    pred: Tensor,
    target: Tensor,
    adjustment: Sequence[float],
    use_sigmoid: bool = False,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    r"""Cross entropy of logits to which the log of their class's frequency is added.

    With softmax, for label :math:`y`:

    .. math:: L = -\ln \frac{e^{x_y + a_y}}{\sum_k e^{x_k + a_k}}

    with :math:`x` a row of ``pred`` and :math:`a` the ``adjustment``, from `class_adjustment`. At
    the optimum softmax(x + a) is the posterior under the training frequencies. So :math:`x`, as it
    is used in testing, belongs to classes of one frequency.

    Softmax does not change where all logits shift alike, so it is all the same which class gets
    0. That ends where the background is a column without a count: ``adjustment`` may lack the
    last column, which then gets 0, as the most frequent foreground class. So the proportion of
    background to that class stays as it is in training.

    With sigmoid, each class is a problem of its own, positives and negatives alike:

    .. math:: L_j = \ln(1 + e^{\mp (x_j + a_j)})

    with - for positives. At the optimum :math:`x_j` is the log of the odds in training minus
    :math:`a_j`: with tau 1 the odds are those that training would show if the examples of class j
    were :math:`\max_k n_k / n_j` times as many and its negatives as they are. In training the
    probability of a rare class starts as much lower.

    Args:
        pred: (N, C) or (N, C, ...) logits; with softmax C + 1 where the background is the last
            column. Half precision is computed in float32.
        target: (N, ...) labels. With softmax up to the last column. With sigmoid C and above are
            the background, for which all classes are negative; or the shape of ``pred``, in
            [0, 1], how true each element is. Negative ones are ignored: loss 0.
        adjustment: one number a column, in the order of the labels.
        use_sigmoid: whether classes are taken each for itself.
        ignore_index: one more label to ignore, such as 255.

    Returns:
        Tensor: (N, ...) with softmax, the shape of ``pred`` with sigmoid; from 0, float32 or
        float64. The gradient lies in [-1, 1]. It can be differentiated once.

    Raises:
        ValueError: if shapes do not fit each other, or ``adjustment`` not the columns; with
            softmax on a CPU, for a label beyond the columns.

    >>> pred = torch.zeros(1, 2)
    >>> logit_adjusted_loss(pred, torch.tensor([1]), class_adjustment([3, 1]))
    tensor([1.3863])
    >>> logit_adjusted_loss(pred, torch.tensor([1]), class_adjustment([3, 1]), use_sigmoid=True)
    tensor([[0.6931, 1.3863]])

    The first is ln 4, as the class is one example of four; then ln 2 and ln(1 + 3).

    References:
        Menon et al., Long-tail Learning via Logit Adjustment, 2020, equation 10, for softmax. The
        form with sigmoid is not from there.
    """
    (pred,) = promote_half(pred)
    added = pred.new_tensor(_fit_columns(adjustment, pred, use_sigmoid))
    loss = binary_cross_entropy_loss if use_sigmoid else cross_entropy_loss
    shifted = pred + added.reshape(-1, *(1,) * (pred.dim() - 2))
    return loss(shifted, target, ignore_index=ignore_index)


def balanced_softmax_loss(
    pred: Tensor, target: Tensor, counts: Sequence[float], ignore_index: int = IGNORE_INDEX
) -> Tensor:
    r"""Cross entropy of a softmax whose terms are weighed by their class's frequency.

    .. math:: L = -\ln \frac{n_y e^{x_y}}{\sum_k n_k e^{x_k}}

    with :math:`x` a row of ``pred``, :math:`y` its label and :math:`n` the ``counts``. That is
    `logit_adjusted_loss` with softmax and tau 1, whose edges these are.

    Args:
        pred: (N, C) or (N, C, ...) logits; C + 1 where the background is the last column.
        target: (N, ...) labels; negative ones are ignored: loss 0.
        counts: C or C + 1 of them, from 0. Without one the background counts as often as the most
            frequent class, and a class that never occurs as often as the rarest that does.
        ignore_index: one more label to ignore, such as 255.

    Returns:
        Tensor: (N, ...), from 0, float32 or float64.

    Raises:
        ValueError: if shapes do not fit each other, or ``counts`` not the columns; on a CPU, for
            a label beyond the columns.

    >>> balanced_softmax_loss(torch.zeros(1, 2), torch.tensor([1]), [3, 1])
    tensor([1.3863])

    That is ln 4.

    References:
        Ren et al., Balanced Meta-Softmax for Long-Tailed Visual Recognition, 2020, equations 3
        and 4.
    """
    return logit_adjusted_loss(pred, target, class_adjustment(counts), ignore_index=ignore_index)


def equalized_focal_loss(
    pred: Tensor,
    target: Tensor,
    gradient_ratio: Tensor | Sequence[float],
    gamma: float = 2.0,
    alpha: float = 0.25,
    scale: float = 8.0,
) -> Tensor:
    r"""Sigmoid focal loss that focuses more, and weighs more, the rarer a class's positives are.

    .. math::
        L_j = -\alpha_t \frac{\gamma_j}{\gamma} (1 - p_t)^{\gamma_j} \ln p_t, \quad
        \gamma_j = \gamma + s (1 - g_j)

    with :math:`p_t` the sigmoid of an entry of ``pred`` for a positive and one minus it for a
    negative, :math:`\alpha_t` likewise ``alpha`` or 1 - ``alpha``, :math:`\gamma` from ``gamma``,
    :math:`s` from ``scale`` and :math:`g` the ``gradient_ratio``. With :math:`g_j = 1` this is the
    focal loss. No gradient flows through :math:`g`.

    Args:
        pred: (N, C) logits; half precision is computed in float32.
        target: (N,) labels, of which C and above are the background, for which all classes are
            negative; or (N, C), 1 for positives and 0 for negatives, between them for a mixture
            of both losses. Negative ones are ignored: loss 0.
        gradient_ratio: (C,) in [0, 1], of a class's positive to its negative gradients, as from
            `gradient_ratio`.
        gamma: above 0, focus of a class whose gradients are balanced.
        alpha: in [0, 1], weight of positives.
        scale: from 0, what is added to the focus of a class without positive gradients.

    Returns:
        Tensor: (N, C), from 0, float32 or float64. It can be differentiated once. The gradient
        is at most (1 + gamma_j / e) gamma_j / gamma: 23.4 by default.

    Raises:
        ValueError: if shapes do not fit each other, or an option is out of its range.

    >>> pred, label = torch.zeros(1, 2), torch.tensor([0])
    >>> equalized_focal_loss(pred, label, [1., 0.5], gamma=2.0, alpha=0.25, scale=8.0)
    tensor([[0.0433, 0.0244]])

    That is 0.25 * 0.5^2 * ln 2, and 0.75 * 3 * 0.5^6 * ln 2, as gamma_j is 6.

    References:
        Li et al., Equalized Focal Loss for Dense Long-Tailed Object Detection, 2022, the final
        form of section 3.2.
    """
    kernel = _focal_kernel(pred, target, gradient_ratio, gamma, alpha, scale)
    (pred,) = promote_half(pred)
    return by_row_blocks(kernel, pred, target)


@torch.no_grad()
def focal_gradient_sums(
    pred: Tensor,
    target: Tensor,
    gradient_ratio: Tensor | Sequence[float] | None = None,
    gamma: float = 2.0,
    alpha: float = 0.25,
    scale: float = 8.0,
) -> tuple[Tensor, Tensor]:
    r"""How strongly each class's logits are pulled up and down by `equalized_focal_loss`.

    .. math::
        G^+_j = \sum_i \max\left(0, -\frac{\partial L_{ij}}{\partial x_{ij}}\right), \quad
        G^-_j = \sum_i \max\left(0, \frac{\partial L_{ij}}{\partial x_{ij}}\right)

    over all elements :math:`i` of ``pred``, that is positives and negatives, as only positives
    pull up and only negatives down.

    Args:
        pred: (N, C) logits.
        target: as `equalized_focal_loss` takes it; what is ignored does not count.
        gradient_ratio: (C,) in [0, 1]; None is 1, the plain focal loss.
        gamma: likewise.
        alpha: likewise.
        scale: likewise.

    Returns:
        tuple: sums of positive and of negative gradients, each (C,) from 0, without a graph.

    Raises:
        ValueError: as `equalized_focal_loss`.

    >>> focal_gradient_sums(torch.zeros(1, 2), torch.tensor([0]))
    (tensor([0.0746, 0.0000]), tensor([0.0000, 0.2237]))

    For p = 1/2 the focal loss has the slope alpha_t (1/8 + 2 * 1/8 * ln 2), here with 1/4 and 3/4.
    """
    ratio = [1.0] * pred.shape[-1] if gradient_ratio is None else gradient_ratio
    kernel = _focal_kernel(pred, target, ratio, gamma, alpha, scale)

    def slope_kernel(pred: Tensor, target: Tensor, wanted: bool) -> Terms:
        _, slope = kernel(pred, target, wanted=True)
        assert slope is not None
        return slope, None

    (pred,) = promote_half(pred)
    slope = by_row_blocks(slope_kernel, pred, target)
    return slope.clamp(max=0).sum(0).abs(), slope.clamp(min=0).sum(0)


def gradient_ratio(positive: Tensor, negative: Tensor) -> Tensor:
    """A class's positive over its negative gradients, at most 1; 1 where there are none at all.

    Args:
        positive: (C,), from 0, from `focal_gradient_sums`.
        negative: (C,), likewise.

    Returns:
        Tensor: (C,), in [0, 1].

    >>> gradient_ratio(torch.tensor([1., 3., 0., 0.]), torch.tensor([2., 2., 2., 0.]))
    tensor([0.5000, 1.0000, 0.0000, 1.0000])
    """
    tiny = torch.finfo(negative.dtype).tiny
    balanced = positive >= negative
    return torch.where(balanced, 1.0, positive / negative.clamp(min=tiny))


def check_focal_options(gamma: float, alpha: float, scale: float) -> None:
    """Raise ValueError, naming the option, unless these are ones of `equalized_focal_loss`."""
    if not 0 < gamma < math.inf:
        raise ValueError(f'gamma must be a number above 0, got {gamma}: weights are divided by it')
    if not 0 <= alpha <= 1:
        raise ValueError(f'alpha must be from 0 to 1, got {alpha}: the weight of positives')
    if not 0 <= scale < math.inf:
        raise ValueError(f'scale must be a number from 0, got {scale}: it adds to gamma')


def _fit_columns(adjustment: Sequence[float], pred: Tensor, use_sigmoid: bool) -> list[float]:
    """The adjustment of each column, 0 for a background that has none."""
    columns = pred.shape[1] if pred.dim() > 1 else 0
    missing = columns - len(adjustment)
    if missing == 0:
        return list(adjustment)
    if missing == 1 and not use_sigmoid:
        return [*adjustment, 0.0]
    wanted = f'{columns}' if use_sigmoid else f'{columns}, or {columns - 1} and a background'
    raise ValueError(
        f'counts of {len(adjustment)} classes do not fit logits of {columns} columns: give '
        f'{wanted}, in the order of the labels'
    )


def _focal_kernel(
    pred: Tensor,
    target: Tensor,
    ratio: Tensor | Sequence[float],
    gamma: float,
    alpha: float,
    scale: float,
) -> Callable[..., Terms]:
    """What computes the equalized focal loss of a block, after a look at all arguments."""
    check_focal_options(gamma, alpha, scale)
    check_class_shapes(pred, target, dense=True)
    if pred.dim() != 2:
        raise ValueError(f'pred must be logits (N, C), got {tuple(pred.shape)}')
    dtype = torch.promote_types(pred.dtype, torch.float32)
    row = torch.as_tensor(ratio, dtype=dtype, device=pred.device).detach()
    if row.shape != pred.shape[1:]:
        raise ValueError(
            f'gradient_ratio must have one entry a class, ({pred.shape[1]},), got '
            f'{tuple(row.shape)}'
        )
    focus = gamma + scale * (1 - row)
    factors = focus / gamma * alpha, focus / gamma * (1 - alpha)
    terms = _dense_terms if target.dim() == 2 else _label_terms
    return partial(terms, focus=focus, factors=factors)


def _label_terms(
    pred: Tensor, label: Tensor, focus: Tensor, factors: tuple[Tensor, Tensor], wanted: bool
) -> Terms:
    """The equalized focal loss of labels (N,).

    Args:
        pred: (N, C).
        label: (N,).
        focus: (C,), exponents.
        factors: of positives and of negatives, (C,) each.
        wanted: whether the derivative is.
    """
    column, positive, valid = (part[:, None] for part in split_labels(label, pred.shape[1]))

    def flip(table: Tensor) -> Tensor:
        """Change the sign of the positives, in place."""
        entry = table.gather(1, column)
        return table.scatter_(1, column, torch.where(positive, -entry, entry))

    entropy, log_share = _entropy_and_log_share(flip(pred.clone()))
    power = (log_share * focus).exp_()
    up, down = factors
    own = power.gather(1, column) * torch.where(positive, up[column], down[column])
    power = power.mul_(down).scatter_(1, column, own).mul_(valid)
    value = entropy.mul_(power)
    if not wanted:
        return value, None
    return value, flip(_slope(value, power, log_share.exp_(), focus))


def _dense_terms(
    pred: Tensor, target: Tensor, focus: Tensor, factors: tuple[Tensor, Tensor], wanted: bool
) -> Terms:
    """Likewise, for targets (N, C): the mixture of the losses as positive and as negative."""
    valid = target >= 0
    share = torch.where(valid, target, 0).to(pred.dtype)
    values, slopes = [], []
    for sign, factor, part in zip((-1, 1), factors, (share, 1 - share), strict=True):
        entropy, log_share = _entropy_and_log_share(sign * pred)
        power = (log_share * focus).exp_().mul_(factor).mul_(part).mul_(valid)
        values.append(entropy.mul_(power))
        if wanted:
            slopes.append(_slope(values[-1], power, log_share.exp_(), focus))
    value = values[0].add_(values[1])
    return value, slopes[1].sub_(slopes[0]) if wanted else None


def _entropy_and_log_share(wrong: Tensor) -> tuple[Tensor, Tensor]:
    """-ln(1 - q) and ln q of q = sigmoid(``wrong``), finite for all logits; uses them up."""
    entropy = F.softplus(wrong, threshold=_SOFTPLUS_END)
    return entropy, wrong.sub_(entropy)


def _slope(value: Tensor, power: Tensor, share: Tensor, focus: Tensor) -> Tensor:
    """Derivative of ``power`` * -ln(1 - q) with ``power`` ~ q^k: k (1 - q) value + q power.

    Args:
        value: the product.
        power: used up.
        share: q, used up.
        focus: (C,), k.
    """
    power.mul_(share)
    return power.addcmul_(share.neg_().add_(1).mul_(focus), value)
