"""Cross entropy over softmax, over sigmoid and of masks, per element."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from mmdet_ext.functional.classification.binary_terms import (
    SideWeights,
    ValueAndSlope,
    attach,
    label_terms,
    target_terms,
    wants_slope,
)
from mmdet_ext.functional.classification.class_weights import fit_class_weight
from mmdet_ext.functional.classification.labels import (
    check_class_shapes,
    label_index,
    without_label,
)
from mmdet_ext.functional.classification.softmax_maps import map_cross_entropy
from mmdet_ext.functional.classification.softmax_terms import label_scale, softmax_label_terms
from mmdet_ext.functional.numerics.checks import check_number
from mmdet_ext.functional.numerics.map_blocks import by_map_blocks, is_map
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = [
    'ClassWeight',
    'binary_cross_entropy_loss',
    'check_smoothing',
    'cross_entropy_loss',
    'is_ignored',
    'mask_cross_entropy_loss',
]

#: One weight per class, one for all, or None where all weigh 1.
ClassWeight = float | Sequence[float] | Tensor | None

#: The label that torch's losses ignore.
IGNORE_INDEX = -100


def cross_entropy_loss(
    pred: Tensor,
    target: Tensor,
    class_weight: ClassWeight = None,
    ignore_index: int = IGNORE_INDEX,
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Compute the cross entropy over the softmax of the classes.

    .. math::
        L = -\sum_c w_c q_c \ln p_c, \quad p = \mathrm{softmax}(x), \quad
        q_c = (1 - \epsilon) [c = y] + \epsilon / C

    with :math:`x` a row of ``pred``, :math:`y` its ``target``, :math:`w` the ``class_weight``, and
    :math:`\epsilon` the ``label_smoothing``.

    Args:
        pred: (N, C) or (N, C, ...) logits; half precision is computed in float32.
        target: labels (N, ...); negative labels and ``ignore_index`` are ignored: their loss is 0.
            Or a floating tensor of the shape of ``pred``: a distribution over the classes, which
            replaces [c = y].
        class_weight: (C,), from 0, a list, an array or a tensor, or one number for all classes;
            None: all 1. With one weight less, the last column is the background, as in detection
            heads, and has the mean of the other weights.
        ignore_index: one more label to ignore, such as 255.
        label_smoothing: share of the target that is spread evenly over all classes, in [0, 1].

    Returns:
        Tensor: (N, ...), from 0, float32 or float64. No element of the gradient is larger than the
        largest weight. Only ``pred`` has a gradient.

    Raises:
        ValueError: for shapes that do not fit, or a ``label_smoothing`` outside [0, 1]; on a CPU,
            for a label from C on that is not ignored. A GPU then stops with an error of its own.

    >>> cross_entropy_loss(torch.zeros(2, 4), torch.tensor([1, -1]))
    tensor([1.3863, 0.0000])

    That is ln 4, and 0 for the ignored label.

    References:
        Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2016, section 7
        (label smoothing).
    """
    check_smoothing(label_smoothing)
    soft = target.is_floating_point() and target.dim() == pred.dim()
    check_class_shapes(pred, target, dense=soft)
    if is_map(pred) and not soft:
        return _map_loss(pred, target, class_weight, ignore_index, label_smoothing)
    (pred,) = promote_half(pred)
    values, slope = pred.detach(), wants_slope(pred)
    with torch.no_grad():
        weight = _class_weight(class_weight, pred, pred.shape[1], background=True)
        if soft or label_smoothing:
            truth = target if soft else _one_hot(pred, target, ignore_index)
            truth = _smoothed(truth.to(pred.dtype), label_smoothing, max(1, pred.shape[1]))
            terms = _distribution_terms(values, truth, weight, slope)
        else:
            terms = softmax_label_terms(
                values, target, is_ignored(target, ignore_index), slope=slope
            )
        if soft:
            scale = pred.new_ones(())
        else:
            own_weight = None if label_smoothing else weight
            scale = label_scale(pred, target, is_ignored(target, ignore_index), own_weight)
    return (attach(pred, terms) * scale).squeeze(1)


