"""Pairs of boxes that affect each other, found by a sweep along x, without a table of all pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.boxes._detections import Planes, gather, planes_of
from mmdet_ext.functional.numerics.order import (
    counts_up_to,
    places_of,
    repeated,
    sorted_whole,
    where_at_least,
    where_at_most,
)

#: Most candidate pairs that are measured at once. Larger tables go back to the system between two
#: uses, and getting their memory again takes a third of the time.
CHUNK_PAIRS = 1 << 15

#: Steps in which ends of intervals are sorted: whole numbers of 32 bits take a fifth of the time.
STEPS = 2**31 - 2

#: Function of two sets of aligned boxes that returns a number (E,) in [-1, 1], or NaN for none.
Overlap = Callable[[Planes, Planes], Tensor]

#: Function of overlaps (E,) that returns the factors (E,), in [0, 1], by which the better box of
#: each pair lowers the score of the other.
Weigh = Callable[[Tensor], Tensor]


class Rule(NamedTuple):
    """Rule of a suppression: boxes affect each other if they overlap by ``least``, and above 0.

    Attributes:
        overlap: overlap of a pair, the IoU or less.
        weigh: factor of an overlap.
        least: in [0, 1].
    """

    overlap: Overlap
    weigh: Weigh
    least: float

    def affecting(self, overlap: Tensor) -> Tensor:
        """Return whether the overlaps (E,) are large enough."""
        return where_at_least(overlap, max(self.least, torch.finfo(overlap.dtype).tiny))

    def factor(self, one: Planes, other: Planes) -> Tensor:
        """Compute the factors (E,) of pairs of boxes, 1 for those that do not affect each other."""
        overlap = self.overlap(one, other)
        return torch.where(self.affecting(overlap), self.weigh(overlap), 1.0)


class Pairs(NamedTuple):
    """Pairs of boxes of which one lowers the score of the other.

    Attributes:
        first: (E,) int32, index of a box.
        second: (E,) int32, index of the other box, larger than ``first``.
        weight: (E,) factor on the score of the box that is selected later.
    """

    first: Tensor
    second: Tensor
    weight: Tensor


def weighted_pairs(boxes: Tensor, labels: Tensor | None, rule: Rule, most: int) -> Pairs | None:
    """Find all pairs of one label that affect each other.

    An IoU of t needs a shared width, and height, of t times those of each box. So boxes are cut by
    this part on the right and below, and pairs of cut boxes that do not overlap are left out.

    Args:
        boxes: (N, 4) corners, px, of at least float32.
        labels: (N,) whole numbers; None for one label.
        rule: which pairs affect each other, and their weight.
        most: largest number of pairs to hold.

    Returns:
        Pairs, in no particular order; None if there are more than ``most``.
    """
    planes = planes_of(boxes)
    x1, y1, x2, y2, _ = planes
    slack = 8 * torch.finfo(boxes.dtype).eps * boxes.abs().max()  # no pair is lost by rounding
    right = x2 - rule.least * (x2 - x1) + slack
    below = y2 - rule.least * (y2 - y1) + slack
    order, counts = _sweep(x1, right, labels)
    planes = gather(planes, order)
    top, bottom = planes[1], below.index_select(0, order)
    order = order.int()
    parts: list[Pairs] = []
    held = 0
    for rows, own, right in _candidates(counts):
        size = right.shape[0]
        meets = where_at_most(repeated(top[rows], own, size), bottom.index_select(0, right))
        meets &= where_at_most(top.index_select(0, right), repeated(bottom[rows], own, size))
        left = torch.arange(rows.start, rows.stop, dtype=torch.int32, device=right.device)
        left, right = chosen(meets, repeated(left, own, size), right)
        overlap = rule.overlap(gather(planes, left), gather(planes, right))
        left, right, overlap = chosen(rule.affecting(overlap), left, right, overlap)
        one, other = order.index_select(0, left), order.index_select(0, right)
        parts.append(
            Pairs(torch.minimum(one, other), torch.maximum(one, other), rule.weigh(overlap))
        )
        held += overlap.shape[0]
        if held > most:
            return None
    if len(parts) == 1:
        return parts[0]
    return Pairs(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _sweep(low: Tensor, high: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sort intervals by label and lower end, and count those that begin within each one.

    Ends are rounded to `STEPS` in ascending order, so that none is lost, and some are too many.
    Half of the range of a label stays empty: it is wider than the steps of `counts_up_to`.

    Args:
        low: (N,) lower ends.
        high: (N,) upper ends.
        labels: (N,) whole numbers; None for one label.

    Returns:
        tuple: the order (N,); for each interval in that order, the number (int32) of those of its
        label behind it that begin before its end, which follow it directly.
    """
    low, high = low.double(), high.double()
    low, high = low - low.min(), high - low.min()
    span = 2 * high.max() + torch.finfo(low.dtype).tiny
    if labels is not None:
        rank = labels.double()
        rank = rank - rank.min()
        if float(rank.max()) >= rank.shape[0]:  # too far apart for the number of steps
            rank = labels.unique(return_inverse=True)[1].double()
        low, high = low + rank * span, high + rank * span
        span = span * (rank.max() + 1)
    scale = STEPS / span
    begins, order = sorted_whole((low * scale).int())
    ends = (high * scale).int().index_select(0, order)
    ends = counts_up_to(begins, ends)
    return order, ends - torch.arange(1, ends.shape[0] + 1, dtype=torch.int32, device=ends.device)


def _candidates(counts: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield rows of boxes, their ``counts``, and after each other the boxes behind each, int32.

    A chunk has `CHUNK_PAIRS` boxes behind others or fewer, or those of one row.
    """
    total = counts.cumsum(0)
    rows, device = counts.shape[0], counts.device
    # Of the first box behind a row; all pairs may be more than int32 counts.
    shift = torch.arange(1, rows + 1, device=device) - (total - counts)
    row = done = 0
    while row < rows:
        stop = int(torch.searchsorted(total, done + CHUNK_PAIRS, right=True))
        stop = max(stop, row + 1)
        size = int(total[stop - 1]) - done
        own = counts[row:stop]
        right = torch.arange(size, dtype=torch.int32, device=device)
        first = (shift[row:stop] + done).int()
        yield slice(row, stop), own, right.add_(repeated(first, own, size))
        row, done = stop, done + size


def chosen(mask: Tensor, *values: Tensor) -> list[Tensor]:
    """Return the values (E,) where the mask (E,) is True."""
    index = places_of(mask)
    return [value.index_select(0, index) for value in values]
