"""Losses of the softmax over the classes of a map, by the probability of each pixel's label."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmdet_ext.functional.classification.binary_terms import wants_slope
from mmdet_ext.functional.classification.labels import check_label_range
from mmdet_ext.functional.numerics.derivative import with_derivative
from mmdet_ext.functional.numerics.map_blocks import MapBlock, blocks_of_map
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['map_cross_entropy', 'map_focal_loss']


def map_cross_entropy(
    pred: Tensor, label: Tensor, weight: Tensor | None = None, shift: Tensor | None = None
) -> Tensor:
    r"""Compute the cross entropy over the softmax of the classes of a map.

    .. math:: L = w_y \left(\ln \sum_c e^{x_c + a_c} - x_y - a_y\right)

    with :math:`x` the logits of a pixel, :math:`y` its ``label``, :math:`w` the ``weight`` and
    :math:`a` the ``shift``. The exponentials are computed by blocks that stay in the cache. They
    become the gradient in place; a second backward pass of one graph, and half precision, compute
    them again. So no other table has the size of ``pred``.

    Args:
        pred: (N, C, ...) logits with elements, in any layout; half precision is computed in
            float32.
        label: (N, ...) integers below C; negative ones are ignored: their loss is 0.
        weight: (C,), weights of the classes; None for 1.
        shift: (C,), numbers added to the logits of the classes; None for none.

    Returns:
        Tensor: (N, ...), from 0, float32 or float64. Only ``pred`` has a gradient, in its own
        precision. It can be differentiated once.

    Raises:
        ValueError: on a CPU, for a label from C on.

    >>> map_cross_entropy(torch.zeros(1, 4, 2), torch.tensor([[1, -1]]))
    tensor([[1.3863, 0.0000]])
    """
    check_label_range(label, pred.shape[1])
    if shift is not None:
        shift = shift.detach()[:, None]
    flat = pred.flatten(2), label.flatten(1)
    cost: Tensor = _LabelCost.apply(*flat, shift, wants_slope(pred))  # type: ignore[no-untyped-call]
    cost = cost.unflatten(1, pred.shape[2:])
    return cost if weight is None else cost * weight[label.long().clamp(min=0)]


def map_focal_loss(
    pred: Tensor, label: Tensor, gamma: float, weight: Tensor | None = None
) -> Tensor:
    """Compute the focal loss over the softmax of the classes of a map.

    Args:
        pred: (N, C, ...) logits with elements.
        label: (N, ...) integers below C; negative ones are ignored: their loss is 0.
        gamma: exponent of 1 - p, from 0.
        weight: (C,), weights of the classes; None for 1.

    Returns:
        Tensor: (N, ...), from 0, float32 or float64.

    Raises:
        ValueError: on a CPU, for a label from C on.

    >>> map_focal_loss(torch.zeros(1, 2, 1), torch.tensor([[1]]), gamma=2.0)
    tensor([[0.1733]])

    That is 0.5^2 ln 2.
    """
    cost = map_cross_entropy(pred, label)
    with torch.no_grad():
        # 1 - p without the rounding of p.
        wrong = -torch.expm1(-cost)
        factor = wrong.pow(gamma)
        tiny = torch.finfo(wrong.dtype).tiny
        bend = gamma * torch.exp(-cost) * cost / wrong.clamp(min=tiny)
        value, slope = factor * cost, factor * (1 + bend)
    value = with_derivative(cost, value, slope)
    return value if weight is None else value * weight[label.long().clamp(min=0)]


class _LabelCost(torch.autograd.Function):
    """Autograd node of `map_cross_entropy`, for a map (N, C, S)."""

    @staticmethod
    def forward(
        ctx: Any, pred: Tensor, label: Tensor, shift: Tensor | None, wanted: bool
    ) -> Tensor:
        dtype = torch.promote_types(pred.dtype, torch.float32)
        # Half precision does not hold exponentials well enough.
        ctx.table = torch.empty_like(pred) if wanted and pred.dtype == dtype else None
        total, cost = (torch.empty_like(label, dtype=dtype) for _ in range(2))
        for block in blocks_of_map(pred):
            out = None if ctx.table is None else block.of(ctx.table)
            _, summed, part = _terms(_logits(pred, shift, block), block.of(label), out)
            block.of(total).copy_(summed)
            block.of(cost).copy_(part)
        ctx.save_for_backward(pred, label, shift, total)
        return cost

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        pred, label, shift, total = ctx.saved_tensors
        made, ctx.table = ctx.table, None  # a further backward pass computes it again
        result = torch.empty_like(pred) if made is None else made
        for block in blocks_of_map(pred):
            labels, part = block.of(label), block.of(result)
            slope = block.of(gradient).masked_fill(labels < 0, 0)
            table = part
            if made is None:
                table, _, _ = _terms(_logits(pred, shift, block), labels)
            # The derivative by logit k: p_k - [k is the label].
            table.mul_((slope / block.of(total)).unsqueeze(1))
            table.scatter_add_(1, _places(labels), slope.neg_().unsqueeze(1))
            if table is not part:
                part.copy_(table)
        return result, None, None, None


def _logits(pred: Tensor, shift: Tensor | None, block: MapBlock) -> Tensor:
    """Return the logits of a block, with the numbers added, in at least float32."""
    (wide,) = promote_half(block.of(pred))
    return wide if shift is None else wide + shift


def _places(label: Tensor) -> Tensor:
    """Return labels (n, p) as an index (n, 1, p); that of ignored labels is 0."""
    return label.long().clamp(min=0).unsqueeze(1)


def _terms(
    logits: Tensor, label: Tensor, out: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the exponentials of a block (n, C, p), their sums and the costs, both (n, p).

    Differences to the highest logit lose no digits to its size.
    """
    table = torch.sub(logits, logits.amax(1, keepdim=True), out=out)
    own = table.gather(1, _places(label)).squeeze(1)
    total = table.exp_().sum(1)
    return table, total, total.log().sub_(own).masked_fill_(label < 0, 0)