def binary_cross_entropy_loss(
    pred: Tensor,
    target: Tensor,
    pos_weight: ClassWeight = None,
    ignore_index: int = IGNORE_INDEX,
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Compute the cross entropy over the sigmoid of each element, a binary decision of its own.

    .. math::
        L = -w t \ln \sigma(x) - (1 - t) \ln(1 - \sigma(x)), \quad
        t = (1 - \epsilon) y + \epsilon / 2

    with :math:`x` an element of ``pred``, :math:`y` its target from ``target``, :math:`w` the
    ``pos_weight`` of its class, and :math:`\epsilon` the ``label_smoothing``.

    Args:
        pred: logits of any shape; half precision is computed in float32.
        target: the shape of ``pred``, in [0, 1]; or labels (N, ...) for ``pred`` (N, C, ...), which
            are 1 at the label and 0 elsewhere, so that labels from C on are background. Negative
            targets and ``ignore_index`` are ignored: their loss is 0.
        pos_weight: (C,), from 0, or one number for all classes; None: all 1. With labels the
            classes are dimension 1 of ``pred``, with targets of each element the last dimension.
        ignore_index: one more target to ignore, such as 255.
        label_smoothing: share of the target that is spread evenly over yes and no, in [0, 1].

    Returns:
        Tensor: the shape of ``pred``, from 0, float32 or float64. No element of the gradient is
        larger than the largest weight, or 1. Only ``pred`` has a gradient.

    Raises:
        ValueError: for shapes that do not fit, or a ``label_smoothing`` outside [0, 1].

    >>> binary_cross_entropy_loss(torch.zeros(2, 2), torch.tensor([0, -1]), pos_weight=[2., 1.])
    tensor([[1.3863, 0.6931],
            [0.0000, 0.0000]])

    That is 2 ln 2 and ln 2, and 0 for the ignored label.
    """
    check_smoothing(label_smoothing)
    check_class_shapes(pred, target, dense=True)
    dense = target.dim() == pred.dim()
    weight = _class_weight(pos_weight, pred, pred.shape[-1 if dense else 1])
    if not dense:
        kernel = partial(
            _binary_terms, weight=weight, ignore_index=ignore_index, smoothing=label_smoothing
        )
        if is_map(pred):
            return by_map_blocks(kernel, pred, target)
    (pred,) = promote_half(pred)
    values, slope = pred.detach(), wants_slope(pred)
    with torch.no_grad():
        if dense:
            truth = _smoothed(target.to(pred.dtype), label_smoothing, 2)
            ignored = is_ignored(target, ignore_index)
            terms = _element_terms(values, truth, ignored, weight, slope)
        else:
            terms = kernel(values, target, wanted=slope)
    return attach(pred, terms)


def mask_cross_entropy_loss(
    pred: Tensor,
    target: Tensor,
    label: Tensor,
    class_weight: ClassWeight = None,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """Compute the cross entropy over the sigmoid of each pixel, in the mask of the object's class.

    The formula is that of `binary_cross_entropy_loss`, times the weight of the object's class.

    Args:
        pred: (N, C, ...) logits, one mask per class; half precision is computed in float32.
        target: (N, ...), in [0, 1]; negative pixels and ``ignore_index`` are ignored: their loss
            is 0.
        label: (N,), the class whose mask is used; all 0 where one mask serves all classes. Objects
            with a negative label are ignored: their loss is 0.
        class_weight: (C,), from 0, or one number for all classes; None: all 1.
        ignore_index: one more value of a pixel to ignore, such as 255.

    Returns:
        Tensor: (N, ...), from 0, float32 or float64.

    Raises:
        ValueError: for shapes that do not fit; on a CPU, for a label from C on.

    >>> mask_cross_entropy_loss(torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1), torch.tensor([1]))
    tensor([[[0.6931]]])
    """
    check_class_shapes(pred, target, dense=False)
    if label.shape != pred.shape[:1]:
        raise ValueError(
            f'label must be one class per object, {tuple(pred.shape[:1])}, got {tuple(label.shape)}'
        )
    absent = label < 0
    index = label_index(label, absent, pred.shape[1], 'label', 'make it negative')
    (chosen,) = promote_half(pred[torch.arange(len(pred), device=pred.device), index])
    of_pixels = (-1, *(1,) * (target.dim() - 1))
    slope = wants_slope(chosen)
    with torch.no_grad():
        ignored = is_ignored(target, ignore_index) | absent.reshape(of_pixels)
        terms = _element_terms(chosen.detach(), target.to(chosen.dtype), ignored, None, slope)
    loss = attach(chosen, terms)
    weight = _class_weight(class_weight, loss, pred.shape[1])
    return loss if weight is None else loss * weight[index].reshape(of_pixels)


def is_ignored(target: Tensor, ignore_index: int) -> Tensor:
    """Return the mask of targets that are negative or the ``ignore_index``."""
    negative = target < 0
    return negative if ignore_index < 0 else negative | (target == ignore_index)


def check_smoothing(label_smoothing: float) -> None:
    """Raise ValueError unless ``label_smoothing`` is in [0, 1]."""
    check_number('label_smoothing', label_smoothing, least=0, most=1)


def _map_loss(
    pred: Tensor,
    label: Tensor,
    class_weight: ClassWeight,
    ignore_index: int,
    label_smoothing: float,
) -> Tensor:
    """Compute `cross_entropy_loss` of the labels of a map."""
    weight = _class_weight(class_weight, pred, pred.shape[1], background=True)
    if not label_smoothing:
        return map_cross_entropy(pred, without_label(label, ignore_index), weight)
    kernel = partial(
        _smoothed_terms, weight=weight, ignore_index=ignore_index, smoothing=label_smoothing
    )
    return by_map_blocks(kernel, pred, label)


def _smoothed_terms(
    pred: Tensor,
    label: Tensor,
    wanted: bool,
    weight: Tensor | None,
    ignore_index: int,
    smoothing: float,
) -> ValueAndSlope:
    """Compute softmax terms of smoothed labels, 0 where they are ignored."""
    truth = _smoothed(_one_hot(pred, label, ignore_index), smoothing, pred.shape[1])
    value, slope = _distribution_terms(pred, truth, weight, wanted)
    kept = (~is_ignored(label, ignore_index)).unsqueeze(1)
    return value.mul_(kept).squeeze(1), None if slope is None else slope.mul_(kept)


def _binary_terms(
    pred: Tensor,
    label: Tensor,
    wanted: bool,
    weight: Tensor | None,
    ignore_index: int,
    smoothing: float,
) -> ValueAndSlope:
    """Compute binary terms of labels, 0 where they are ignored."""
    ignored = is_ignored(label, ignore_index)
    if not smoothing:
        sides = None if weight is None else SideWeights(weight, weight.new_ones(()))
        return label_terms(pred, label, ignored, weights=sides, slope=wanted)
    if weight is not None:
        weight = weight.reshape(-1, *(1,) * (pred.dim() - 2))
    truth = _smoothed(_positives(pred, label), smoothing, 2)
    return _element_terms(pred, truth, ignored.unsqueeze(1), weight, wanted)


def _element_terms(
    pred: Tensor, truth: Tensor, ignored: Tensor, weight: Tensor | None, slope: bool
) -> ValueAndSlope:
    """Compute binary terms with a target for each element, 0 where ``ignored``."""
    terms = target_terms(pred, truth, weight, slope=slope)
    for table in terms:
        if table is not None:
            table.masked_fill_(ignored, 0)
    return terms


def _distribution_terms(
    pred: Tensor, truth: Tensor, weight: Tensor | None, slope: bool
) -> ValueAndSlope:
    """Compute softmax terms (N, 1, ...) with distributions (N, C, ...) as targets."""
    if weight is not None:
        truth = truth * weight.reshape(-1, *(1,) * (pred.dim() - 2))
    log_p = pred.log_softmax(1)
    value = -(truth * log_p).sum(1, keepdim=True)
    if not slope:
        return value, None
    return value, log_p.exp_().mul_(truth.sum(1, keepdim=True)).sub_(truth)


def _one_hot(pred: Tensor, label: Tensor, ignore_index: int) -> Tensor:
    """Return a table like ``pred`` (N, C, ...), 1 at the labels (N, ...).

    The rows of ignored labels have their 1 in the first column.
    """
    index = label_index(label, is_ignored(label, ignore_index), pred.shape[1])
    return torch.zeros_like(pred).scatter_(1, index.unsqueeze(1), 1.0)


def _positives(pred: Tensor, label: Tensor) -> Tensor:
    """Return a table like ``pred``, 1 at the labels; rows of labels from C on are all 0."""
    classes, label = pred.shape[1], label.long().unsqueeze(1)
    positive = (label < classes).to(pred.dtype)
    return torch.zeros_like(pred).scatter_(1, label.clamp(0, max(classes - 1, 0)), positive)


def _smoothed(truth: Tensor, label_smoothing: float, choices: int) -> Tensor:
    """Spread a share of the targets evenly over the choices."""
    if not label_smoothing:
        return truth
    return truth * (1 - label_smoothing) + label_smoothing / choices


def _class_weight(
    weight: ClassWeight, pred: Tensor, classes: int, background: bool = False
) -> Tensor | None:
    """Return weights (C,) in the precision of the computation; None where all weigh 1."""
    if weight is None:
        return None
    dtype = torch.promote_types(pred.dtype, torch.float32)
    weight = torch.as_tensor(weight, dtype=dtype, device=pred.device).reshape(-1)
    if weight.shape == (1,):
        return weight.expand(classes)
    if background:
        return fit_class_weight(weight, classes, weight)
    if weight.shape != (classes,):
        raise ValueError(
            f'there must be one weight per class, ({classes},) for pred {tuple(pred.shape)}, got '
            f'{tuple(weight.shape)}'
        )
    return weight
