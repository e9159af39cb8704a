"""Functions of coordinates (2, ...), piecewise ones with a fast backward pass.

The minimum, maximum and clamp of PyTorch select by masks in their backward pass. On a CPU that
takes ten times as long as the products used here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.bounds import not_negative


def corners(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Split boxes (..., 4) into smaller and larger corners, (2, ...) each, with a graph."""
    low, high = _Corners.apply(boxes)  # type: ignore[no-untyped-call]
    return low, high


def split_corners(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Split boxes (..., 4) into smaller and larger corners, (2, ...) each, contiguous."""
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack((left, top)), torch.stack((right, bottom))


def boxes_of_columns(columns: Sequence[Tensor]) -> Tensor:
    """Join four coordinates (...) to boxes (..., 4).

    They are copied column by column, which is far faster than copying a transposed tensor.
    """
    boxes = columns[0].new_empty((*columns[0].shape, 4))
    for place, column in zip(boxes.unbind(-1), columns, strict=True):
        place.copy_(column)
    return boxes


def span(
    low: Tensor, high: Tensor, target_low: Tensor, target_high: Tensor, shared: bool
) -> Tensor:
    """Compute the sides of the intersection of two boxes, or of the smallest box around both.

    Args:
        low: smaller corners of the one, (2, ...).
        high: larger corners of the one, (2, ...).
        target_low: smaller corners of the other, (2, ...).
        target_high: larger corners of the other, (2, ...).
        shared: True for the intersection, False for the box around both.

    Returns:
        Tensor: (2, ...); 0 where the boxes are apart. Corners that coincide share the gradient.
    """
    boxes = low, high, target_low, target_high
    return not_negative(_Span.apply(*boxes, shared))  # type: ignore[no-untyped-call]


def larger(one: Tensor, other: Tensor) -> Tensor:
    """Return the larger of two tensors of one shape; equal elements share the gradient."""
    result: Tensor = _Larger.apply(one, other)  # type: ignore[no-untyped-call]
    return result


def seen_at_least(value: Tensor, floor: Tensor) -> bool:
    """Return whether inspecting the values shows that none lies below its floor.

    On a CPU the inspection costs less than what it saves. Elsewhere it would halt the device, and
    in a compiled function break the graph; there, and for no values, the result is False.
    """
    if value.device.type != 'cpu' or torch.compiler.is_compiling() or value.numel() == 0:
        return False
    return bool((value.detach() - floor).min() >= 0)


def area(sides: Tensor) -> Tensor:
    """Multiply width and height of (2, ...)."""
    width, height = sides.unbind(0)
    return width * height


def squared_norm(vector: Tensor) -> Tensor:
    """Compute x**2 + y**2 of (2, ...)."""
    return vector.square().sum(0)


class _Corners(torch.autograd.Function):
    """Autograd node of `corners`."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor) -> tuple[Tensor, Tensor]:
        return split_corners(boxes)

    @staticmethod
    def backward(ctx: Any, low: Tensor, high: Tensor) -> Tensor:
        return boxes_of_columns((*low.unbind(0), *high.unbind(0)))


class _Span(torch.autograd.Function):
    """Autograd node of `span`, negative where the boxes are apart."""

    @staticmethod
    def forward(
        ctx: Any, low: Tensor, high: Tensor, target_low: Tensor, target_high: Tensor, shared: bool
    ) -> Tensor:
        # A corner gets half the gradient, plus or minus half of it: all, nothing, or half where
        # both corners coincide.
        half = 0.5 if shared else -0.5
        ctx.save_for_backward(
            (low - target_low).sign_().mul_(half), (target_high - high).sign_().mul_(half)
        )
        if shared:
            return torch.minimum(high, target_high) - torch.maximum(low, target_low)
        return torch.maximum(high, target_high) - torch.minimum(low, target_low)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        low, high = ctx.saved_tensors
        half = gradient * 0.5
        low, high = gradient * low, gradient * high
        of_target = any(ctx.needs_input_grad[2:4])
        return (
            -half - low,
            half + high,
            low - half if of_target else None,
            half - high if of_target else None,
            None,
        )


class _Larger(torch.autograd.Function):
    """Autograd node of `larger`."""

    @staticmethod
    def forward(ctx: Any, one: Tensor, other: Tensor) -> Tensor:
        ctx.save_for_backward((one - other).sign_().mul_(0.5))
        return torch.maximum(one, other)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (lead,) = ctx.saved_tensors
        share = gradient * lead
        half = gradient * 0.5
        return (
            half + share if ctx.needs_input_grad[0] else None,
            half - share if ctx.needs_input_grad[1] else None,
        )
