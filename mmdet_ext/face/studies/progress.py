"""Progress of tools that go through many files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar('T')
# Most movements of the bar.
_STEPS = 100


@contextmanager
def tracked(items: Sequence[T]) -> Iterator[Iterator[T]]:
    """Yield items one by one, with a progress bar on stderr that moves at most 100 times.

    The line of the bar ends with the context, so that an error begins on a line of its own. Without
    MMEngine, which exported recognisers do not need, there is no bar.
    """
    try:
        from mmengine.utils import track_iter_progress
    except ImportError:
        yield iter(items)
        return
    step = -(-len(items) // _STEPS) or 1
    parts = [items[start : start + step] for start in range(0, len(items), step)]
    moving = track_iter_progress((parts, len(parts)), file=sys.stderr) if parts else ()
    try:
        yield (item for part in moving for item in part)
    finally:
        print(file=sys.stderr)
