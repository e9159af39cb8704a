"""Folder of a gallery, which changes by one renaming of its manifest.

A save writes new files beside the old ones and then exchanges ``gallery.json``, which names the
files that count. Until then the old state is whole, afterwards the new one is. No file that a
manifest names is ever written again: a reader has the files of one save, never a mixture.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.face.gallery.errors import GalleryError
from mmdet_ext.face.gallery.rows import Array, Rows, Segment

try:
    import fcntl
except ImportError:  # Windows: two writers are still noticed, but only when the second saves
    fcntl = None  # type: ignore[assignment]

MANIFEST = 'gallery.json'
#: Rises when a reader of an older folder would read a newer one wrongly.
FORMAT = 1
_LOCK = 'lock'
_OURS = re.compile(r'(?:rows|table|names|index|places)-(\d{6,})\.(?:npy|npz|json|faiss)$')
_BLOCK = 16384
_TRIES = 20


@dataclass
class Content:
    """Contents of a gallery.

    Attributes:
        facts: what the manifest says beside the files: ``gallery``, ``recogniser``, ``pooling`` ...
        rows: the embeddings.
        table: arrays with one entry per row.
        names: of the identities; None for a removed one.
        write_index: function that writes faiss's part of an index to a path; None for no new one.
        places: arrays of our part of the index.
        index_files: files of the index of an earlier save that still hold.
    """

    facts: dict[str, Any]
    rows: Rows
    table: Mapping[str, Array]
    names: list[str | None]
    write_index: Callable[[Path], None] | None = None
    places: Mapping[str, Array] = field(default_factory=dict)
    index_files: dict[str, Any] = field(default_factory=dict)


@dataclass
class Saved:
    """State of a folder after a save, or when it was opened.

    Attributes:
        folder: the folder.
        manifest: contents of its manifest.
    """

    folder: Path
    manifest: dict[str, Any]

    @property
    def version(self) -> int:
        """Number of the save, from 1 on."""
        return int(self.manifest['version'])


def write(folder: Path, content: Content, known: Saved | None) -> tuple[Saved, Rows]:
    """Write a gallery into its folder.

    Args:
        folder: a new or empty folder, or that of the same gallery.
        content: the gallery.
        known: state of the folder that the contents follow from; None for none.

    Returns:
        tuple: the new state, and the rows with the files that hold them now.

    Raises:
        GalleryError: if the folder has other contents, or was changed by another process.
        OSError: if a file cannot be written. What was saved before is whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _current(folder, content.facts['gallery'], known)  # before a lock lies in a foreign folder
    with _locked(folder):
        current = _current(folder, content.facts['gallery'], known)
        version = current.version + 1 if current else 1
        kept, others = _split(content.rows, folder)
        written: dict[str, Any] = {}

        def add(name: str, fill: Callable[[Path], None]) -> str:
            stem, suffix = name.split('.')
            path = folder / f'{stem}-{version:06d}.{suffix}'
            fill(path)
            _sync(path)
            written[path.name] = path.stat().st_size
            return path.name

        segments = [{'file': file.name, 'rows': len(part)} for part, file in kept]
        count = sum(map(len, others))
        if count:
            name = add('rows.npy', lambda path: _write_rows(path, others, count))
            segments.append({'file': name, 'rows': count})
        files = {
            'table': add('table.npz', lambda path: np.savez(path, **content.table)),  # type: ignore[arg-type]
            'names': add('names.json', lambda path: _write_json(path, content.names)),
        }
        index = content.index_files
        if content.write_index is not None:
            index = {
                'index': add('index.faiss', content.write_index),
                'places': add('places.npz', lambda path: np.savez(path, **content.places)),  # type: ignore[arg-type]
            }
        files |= {name: str(file) for name, file in index.items()}
        sizes = dict(current.manifest['sizes']) if current else {}
        named = {*files.values(), *(str(each['file']) for each in segments)}
        sizes = {name: size for name, size in (sizes | written).items() if name in named}
        manifest = {
            **content.facts,
            'format': FORMAT,
            'version': version,
            'segments': segments,
            'files': files,
            'sizes': sizes,
        }
        part = folder / f'{MANIFEST}.part'
        _write_json(part, manifest)
        _sync(part)
        os.replace(part, folder / MANIFEST)
        _sync(folder)
        saved = Saved(folder, manifest)
        return saved, _mapped(saved)


def remove_old_files(saved: Saved) -> None:
    """Remove the files of ours that the manifest does not name, such as those of a broken save.

    Files of later saves stay, as another process may have saved since.
    """
    named = set(saved.manifest['sizes'])
    for path in saved.folder.iterdir():
        ours = _OURS.match(path.name)
        if ours and int(ours[1]) <= saved.version and path.name not in named:
            try:
                path.unlink()
            except OSError:  # Windows, while a reader has it open: the next save removes it
                continue


