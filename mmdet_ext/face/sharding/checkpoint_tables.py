"""Tables of classes in the files of PyTorch's distributed checkpointing, one file per process."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

from mmdet_ext.face.sharding.checkpoint_peers import Peers
from mmdet_ext.face.sharding.collectives import explained

_INDEX = '.metadata'
# What the index of such a checkpoint names.
_ALLOWED = {
    ('torch', 'Size'),
    ('torch.serialization', '_get_layout'),
    ('torch.distributed.checkpoint.filesystem', '_StorageInfo'),
    *(
        ('torch.distributed.checkpoint.metadata', name)
        for name in (
            'BytesStorageMetadata',
            'ChunkStorageMetadata',
            'Metadata',
            'MetadataIndex',
            'StorageMeta',
            'TensorProperties',
            'TensorStorageMetadata',
            '_MEM_FORMAT_ENCODING',
        )
    ),
    *(
        (module, name)
        for module in ('pathlib', 'pathlib._local')
        for name in ('PosixPath', 'WindowsPath')
    ),
}


def write_tables(
    folder: Path, tables: Mapping[str, Tensor], totals: Mapping[str, int], peers: Peers
) -> None:
    """Write the rows of this process; all processes must call it.

    Args:
        folder: a new folder that all processes see.
        tables: rows, (n, W), on the CPU, by key; the same keys in all processes.
        totals: rows of all processes, N, by key.
        peers: processes of the training.

    Raises:
        RuntimeError: if a process failed; a ProcessEndedError, if one ended.
    """
    joined = {key: peers.joined(rows, totals[key]) for key, rows in tables.items()}
    with _explained(f'the shards in {folder} could not be written'):
        dcp.save(
            joined,
            storage_writer=dcp.FileSystemWriter(folder),
            process_group=peers.group,
            no_dist=peers.group is None,
        )


def read_tables(
    folder: Path,
    tables: Mapping[str, Tensor],
    totals: Mapping[str, int],
    index: Metadata,
    peers: Peers,
) -> None:
    """Read the rows of this process into ``tables``; all processes must call it.

    Args:
        folder: of `write_tables`, from any number of processes.
        tables: rows to fill, (n, W), by key.
        totals: N, by key.
        index: of `read_index`.
        peers: processes of the training.

    Raises:
        RuntimeError: if a process failed; a ProcessEndedError, if one ended.
    """
    joined = {key: peers.joined(rows, totals[key]) for key, rows in tables.items()}
    with _explained(f'the shards in {folder} could not be read'):
        dcp.load(
            joined,
            storage_reader=_Reader(folder, index),
            process_group=peers.group,
            no_dist=peers.group is None,
        )


def read_index(folder: Path) -> Metadata:
    """Read which tables a folder has; only the classes of such an index are admitted.

    Raises:
        RuntimeError: if the file is damaged or names any other class or function.
    """
    path = folder / _INDEX
    try:
        with path.open('rb') as file:
            index = _IndexUnpickler(file).load()
        if not isinstance(index, Metadata):
            raise pickle.UnpicklingError(f'it is a {type(index).__name__}')
    except Exception as error:  # a damaged pickle raises many types of errors
        raise RuntimeError(
            f'{path} cannot be loaded ({type(error).__name__}: {error}): take another checkpoint'
        ) from error
    return index


def check_tables(
    index: Metadata, wanted: Mapping[str, tuple[int, int]], folder: Path
) -> dict[str, torch.dtype]:
    """Return the precision of tables, after checking that all their rows are there.

    Args:
        index: of `read_index`.
        wanted: rows N and width W, by key.
        folder: for the message.

    Raises:
        ValueError: for a table that is absent, of another shape, or with missing rows.
    """
    dtypes = {}
    for key, shape in wanted.items():
        entry = index.state_dict_metadata.get(key)
        if not isinstance(entry, TensorStorageMetadata):
            raise ValueError(f'{folder} lacks the table {key!r}: take another checkpoint')
        values = sum(chunk.sizes.numel() for chunk in entry.chunks)
        if tuple(entry.size) != shape or values != entry.size.numel():
            raise ValueError(
                f'{folder}: the table {key!r} is {tuple(entry.size)} with {values} values, and '
                f'{shape} is needed: take another checkpoint'
            )
        dtypes[key] = entry.properties.dtype
    return dtypes


class _IndexUnpickler(pickle.Unpickler):
    """Unpickler of an index, which runs nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        if module == 'torch' and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f'it names {module}.{name}, and loading that could run code')


class _Reader(dcp.FileSystemReader):
    """Reader of files with an index that is known already."""

    def __init__(self, folder: Path, index: Metadata) -> None:
        super().__init__(folder)
        self._index = index

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        self._index.storage_meta = self._index.storage_meta or StorageMeta()
        self._index.storage_meta.load_id = self.load_id
        return self._index


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Raise RuntimeError with the first failure where PyTorch's checkpointing fails."""
    try:
        with warnings.catch_warnings():
            # A single process is no mistake.
            warnings.filterwarnings('ignore', message='torch.distributed is disabled')
            with explained():
                yield
    except CheckpointException as error:  # no Exception
        rank, (cause, _) = min(error.failures.items())
        raise RuntimeError(
            f'{what}: process {rank} failed with {type(cause).__name__}: {cause}'
        ) from error
