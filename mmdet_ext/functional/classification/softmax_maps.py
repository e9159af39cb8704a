"""Losses of the softmax over the classes of a map, by the probability of each pixel's label."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmdet_ext.functional.classification.labels import label_index
from mmdet_ext.functional.classification.softmax_terms import label_scale
from mmdet_ext.functional.numerics.derivative import with_derivative
from mmdet_ext.functional.numerics.map_blocks import MapBlock, blocks_of_map
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['label_log_softmax', 'map_cross_entropy', 'map_focal_loss']


def map_cross_entropy(
    pred: Tensor,
    label: Tensor,
    ignored: Tensor,
    weight: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    """Compute the cross entropy over the softmax of the classes of a map.

    Args:
        pred: (N, C, ...) logits with elements.
        label: (N, ...) integers below C.
        ignored: (N, ...), True where the cost is 0.
        weight: (C,), weights of the classes; None for 1.
        shift: (C,), numbers added to the logits of the classes; None for none.

    Returns:
        Tensor: (N, ...), from 0, float32 or float64.

    Raises:
        ValueError: on a CPU, for a label from C on that is not ignored.

    >>> label = torch.tensor([[1, -1]])
    >>> map_cross_entropy(torch.zeros(1, 4, 2), label, label < 0)
    tensor([[1.3863, 0.0000]])
    """
    own_log = label_log_softmax(pred, label_index(label, ignored, pred.shape[1]), shift)
    return -own_log * label_scale(own_log, label, ignored, weight).squeeze(1)


def map_focal_loss(
    pred: Tensor,
    label: Tensor,
    ignored: Tensor,
    gamma: float,
    weight: Tensor | None = None,
) -> Tensor:
    """Compute the focal loss over the softmax of the classes of a map.

    Args:
        pred: (N, C, ...) logits with elements.
        label: (N, ...) integers below C.
        ignored: (N, ...), True where the cost is 0.
        gamma: exponent of 1 - p, from 0.
        weight: (C,), weights of the classes; None for 1.

    Returns:
        Tensor: (N, ...), from 0, float32 or float64.

    Raises:
        ValueError: on a CPU, for a label from C on that is not ignored.

    >>> label = torch.tensor([[1]])
    >>> map_focal_loss(torch.zeros(1, 2, 1), label, label < 0, gamma=2.0)
    tensor([[0.1733]])

    That is 0.5^2 ln 2.
    """
    own_log = label_log_softmax(pred, label_index(label, ignored, pred.shape[1]))
    with torch.no_grad():
        # 1 - p without the rounding of p.
        wrong = -torch.expm1(own_log)
        factor = wrong.pow(gamma)
        value = -factor * own_log
        tiny = torch.finfo(wrong.dtype).tiny
        bend = gamma * own_log.exp() * own_log / wrong.clamp(min=tiny)
        slope = factor * (bend - 1)
    value = with_derivative(own_log, value, slope)
    return value * label_scale(own_log, label, ignored, weight).squeeze(1)


def label_log_softmax(pred: Tensor, index: Tensor, shift: Tensor | None = None) -> Tensor:
    r"""Compute the logarithm of the softmax at one class of each pixel.

    .. math:: l = x_y + a_y - \ln \sum_c e^{x_c + a_c}

    with :math:`x` the logits of a pixel, :math:`y` its ``index`` and :math:`a` the ``shift``. A
    loss of labels is a function of this number alone. The table of all probabilities is computed by
    blocks, and again in the backward pass; no table but the gradient has the size of ``pred``.

    Args:
        pred: (N, C, ...) logits with elements, in any layout; half precision is computed in
            float32.
        index: (N, ...) classes, from 0 to C - 1.
        shift: (C,), numbers added to the logits of the classes; None for none.

    Returns:
        Tensor: (N, ...), at most 0, float32 or float64. Only ``pred`` has a gradient, in its own
        precision. It can be differentiated once.

    >>> label_log_softmax(torch.zeros(1, 4, 1), torch.tensor([[2]]))
    tensor([[-1.3863]])

    That is the logarithm of 1 / 4.
    """
    flat, places = pred.flatten(2), index.flatten(1)
    if shift is not None:
        shift = shift.detach()[:, None]
    result: Tensor = _LabelLogSoftmax.apply(flat, places, shift)  # type: ignore[no-untyped-call]
    return result.unflatten(1, pred.shape[2:])


class _LabelLogSoftmax(torch.autograd.Function):
    """Autograd node of `label_log_softmax`, for a map (N, C, S)."""

    @staticmethod
    def forward(ctx: Any, pred: Tensor, index: Tensor, shift: Tensor | None) -> Tensor:
        dtype = torch.promote_types(pred.dtype, torch.float32)
        most, total, result = (torch.empty_like(index, dtype=dtype) for _ in range(3))
        for block in blocks_of_map(pred):
            logits = _logits(pred, shift, block)
            highest = logits.amax(1)
            # Differences to the highest logit lose no digits to its size.
            table = logits - highest.unsqueeze(1)
            own = table.gather(1, block.of(index).unsqueeze(1)).squeeze(1)
            summed = table.exp_().sum(1)
            block.of(most).copy_(highest)
            block.of(total).copy_(summed)
            torch.sub(own, summed.log_(), out=block.of(result))
        ctx.save_for_backward(pred, index, shift, most, total)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        pred, index, shift, most, total = ctx.saved_tensors
        result = torch.empty_like(pred)
        for block in blocks_of_map(pred):
            part = block.of(result)
            # In place where the gradient has the precision of the computation.
            table = part if part.dtype == most.dtype else torch.empty_like(part, dtype=most.dtype)
            highest = block.of(most).unsqueeze(1)
            torch.sub(_logits(pred, shift, block), highest, out=table)
            slope = block.of(gradient)
            table.exp_().mul_((slope / block.of(total)).neg_().unsqueeze(1))
            table.scatter_add_(1, block.of(index).unsqueeze(1), slope.unsqueeze(1))
            if table is not part:
                part.copy_(table)
        return result, None, None


def _logits(pred: Tensor, shift: Tensor | None, block: MapBlock) -> Tensor:
    """Return the logits of a block, with the numbers added, in at least float32."""
    (wide,) = promote_half(block.of(pred))
    return wide if shift is None else wide + shift
