"""Lists of pairs of faces, same person or not: LFW's text, tables, InsightFace's ``.bin``.

LFW's ``pairs.txt`` begins with ``sets<TAB>n`` (or ``n`` alone: one set, as ``pairsDevTest.txt``).
Each set has n lines ``name<TAB>i<TAB>j``, two images of one person, and then n lines
``name<TAB>i<TAB>other<TAB>j``. Image i of a person is ``name/name_000i.jpg``.

A table (``.csv``, ``.tsv``) has a line a pair: ``path1,path2,same`` and, if wanted, a fold; same is
0, 1, true or false. A first line that says so is passed over.

A ``.bin`` is a pickle of (images, same): 2K encoded images, of which pair k has 2k and 2k + 1,
and K bools.

References:
    Huang et al., Labeled Faces in the Wild, UMass Amherst TR 07-49, 2007; its README tells the
    form of the lists.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from mmdet_ext.data.face.safe_pickle import BrokenPickleError, load_safe_pickle
from mmdet_ext.data.reports import listed
from mmdet_ext.data.suffixes import FACE_PAIR_SUFFIXES

IntArray = np.ndarray[Any, np.dtype[np.int64]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]
Absent = Literal['error', 'drop']

_EXAMPLES = 3
_SAME = {'1': True, 'true': True, '0': False, 'false': False}


class PairsError(ValueError):
    """A list of pairs that cannot be used."""


@dataclass
class FacePairs:
    """Pairs of images, each image once.

    Attributes:
        images: M files, or encoded images.
        index: (K, 2) int64, the images of each pair.
        same: (K,) bool, whether they are of one person.
        fold: (K,) int64, from 0 on, which set a pair belongs to.
        labels: (M,) int64, index into ``classes``, or -1 throughout where persons are unknown.
        classes: names of the persons, sorted; empty where they are unknown.
        notes: what a user should hear of.
    """

    images: list[Path | bytes]
    index: IntArray
    same: BoolArray
    fold: IntArray
    labels: IntArray
    classes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Pair(NamedTuple):
    """A line of a list, as read: where it stands, two images, their persons, same or not."""

    line: int
    first: Path
    second: Path
    names: tuple[str, str]
    same: bool
    fold: int


def consecutive_folds(count: int, folds: int = 10) -> IntArray:
    """Which fold each of ``count`` pairs is in: runs in order, as equal as can be, longer first.

    These are those of scikit-learn's ``KFold(folds, shuffle=False)``.

    >>> consecutive_folds(7, 3).tolist()
    [0, 0, 0, 1, 1, 2, 2]
    """
    if not 1 <= folds <= count:
        raise PairsError(
            f'{count} pairs cannot be dealt to {folds} folds: each needs one. Set folds to '
            f'1..{count}'
        )
    sizes = np.full(folds, count // folds)
    sizes[: count % folds] += 1
    return np.repeat(np.arange(folds), sizes)


def read_lfw_pairs(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str],
    absent: Absent = 'error',
    extensions: Sequence[str] = FACE_PAIR_SUFFIXES,
) -> FacePairs:
    """Read a list in the form of LFW's ``pairs.txt``.

    Names with spaces are understood where the columns are parted by tabs.

    Args:
        path: the list.
        root: folder with a folder a person.
        absent: what to do with pairs whose files are absent: raise an 'error' or 'drop' them; both
            say how many and which first.
        extensions: of the images, in the order in which they are looked for.

    Raises:
        FileNotFoundError: if ``path`` or ``root`` is absent.
        PairsError: naming file and line, if it is not of that form, or images are absent.
    """
    path, root = _checked_paths(path, root, absent)
    lines = [
        (number, line.rstrip('\r\n'))
        for number, line in enumerate(_text(path).splitlines(), start=1)
        if line.strip()
    ]
    head = lines[0][1].split() if lines else []
    if len(head) not in (1, 2) or not all(cell.isdecimal() and int(cell) > 0 for cell in head):
        raise PairsError(
            f"{path} must begin with 'sets<TAB>pairs', such as '10\\t300', or the number of pairs "
            f'alone; it begins with {(lines[0][1] if lines else "")[:60]!r}'
        )
    sets, per_set = (1, int(head[0])) if len(head) == 1 else (int(head[0]), int(head[1]))
    if len(lines) - 1 != 2 * sets * per_set:
        raise PairsError(
            f'{path} has {len(lines) - 1} pairs; its first line announces {sets} x 2 x {per_set} = '
            f'{2 * sets * per_set}, in each set {per_set} of one person and {per_set} of two'
        )
    pairs = [
        _lfw_pair(path, number, line, root, extensions, place // (2 * per_set))
        for place, (number, line) in enumerate(lines[1:])
    ]
    result = _collected(path, pairs, absent, named=True)
    uneven = [
        fold
        for fold in range(sets)
        if sum(pair.same for pair in pairs[2 * per_set * fold : 2 * per_set * (fold + 1)])
        != per_set
    ]
    if uneven:
        result.notes.append(
            f'{len(uneven)} of {sets} sets have not as many pairs of one person as of two '
            f'(set {uneven[0] + 1} first)'
        )
    return result


def read_table_pairs(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str],
    absent: Absent = 'error',
    folds: int = 10,
) -> FacePairs:
    """Read a table ``path1,path2,same[,fold]``, parted by commas or tabs.

    Without a column of folds, the pairs of one person are dealt to ``folds`` folds in order, and
    likewise those of two, so that each fold has both.

    Args:
        path: the table.
        root: folder that the paths start from.
        absent: as in `read_lfw_pairs`.
        folds: how many folds to deal to.

    Raises:
        FileNotFoundError: if ``path`` or ``root`` is absent.
        PairsError: naming file and line, if it is not of that form, or images are absent.
    """
    path, root = _checked_paths(path, root, absent)
    text = _text(path)
    rows = [
        (number, [cell.strip() for cell in row])
        for number, row in enumerate(
            csv.reader(text.splitlines(), delimiter='\t' if '\t' in text else ','), start=1
        )
        if any(cell.strip() for cell in row)
    ]
    if rows and len(rows[0][1]) >= 3 and rows[0][1][2].lower() == 'same':
        rows = rows[1:]
    if not rows:
        raise PairsError(f'{path} has no pairs')
    columns = len(rows[0][1])
    pairs = []
    for number, row in rows:
        same = _SAME.get(row[2].lower()) if len(row) == columns and columns in (3, 4) else None
        fold = row[3] if len(row) > 3 else '0'
        if same is None or not fold.isdecimal():
            raise PairsError(
                f"{path}, line {number}: expected 'path1,path2,same' with same 0 or 1, and in all "
                f'lines or in none a fold from 0 on; it has {row[:5]}'
            )
        pairs.append(_Pair(number, root / row[0], root / row[1], ('', ''), same, int(fold)))
    result = _collected(path, pairs, absent, named=False)
    if columns == 3:
        for kind in (True, False):
            chosen = result.same == kind
            if chosen.any():
                result.fold[chosen] = consecutive_folds(int(chosen.sum()), folds)
    return result


def read_bin_pairs(path: str | os.PathLike[str], folds: int = 10) -> FacePairs:
    """Read InsightFace's ``.bin``, admitting nothing in it that could run code.

    Images whose bytes are equal become one.

    Args:
        path: the file.
        folds: how many folds to deal the pairs to, in their order.

    Raises:
        FileNotFoundError: if there is no such file.
        UnsafePickleError: if it holds anything but bytes, lists, tuples, bools and arrays.
        PairsError: if it is no pickle, is cut or holds something else than images and bools.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'list of pairs {str(path)!r} is not there')
    try:
        content = load_safe_pickle(path)
    except BrokenPickleError as error:
        raise PairsError(str(error)) from error
    if not isinstance(content, (tuple, list)) or len(content) != 2:
        raise PairsError(f'{path} must hold two lists, images and bools; it holds {_kind(content)}')
    encoded = [_encoded(path, place, one) for place, one in enumerate(_entries(path, content[0]))]
    same = [_flag(path, place, one) for place, one in enumerate(_entries(path, content[1]))]
    if len(encoded) != 2 * len(same) or not same:
        raise PairsError(
            f'{path} has {len(encoded)} images and {len(same)} pairs: a pair needs two images'
        )
    places: dict[bytes, int] = {}
    flat = [places.setdefault(image, len(places)) for image in encoded]
    result = FacePairs(
        images=[*places],
        index=np.array(flat, np.int64).reshape(-1, 2),
        same=np.array(same, np.bool_),
        fold=consecutive_folds(len(same), folds),
        labels=np.full(len(places), -1, np.int64),
    )
    if len(places) < len(encoded):
        result.notes.append(
            f'{len(encoded)} images, {len(places)} of them distinct: equal ones are taken once'
        )
    _note_oddities(result, [f'pair {place}' for place in range(len(same))])
    return result


