"""Files of equal content among many, found without reading most of them.

Standard library only, so that a command-line tool can look through a folder at once.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

_TAIL = 4096
_PART = 1 << 20


def find_equal_files(paths: Iterable[str | os.PathLike[str]]) -> list[list[Path]]:
    """Find the files that have the content of another one.

    Files of equal size are compared by their last bytes, in which compressed images differ, and
    only those with the same end are read whole. Files that cannot be read, and empty ones, are
    equal to none.

    Args:
        paths: The files. A repeated path counts once; two links to one file are equal files.

    Returns:
        Groups of at least two files of one content, in the order of the paths.
    """
    unique = list(dict.fromkeys(Path(path) for path in paths))
    groups = _split([unique], lambda path: path.stat().st_size or None)
    for key in (_tail, _digest):
        groups = _split(groups, key)
    order = {path: number for number, path in enumerate(unique)}
    return sorted(groups, key=lambda group: order[group[0]])


def find_shared_files(
    first: Iterable[str | os.PathLike[str]], second: Iterable[str | os.PathLike[str]]
) -> list[tuple[Path, Path]]:
    """Find the files of a set whose content is also in another set.

    Args:
        first: Files of one set, such as those trained on.
        second: Files of the other set, such as those tested on.

    Returns:
        A pair for each such file of the second set, in its order: the file, and one of the first
        set with this content. A path in both sets is paired with itself.
    """
    known = dict.fromkeys(Path(path) for path in first)
    tested = dict.fromkeys(Path(path) for path in second)
    twins: dict[Path, Path] = {}
    for group in find_equal_files([*known, *tested]):
        origin = next((path for path in group if path in known), None)
        if origin is not None:
            twins.update((path, origin) for path in group)
    return [
        (path, path if path in known else twins[path])
        for path in tested
        if path in known or path in twins
    ]


def _split(
    groups: Iterable[Sequence[Path]], key: Callable[[Path], Hashable | None]
) -> list[list[Path]]:
    """Split each group by a key, without the files that have none or share it with no other."""
    parts: list[list[Path]] = []
    for group in groups:
        by_key: dict[Hashable, list[Path]] = defaultdict(list)
        for path in group:
            try:
                found = key(path)
            except OSError:
                continue
            if found is not None:
                by_key[found].append(path)
        parts += [part for part in by_key.values() if len(part) > 1]
    return parts


def _tail(path: Path) -> bytes:
    """Return a digest of the last bytes of a file."""
    with path.open('rb') as file:
        file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
        return hashlib.blake2b(file.read(), digest_size=16).digest()


def _digest(path: Path) -> bytes:
    """Return a digest of a whole file."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open('rb') as file:
        while part := file.read(_PART):
            digest.update(part)
    return digest.digest()
