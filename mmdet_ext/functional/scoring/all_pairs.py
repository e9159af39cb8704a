"""Counts of the similarities of all pairs of a set, without storing the pairs.

100,000 embeddings make 5e9 pairs, which do not fit into memory. Their similarities are rounded to
multiples of ``1 / GRID`` (to finer steps if all are close to 1). A small table of integers then
holds the number of pairs at each similarity, and every result of
:mod:`mmdet_ext.functional.scoring.verification` follows from it exactly, at any threshold. One pass
of matrix products fills the table. Counting takes less time than the products from about 200
dimensions on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_number
from mmdet_ext.functional.scoring.similarity import GRID, Comparable, comparable
from mmdet_ext.functional.scoring.verification import ScoreCounts

__all__ = ['AllPairs', 'ExtremePairs', 'Progress', 'count_all_pairs']

#: Rows and columns of one product. A product of this size stays in the cache until it is counted.
BLOCK = 1024

#: Callback that takes the number of pairs done and the number of all pairs.
Progress = Callable[[int, int], None]

#: Places in a block, numbered row by row: a tensor of chosen places, or the slice of all places.
_Places = Tensor | slice


class ExtremePairs(NamedTuple):
    """The pairs that are the hardest to judge, the most extreme first.

    Attributes:
        pairs: (H, 2) int64, rows of the embeddings, the lower row first.
        similarity: (H,) similarities, of the precision of the counts' scores.
    """

    pairs: Tensor
    similarity: Tensor


class AllPairs(NamedTuple):
    """Counts over all pairs of a set, and its hardest pairs.

    Attributes:
        counts: pairs of each kind at each similarity.
        impostors: the most similar impostor pairs.
        genuine: the least similar genuine pairs.
    """

    counts: ScoreCounts
    impostors: ExtremePairs
    genuine: ExtremePairs


@torch.no_grad()
def count_all_pairs(
    embeddings: Tensor,
    labels: Tensor,
    *,
    hardest: int = 0,
    block: int = BLOCK,
    progress: Progress | None = None,
) -> AllPairs:
    """Count the cosines of all pairs i < j; pairs with equal labels are genuine.

    It holds two copies of the embeddings, a few tables of ``block * block`` values, and a few
    tables of 16 MiB, whatever the number of pairs. If all embeddings are close to each other, it
    holds a few more copies of them.

    Args:
        embeddings: (N, D), floating point, finite, of any length. A row of zeros has similarity 0
            to every other.
        labels: (N,) integers.
        hardest: number of extreme pairs of each kind to keep, at least 0. Of equal pairs, those
            of the lowest labels, then of the lowest rows, are kept.
        block: rows and columns of one product, at least 1. It hardly changes the result: products
            of other sizes round differently, which moves a few similarities by one step of the
            grid.
        progress: called after each block with the number of pairs done and of all pairs.

    Raises:
        ValueError: if there are fewer than 2 embeddings, shapes do not fit, or an option is out
            of its range.

    >>> embeddings = torch.tensor([[1., 0.], [0., 1.], [2., 0.]])
    >>> found = count_all_pairs(embeddings, torch.tensor([0, 1, 0]), hardest=1)
    >>> found.counts
    ScoreCounts(scores=tensor([0., 1.]), genuine=tensor([0, 1]), impostors=tensor([2, 0]))
    >>> found.genuine.pairs.tolist()
    [[0, 2]]
    """
    _check(embeddings, labels, hardest, block)
    # In the order of the labels, most blocks hold pairs of one kind only.
    labels, order = labels.sort(stable=True)
    ready = comparable(embeddings[order])
    left, right = ready.left, ready.right
    total = len(left) * (len(left) - 1) // 2
    kinds = tuple(_Kind(hardest, sign, block * block, left.device) for sign in (1, -1))
    scaled = left.new_empty(block * block)
    levels = torch.empty(block * block, dtype=torch.int64, device=left.device)
    done = 0
    for rows, columns in _blocks(len(left), block):
        shape = (len(left[rows]), len(right[columns]))
        size = shape[0] * shape[1]
        product = scaled[:size].view(shape)
        with torch.autocast(left.device.type, enabled=False):
            torch.mm(left[rows], right[columns].T, out=product)
        flat = product.mul_(GRID).round_().clamp_(-GRID, GRID).view(-1)
        places = levels[:size].copy_(flat).add_(GRID)
        start = (rows.start, columns.start, shape[1])
        for kind, chosen in zip(kinds, _by_kind(labels, rows, columns), strict=True):
            if chosen is not None:
                kind.add(places[chosen], flat[chosen], start, chosen)
        done += size if rows != columns else shape[0] * (shape[0] - 1) // 2
        if progress is not None:
            progress(done, total)
    impostors, genuine = kinds
    return AllPairs(
        _counts(genuine.table, impostors.table, ready),
        impostors.extreme(order, ready),
        genuine.extreme(order, ready),
    )


def _check(embeddings: Tensor, labels: Tensor, hardest: int, block: int) -> None:
    """Raise ValueError unless shapes and options fit."""
    if len(embeddings) < 2:
        raise ValueError(f'pairs need at least 2 embeddings, got {len(embeddings)}')
    if labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f'labels must be ({len(embeddings)},), one per embedding, got {tuple(labels.shape)}'
        )
    check_number('block', block, least=1)
    check_number('hardest', hardest, least=0)


def _blocks(count: int, block: int) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of the blocks on and above the diagonal."""
    parts = [slice(start, min(start + block, count)) for start in range(0, count, block)]
    for number, rows in enumerate(parts):
        for columns in parts[number:]:
            yield rows, columns


