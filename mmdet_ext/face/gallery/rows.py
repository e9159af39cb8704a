"""Rows of embeddings in segments, which lie in memory or in files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Segment:
    """Consecutive rows, which never change.

    Attributes:
        values: (N, D) float32, in memory or mapped from ``file``.
        file: file that holds them; None for memory alone.
    """

    values: Array
    file: Path | None = None

    def __len__(self) -> int:
        return len(self.values)


class Rows:
    """Table (N, D) to which rows are added at the end.

    Segments in memory are joined so that each is more than twice as long as the next: there are
    few of them, and a row is copied few times.
    """

    def __init__(self, segments: tuple[Segment, ...] = ()) -> None:
        self.segments = segments

    def __len__(self) -> int:
        return sum(map(len, self.segments))

    def append(self, values: Array) -> None:
        """Add rows (N, D) float32."""
        if not len(values):
            return
        segments = [*self.segments, Segment(values)]
        while len(segments) > 1 and _joined(*segments[-2:]):
            second, first = segments.pop(), segments.pop()
            segments.append(Segment(np.concatenate([first.values, second.values])))
        self.segments = tuple(segments)

    def take(self, index: Array) -> Array:
        """Copy rows (N, D) by their indices (N,)."""
        if len(self.segments) == 1:
            return np.asarray(self.segments[0].values[index])
        ends = np.cumsum([len(segment) for segment in self.segments])
        owner = np.searchsorted(ends, index, 'right')
        taken = np.empty((len(index), self.segments[0].values.shape[1]), np.float32)
        for number in np.unique(owner):
            own = owner == number
            segment = self.segments[number]
            taken[own] = segment.values[index[own] - (ends[number] - len(segment))]
        return taken

    def blocks(self, size: int) -> Iterator[tuple[int, Array]]:
        """Yield the first index and the rows of blocks of at most ``size`` rows."""
        start = 0
        for segment in self.segments:
            for place in range(0, len(segment), size):
                yield start + place, segment.values[place : place + size]
            start += len(segment)


def _joined(first: Segment, second: Segment) -> bool:
    return first.file is None and second.file is None and len(first) <= 2 * len(second)
