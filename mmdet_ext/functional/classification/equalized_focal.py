"""Equalized focal loss, for classes of unequal frequency, per element."""

from __future__ import annotations

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
from mmdet_ext.functional.classification.labels import check_class_shapes
from mmdet_ext.functional.numerics.checks import check_number
from mmdet_ext.functional.numerics.map_blocks import blocks_of_map, by_map_blocks, is_map
from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.functional.numerics.row_blocks import Kernel, by_row_blocks

__all__ = [
    'check_focal_options',
    'equalized_focal_loss',
    'focal_gradient_sums',
    'gradient_ratio',
]


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
