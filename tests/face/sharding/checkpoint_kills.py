"""Processes killed while they write checkpoints; `test_checkpoints_kills.py` reads what was left.

Usage: python checkpoint_kills.py FOLDER SEED
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from mmdet_ext.face.sharding.checkpoint_folders import complete_folders, remove_leftovers
from mmdet_ext.face.sharding.checkpoints import (
    CheckpointWriter,
    Peers,
    describe,
    latest_checkpoint,
    read_checkpoint,
    restore,
    take_state,
)
from mmdet_ext.face.sharding.shards import class_shard, writing_shards
from tests.face.sharding.checkpoint_worlds import start_world

# 20 MB in the table of classes, and 4 MB beside it.
CLASSES, WIDTH, BESIDE = 5_000, 1_024, 1_000_000
KILLS, OF_TWO = 50, 10


class Table(nn.Module):
    """Head whose values all are the number of its last checkpoint."""

    def __init__(self, peers: Peers) -> None:
        super().__init__()
        self.shard, self.rows_per_class = class_shard(CLASSES, peers.rank, peers.count), 1
        self.weight = nn.Parameter(torch.zeros(self.shard.count, WIDTH))

    def sharded_state(self) -> dict[str, Tensor]:
        return {'weight': self.weight}

    def sharded_parameters(self) -> dict[str, nn.Parameter]:
        return {'weight': self.weight}


class Model(nn.Module):
    """A `Table` and numbers beside it, all the number of the last checkpoint."""

    def __init__(self, peers: Peers) -> None:
        super().__init__()
        self.head = Table(peers)
        self.register_buffer('beside', torch.zeros(BESIDE))

    def fill(self, number: int) -> None:
        with torch.no_grad():
            self.head.weight.fill_(number)
            self.beside.fill_(number)


def write_on(root: Path, pipe: int, rank: int) -> None:
    """Write checkpoints after the latest until killed; report each to ``pipe``."""
    peers = Peers()
    with peers.together():
        if rank == 0:
            remove_leftovers(root)
        latest = latest_checkpoint(root)
    number = 0 if latest is None else int(latest.name.removeprefix('iter_'))
    writer, model = CheckpointWriter(root, peers, max_keep=3), Model(peers)
    while True:
        if rank == 0:
            os.write(pipe, b'.')
        number += 1
        model.fill(number)
        with writing_shards():
            content = {'meta': {'iter': number}, 'state_dict': model.state_dict()}
        state = take_state(model, content, None, peers)
        writer.write(f'iter_{number}', state, describe(model, 0, number, peers))


def kill_once(root: Path, work: Path, count: int, delay: float) -> None:
    """Start processes, and kill all of them so many seconds after they begin to write."""
    out, into = os.pipe()
    pids = start_world(count, partial(write_on, root, into), work)
    os.close(into)
    if not select.select([out], [], [], 60)[0] or not os.read(out, 1):
        raise RuntimeError('the processes did not begin to write')
    time.sleep(delay)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)
    os.close(out)


def inspect(root: Path) -> dict[str, Any]:
    """Load the latest checkpoint, and compare all its values with its name."""
    found: dict[str, Any] = {
        'latest': 0,
        'right': None,
        'damaged': list(complete_folders(root)[1].values()),
        'left': sorted(path.suffix for path in root.iterdir() if path.suffix),
    }
    latest = latest_checkpoint(root)
    if latest is not None:
        number = int(latest.name.removeprefix('iter_'))
        peers = Peers()
        model = Model(peers)
        restore(model, read_checkpoint(latest, model, peers), peers, latest)
        values = (model.head.weight, model.beside)
        found['right'] = all(bool((value == number).all()) for value in values)
        found['latest'] = number
    return found


def main(folder: Path, seed: int) -> None:
    torch.set_num_threads(1)
    draw, root = random.Random(seed), folder / 'checkpoints'
    root.mkdir()
    started = time.perf_counter()
    peers, model = Peers(), Model(Peers())
    with writing_shards():
        state = take_state(model, {'state_dict': model.state_dict()}, None, peers)
    CheckpointWriter(folder, peers).write('iter_0', state, describe(model, 0, 0, peers))
    once = time.perf_counter() - started
    found = []
    for number in range(KILLS):
        count = 2 if number % (KILLS // OF_TWO) == 0 else 1
        kill_once(root, folder / f'world_{number}', count, draw.uniform(0, 3 * once))
        found.append(inspect(root))
    (folder / 'results.json').write_text(json.dumps(found))


if __name__ == '__main__':
    main(Path(sys.argv[1]), int(sys.argv[2]))
