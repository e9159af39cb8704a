"""Processes forked from one that has imported PyTorch, each a rank of a group of gloo."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint
import torch.distributed.tensor

# What PyTorch imports at the first optimizer takes seconds: import it before the fork.
torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])


def start_world(count: int, work: Callable[[int], Any], folder: Path) -> list[int]:
    """Fork processes that run ``work`` with their rank, and return their numbers.

    A single process has no group. What ``work`` returns is saved to ``folder/<rank>.pt``.
    """
    folder.mkdir(parents=True)
    sys.stdout.flush()
    return [_fork(rank, count, work, folder) for rank in range(count)]


def _fork(rank: int, count: int, work: Callable[[int], Any], folder: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        if count > 1:
            dist.init_process_group(
                'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=count
            )
        torch.save(work(rank), folder / f'{rank}.pt')
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)
    return 0


def run_world(count: int, work: Callable[[int], Any], folder: Path) -> list[Any]:
    """Run ``work`` in so many processes, and return the results in the order of their ranks."""
    pids = start_world(count, work, folder)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    if any(codes):
        raise RuntimeError(f'{folder.name}: the processes ended with {codes}')
    return [torch.load(folder / f'{rank}.pt') for rank in range(count)]
