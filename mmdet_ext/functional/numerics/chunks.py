"""Tables too large to hold at once, taken in chunks of rows."""

from __future__ import annotations

import torch
from torch import Tensor

#: Elements of the largest temporary table of boxes x priors; more boxes go in chunks. 2 MiB of
#: float32, so that a table stays in a processor's cache.
TABLE_ELEMENTS = 1 << 19

#: Distances are ranked by blocks of this many first.
BLOCK = 64


def largest_places(table: Tensor, k: int) -> Tensor:
    """Places (R, k) of the k largest values of each row of (R, N), the largest first.

    They lie in the k blocks of largest maximum, so that only these blocks' values are ranked.

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
    # The rest that fills no block is ranked as it is.
    place = torch.cat([ranked, table[:, whole:]], 1).topk(k).indices
    inner: Tensor = block.gather(1, (place // BLOCK).clamp(max=block.shape[1] - 1)) * BLOCK
    inner = inner + place % BLOCK
    return inner.where(place < ranked.shape[1], place - ranked.shape[1] + whole)


def row_chunks(rows: int, columns: int) -> list[tuple[int, int]]:
    """Row ranges whose tables of ``columns`` columns keep within TABLE_ELEMENTS."""
    step = max(1, TABLE_ELEMENTS // max(1, columns))
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]