def _by_kind(labels: Tensor, rows: slice, columns: slice) -> tuple[_Places | None, _Places | None]:
    """Find the impostor pairs and the genuine pairs of a block; None stands for no place.

    Args:
        labels: (N,) ascending.
        rows: rows of the block.
        columns: columns of the block.
    """
    first, last = labels[rows], labels[columns]
    if rows != columns:
        if first[-1] != last[0]:  # as labels ascend, rows and columns share no label
            return slice(None), None
        if first[0] == last[-1]:
            return None, slice(None)
    same = first[:, None] == last
    pairs = torch.ones_like(same) if rows != columns else torch.ones_like(same).triu_(1)
    impostors, genuine = (
        kind.logical_and_(pairs).view(-1).nonzero().squeeze(1) for kind in (~same, same)
    )
    return impostors, genuine


class _Kind:
    """Counts and extreme pairs of one kind, genuine or impostor.

    Args:
        hardest: number of extreme pairs to keep.
        sign: 1 keeps the most similar pairs, -1 the least similar ones.
        most: largest number of pairs that are added at once.
        device: device of the embeddings.
    """

    def __init__(self, hardest: int, sign: int, most: int, device: torch.device) -> None:
        self.table = torch.zeros(2 * GRID + 1, dtype=torch.int64, device=device)
        self._ones = torch.ones(most, dtype=torch.int64, device=device)
        self._hardest, self._sign = hardest, sign
        self._values = torch.empty(0, device=device)
        self._pairs = torch.empty(0, 2, dtype=torch.int64, device=device)

    def add(
        self, levels: Tensor, scaled: Tensor, start: tuple[int, int, int], chosen: _Places
    ) -> None:
        """Count similarities, and keep the most extreme pairs.

        Args:
            levels: (M,) int64, similarities in steps of the grid, from 0 to 2 * GRID.
            scaled: (M,) float32, the same minus GRID.
            start: first row and first column of the block, and its width.
            chosen: places of the M pairs in the block, ascending, or the slice of all places.
        """
        self.table.scatter_add_(0, levels, self._ones[: len(levels)])
        if self._hardest and len(scaled):
            self._keep(scaled if self._sign > 0 else -scaled, start, chosen)

    def _keep(self, values: Tensor, start: tuple[int, int, int], chosen: _Places) -> None:
        """Merge the highest values of a block with those kept; ties are ordered by place."""
        full = len(self._values) == self._hardest
        if full and values.max() < self._values[-1]:
            return
        lowest = values.topk(min(self._hardest, len(values))).values[-1]
        if full:
            lowest = torch.maximum(lowest, self._values[-1])
        # `topk` may return any of equal values. Here the first places win, so that the result
        # does not depend on the size of the blocks.
        places = torch.cat(
            [
                (values > lowest).nonzero().squeeze(1),
                (values == lowest).nonzero().squeeze(1)[: self._hardest],
            ]
        )
        found = values[places]
        places = places if isinstance(chosen, slice) else chosen[places]
        row, column, width = start
        pairs = torch.stack([row + places // width, column + places % width], dim=1)
        found, pairs = torch.cat([self._values, found]), torch.cat([self._pairs, pairs])
        order = pairs[:, 1].argsort(stable=True)
        order = order[pairs[order, 0].argsort(stable=True)]
        order = order[found[order].argsort(stable=True, descending=True)][: self._hardest]
        self._values, self._pairs = found[order], pairs[order]

    def extreme(self, order: Tensor, ready: Comparable) -> ExtremePairs:
        """Return the extreme pairs as rows of the embeddings before sorting by label."""
        index = order[self._pairs].sort(dim=1).values
        return ExtremePairs(index, ready.cosines(self._values * self._sign / GRID))


def _counts(genuine: Tensor, impostors: Tensor, ready: Comparable) -> ScoreCounts:
    """Convert the tables of both kinds to counts of cosines."""
    levels = (genuine + impostors).nonzero().squeeze(1)
    scores = ready.cosines((levels - GRID).float() / GRID)
    return ScoreCounts(scores, genuine[levels], impostors[levels])
