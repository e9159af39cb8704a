"""Terms of losses over the softmax of the classes: value and derivative."""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext.functional.classification.binary_terms import Floor, ValueAndSlope, side_terms
from mmdet_ext.functional.classification.labels import label_index

__all__ = ['label_scale', 'softmax_label_terms']


def softmax_label_terms(
    pred: Tensor,
    label: Tensor,
    ignored: Tensor,
    gamma: float = 0.0,
    floor: Floor = None,
    slope: bool = True,
) -> ValueAndSlope:
    """Compute the focal cost of labels over the softmax of the classes.

    Ignored rows are not yet 0. The caller multiplies the value by `label_scale`, which takes less
    time than another pass over the table of derivatives.

    Args:
        pred: (N, C, ...) logits or probabilities, without a graph.
        label: (N, ...) integers below C.
        ignored: (N, ...), True where the cost is to be 0.
        gamma: exponent of 1 - p, from 0.
        floor: floor of probabilities; None for logits.
        slope: whether the derivative is wanted.

    Returns:
        tuple: value (N, 1, ...), from 0, and its derivative (N, C, ...).

    Raises:
        ValueError: on a CPU, for a label from C on that is not ignored.
    """
    index = label_index(label, ignored, pred.shape[1]).unsqueeze(1)
    if floor is not None:
        value, own = side_terms(pred.gather(1, index), True, gamma, floor, slope)
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
    """Return the weights of labels: that of their class, and 0 where they are ignored.

    Args:
        pred: (N, C, ...), for its precision.
        label: (N, ...).
        ignored: (N, ...).
        weight: (C,), one weight per class; None for 1.

    Returns:
        Tensor: (N, 1, ...).
    """
    counts = (~ignored).unsqueeze(1).to(pred.dtype)
    if weight is None:
        return counts
    return counts * weight[label.long().masked_fill(ignored, 0)].unsqueeze(1)
