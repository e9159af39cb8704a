"""Losses of logits adjusted by the frequency of their classes, per element."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from mmdet_ext.functional.classification.binary_terms import ValueAndSlope, label_terms
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
from mmdet_ext.functional.numerics.map_blocks import by_map_blocks, is_map
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['balanced_softmax_loss', 'class_adjustment', 'logit_adjusted_loss']


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


def _shifted_terms(
    pred: Tensor, label: Tensor, wanted: bool, shift: Tensor, ignore_index: int
) -> ValueAndSlope:
    """Compute the binary terms of a block of a map, of logits plus numbers of the classes."""
    logits = pred + shift.reshape(-1, *(1,) * (pred.dim() - 2))
    return label_terms(logits, label, is_ignored(label, ignore_index), slope=wanted)
