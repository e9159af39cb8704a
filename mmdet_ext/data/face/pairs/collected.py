"""Pairs of face images, in which each image stands once: folds, absent files and oddities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from mmdet_ext.data.reports import listed
from mmdet_ext.data.suffixes import has_unread_suffix

IntArray = np.ndarray[Any, np.dtype[np.int64]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]
Absent = Literal['error', 'drop']

_EXAMPLES = 3


class PairsError(ValueError):
    """A list of pairs that cannot be used."""


@dataclass
class FacePairs:
    """Pairs of images, in which each image stands once.

    Attributes:
        images: M files, or M encoded images.
        index: (K, 2) int64, the two images of each pair.
        same: (K,) bool, True for genuine pairs.
        fold: (K,) int64, the fold of each pair, from 0 on.
        labels: (M,) int64, index into ``classes``; all -1 if the identities are unknown.
        classes: names of the identities, sorted; empty if they are unknown.
        notes: messages for the user.
    """

    images: list[Path | bytes]
    index: IntArray
    same: BoolArray
    fold: IntArray
    labels: IntArray
    classes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class ListedPair(NamedTuple):
    """One line of a list.

    Attributes:
        line: number of the line, from 1.
        first: file of the first image.
        second: file of the second image.
        names: identities of both images, empty if unknown.
        same: whether the pair is genuine.
        fold: number of the fold.
    """

    line: int
    first: Path
    second: Path
    names: tuple[str, str]
    same: bool
    fold: int


def consecutive_folds(count: int, folds: int = 10) -> IntArray:
    """Return the fold of each of ``count`` pairs, in consecutive runs.

    The runs are as equal as possible, the longer ones first. They equal the folds of scikit-learn's
    ``KFold(folds, shuffle=False)``.

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


def collect_pairs(path: Path, pairs: list[ListedPair], absent: str, named: bool) -> FacePairs:
    """Collect the pairs whose files can be read, and number their images.

    Args:
        path: the list, for messages.
        pairs: its lines.
        absent: 'error' or 'drop' for pairs whose files are absent, or are images of a format that
            is not read.
        named: whether the lines name identities.

    Raises:
        PairsError: if files are absent and ``absent`` is 'error', or no pair is left.
    """
    named_files = dict.fromkeys(file for pair in pairs for file in (pair.first, pair.second))
    unread = [file for file in named_files if has_unread_suffix(file) and file.is_file()]
    there = {file: file not in unread and file.is_file() for file in named_files}
    kept = [pair for pair in pairs if there[pair.first] and there[pair.second]]
    notes = []
    if len(kept) < len(pairs):
        gone = [str(file) for file, is_there in there.items() if not is_there]
        what = (
            f'{path}: {len(pairs) - len(kept)} of {len(pairs)} pairs name absent files, '
            f'{len(gone)} of {len(there)}: {listed(gone, most=_EXAMPLES)}'
        )
        if unread:
            what += (
                f'; {len(unread)} of these files are there, as images of a format that is not '
                f'read: {listed(unread, most=_EXAMPLES)}'
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
    note_oddities(result, [f'line {pair.line}' for pair in kept])
    return result


def note_oddities(pairs: FacePairs, places: Sequence[str]) -> None:
    """Add a note on each kind of odd pairs; they are kept, because published lists have some.

    Args:
        pairs: the pairs.
        places: name of the place of each pair in its list, for the notes.
    """
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
