"""Classification losses for classes of unequal frequency, per element."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from mmdet_ext.functional.classification.binary_terms import (
    SideWeights,
    ValueAndSlope,
    label_terms,
    side_terms,
)
from mmdet_ext.functional.classification.class_weights import plain_numbers
from mmdet_ext.functional.classification.cross_entropy import (
    IGNORE_INDEX,
    binary_cross_entropy_loss,
    cross_entropy_loss,
    is_ignored,
)
from mmdet_ext.functional.classification.labels import check_class_shapes, without_label
from mmdet_ext.functional.classification.softmax_maps import map_cross_entropy
from mmdet_ext.functional.numerics.checks import check_number
from mmdet_ext.functional.numerics.map_blocks import blocks_of_map, by_map_blocks, is_map
from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.functional.numerics.row_blocks import Kernel, by_row_blocks

__all__ = [
    'balanced_softmax_loss',
    'check_focal_options',
    'class_adjustment',
    'equalized_focal_loss',
    'focal_gradient_sums',
    'gradient_ratio',
    'logit_adjusted_loss',
]


def class_adjustment(counts: Sequence[float], tau: float = 1.0) -> list[float]:
    r"""Compute the numbers that `logit_adjusted_loss` adds to the logits of the classes.

    .. math:: a_j = \tau \ln \frac{n_j}{\max_k n_k}

    with :math:`n_j` an entry of ``counts`` and :math:`\tau` = ``tau``. The most frequent class
    gets 0. A class that never occurs counts as often as the rarest class that does.

    Args:
        counts: one number per class, from 0, at least one above 0; only proportions matter.
        tau: from 0; with 0 nothing is added.

    Returns:
        list[float]: one number per class, at most 0.

    Raises:
        ValueError: for a negative ``tau``, or counts that are negative or all 0.

    >>> class_adjustment([8, 4, 0])
    [0.0, -0.6931471805599453, -0.6931471805599453]
    """
    counts = plain_numbers(counts)
    why = 'it scales the log of frequency'
    check_number('tau', tau, 'a number from 0', least=0, finite=True, why=why)
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
    r"""Compute the cross entropy of logits plus the logarithm of the frequency of their class.

    With softmax, for label :math:`y`:

    .. math:: L = -\ln \frac{e^{x_y + a_y}}{\sum_k e^{x_k + a_k}}

    with :math:`x` a row of ``pred`` and :math:`a` the ``adjustment``, from `class_adjustment`. At
    the optimum softmax(x + a) is the posterior under the training frequencies. The logits
    :math:`x`, which are used in inference, then belong to classes of equal frequency.

    A softmax does not change where all logits shift equally, so that any class may be the one
    with 0. A background column without a count is the exception: ``adjustment`` may lack the last
    column, which then gets 0, the number of the most frequent foreground class. The proportion of
    the background to that class then stays as it is in training.

    With sigmoid, each class is a binary problem:

    .. math:: L_j = \ln(1 + e^{\mp (x_j + a_j)})

    with - for positives. At the optimum :math:`x_j` is the logarithm of the odds in training minus
    :math:`a_j`. With tau 1 these are the odds that training would show if the examples of class j
    were :math:`\max_k n_k / n_j` times as many and its negatives were unchanged. At the start of
    training the probability of a rare class is lower by the same factor.

    Args:
        pred: (N, C) or (N, C, ...) logits; with softmax C + 1 columns where the background is the
            last. Half precision is computed in float32.
        target: (N, ...) labels. With softmax they go up to the last column. With sigmoid labels
            from C on are background, for which all classes are negative; or a target in [0, 1] for
            each element, of the shape of ``pred``. Negative targets are ignored: their loss is 0.
        adjustment: one number per column, in the order of the labels.
        use_sigmoid: whether each class is a binary decision.
        ignore_index: one more label to ignore, such as 255.

    Returns:
        Tensor: (N, ...) with softmax, the shape of ``pred`` with sigmoid; from 0, float32 or
        float64. The gradient lies in [-1, 1]. The loss can be differentiated once.

    Raises:
        ValueError: if shapes do not fit each other, or ``adjustment`` does not fit the columns;
            with softmax on a CPU, for a label beyond the columns.

    >>> pred = torch.zeros(1, 2)
    >>> logit_adjusted_loss(pred, torch.tensor([1]), class_adjustment([3, 1]))
    tensor([1.3863])
    >>> logit_adjusted_loss(pred, torch.tensor([1]), class_adjustment([3, 1]), use_sigmoid=True)
    tensor([[0.6931, 1.3863]])

    The first is ln 4, as the class has one of four examples; then ln 2 and ln(1 + 3).

    References:
        Menon et al., Long-tail Learning via Logit Adjustment, 2020, equation 10, for softmax. The
        form with sigmoid is not from there.
    """
    dtype = torch.promote_types(pred.dtype, torch.float32)
    added = torch.as_tensor(
        _fit_columns(adjustment, pred, use_sigmoid), dtype=dtype, device=pred.device
    )
    if is_map(pred) and target.dim() < pred.dim():
        check_class_shapes(pred, target, dense=False)
        if use_sigmoid:
            kernel = partial(_shifted_terms, shift=added, ignore_index=ignore_index)
            return by_map_blocks(kernel, pred, target)
        return map_cross_entropy(pred, without_label(target, ignore_index), shift=added)
    (pred,) = promote_half(pred)
    loss = binary_cross_entropy_loss if use_sigmoid else cross_entropy_loss
    shifted = pred + added.reshape(-1, *(1,) * (pred.dim() - 2))
    return loss(shifted, target, ignore_index=ignore_index)


def balanced_softmax_loss(
    pred: Tensor, target: Tensor, counts: Sequence[float], ignore_index: int = IGNORE_INDEX
) -> Tensor:
    r"""Compute the cross entropy of a softmax whose terms are weighted by class frequency.

    .. math:: L = -\ln \frac{n_y e^{x_y}}{\sum_k n_k e^{x_k}}

    with :math:`x` a row of ``pred``, :math:`y` its label and :math:`n` the ``counts``. It equals
    `logit_adjusted_loss` with softmax and tau 1, and has the same edge cases.

    Args:
        pred: (N, C) or (N, C, ...) logits; C + 1 columns where the background is the last.
        target: (N, ...) labels; negative labels are ignored: their loss is 0.
        counts: C or C + 1 numbers, from 0. A background without a number counts as often as the
            most frequent class. A class that never occurs counts as often as the rarest class that
            does.
        ignore_index: one more label to ignore, such as 255.

    Returns:
        Tensor: (N, ...), from 0, float32 or float64.

    Raises:
        ValueError: if shapes do not fit each other, or ``counts`` do not fit the columns; on a
            CPU, for a label beyond the columns.

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
    r"""Compute a sigmoid focal loss with a larger exponent and weight for rarer classes.

    .. math::
        L_j = -\alpha_t \frac{\gamma_j}{\gamma} (1 - p_t)^{\gamma_j} \ln p_t, \quad
        \gamma_j = \gamma + s (1 - g_j)

    with :math:`p_t` the sigmoid of an entry of ``pred`` for a positive and one minus it for a
    negative, :math:`\alpha_t` = ``alpha`` for a positive and 1 - ``alpha`` for a negative,
    :math:`\gamma` = ``gamma``, :math:`s` = ``scale`` and :math:`g` the ``gradient_ratio``. With
    :math:`g_j = 1` this is the focal loss. :math:`g` has no gradient.

    Args:
        pred: (N, C) or (N, C, ...) logits; half precision is computed in float32.
        target: (N, ...) labels, of which C and above are background, for which all classes are
            negative; or (N, C), 1 for positives, 0 for negatives, and between them for a mixture
            of both losses. Negative targets are ignored: their loss is 0.
        gradient_ratio: (C,) in [0, 1], the positive gradients of a class divided by its negative
            ones, from `gradient_ratio`.
        gamma: exponent of a class whose gradients are balanced, above 0.
        alpha: weight of positives, in [0, 1].
        scale: number added to the exponent of a class without positive gradients, from 0.

    Returns:
        Tensor: as ``pred``, from 0, float32 or float64. It can be differentiated once. The gradient
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
    if is_map(pred):
        return by_map_blocks(kernel, pred, target)
    (pred,) = promote_half(pred)
    return by_row_blocks(kernel, pred.movedim(1, -1), target).movedim(-1, 1)


@torch.no_grad()
def focal_gradient_sums(
    pred: Tensor,
    target: Tensor,
    gradient_ratio: Tensor | Sequence[float] | None = None,
    gamma: float = 2.0,
    alpha: float = 0.25,
    scale: float = 8.0,
) -> tuple[Tensor, Tensor]:
    r"""Sum the positive and the negative gradients of `equalized_focal_loss` per class.

    .. math::
        G^+_j = \sum_i \max\left(0, -\frac{\partial L_{ij}}{\partial x_{ij}}\right), \quad
        G^-_j = \sum_i \max\left(0, \frac{\partial L_{ij}}{\partial x_{ij}}\right)

    over all elements :math:`i` of ``pred``. Positives have the gradients of the first sum, and
    negatives those of the second.

    Args:
        pred: (N, C) or (N, C, ...) logits.
        target: as `equalized_focal_loss` takes it; ignored targets do not count.
        gradient_ratio: (C,) in [0, 1]; None is 1, the plain focal loss.
        gamma: exponent of a class whose gradients are balanced, above 0.
        alpha: weight of positives, in [0, 1].
        scale: number added to the exponent of a class without positive gradients, from 0.

    Returns:
        tuple: sums of positive and of negative gradients, each (C,) from 0, without a graph.

    Raises:
        ValueError: as `equalized_focal_loss`.

    >>> focal_gradient_sums(torch.zeros(1, 2), torch.tensor([0]))
    (tensor([0.0746, 0.0000]), tensor([0.0000, 0.2237]))

    At p = 1/2 the focal loss has the slope alpha_t (1/8 + 2 * 1/8 * ln 2), here with 1/4 and 3/4.
    """
    ratio = [1.0] * pred.shape[1] if gradient_ratio is None else gradient_ratio
    kernel = _focal_kernel(pred, target, ratio, gamma, alpha, scale)
    if is_map(pred):
        return _map_sums(kernel, pred, target)

    def slope_kernel(pred: Tensor, target: Tensor, wanted: bool) -> ValueAndSlope:
        _, slope = kernel(pred, target, wanted=True)
        assert slope is not None
        return slope, None

    (pred,) = promote_half(pred)
    slope = by_row_blocks(slope_kernel, pred.movedim(1, -1), target).flatten(0, -2)
    return slope.clamp(max=0).sum(0).abs(), slope.clamp(min=0).sum(0)


def gradient_ratio(positive: Tensor, negative: Tensor) -> Tensor:
    """Divide the positive by the negative gradients of each class, at most 1.

    A class without any gradients has the ratio 1.

    Args:
        positive: (C,), from 0, from `focal_gradient_sums`.
        negative: (C,), from 0, from `focal_gradient_sums`.

    Returns:
        Tensor: (C,), in [0, 1].

    >>> gradient_ratio(torch.tensor([1., 3., 0., 0.]), torch.tensor([2., 2., 2., 0.]))
    tensor([0.5000, 1.0000, 0.0000, 1.0000])
    """
    tiny = torch.finfo(negative.dtype).tiny
    balanced = positive >= negative
    return torch.where(balanced, 1.0, positive / negative.clamp(min=tiny))


def check_focal_options(gamma: float, alpha: float, scale: float) -> None:
    """Raise ValueError unless the options of `equalized_focal_loss` are in their ranges."""
    why = 'weights are divided by it'
    check_number('gamma', gamma, 'a number above 0', above=0, finite=True, why=why)
    check_number('alpha', alpha, 'from 0 to 1', least=0, most=1, why='the weight of positives')
    check_number('scale', scale, 'a number from 0', least=0, finite=True, why='it adds to gamma')


def _fit_columns(adjustment: Sequence[float], pred: Tensor, use_sigmoid: bool) -> list[float]:
    """Return the adjustment of each column, 0 for a background that has none."""
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
) -> Kernel:
    """Check all arguments, and return the equalized focal loss as a kernel of `by_row_blocks`."""
    check_focal_options(gamma, alpha, scale)
    check_class_shapes(pred, target, dense=True)
    dense = target.dim() == pred.dim()
    if pred.dim() < 2 or (dense and pred.dim() > 2):
        raise ValueError(
            f'pred must be logits (N, C), got {tuple(pred.shape)}: maps (N, C, ...) go with labels '
            '(N, ...) alone'
        )
    dtype = torch.promote_types(pred.dtype, torch.float32)
    row = torch.as_tensor(ratio, dtype=dtype, device=pred.device).detach()
    if row.shape != pred.shape[1:2]:
        raise ValueError(
            f'gradient_ratio must have one entry per class, ({pred.shape[1]},), got '
            f'{tuple(row.shape)}'
        )
    focus = gamma + scale * (1 - row)
    weights = SideWeights(focus / gamma * alpha, focus / gamma * (1 - alpha))
    return partial(_dense_kernel if dense else _label_kernel, focus=focus, weights=weights)


def _map_sums(kernel: Kernel, pred: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the positive and the negative gradients of a map per class, block by block."""
    flat, labels = pred.flatten(2), label.flatten(1)
    dtype = torch.promote_types(pred.dtype, torch.float32)
    sums = torch.zeros(2, pred.shape[1], dtype=dtype, device=pred.device)
    for block in blocks_of_map(flat):
        (wide,) = promote_half(block.of(flat))
        _, slope = kernel(wide, block.of(labels), wanted=True)
        assert slope is not None
        sums[0] += slope.clamp(max=0).sum((0, 2)).abs()
        sums[1] += slope.clamp(min=0).sum((0, 2))
    return sums[0], sums[1]


