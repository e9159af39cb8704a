"""Cut of the classes over the processes: consecutive classes, in equal parts but for the last ones.

It is the cut of ``torch.chunk`` and of a ``DTensor`` with ``Shard(0)``: 10 classes over 4 processes
are 3, 3, 3 and 1; 3 classes over 4 processes are 1, 1, 1 and 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from torch import Tensor, nn


class ClassShard(NamedTuple):
    """Classes that one process holds, ``first`` to below ``stop`` of ``total``.

    >>> class_shard(10, 3, 4)
    ClassShard(first=9, stop=10, total=10)
    """

    first: int
    stop: int
    total: int

    @property
    def count(self) -> int:  # type: ignore[override]
        """Number of classes that this process holds; it may be 0."""
        return self.stop - self.first


class ShardedModule(Protocol):
    """Module that holds a part of the classes; checkpoints and the wrapper look for these.

    Attributes:
        shard: classes that this process holds.
        rows_per_class: rows of a sharded tensor per class.
    """

    shard: ClassShard
    rows_per_class: int

    def sharded_state(self) -> dict[str, Tensor]:
        """Return tensors of its ``state_dict`` that are sharded along dimension 0, by name."""

    def sharded_parameters(self) -> dict[str, nn.Parameter]:
        """Return parameters that the optimizer of this process trains alone, by name.

        State of the optimizer under them with ``shard.count * rows_per_class`` rows is sharded as
        well.
        """


def class_shard(classes: int, rank: int, processes: int) -> ClassShard:
    """Return the classes that a process holds.

    Args:
        classes: number of all classes.
        rank: number of the process, from 0.
        processes: number of processes.
    """
    each = -(-classes // processes)
    first = min(rank * each, classes)
    return ClassShard(first, min(first + each, classes), classes)


_writing = False


@contextmanager
def writing_shards() -> Iterator[None]:
    """Let ``state_dict`` of sharded modules give the rows of this process within the block.

    Without it, a sharded module of several processes refuses, because one process that writes its
    state would lose the rows of all others.
    """
    global _writing
    before, _writing = _writing, True
    try:
        yield
    finally:
        _writing = before


def is_writing_shards() -> bool:
    """Return whether a block of `writing_shards` is running."""
    return _writing
