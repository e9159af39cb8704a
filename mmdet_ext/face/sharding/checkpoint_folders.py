"""Folders of checkpoints: written beside, renamed when complete, and never written into again.

A checkpoint ``epoch_3`` is written as ``epoch_3.writing``. Last of all it gets ``manifest.json``
with the size of every file, and is renamed. To remove it, it is renamed to ``epoch_3.removing``
first. So a folder without such an ending and with a manifest is complete, whenever the process
that wrote or removed it was killed; no other file has to be right for the latest to be found.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

#: Version of the layout that this package writes, and the highest that it reads.
VERSION = 1
MANIFEST = 'manifest.json'
WRITING = '.writing'
REMOVING = '.removing'
DAMAGED = '.damaged'
_NAME = re.compile(r'(epoch|iter)_\d+')


@dataclass(frozen=True)
class Manifest:
    """Facts about a complete checkpoint.

    Attributes:
        epoch: number of epochs that are over.
        iter: number of steps that are over; the latest checkpoint has the most.
        processes: number of processes that wrote it.
        modules: by name of a sharded module, its ``type``, ``classes``, ``rows_per_class`` and
            ``margin``.
        files: sizes in bytes, by path within the folder.
        version: of the layout.
    """

    epoch: int
    iter: int
    processes: int
    modules: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    version: int = VERSION


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a checkpoint, and compare the sizes of its files.

    Args:
        folder: a complete checkpoint.

    Raises:
        FileNotFoundError: if the folder or its manifest is absent.
        ValueError: if the checkpoint is incomplete or of a later version; the error names the file.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'there is no checkpoint folder {folder}')
    if folder.name.endswith((WRITING, REMOVING)):
        raise ValueError(f'{folder} was never completed: take another checkpoint')
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f'{folder} has no {MANIFEST}: it is no checkpoint of ShardedCheckpointHook. Such a '
            "folder is named 'epoch_3' or 'iter_2000'"
        )
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        version = content['version']
        if version > VERSION:
            raise ValueError(
                f'{folder} has version {version} of the layout, and this mmdet_ext reads up to '
                f'{VERSION}: update it'
            )
        manifest = Manifest(**content)
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f'{path} is damaged ({error!r}): take another checkpoint') from error
    for name, size in manifest.files.items():
        found = (folder / name).stat().st_size if (folder / name).is_file() else None
        if found != size:
            has = 'it is absent' if found is None else f'it has {found}'
            raise ValueError(
                f'{folder / name} should have {size} bytes, {has}: take another checkpoint'
            )
    return manifest


def complete_folders(root: Path) -> tuple[dict[Path, Manifest], dict[Path, str]]:
    """List the complete checkpoints of a folder, the latest last.

    Args:
        root: folder of checkpoints; it may be absent.

    Returns:
        tuple: manifests by folder, in the order of their steps; and what is wrong with each folder
        that has the name of a checkpoint or a manifest, and is not complete.
    """
    found: dict[Path, Manifest] = {}
    damaged: dict[Path, str] = {}
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        named = _NAME.fullmatch(folder.name) or (folder / MANIFEST).is_file()
        if not named or any(ending in folder.name for ending in (WRITING, REMOVING, DAMAGED)):
            continue
        try:
            found[folder] = read_manifest(folder)
        except (OSError, ValueError) as error:
            damaged[folder] = str(error)
    order = sorted(found, key=lambda folder: (found[folder].iter, folder.stat().st_mtime_ns))
    return {folder: found[folder] for folder in order}, damaged


def latest_checkpoint(root: str | Path) -> Path | None:
    """Return the complete checkpoint with the most steps, or None.

    Folders that are incomplete, or whose files are absent or cut, do not count.

    Args:
        root: folder of checkpoints, such as ``work_dirs/run/sharded``; it may be absent.
    """
    return next(reversed(complete_folders(Path(root))[0]), None)


def remove_leftovers(root: Path) -> list[str]:
    """Remove what a killed process was writing or removing, and return the names.

    No other process may be writing to ``root``.
    """
    names = []
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if folder.is_dir() and folder.name.endswith((WRITING, REMOVING)):
            shutil.rmtree(folder)
            names.append(folder.name)
    return names


def set_damaged_aside(root: Path) -> list[str]:
    """Rename damaged checkpoints, whose names are needed again, and return a line about each."""
    lines = []
    for folder, problem in complete_folders(root)[1].items():
        aside, number = folder.with_name(folder.name + DAMAGED), 1
        while aside.exists():
            number += 1
            aside = folder.with_name(f'{folder.name}{DAMAGED}_{number}')
        os.rename(folder, aside)
        lines.append(f'{problem}. It is {aside.name} now')
    return lines


def begin_folder(folder: Path) -> Path:
    """Make the empty folder in which a checkpoint is written, and return it.

    Args:
        folder: where the checkpoint will be.

    Raises:
        FileExistsError: if there is something already.
    """
    if folder.exists():
        raise FileExistsError(
            f'{folder} exists, and a checkpoint is never written into again: resume from it, move '
            'it away, or take another out_dir or work_dir'
        )
    writing = folder.with_name(folder.name + WRITING)
    if writing.exists():
        shutil.rmtree(writing)
    writing.mkdir(parents=True)
    return writing


def complete_folder(folder: Path, manifest: Manifest) -> None:
    """Write the manifest with the sizes of all files, and give the folder its name.

    Args:
        folder: where the checkpoint will be; its files are in the folder of `begin_folder`.
        manifest: without ``files``.
    """
    writing = folder.with_name(folder.name + WRITING)
    files = {
        path.relative_to(writing).as_posix(): path.stat().st_size
        for path in sorted(writing.rglob('*'))
        if path.is_file()
    }
    content: Mapping[str, Any] = {**asdict(manifest), 'files': files}
    write_synced(writing / MANIFEST, (json.dumps(content, indent=1) + '\n').encode())
    _sync_folder(writing)
    os.rename(writing, folder)
    _sync_folder(folder.parent)


def keep_latest(root: Path, count: int) -> list[str]:
    """Remove all complete checkpoints but the latest ``count``, and return the names.

    Args:
        root: folder of checkpoints.
        count: number to keep, at least 1; -1 keeps all.
    """
    if count < 0:
        return []
    names = []
    for folder in list(complete_folders(root)[0])[:-count]:
        removing = folder.with_name(folder.name + REMOVING)
        os.rename(folder, removing)
        # What cannot be deleted now is a leftover, and no reason to end the training.
        shutil.rmtree(removing, ignore_errors=True)
        names.append(folder.name)
    return names


def write_synced(path: Path, content: bytes | memoryview) -> None:
    """Write a file and wait until the disk has it."""
    with path.open('wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder, where the system can."""
    if os.name != 'posix':
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
