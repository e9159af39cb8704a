"""Tables that are too large to hold at once, computed in chunks of rows."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ['largest_places', 'row_chunks']

#: Elements of the largest temporary table of boxes x priors; more boxes are split into chunks.
#: 2 MiB of float32, so that a table stays in the cache of a processor.
TABLE_ELEMENTS = 1 << 19

#: Columns of a block: rows are searched by the extreme values of their blocks first.
BLOCK = 64


def largest_places(table: Tensor, k: int) -> Tensor:
    """Find the columns of the k largest values of each row.

    They lie in the k blocks of `BLOCK` columns with the largest maxima, so only the values of these
    blocks are sorted.

    Args:
        table: (R, N).
        k: number of values, at most N.

    Returns:
        Tensor: (R, k) int64, columns in descending order of their values.

    >>> largest_places(torch.tensor([[3., 1., 7.]]), 2)
    tensor([[2, 0]])
    """
    rows, columns = table.shape
    if columns <= BLOCK * (k + 1):
        few: Tensor = table.topk(k).indices
        return few
    whole = columns // BLOCK * BLOCK
    blocks = table[:, :whole].unflatten(1, (-1, BLOCK))
    block = blocks.amax(-1).topk(min(k, whole // BLOCK)).indices
    ranked = blocks.gather(1, block[..., None].expand(-1, -1, BLOCK)).flatten(1)
    # The last columns, which fill no block, take part as they are.
    place = torch.cat([ranked, table[:, whole:]], 1).topk(k).indices
    inner: Tensor = block.gather(1, (place // BLOCK).clamp(max=block.shape[1] - 1)) * BLOCK
    inner = inner + place % BLOCK
    return inner.where(place < ranked.shape[1], place - ranked.shape[1] + whole)


def row_chunks(rows: int, columns: int) -> list[tuple[int, int]]:
    """Split rows into ranges (start, stop) whose tables hold at most `TABLE_ELEMENTS` elements.

    A range has at least one row, however many columns there are.

    >>> row_chunks(5, TABLE_ELEMENTS // 2)
    [(0, 2), (2, 4), (4, 5)]
    """
    step = max(1, TABLE_ELEMENTS // max(1, columns))
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]
