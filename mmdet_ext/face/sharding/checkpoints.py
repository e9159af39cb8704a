"""Checkpoints of a training with sharded classes, by PyTorch's distributed checkpointing.

A folder holds::

    manifest.json     facts and the sizes of all files; written last
    replicated.pth    what is equal in all processes, from the first
    __0_0.distcp ...  rows of the classes of each process, which writes its own file
    .metadata         where each row is

It can be read by any number of processes, each of which reads the rows of its own classes.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmdet_ext.compat.checkpoint import load_from_local
from mmdet_ext.face.sharding.checkpoint_folders import (
    WRITING,
    Manifest,
    begin_folder,
    complete_folder,
    keep_latest,
    latest_checkpoint,
    read_manifest,
    write_synced,
)
from mmdet_ext.face.sharding.checkpoint_peers import Peers
from mmdet_ext.face.sharding.checkpoint_state import (
    Rows,
    TrainingState,
    check_fits,
    on_cpu,
    optimizer_states,
    sharded_modules,
    take_state,
)
from mmdet_ext.face.sharding.shards import ClassShard, writing_shards
from mmdet_ext.utils.files import whole_file

__all__ = [
    'CheckpointWriter',
    'Manifest',
    'Peers',
    'TrainingState',
    'describe',
    'export_checkpoint',
    'latest_checkpoint',
    'read_checkpoint',
    'restore',
    'take_state',
]

REPLICATED = 'replicated.pth'
_WEIGHTS = ('meta', 'state_dict')


def _tables() -> Any:
    """Return `checkpoint_tables`, whose imports take seconds, at the first use."""
    from mmdet_ext.face.sharding import checkpoint_tables

    return checkpoint_tables


def describe(model: nn.Module, epoch: int, steps: int, peers: Peers) -> Manifest:
    """Return the facts of a checkpoint to be written.

    Args:
        model: without a wrapper for distributed training.
        epoch: number of epochs that are over.
        steps: number of steps that are over.
        peers: processes of the training.
    """
    modules = {
        name: {
            'type': type(module).__name__,
            'classes': module.shard.total,
            'rows_per_class': module.rows_per_class,
            'margin': _margin_name(module),
        }
        for name, module in sharded_modules(model).items()
    }
    return Manifest(epoch, steps, peers.count, modules)


def _margin_name(module: Any) -> str | None:
    margin = getattr(module, 'margin', None)
    return None if margin is None else type(margin).__name__


class CheckpointWriter:
    """Writer of the checkpoints of one training, in the background by choice.

    All processes must call its methods, at the same points.

    Args:
        root: folder of the checkpoints, which all processes see.
        peers: processes of the training.
        max_keep: number of complete checkpoints to keep, at least 1; -1 keeps all.
        background: whether a thread writes. The state is copied to the CPU first, so that training
            may go on; an error is raised by the next `write`, or by `wait`.
        report: called with a line about each checkpoint, in the first process.
    """

    def __init__(
        self,
        root: str | Path,
        peers: Peers,
        max_keep: int = -1,
        background: bool = False,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self.root, self.peers = Path(root), peers
        self.max_keep, self.background = max_keep, background
        self._report = report or (lambda line: None)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def write(self, name: str, state: TrainingState, manifest: Manifest) -> None:
        """Write a checkpoint, or begin to.

        Args:
            name: of its folder, such as 'epoch_3'.
            state: of `take_state`.
            manifest: of `describe`.

        Raises:
            FileExistsError: if there is such a folder.
            RuntimeError: if a process failed, now or at the checkpoint before.
        """
        self.wait()
        with self.peers.together():
            content = io.BytesIO()
            if self.peers.rank == 0:
                # Bytes are a copy, which training does not change.
                rows = {key: asdict(form) for key, form in state.rows.items()}
                torch.save({'content': on_cpu(state.content), 'rows': rows}, content)
                begin_folder(self.root / name)
            tables = {
                key: self._table(rows, state.rows[key]) for key, rows in state.tensors.items()
            }
        totals = {key: manifest.modules[form.module]['classes'] for key, form in state.rows.items()}
        job = partial(self._write, name, content.getbuffer(), tables, totals, manifest)
        if not self.background:
            job()
            return
        self._thread = threading.Thread(target=self._run, args=(job,), name=f'write {name}')
        self._thread.start()

    def _table(self, rows: Tensor, form: Rows) -> Tensor:
        """Return rows on the CPU with those of a class joined, a copy for the background."""
        rows = rows.detach().to('cpu', copy=self.background)
        return rows.reshape(len(rows) // form.rows_per_class, form.width).contiguous()

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            self._error = error

    def _write(
        self,
        name: str,
        content: memoryview,
        tables: Mapping[str, Tensor],
        totals: Mapping[str, int],
        manifest: Manifest,
    ) -> None:
        """Write the files, and complete the folder."""
        folder, first = self.root / name, self.peers.rank == 0
        writing = folder.with_name(folder.name + WRITING)
        with self.peers.together():
            if first:
                write_synced(writing / REPLICATED, content)
            elif not writing.is_dir():
                raise FileNotFoundError(
                    f'this process does not see {writing}, which the first process made: take a '
                    'work_dir or out_dir on a disk that all machines share'
                )
        _tables().write_tables(writing, tables, totals, self.peers)
        with self.peers.together():
            if first:
                complete_folder(folder, manifest)
                self._report(f'wrote the checkpoint {folder}')
                for removed in keep_latest(self.root, self.max_keep):
                    self._report(f'removed the checkpoint {removed}')

    def wait(self) -> None:
        """Wait until the checkpoint in the background is complete.

        Raises:
            RuntimeError: if it could not be written.
        """
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise RuntimeError(
                f'could not {thread.name if thread else "write"}: {error}'
            ) from error


def read_checkpoint(
    folder: str | Path, model: nn.Module, peers: Peers, model_only: bool = False
) -> TrainingState:
    """Read a checkpoint, with the rows of the classes of this process; all processes must call it.

    Nothing of the model is changed.

    Args:
        folder: a complete checkpoint, written by any number of processes.
        model: without a wrapper; the sharded modules are found in it.
        peers: processes of the training.
        model_only: whether to read the state of the model alone.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if it is incomplete, or has other numbers of classes or rows; with
            ``model_only=False`` also for another margin.
        RuntimeError: if a file cannot be loaded, or a process failed.
    """
    folder = Path(folder)
    with peers.together():
        manifest = read_manifest(folder)
        _check_modules(manifest, model, folder, model_only)
        shards = {name: module.shard for name, module in sharded_modules(model).items()}
    return _read(folder, shards, peers, model_only)


def _check_modules(manifest: Manifest, model: nn.Module, folder: Path, model_only: bool) -> None:
    """Raise ValueError unless a model has the sharded modules of a checkpoint."""
    here = describe(model, 0, 0, Peers(alone=True)).modules
    there = manifest.modules
    if here.keys() != there.keys():
        raise ValueError(
            f'{folder} has the sharded modules {sorted(there)}, the model {sorted(here)}. Nothing '
            'was loaded. tools/face/export_sharded.py makes a .pth of it for a model without'
        )
    fixed = ('classes', 'rows_per_class') if model_only else ('classes', 'rows_per_class', 'margin')
    for name, facts in here.items():
        for fact in fixed:
            if facts[fact] != there[name].get(fact):
                raise ValueError(
                    f'{folder}: {fact} of {name!r} is {there[name].get(fact)!r} there and '
                    f'{facts[fact]!r} here. Nothing was loaded. Resume with the same head; for '
                    'another, start from the backbone that tools/face/export_sharded.py writes'
                )


def _read(
    folder: Path, shards: Mapping[str, ClassShard], peers: Peers, model_only: bool
) -> TrainingState:
    """Read a checkpoint with the rows of given shards, by name of the module."""
    with peers.together():
        stored = load_from_local(str(folder / REPLICATED), 'cpu')
        content, rows = dict(stored['content']), {}
        for key, form in stored['rows'].items():
            if not model_only or key.startswith('state_dict/'):
                rows[key] = Rows(form['module'], form['rows_per_class'], tuple(form['trailing']))
        if model_only:
            content = {part: content[part] for part in _WEIGHTS if part in content}
        totals = {key: shards[form.module].total for key, form in rows.items()}
        index = _tables().read_index(folder)
        dtypes = _tables().check_tables(
            index, {key: (totals[key], form.width) for key, form in rows.items()}, folder
        )
        tables = {
            key: torch.empty(shards[form.module].count, form.width, dtype=dtypes[key])
            for key, form in rows.items()
        }
    _tables().read_tables(folder, tables, totals, index, peers)
    tensors = {key: table.reshape(-1, *rows[key].trailing) for key, table in tables.items()}
    return TrainingState(content, tensors, rows)


def restore(
    model: nn.Module,
    state: TrainingState,
    peers: Peers,
    source: str | Path,
    optimizer: Any = None,
    before: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Load a state into a model and its optimizer; all is checked before anything is changed.

    Args:
        model: without a wrapper.
        state: of `read_checkpoint`.
        peers: processes of the training.
        source: folder of the checkpoint, for messages.
        optimizer: an optimizer, MMEngine's wrapper of one or of several; None loads weights alone.
        before: called with the checkpoint between the checks and the loading; it may change which
            weights are loaded, as MMEngine's ``EMAHook`` does.

    Raises:
        ValueError: for another model, another optimizer or other parameters of it.
    """
    with peers.together():
        check_fits(model, state, str(source))
        ready = []
        if optimizer is not None:
            ready = list(optimizer_states(model, state, optimizer, str(source)))
    checkpoint = state.whole()
    with writing_shards():
        if before is not None:
            before(checkpoint)
        model.load_state_dict(checkpoint['state_dict'])
    for each, values in ready:
        each.load_state_dict(values)


def export_checkpoint(folder: str | Path, path: str | Path, centers: bool = False) -> list[str]:
    """Write a plain checkpoint of MMEngine from a sharded one, for ``mim test`` and ``load_from``.

    Args:
        folder: a complete checkpoint.
        path: of the file to write, which ends in '.pth'.
        centers: whether to write the sharded tensors too, whole. They must fit into memory. A
            ``MarginHead`` in one process loads them.

    Returns:
        the names of the weights written.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: as `read_checkpoint`.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if centers:
        totals = {name: facts['classes'] for name, facts in manifest.modules.items()}
        shards = {name: ClassShard(0, total, total) for name, total in totals.items()}
        content = _read(folder, shards, Peers(alone=True), model_only=True).whole()
    else:
        content = load_from_local(str(folder / REPLICATED), 'cpu')['content']
    plain = {part: content[part] for part in _WEIGHTS if part in content}
    with whole_file(Path(path)) as part:
        torch.save(plain, part)
    return sorted(plain['state_dict'])
