"""Processes that write and read a checkpoint together, by a group of their own on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mmdet_ext.face.sharding.collectives import explained

# The slowest disk may take so much longer than the fastest.
_PATIENCE = timedelta(hours=1)


class Peers:
    """Processes of a distributed training, or the only one without.

    The group is one of gloo, so that a thread in the background never meets what the training
    exchanges. All processes must make it, at the same point.

    Args:
        alone: whether this process works without the others.

    Attributes:
        count: number of processes.
        rank: number of this process, from 0.
        group: their group; None for a single process.
    """

    def __init__(self, alone: bool = False) -> None:
        self.count, self.rank = 1, 0
        self.group: Any = None
        self._mesh: Any = None
        initialized = dist.is_available() and dist.is_initialized()
        if not alone and initialized and dist.get_world_size() > 1:
            try:
                from torch.distributed.device_mesh import DeviceMesh
                from torch.distributed.tensor import DTensor  # noqa: F401
            except ImportError as error:
                raise RuntimeError(
                    'checkpoints of several processes need torch 2.5 or newer, this is '
                    f'{torch.__version__}'
                ) from error
            self.count, self.rank = dist.get_world_size(), dist.get_rank()
            self.group = dist.new_group(backend='gloo', timeout=_PATIENCE)
            self._mesh = DeviceMesh.from_group(self.group, 'cpu')

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in their order.

        Raises:
            ProcessEndedError: a RuntimeError, where another process ended.
        """
        if self.group is None:
            return [value]
        values: list[Any] = [None] * self.count
        with explained():
            dist.all_gather_object(values, value, group=self.group)
        return values

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run a block in all processes; where it fails in one, raise in all.

        Raises:
            RuntimeError: with number and error of another process that failed; and a
                ProcessEndedError where one ended.
        """
        error: Exception | None = None
        try:
            yield
        except Exception as caught:
            error = caught
        text = None if error is None else f'{type(error).__name__}: {error}'
        try:
            texts = self.gather(text)
        except RuntimeError:
            if error is None:
                raise
        if error is not None:
            raise error
        for rank, text in enumerate(texts):
            if text is not None:
                raise RuntimeError(f'process {rank} of {self.count} failed: {text}')

    def joined(self, rows: Tensor, total: int) -> Tensor:
        """Return the table of which each process has consecutive rows, in the cut of `class_shard`.

        Args:
            rows: those of this process, (n, W), on the CPU; not copied.
            total: rows of all processes.

        Returns:
            a ``DTensor`` (total, W), or with a single process ``rows`` itself.
        """
        if self.group is None:
            return rows
        from torch.distributed.tensor import DTensor, Shard

        # Without shape and stride, parts of unequal sizes give a wrong table without an error.
        width = rows.shape[1]
        shape = torch.Size((total, width))
        return DTensor.from_local(
            rows, self._mesh, [Shard(0)], run_check=False, shape=shape, stride=(width, 1)
        )