def read(folder: Path) -> tuple[Saved, Content]:
    """Open a folder, also while another process saves into it.

    Raises:
        GalleryError: if it is no gallery, or its files are damaged or of a newer format.
    """
    for _ in range(_TRIES):
        saved = read_manifest(folder)
        if saved is None:
            raise GalleryError(f'{folder}: there is no gallery ({MANIFEST} is absent)')
        try:
            return saved, _read(saved)
        except FileNotFoundError as error:
            now = read_manifest(folder)
            if now is None or now.version == saved.version:
                raise GalleryError(
                    f'{error.filename}: the file is absent, and {MANIFEST} names it. Restore the '
                    'folder from a copy'
                ) from error
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            if isinstance(error, GalleryError):
                raise
            raise GalleryError(f'{folder}: the gallery cannot be read ({error})') from error
    raise GalleryError(f'{folder} was saved {_TRIES} times while it was opened: try again')


def read_manifest(folder: Path) -> Saved | None:
    """Read the manifest; None if there is none."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding='utf-8'))
        number = manifest['format']
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GalleryError(f'{path} cannot be read ({error})') from error
    if number != FORMAT:
        raise GalleryError(
            f'{path} has the format {number}, and this release of mmdet_ext reads {FORMAT}: '
            'install the release that wrote it'
        )
    return Saved(folder, manifest)


def _read(saved: Saved) -> Content:
    manifest, folder = saved.manifest, saved.folder
    for name, size in manifest['sizes'].items():
        found = (folder / name).stat().st_size
        if found != size:
            raise GalleryError(f'{folder / name} has {found} bytes, expected {size}: it is damaged')
    files = manifest['files']
    rows = _mapped(saved)
    table = _arrays(folder / files['table'])
    names = json.loads((folder / files['names']).read_text(encoding='utf-8'))
    if any(len(column) != len(rows) for column in table.values()):
        raise GalleryError(f'{folder / files["table"]} does not fit {len(rows)} embeddings')
    places = _arrays(folder / files['places']) if 'places' in files else {}
    index_files = {name: files[name] for name in ('index', 'places') if name in files}
    return Content(manifest, rows, table, names, places=places, index_files=index_files)


def _mapped(saved: Saved) -> Rows:
    segments = []
    for each in saved.manifest['segments']:
        path = saved.folder / each['file']
        values = np.load(path, mmap_mode='r', allow_pickle=False)
        if values.shape != (each['rows'], saved.manifest['dim']) or values.dtype != np.float32:
            raise GalleryError(f'{path} holds {values.dtype} {values.shape}: it is damaged')
        segments.append(Segment(values, path))
    return Rows(tuple(segments))


def _arrays(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as content:
        return dict(content)


def _current(folder: Path, gallery: str, known: Saved | None) -> Saved | None:
    """Return the state of the folder, if it is that which the contents follow from."""
    current = read_manifest(folder)
    if current is None:
        foreign = [
            path.name
            for path in folder.iterdir()
            if path.name not in (_LOCK, f'{MANIFEST}.part') and not _OURS.match(path.name)
        ]
        if foreign:
            raise GalleryError(f'{folder} holds other files ({foreign[0]}): name a new folder')
        return None
    if known is None or known.folder.resolve() != folder.resolve():
        raise GalleryError(
            f'{folder} holds a gallery already: open it and merge into it, or name a new folder'
        )
    if current.manifest['gallery'] != gallery or current.version != known.version:
        raise GalleryError(
            f'{folder} was saved by another process (save {current.version}; opened at save '
            f'{known.version}): open it again and repeat the changes'
        )
    return current


def _split(rows: Rows, folder: Path) -> tuple[list[tuple[Segment, Path]], list[Segment]]:
    """Return the segments whose files stay, and those to write as one.

    A file stays unless it is small beside what is written: there are few files then, and a row is
    written few times.
    """
    kept: list[tuple[Segment, Path]] = []
    others = list(rows.segments)
    home = folder.resolve()
    while others and others[0].file is not None and others[0].file.parent.resolve() == home:
        kept.append((others[0], others[0].file))
        others = others[1:]
    while kept and others and len(kept[-1][0]) <= 2 * sum(map(len, others)):
        others = [kept.pop()[0], *others]
    return kept, others


def _write_rows(path: Path, segments: list[Segment], count: int) -> None:
    shape = count, segments[0].values.shape[1]
    whole = np.lib.format.open_memmap(path, mode='w+', dtype=np.float32, shape=shape)
    for start, block in Rows(tuple(segments)).blocks(_BLOCK):
        whole[start : start + len(block)] = block
    whole.flush()


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False) + '\n', encoding='utf-8')


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    try:
        opened = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / _LOCK).open('a') as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise GalleryError(f'{folder}: another process saves into it; try again') from error
        yield
