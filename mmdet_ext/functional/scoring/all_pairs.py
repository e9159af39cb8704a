"""Similarities of all pairs of many embeddings, counted without being stored.

100,000 embeddings make 5e9 pairs. Their similarities are multiples of ``1 / GRID`` (of less, where
all are close to 1), so that a small table of integers holds how often each occurs, and every figure
of :mod:`mmdet_ext.functional.scoring.verification` follows exactly, at any threshold, after one pass of
matrix products, to which the counting adds less than they take from some 200 dimensions on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.scoring.similarity import GRID, Comparable, comparable
from mmdet_ext.functional.scoring.verification import ScoreCounts

#: Rows and columns of one product: it stays in the cache until it is counted.
BLOCK = 1024

Progress = Callable[[int, int], None]

#: Places of a block, row by row: a tensor of some, or the slice of all.
Places = Tensor | slice


class ExtremePairs(NamedTuple):
    """The pairs most worth a look, the most extreme first.

    Attributes:
        pairs: (H, 2) int64, rows of the embeddings, the lower one first.
        similarity: (H,), of the type of the counts' scores.
    """

    pairs: Tensor
    similarity: Tensor


class AllPairs(NamedTuple):
    """All pairs of a set.

    Attributes:
        counts: of all similarities.
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
    """Count the cosines of all pairs i < j, genuine where the labels are equal.

    Memory: two copies of the embeddings, some tables of ``block * block``, and some of 16 MiB, as
    many as there may be pairs. Embeddings that are all close to each other take some copies more.

    Args:
        embeddings: (N, D), floating point, finite, of any length; zeros have the similarity 0.
        labels: (N,) integers.
        hardest: how many extreme pairs of each kind to keep; among equal ones those of the lowest
            labels, then of the lowest rows.
        block: rows and columns of one product, at least 1. The result is the same but for what
            products of other sizes round differently: a few similarities move by a step of the
            grid.
        progress: called with the pairs done and the number of all, after each block.

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
    # Sorted by label, most blocks hold pairs of one kind alone.
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
    if len(embeddings) < 2:
        raise ValueError(f'pairs need at least 2 embeddings, got {len(embeddings)}')
    if labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f'labels must be ({len(embeddings)},), one an embedding, got {tuple(labels.shape)}'
        )
    if block < 1:
        raise ValueError(f'block is {block}; it must be at least 1')
    if hardest < 0:
        raise ValueError(f'hardest is {hardest}; it must be at least 0')


def _blocks(count: int, block: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the blocks on and above the diagonal."""
    parts = [slice(start, min(start + block, count)) for start in range(0, count, block)]
    for number, rows in enumerate(parts):
        for columns in parts[number:]:
            yield rows, columns


def _by_kind(labels: Tensor, rows: slice, columns: slice) -> tuple[Places | None, Places | None]:
    """Which places of a block are impostor pairs, and which genuine ones; None for no place."""
    first, last = labels[rows], labels[columns]
    if rows != columns:
        if first[-1] != last[0]:  # sorted, so no label is in both
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
    """What is kept of one kind of pairs.

    Args:
        hardest: how many extreme pairs to keep.
        sign: 1 keeps the most similar, -1 the least similar ones.
        most: pairs that are taken up at once.
        device: of the embeddings.
    """

    def __init__(self, hardest: int, sign: int, most: int, device: torch.device) -> None:
        self.table = torch.zeros(2 * GRID + 1, dtype=torch.int64, device=device)
        self._ones = torch.ones(most, dtype=torch.int64, device=device)
        self._hardest, self._sign = hardest, sign
        self._values = torch.empty(0, device=device)
        self._pairs = torch.empty(0, 2, dtype=torch.int64, device=device)

    def add(
        self, levels: Tensor, scaled: Tensor, start: tuple[int, int, int], chosen: Places
    ) -> None:
        """Take similarities up.

        Args:
            levels: (M,) int64 in [0, 2 * GRID].
            scaled: (M,) float32, the same in [-GRID, GRID].
            start: first row and column of their block, and its width.
            chosen: their places in the block, (M,) ascending, or all of it.
        """
        self.table.scatter_add_(0, levels, self._ones[: len(levels)])
        if self._hardest and len(scaled):
            self._keep(scaled if self._sign > 0 else -scaled, start, chosen)

    def _keep(self, values: Tensor, start: tuple[int, int, int], chosen: Places) -> None:
        """Merge the block's highest values in, ties by their row and column."""
        full = len(self._values) == self._hardest
        if full and values.max() < self._values[-1]:
            return
        lowest = values.topk(min(self._hardest, len(values))).values[-1]
        if full:
            lowest = torch.maximum(lowest, self._values[-1])
        # Topk breaks ties at will; here the first places win, however the blocks are cut.
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
        """The extreme pairs, as rows of the embeddings before they were sorted."""
        index = order[self._pairs].sort(dim=1).values
        return ExtremePairs(index, ready.cosines(self._values * self._sign / GRID))


def _counts(genuine: Tensor, impostors: Tensor, ready: Comparable) -> ScoreCounts:
    levels = (genuine + impostors).nonzero().squeeze(1)
    scores = ready.cosines((levels - GRID).float() / GRID)
    return ScoreCounts(scores, genuine[levels], impostors[levels])
