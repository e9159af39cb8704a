"""Cases of checkpoints on several numbers of processes; `test_checkpoints.py` reads the results.

Usage: python checkpoint_worker.py FOLDER
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import mmdet_ext.face.sharding.checkpoint_tables as checkpoint_tables
from mmdet_ext.face.sharding.checkpoints import (
    CheckpointWriter,
    Peers,
    describe,
    read_checkpoint,
    restore,
    take_state,
)
from mmdet_ext.face.sharding.shards import writing_shards
from tests.face.sharding.checkpoint_stub import (
    StubModel,
    joined,
    optimizer_of,
    snapshot,
    train,
)
from tests.face.sharding.checkpoint_worlds import run_world, start_world

MORE = 3


def write(
    writer: CheckpointWriter, model: StubModel, optimizer: Any, peers: Peers, steps: int = MORE
) -> None:
    with writing_shards():
        content = {'meta': {'iter': steps}, 'state_dict': model.state_dict()}
    state = take_state(model, content, optimizer, peers)
    writer.write(f'iter_{steps}', state, describe(model, 0, steps, peers))


def save(root: Path, kind: str, options: dict[str, Any], rank: int) -> Any:
    """Train, save in both ways, and go on while the second is written."""
    peers = Peers()
    model = StubModel(peers, **options)
    optimizer = optimizer_of(model, kind)
    train(model, optimizer, 0, MORE)
    at_saving = snapshot(model, optimizer)
    write(CheckpointWriter(root / 'sync', peers), model, optimizer, peers)
    background = CheckpointWriter(root / 'async', peers, background=True)
    write(background, model, optimizer, peers)
    train(model, optimizer, MORE, 2 * MORE)
    background.wait()
    return at_saving, snapshot(model, optimizer)


def resume(folder: Path, kind: str, options: dict[str, Any], rank: int) -> Any:
    """Load a checkpoint into another model, and go on."""
    peers = Peers()
    model = StubModel(peers, **options)
    optimizer = optimizer_of(model, kind)
    with torch.no_grad():
        for values in (*model.parameters(), *model.buffers()):
            values.zero_()
    state = read_checkpoint(folder, model, peers)
    restore(model, state, peers, folder, optimizer)
    loaded = snapshot(model, optimizer)
    train(model, optimizer, MORE, 2 * MORE)
    return loaded, snapshot(model, optimizer)


def save_drawn(root: Path, options: dict[str, Any], rank: int) -> Any:
    """Save a head whose optimizer has rows of state in some of the processes alone."""
    peers = Peers()
    model = StubModel(peers, drawn=True, **options)
    optimizer = optimizer_of(model, 'adamw')
    train(model, optimizer, 0, 1)
    table = model.head.weight
    if rank != 1:
        optimizer.state[model.head.weight_drawn] = {
            'step': torch.tensor(float(rank + 1)),
            'exp_avg': table * 2,
            'exp_avg_sq': table.square(),
        }
    write(CheckpointWriter(root, peers), model, optimizer, peers)
    return snapshot(model, optimizer)


def fail(root: Path, rank: int) -> Any:
    """Return the errors where one of the processes fails."""
    peers = Peers()
    model = StubModel(peers)
    optimizer = optimizer_of(model, 'sgd')
    found = []
    original = checkpoint_tables.write_tables

    def no_space(folder: Path, tables: Any, totals: Any, peers: Peers) -> None:
        with peers.together():
            if peers.rank == 1:
                raise OSError('no space left')

    checkpoint_tables.write_tables = no_space
    for background in (False, True):
        writer = CheckpointWriter(root, peers, background=background)
        try:
            write(writer, model, optimizer, peers)
            writer.wait()
            found.append('none')
        except (RuntimeError, OSError) as error:
            found.append(f'{type(error).__name__}: {error}')
    checkpoint_tables.write_tables = original
    write(CheckpointWriter(root, peers), model, optimizer, peers)
    if rank == 1:
        model.head.rows_per_class = 1
    try:
        read_checkpoint(root / f'iter_{MORE}', model, peers)
    except (RuntimeError, ValueError) as error:
        found.append(f'{type(error).__name__}: {error}')
    return found


def end(root: Path, background: bool, rank: int) -> Any:
    """Return what a process raises where the other ends while they write."""
    peers = Peers()
    model = StubModel(peers)
    original = checkpoint_tables.write_tables

    def write_or_end(*args: Any) -> None:
        if rank == 1:
            os._exit(7)
        original(*args)

    checkpoint_tables.write_tables = write_or_end
    writer = CheckpointWriter(root, peers, background=background)
    start = time.monotonic()
    try:
        write(writer, model, optimizer_of(model, 'sgd'), peers)
        writer.wait()
    except RuntimeError as error:
        return str(error), time.monotonic() - start, [path.name for path in root.iterdir()]
    return None


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for kind in ('sgd', 'adamw'):
        for classes, each in ((10, 2), (3, 1)):
            options = dict(classes=classes, each=each)
            name = f'{kind}_{classes}'
            root = folder / name
            parts = run_world(4, partial(save, root, kind, options), root / 'save')
            results[name] = [joined(list(each)) for each in zip(*parts, strict=True)]
            for count, way in ((4, 'sync'), (3, 'sync'), (2, 'sync'), (1, 'sync'), (2, 'async')):
                case = f'{way}_{count}'
                work = partial(resume, root / way / f'iter_{MORE}', kind, options)
                parts = run_world(count, work, root / case)
                results[f'{name}/{case}'] = [
                    joined(list(each)) for each in zip(*parts, strict=True)
                ]
    options = dict(classes=10, each=2)
    one = run_world(1, partial(save, folder / 'one', 'sgd', options), folder / 'one' / 'save')
    results['one'] = list(one[0])
    work = partial(resume, folder / 'one' / 'sync' / f'iter_{MORE}', 'sgd', options)
    parts = run_world(3, work, folder / 'one' / 'three')
    results['one/3'] = [joined(list(each)) for each in zip(*parts, strict=True)]
    root = folder / 'drawn'
    results['drawn'] = run_world(4, partial(save_drawn, root, options), root / 'save')
    for drawn in (True, False):
        work = partial(resume, root / f'iter_{MORE}', 'adamw', {**options, 'drawn': drawn})
        parts = run_world(3, work, root / f'resume_{drawn}')
        results[f'drawn/{drawn}'] = joined([part[0] for part in parts])
    results['fail'] = run_world(2, partial(fail, folder / 'fail'), folder / 'fail' / 'save')
    for background in (False, True):
        root = folder / f'end_{background}'
        for pid in start_world(2, partial(end, root, background), folder / f'ended_{background}'):
            os.waitpid(pid, 0)
        results[f'end/{background}'] = torch.load(folder / f'ended_{background}' / '0.pt')
    torch.save(results, folder / 'results.pt')


if __name__ == '__main__':
    main(Path(sys.argv[1]))