def _checked_paths(path: Any, root: Any, absent: str) -> tuple[Path, Path]:
    if absent not in ('error', 'drop'):
        raise PairsError(f"absent must be 'error' or 'drop', got {absent!r}")
    path, root = Path(path), Path(root)
    if not path.is_file():
        raise FileNotFoundError(f'list of pairs {str(path)!r} is not there')
    if not root.is_dir():
        raise FileNotFoundError(f'folder of images {str(root)!r} is not there')
    return path, root


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise PairsError(f'{path} is no text in UTF-8 ({error.reason})') from error


def _lfw_pair(
    path: Path, number: int, line: str, root: Path, extensions: Sequence[str], fold: int
) -> _Pair:
    cells = [cell.strip() for cell in (line.strip().split('\t') if '\t' in line else line.split())]
    if len(cells) == 3:
        cells.insert(2, cells[0])
    if len(cells) != 4 or not (cells[1].isdecimal() and cells[3].isdecimal()):
        raise PairsError(
            f"{path}, line {number}: expected 'name<TAB>i<TAB>j' or 'name<TAB>i<TAB>other<TAB>j', "
            f'got {line[:80]!r}'
        )
    numbers = int(cells[1]), int(cells[3])
    if min(numbers) < 1:
        raise PairsError(f'{path}, line {number}: image {min(numbers)}; they count from 1')
    names = cells[0], cells[2]
    files = [
        _image_file(root, name, place, extensions)
        for name, place in zip(names, numbers, strict=True)
    ]
    return _Pair(number, files[0], files[1], names, names[0] == names[1], fold)


