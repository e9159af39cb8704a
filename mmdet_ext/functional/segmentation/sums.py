"""Sums over regions, for losses of overlap, and the cross entropy of the same softmax.

The probabilities are computed by blocks that stay in the cache, and again in the backward pass. So
the only table of the size of the predictions is their gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmdet_ext.functional.classification.binary_terms import target_terms
from mmdet_ext.functional.classification.cross_entropy import is_ignored
from mmdet_ext.functional.classification.labels import label_index
from mmdet_ext.functional.numerics.row_blocks import BLOCK_ELEMENTS, CPU_BLOCK_ELEMENTS
from mmdet_ext.functional.segmentation.regions import Activation, RegionTables

__all__ = ['RegionSums', 'SumForm', 'region_sums']


@dataclass(frozen=True)
class SumForm:
    """Form of the sums of a region.

    Attributes:
        activation: what makes probabilities of the predictions.
        exponent: 1 for the false positives and negatives, 2 for squared errors.
        alpha: factor of false positives, for the exponent 1.
        beta: factor of false negatives, for the exponent 1.
        entropy: whether the cross entropy of each pixel is computed as well.
        ignore_index: label of pixels that take no part, beside negative ones.
    """

    activation: Activation
    exponent: int = 1
    alpha: float = 1.0
    beta: float = 1.0
    entropy: bool = False
    ignore_index: int = 255


class RegionSums(NamedTuple):
    """Sums over the pixels of an image, per class, and the cross entropy of each pixel.

    Attributes:
        overlap: (N, C), with a gradient.
        miss: (N, C), with a gradient.
        size: (N, C), weight of the ground truth.
        counted: (N, C), weight of all pixels that take part.
        entropy: (N, P) with a gradient, the sum over the classes; (0,) where it is not wanted.
    """

    overlap: Tensor
    miss: Tensor
    size: Tensor
    counted: Tensor
    entropy: Tensor


def region_sums(
    tables: RegionTables, form: SumForm, class_weight: Tensor | None = None
) -> RegionSums:
    r"""Compute the overlap of predictions with the ground truth, and how much they miss it by.

    .. math::
        \mathrm{overlap}_{nc} = \sum_i w_i p_i t_i, \quad
        \mathrm{miss}_{nc} = \begin{cases}
            \sum_i w_i \left(\alpha p_i (1 - t_i) + \beta t_i (1 - p_i)\right)
                & \mathrm{exponent}\ 1 \\
            \sum_i w_i (p_i - t_i)^2 & \mathrm{exponent}\ 2
        \end{cases}

    with :math:`p` the probabilities, :math:`t` the ground truth and :math:`w` the weights of the
    pixels :math:`i` of class :math:`c` in image :math:`n`. No rounded sums are subtracted, so that
    both are at least 0, and ``miss`` is exactly 0 where :math:`p = t` is 0 or 1.

    Args:
        tables: predictions, targets and weights.
        form: what is summed.
        class_weight: (C,), weights of the cross entropy: of the label's class for softmax, of the
            positives for sigmoid. None: all 1.

    Returns:
        RegionSums: float32 or float64. They can be differentiated once.

    Raises:
        ValueError: on a CPU, for a label beyond the classes with softmax, or above 1 where there
            is one channel.

    >>> from mmdet_ext.functional.segmentation.regions import Regions, region_tables
    >>> pred, mask = torch.tensor([[1., 0.5, 0.]]), torch.tensor([[1., 1., 0.]])
    >>> tables = region_tables(pred, mask, None, Regions('none', per_class=False))
    >>> sums = region_sums(tables, SumForm('none'))
    >>> sums.overlap, sums.miss
    (tensor([[1.5000]]), tensor([[0.5000]]))
    """
    pred, target, weight, one_hot = tables
    parts = _Sums.apply(pred, target, weight, class_weight, form, one_hot)  # type: ignore[no-untyped-call]
    return RegionSums(*parts)


class _Block(NamedTuple):
    """Values of a block: probabilities and ground truth (n, C, p), and weights or None."""

    probability: Tensor
    truth: Tensor
    weight: Tensor | None


class _Sums(torch.autograd.Function):
    """Autograd node of `region_sums`."""

    @staticmethod
    def forward(
        ctx: Any,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None,
        class_weight: Tensor | None,
        form: SumForm,
        one_hot: bool,
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(pred, target, weight, class_weight)
        ctx.form, ctx.one_hot = form, one_hot
        count, classes, pixels = pred.shape
        wide = _wide(pred, target, weight)
        totals = [pred.new_zeros(count, classes, dtype=wide) for _ in range(4)]
        entropy = pred.new_empty((count, pixels) if form.entropy else (0,), dtype=wide)
        for part in _blocks(pred):
            x = pred[part].to(wide)
            truth, used = _truth(x, target[part], _part(weight, part), form, one_hot)
            if form.entropy:
                probability, entropy[part[0], part[2]] = _entropy(
                    x, truth, used, class_weight, form
                )
            else:
                probability = _probability(x, form.activation)
            block = _Block(probability, truth, used)
            for total, value in zip(totals, _sums(block, form), strict=True):
                total[part[0]] += value
        ctx.mark_non_differentiable(*totals[2:])
        return *totals, entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, by_overlap: Tensor, by_miss: Tensor, _: Tensor, __: Tensor, by_entropy: Tensor
    ) -> tuple[Tensor | None, ...]:
        pred, target, weight, class_weight = ctx.saved_tensors
        form: SumForm = ctx.form
        gradient = torch.empty_like(pred, memory_format=torch.contiguous_format)
        for part in _blocks(pred):
            x = pred[part].to(by_overlap.dtype)
            truth, used = _truth(x, target[part], _part(weight, part), form, ctx.one_hot)
            block = _Block(_probability(x, form.activation), truth, used)
            rates = by_overlap[part[0]].unsqueeze(2), by_miss[part[0]].unsqueeze(2)
            slope = _slope(block, *rates, form)
            if form.entropy:
                own = by_entropy[part[0], part[2]].unsqueeze(1)
                slope.add_(_entropy_slope(block, class_weight, form).mul_(own))
            gradient[part] = slope
        return gradient, None, None, None, None, None


def _wide(*tensors: Tensor | None) -> torch.dtype:
    """Return the precision of the computation: float32, or float64 where a tensor has it."""
    dtype = torch.float32
    for tensor in tensors:
        if tensor is not None and tensor.is_floating_point():
            dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _blocks(pred: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Yield the parts of a table (N, C, P): several images, or some pixels of one."""
    count, classes, pixels = pred.shape
    if torch.compiler.is_compiling():
        yield slice(0, count), slice(None), slice(0, pixels)
        return
    elements = CPU_BLOCK_ELEMENTS if pred.device.type == 'cpu' else BLOCK_ELEMENTS
    columns = max(1, elements // max(1, classes))
    images = max(1, columns // max(1, pixels))
    for first in range(0, count, images):
        for start in range(0, pixels, columns):
            yield slice(first, first + images), slice(None), slice(start, start + columns)


def _part(weight: Tensor | None, part: tuple[slice, slice, slice]) -> Tensor | None:
    """Return the weights of a block."""
    return None if weight is None else weight[part]


def _truth(
    x: Tensor, target: Tensor, weight: Tensor | None, form: SumForm, one_hot: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the ground truth of a block (n, C, p), and its weights, 0 where it is ignored."""
    ignored = is_ignored(target, form.ignore_index)
    # On a CPU a look at the values saves the weights where nothing is ignored.
    may_look = x.device.type == 'cpu' and not torch.compiler.is_compiling()
    if not may_look or bool(ignored.any()):
        kept = (~ignored).to(x.dtype)
        weight = kept if weight is None else kept * weight
    elif weight is not None:
        weight = weight.to(x.dtype)
    classes = x.shape[1]
    if not one_hot:
        if may_look and not target.is_floating_point():
            _check_binary(target, ignored)
        truth = target.to(x.dtype)
        return truth if weight is None else truth.masked_fill(ignored, 0), weight
    if form.activation == 'softmax':
        index, present = label_index(target, ignored, classes), None
    else:
        # Labels beyond the classes are background.
        present = (~ignored & (target < classes)).to(x.dtype)
        index = target.long().clamp(0, classes - 1)
    truth = torch.zeros_like(x)
    return truth.scatter_(1, index, 1.0 if present is None else present), weight


def _check_binary(target: Tensor, ignored: Tensor) -> None:
    """Raise ValueError for integers above 1 where a target is 1 in the object and 0 outside."""
    most = int(target.masked_fill(ignored, 0).max()) if target.numel() else 0
    if most > 1:
        raise ValueError(
            f'target must be 0 or 1 where there is one channel, or a target of each element; got '
            f'{most}. To leave that value out, name it as ignore_index; a mask of 0 and 255 has to '
            'be divided by 255'
        )


def _probability(x: Tensor, activation: Activation) -> Tensor:
    """Return the probabilities of a block."""
    if activation == 'none':
        return x
    return x.sigmoid() if activation == 'sigmoid' else x.softmax(1)


def _weighted(table: Tensor, weight: Tensor | None) -> Tensor:
    """Multiply a table by the weights, if there are any."""
    return table if weight is None else table * weight


def _sums(block: _Block, form: SumForm) -> tuple[Tensor, ...]:
    """Compute overlap, miss, size and counted weight (n, C) of a block."""
    p, t, weight = block
    weighted = _weighted(t, weight)
    both = p * weighted
    if form.exponent == 2:
        missed = (p - t).square_()
        missed = missed if weight is None else missed.mul_(weight)
    else:
        missed = _weighted(p, weight) - both
        if form.alpha != 1:
            missed.mul_(form.alpha)
        missed.add_(weighted - both, alpha=form.beta)
    counted = p.new_full((), p.shape[2]) if weight is None else weight.sum(2)
    return both.sum(2), missed.sum(2), weighted.sum(2), counted


def _slope(block: _Block, by_overlap: Tensor, by_miss: Tensor, form: SumForm) -> Tensor:
    """Compute the derivative of the sums by the predictions, times those of the loss by them."""
    p, t, weight = block
    if form.exponent == 2:
        slope = (t * (by_overlap - 2 * by_miss)).addcmul_(p, 2 * by_miss)
    else:
        slope = t * (by_overlap - (form.alpha + form.beta) * by_miss)
        slope.add_(form.alpha * by_miss)
    if weight is not None:
        slope.mul_(weight)
    if form.activation == 'none':
        return slope
    slope.mul_(p)
    if form.activation == 'sigmoid':
        return slope.addcmul_(slope, p, value=-1)
    return slope.addcmul_(p, slope.sum(1, keepdim=True), value=-1)


def _entropy(
    x: Tensor, t: Tensor, weight: Tensor | None, class_weight: Tensor | None, form: SumForm
) -> tuple[Tensor, Tensor]:
    """Compute probabilities (n, C, p) and the cross entropy (n, p) of a block."""
    if form.activation == 'sigmoid':
        factor = None if class_weight is None else class_weight.reshape(-1, 1)
        value, _ = target_terms(x, t, factor, slope=False)
        return x.sigmoid(), _weighted(value, weight).sum(1)
    share, weight = _softmax_share(t, class_weight, weight)
    log_p = x.log_softmax(1)
    value = (log_p * share).sum(1).neg_()
    return log_p.exp_(), value if weight is None else value.mul_(weight.squeeze(1))


def _entropy_slope(block: _Block, class_weight: Tensor | None, form: SumForm) -> Tensor:
    """Compute the derivative of the cross entropy by the predictions."""
    p, t, weight = block
    if form.activation == 'sigmoid':
        share = _class_share(t, class_weight)
        slope = p * (share + (1 - t)) - share
    else:
        share, weight = _softmax_share(t, class_weight, weight)
        slope = p * share.sum(1, keepdim=True) - share
    return slope if weight is None else slope.mul_(weight)


def _softmax_share(
    t: Tensor, class_weight: Tensor | None, weight: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return the factors of the logarithms (n, C, p), and the weights that pixels have beside.

    A weight of each element is part of the factors: it weighs the term of its class.
    """
    share = _class_share(t, class_weight)
    of_elements = weight is not None and weight.shape[1] > 1
    return (_weighted(share, weight), None) if of_elements else (share, weight)


def _class_share(t: Tensor, class_weight: Tensor | None) -> Tensor:
    """Return the ground truth times the weights of the classes."""
    return t if class_weight is None else t * class_weight.reshape(-1, 1)
