"""Losses of maps with the classes in dimension 1, computed by blocks that stay in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.functional.numerics.row_blocks import BLOCK_ELEMENTS, Kernel

__all__ = ['MapBlock', 'blocks_of_map', 'by_map_blocks', 'is_map']

#: Elements of a block on a CPU for each thread: two tables of 512 KiB, in its cache.
CPU_BLOCK_ELEMENTS = 131_072


class MapBlock(NamedTuple):
    """Part of a map (N, C, S): some images, or some pixels of one image.

    Attributes:
        images: range of images.
        pixels: range of pixels.
    """

    images: slice
    pixels: slice

    def of(self, table: Tensor) -> Tensor:
        """Return the part of a table (N, C, S) or (N, S), as a view."""
        return table[self.images, ..., self.pixels]


def is_map(pred: Tensor) -> bool:
    """Return whether predictions are a map (N, C, ...) that is computed by blocks.

    Rows (N, C) are not, nor is a map without elements. A compiler makes blocks of its own.
    """
    return pred.dim() > 2 and pred.numel() > 0 and not torch.compiler.is_compiling()


def blocks_of_map(pred: Tensor) -> Iterator[MapBlock]:
    """Divide a map (N, C, S) into blocks.

    >>> list(blocks_of_map(torch.zeros(1, 2, 3)))
    [MapBlock(images=slice(0, 1, None), pixels=slice(0, 3, None))]
    """
    images, classes, pixels = pred.shape
    elements = BLOCK_ELEMENTS
    if pred.device.type == 'cpu':
        elements = CPU_BLOCK_ELEMENTS * torch.get_num_threads()
    together = min(images, max(1, elements // (classes * pixels)))
    step = pixels if together > 1 else min(pixels, max(1, elements // classes))
    for image in range(0, images, together):
        for pixel in range(0, pixels, step):
            yield MapBlock(
                slice(image, min(images, image + together)),
                slice(pixel, min(pixels, pixel + step)),
            )


def by_map_blocks(kernel: Kernel, pred: Tensor, *beside: Tensor) -> Tensor:
    """Compute a loss of a map, and its gradient in the backward pass, block by block.

    A map is never turned into rows, which would copy it, nor converted to another precision as a
    whole. The forward pass keeps no table. The backward pass computes the derivative again, which
    takes less time than to write it to memory and to read it back, so that the gradient is the
    only table that it needs.

    Args:
        kernel: computes the value and the derivative of one block (n, C, p), as `by_row_blocks`
            describes it. It treats pixels independently.
        pred: (N, C, ...), one for which `is_map` holds, of any floating type; the kernel is given
            at least float32.
        *beside: (N, ...), one number per pixel.

    Returns:
        Tensor: (N, ...) or (N, C, ...), as the kernel gives it, with a graph to ``pred``. It can be
        differentiated once.

    >>> def squares(x, wanted):
    ...     return x.square(), 2 * x if wanted else None
    >>> x = torch.tensor([[[3., 1.]]], requires_grad=True)
    >>> by_map_blocks(squares, x).sum().backward()
    >>> x.grad
    tensor([[[6., 2.]]])
    """
    flat = [pred.flatten(2), *(table.flatten(1) for table in beside)]
    value: Tensor = _MapBlocks.apply(kernel, *flat)  # type: ignore[no-untyped-call]
    return value.reshape(value.shape[:-1] + pred.shape[2:])


class _MapBlocks(torch.autograd.Function):
    """Autograd node of `by_map_blocks`, for a map (N, C, S)."""

    @staticmethod
    def forward(ctx: Any, kernel: Kernel, pred: Tensor, *beside: Tensor) -> Tensor:
        ctx.kernel = kernel
        ctx.save_for_backward(pred, *beside)
        result: Tensor | None = None
        for block in blocks_of_map(pred):
            (wide,) = promote_half(block.of(pred))
            part, _ = kernel(wide, *(block.of(table) for table in beside), wanted=False)
            if result is None:
                like = pred if part.dim() == pred.dim() else pred[:, 0]
                result = torch.empty_like(like, dtype=part.dtype)
            block.of(result).copy_(part)
        assert result is not None
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        pred, *beside = ctx.saved_tensors
        result = torch.empty_like(pred)
        for block in blocks_of_map(pred):
            (wide,) = promote_half(block.of(pred))
            _, derivative = ctx.kernel(wide, *(block.of(table) for table in beside), wanted=True)
            factor = block.of(gradient)
            if factor.dim() < derivative.dim():
                factor = factor.unsqueeze(1)
            torch.mul(derivative, factor, out=derivative)
            block.of(result).copy_(derivative)
        return None, result, *(None for _ in beside)