def _image_file(root: Path, name: str, number: int, extensions: Sequence[str]) -> Path:
    """The file of a person's image, with the first extension where there is none."""
    stem = root / name / f'{name}_{number:04d}'
    files = [stem.with_name(stem.name + extension) for extension in extensions]
    return next((file for file in files if file.is_file()), files[0])


def _collected(path: Path, pairs: list[_Pair], absent: str, named: bool) -> FacePairs:
    """Number the images of the pairs whose files are there."""
    there = {file: file.is_file() for pair in pairs for file in (pair.first, pair.second)}
    kept = [pair for pair in pairs if there[pair.first] and there[pair.second]]
    notes = []
    if len(kept) < len(pairs):
        gone = [str(file) for file, is_there in there.items() if not is_there]
        what = (
            f'{path}: {len(pairs) - len(kept)} of {len(pairs)} pairs name absent files, '
            f'{len(gone)} of {len(there)}: {listed(gone, most=_EXAMPLES)}'
        )
        if absent == 'error' or not kept:
            raise PairsError(
                f'{what}. Check the folder of images'
                + (", or set absent='drop' to go on without these pairs" if kept else '')
            )
        notes.append(f'dropped: {what}')
    files: dict[Path, int] = {}
    index = [[files.setdefault(file, len(files)) for file in pair[1:3]] for pair in kept]
    persons = {
        file: name for pair in kept for file, name in zip(pair[1:3], pair.names, strict=True)
    }
    classes = sorted(set(persons.values())) if named else []
    label_of = {name: label for label, name in enumerate(classes)}
    folds, fold = np.unique([pair.fold for pair in kept], return_inverse=True)
    lost = len({pair.fold for pair in pairs}) - len(folds)
    if lost:
        notes.append(f'{lost} folds have no pairs left; the others are numbered anew')
    result = FacePairs(
        images=[*files],
        index=np.array(index, np.int64),
        same=np.array([pair.same for pair in kept], np.bool_),
        fold=fold.astype(np.int64),
        labels=np.array([label_of.get(persons[file], -1) for file in files], np.int64),
        classes=classes,
        notes=notes,
    )
    _note_oddities(result, [f'line {pair.line}' for pair in kept])
    return result


def _note_oddities(pairs: FacePairs, places: Sequence[str]) -> None:
    """Say which pairs are odd; they stay, as the published protocols have them."""
    itself = pairs.index[:, 0] == pairs.index[:, 1]
    ordered = np.sort(pairs.index, axis=1)
    _, first, group = np.unique(ordered, axis=0, return_index=True, return_inverse=True)
    first_of = first[group.reshape(-1)]
    again = first_of != np.arange(len(ordered))
    for mask, what in (
        (itself & pairs.same, 'pairs of an image with itself'),
        (itself & ~pairs.same, 'pairs of an image with itself that are to be two persons'),
        (again & ~itself, 'pairs that stand there before'),
        (
            again & (pairs.same != pairs.same[first_of]),
            'pairs that stand there before as the opposite',
        ),
    ):
        found = [places[k] for k in np.flatnonzero(mask).tolist()]
        if found:
            pairs.notes.append(f'{len(found)} {what} ({listed(found, most=_EXAMPLES)})')
    kinds = {True: pairs.same.any(), False: not pairs.same.all()}
    if not all(kinds.values()):
        pairs.notes.append(f'all pairs are of {"two persons" if kinds[False] else "one person"}')


def _kind(value: Any) -> str:
    size = f' of {len(value)}' if isinstance(value, (list, tuple, bytes)) else ''
    return f'a {type(value).__name__}{size}'


def _entries(path: Path, value: Any) -> Iterable[Any]:
    is_list = value.ndim > 0 if isinstance(value, np.ndarray) else isinstance(value, (list, tuple))
    if not is_list:
        raise PairsError(f'{path} must hold two lists, images and bools; one is {_kind(value)}')
    return value


def _encoded(path: Path, place: int, value: Any) -> bytes:
    """An encoded image: bytes, or an array of them as ``cv2.imencode`` gives."""
    if (
        isinstance(value, np.ndarray)
        and value.dtype == np.uint8
        and (value.size == max(value.shape, default=0))
    ):
        value = value.tobytes()
    if not isinstance(value, bytes) or value == b'':
        raise PairsError(
            f'{path}: image {place} must be the bytes of an encoded image, it is {_kind(value)}'
        )
    return value


def _flag(path: Path, place: int, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)) and not (
        isinstance(value, np.integer) and value in (0, 1)
    ):
        raise PairsError(f'{path}: pair {place} must be true or false, it is {_kind(value)}')
    return bool(value)
