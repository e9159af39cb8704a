"""Pairs of boxes that affect each other, found by a sweep along x, without a table of all pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.boxes._detections import Planes, gather, planes_of
from mmdet_ext.functional.numerics.order import places_of, sorted_whole

#: Most candidate pairs that are measured at once. Larger tables go back to the system between two
#: uses, and getting their memory again takes a third of the time.
CHUNK_PAIRS = 1 << 15

#: Steps in which ends of intervals are sorted: whole numbers of 32 bits take a fifth of the time.
STEPS = 2**31 - 2

#: Function of two sets of aligned boxes that returns the factor (E,), in [0, 1], by which the
#: better box of each pair lowers the score of the other.
Weigh = Callable[[Planes, Planes], Tensor]


class Rule(NamedTuple):
    """Rule of a suppression.

    Attributes:
        weigh: factor of a pair.
        least_iou: IoU below which the factor is 1, in [0, 1].
    """

    weigh: Weigh
    least_iou: float = 0.0


class Pairs(NamedTuple):
    """Pairs of boxes of which one lowers the score of the other.

    Attributes:
        first: (E,) int32, index of a box.
        second: (E,) int32, index of the other box, larger than ``first``.
        weight: (E,) factor on the score of the box that is selected later, below 1.
    """

    first: Tensor
    second: Tensor
    weight: Tensor


def weighted_pairs(boxes: Tensor, labels: Tensor | None, rule: Rule, most: int) -> Pairs | None:
    """Find all pairs of one label whose weight is below 1.

    An IoU of t needs a shared width, and height, of t times those of each box. So boxes are cut by
    this part on the right and below, and pairs of cut boxes that do not overlap are left out.

    Args:
        boxes: (N, 4) corners, px, of at least float32.
        labels: (N,) whole numbers; None for one label.
        rule: weight of a pair.
        most: largest number of pairs to hold.

    Returns:
        Pairs, in no particular order; None if there are more than ``most``.
    """
    cut = boxes[:, 2:] - rule.least_iou * (boxes[:, 2:] - boxes[:, :2])
    cut = cut + 8 * torch.finfo(boxes.dtype).eps * boxes.abs().max()  # no pair is lost by rounding
    order, counts = _sweep(boxes[:, 0], cut[:, 0], labels)
    planes = planes_of(boxes.index_select(0, order))
    top, bottom = planes[1], cut[:, 1].index_select(0, order)
    order = order.int()
    parts: list[Pairs] = []
    held = 0
    for left, right in _candidates(counts):
        above, below = _both(top, left, right), _both(bottom, left, right)
        left, right = chosen(torch.maximum(*above) <= torch.minimum(*below), left, right)
        weight = rule.weigh(gather(planes, left), gather(planes, right))
        left, right, weight = chosen(weight < 1, left, right, weight)
        ends = _both(order, left, right)
        parts.append(Pairs(torch.minimum(*ends), torch.maximum(*ends), weight))
        held += weight.shape[0]
        if held > most:
            return None
    if len(parts) == 1:
        return parts[0]
    return Pairs(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _sweep(low: Tensor, high: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sort intervals by label and lower end, and count those that begin within each one.

    Ends are rounded to `STEPS` in ascending order, so that none is lost, and some are too many.

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
        if float(rank.max()) > 2**16:  # too far apart for the number of steps
            rank = labels.unique(return_inverse=True)[1].double()
        low, high = low + rank * span, high + rank * span
        span = span * (rank.max() + 1)
    scale = STEPS / span
    begins, order = sorted_whole((low * scale).int())
    ends = (high * scale).int().index_select(0, order)
    ends = torch.searchsorted(begins, ends, right=True, out_int32=True)
    return order, ends - torch.arange(1, ends.shape[0] + 1, dtype=torch.int32, device=ends.device)


def _candidates(counts: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pairs of a box and one of the ``counts`` boxes behind it, int32.

    A chunk has `CHUNK_PAIRS` pairs or fewer, or one box with all of its own.
    """
    total = counts.cumsum(0)
    rows, device = counts.shape[0], counts.device
    row = done = 0
    while row < rows:
        stop = int(torch.searchsorted(total, done + CHUNK_PAIRS, right=True))
        stop = max(stop, row + 1)
        size = int(total[stop - 1]) - done
        own = counts[row:stop]
        left = torch.arange(row, stop, dtype=torch.int32, device=device)
        left = left.repeat_interleave(own, output_size=size)
        first = torch.arange(row + 1, stop + 1, device=device) - (total[row:stop] - own - done)
        right = torch.arange(size, dtype=torch.int32, device=device)
        yield left, right + first.int().index_select(0, left - row)
        row, done = stop, done + size


def _both(values: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values of both boxes of each pair."""
    return values.index_select(0, left), values.index_select(0, right)


def chosen(mask: Tensor, *values: Tensor) -> list[Tensor]:
    """Return the values (E,) where the mask (E,) is True."""
    index = places_of(mask)
    return [value.index_select(0, index) for value in values]
