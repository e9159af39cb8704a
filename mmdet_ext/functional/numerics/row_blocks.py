"""Values and derivatives of tables, computed by blocks of rows that stay in the cache."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.derivative import with_derivative

__all__ = ['Kernel', 'by_row_blocks']

#: Computation of a block: (pred (n, C), *beside, wanted=...) -> value per row (n,) or per element
#: (n, C), and the derivative (n, C) of each value, or None where it is not wanted.
Kernel = Callable[..., tuple[Tensor, Tensor | None]]

#: Elements of a block on a CPU: its intermediates, of 1 MiB each, stay in the cache, and eight
#: threads still share each operation.
CPU_BLOCK_ELEMENTS = 262_144

#: Elements of a block on other devices: large enough that the calls cost little beside their work.
BLOCK_ELEMENTS = 4_194_304


def by_row_blocks(
    kernel: Kernel, pred: Tensor, *beside: Tensor, cpu_elements: int | None = None
) -> Tensor:
    """Compute a loss of the rows of a table together with its derivative, block by block.

    A loss of a dozen operations on 100,000 rows of 80 spends most of its time moving tables of
    32 MB, and holds several of them. Here only the value and the derivative are that large. When
    compiled, all rows are one block.

    Args:
        kernel: computes one block; called without a graph. It must not write into its arguments.
        pred: (..., C), of at least float32.
        *beside: (...) or (..., X), with the leading dimensions of ``pred``.
        cpu_elements: elements of ``pred`` in a block on a CPU; None is `CPU_BLOCK_ELEMENTS`.

    Returns:
        Tensor: (...) or (..., C), as the kernel gives it, with a graph to ``pred``. It can be
        differentiated once.

    >>> def squares(x, wanted):
    ...     return x.square(), 2 * x if wanted else None
    >>> x = torch.tensor([[3., 1.]], requires_grad=True)
    >>> by_row_blocks(squares, x).sum().backward()
    >>> x.grad
    tensor([[6., 2.]])
    """
    leading = pred.shape[:-1]
    count = math.prod(leading)
    wanted = pred.requires_grad and torch.is_grad_enabled()
    with torch.no_grad():
        tables = [pred.detach().reshape(count, pred.shape[-1])]
        tables += [t.detach().reshape(count, *t.shape[len(leading) :]) for t in beside]
        on_cpu = pred.device.type == 'cpu'
        elements = (cpu_elements or CPU_BLOCK_ELEMENTS) if on_cpu else BLOCK_ELEMENTS
        value, derivative = _run(kernel, tables, wanted, elements)
        value = value.reshape(leading + value.shape[1:])
    if derivative is None:
        return value
    return with_derivative(pred, value, derivative.reshape(pred.shape))


def _run(
    kernel: Kernel, tables: list[Tensor], wanted: bool, elements: int
) -> tuple[Tensor, Tensor | None]:
    """Run the kernel on every block, and join the results."""
    pred = tables[0]
    step = max(1, elements // max(1, pred.shape[1]))
    if torch.compiler.is_compiling() or len(pred) <= step:
        return kernel(*tables, wanted=wanted)
    results: list[Tensor] = []
    for start in range(0, len(pred), step):
        rows = slice(start, start + step)
        parts = [p for p in kernel(*(t[rows] for t in tables), wanted=wanted) if p is not None]
        if not results:
            results = [p.new_empty((len(pred), *p.shape[1:])) for p in parts]
        for result, part in zip(results, parts, strict=True):
            result[rows] = part
    return results[0], results[1] if wanted else None