def _shifted_terms(
    pred: Tensor, label: Tensor, wanted: bool, shift: Tensor, ignore_index: int
) -> ValueAndSlope:
    """Compute the binary terms of a block of a map, of logits plus numbers of the classes."""
    logits = pred + shift.reshape(-1, *(1,) * (pred.dim() - 2))
    return label_terms(logits, label, is_ignored(label, ignore_index), slope=wanted)


def _label_kernel(
    pred: Tensor, label: Tensor, focus: Tensor, weights: SideWeights, wanted: bool
) -> ValueAndSlope:
    """Compute the equalized focal loss of labels (n,), or (n, p) of a block of a map."""
    return label_terms(pred, label, label < 0, focus, weights, slope=wanted)


def _dense_kernel(
    pred: Tensor, target: Tensor, focus: Tensor, weights: SideWeights, wanted: bool
) -> ValueAndSlope:
    """Compute the mixture of the losses as positive and as negative, for targets (n, C)."""
    valid = target >= 0
    share = torch.where(valid, target, 0).to(pred.dtype)
    value, slope = side_terms(pred, True, focus, slope=wanted)
    other, other_slope = side_terms(pred, False, focus, slope=wanted)
    up = share.mul(weights.positive).mul_(valid)
    down = (1 - share).mul_(weights.negative).mul_(valid)
    value.mul_(up).addcmul_(other, down)
    if slope is not None and other_slope is not None:
        slope.mul_(up).addcmul_(other_slope, down)
    return value, slope
