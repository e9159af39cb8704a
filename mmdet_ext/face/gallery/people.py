"""Identities of a gallery and the rows that stand for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from mmdet_ext.face.gallery.errors import GalleryError
from mmdet_ext.face.gallery.results import UNKNOWN
from mmdet_ext.face.gallery.rows import Array, Rows
from mmdet_ext.face.gallery.vectors import unit_rows

Pooling = Literal['mean', 'best']

#: Length of a mean of unit vectors below which its direction is rounding.
_LEAST_LENGTH = 1e-4
_BLOCK = 16384
_EXAMPLES = 5
_COLUMNS: Mapping[str, Any] = {
    'owner': np.int64,
    'alive': np.bool_,
    'images': np.int64,
    'length': np.float64,
}


class People:
    """Identities by name, each with a number in the order of enrolment, and their rows.

    Rows are only added. A row that no longer counts is marked, until `compact` leaves it out.

    Args:
        pooling: 'mean', one row per identity, the direction of the mean of its unit vectors; or
            'best', one row per image.

    Attributes:
        rows: N rows of length 1.
        table: per row, (N,): ``owner`` (number of the identity), ``alive`` (whether it counts),
            ``images`` (that it is made of) and ``length`` (of the sum of their unit vectors).
        names: name of each number; None for a removed identity.
        number: number of each name.
    """

    def __init__(self, pooling: Pooling) -> None:
        self.pooling: Pooling = pooling
        self.rows = Rows()
        self.table: dict[str, Array] = {name: np.zeros(0, kind) for name, kind in _COLUMNS.items()}
        self.names: list[str | None] = []
        self.number: dict[str, int] = {}

    @property
    def living(self) -> int:
        """Number of rows that count."""
        return int(np.count_nonzero(self.table['alive']))

    def restore(self, rows: Rows, table: dict[str, Array], names: list[str | None]) -> None:
        """Take over what a folder holds."""
        self.rows, self.table, self.names = rows, table, names
        self.number = {name: place for place, name in enumerate(names) if name is not None}

    def enrol(self, names: Sequence[str], unit: Array) -> None:
        """Add unit vectors (N, D) of the identities ``names`` (N,)."""
        wanted = list(dict.fromkeys(names))
        for name in wanted:
            check_name(name)
        place = {name: position for position, name in enumerate(wanted)}
        codes = np.array([place[name] for name in names], np.int64)
        if self.pooling == 'best':
            ones = np.ones(len(unit))
            self._append(wanted, codes, unit, ones.astype(np.int64), ones)
            return
        images = np.bincount(codes, minlength=len(wanted))
        old = self._rows_of([name for name in wanted if name in self.number])
        if not len(old) and len(wanted) == len(unit):
            self._append(wanted, codes, unit, images, np.ones(len(unit)))
            return
        sums = np.zeros((len(wanted), unit.shape[1]))
        for start in range(0, len(unit), _BLOCK):
            np.add.at(sums, codes[start : start + _BLOCK], unit[start : start + _BLOCK])
        for start in range(0, len(old), _BLOCK):
            some = old[start : start + _BLOCK]
            target = [place[str(self.names[number])] for number in self.table['owner'][some]]
            np.add.at(sums, target, self.rows.take(some) * self.table['length'][some, None])
            np.add.at(images, target, self.table['images'][some])
        length = np.linalg.norm(sums, axis=1)
        _check_means(wanted, length / images)
        mean = unit_rows(sums, lambda position: repr(wanted[position]))
        self._append(wanted, np.arange(len(wanted)), mean, images, length)
        self.table['alive'][old] = False

    def remove(self, name: str) -> int:
        """Remove an identity; return its number of images."""
        rows = self._rows_of([self.known(name)])
        self.table['alive'][rows] = False
        self.names[self.number.pop(name)] = None
        return int(self.table['images'][rows].sum())

    def rename(self, old: str, new: str) -> None:
        """Give an identity a free name."""
        self.known(old)
        check_name(new)
        if new in self.number and new != old:
            raise GalleryError(
                f'{new!r} is enrolled already: choose another name for {old!r}, or enrol the '
                'images of both under one name'
            )
        number = self.number.pop(old)
        self.number[new] = number
        self.names[number] = new

    def merge(self, other: People, join: bool) -> None:
        """Add the identities of another gallery after those of this one."""
        shared = [name for name in other.number if name in self.number]
        if shared and not join:
            raise GalleryError(
                f'{len(shared)} names are in both galleries: {", ".join(shared[:_EXAMPLES])}'
                f'{", ..." if len(shared) > _EXAMPLES else ""}. Rename them, or, where a name is '
                "the same person in both, merge with shared='join'"
            )
        rows = np.flatnonzero(other.table['alive'])
        names = list(other.number)
        code = np.full(len(other.names), -1)
        code[list(other.number.values())] = np.arange(len(names))
        codes = code[other.table['owner'][rows]]
        images, length = other.table['images'][rows], other.table['length'][rows]
        unit = other.rows.take(rows) if len(rows) else np.zeros((0, 0), np.float32)
        if self.pooling == 'mean' and shared:
            unit, images, length = unit.copy(), images.copy(), length.copy()
            common = np.isin(codes, np.flatnonzero([name in self.number for name in names]))
            self._join(shared, names, codes, common, unit, images, length)
        old = self._rows_of(shared) if self.pooling == 'mean' else np.zeros(0, np.int64)
        self._append(names, codes, unit, images, length)
        self.table['alive'][old] = False

    def compact(self) -> None:
        """Leave out rows and numbers that no longer count; the order of enrolment stays."""
        rows = np.flatnonzero(self.table['alive'])
        kept = [number for number, name in enumerate(self.names) if name is not None]
        new = np.full(len(self.names), -1)
        new[kept] = np.arange(len(kept))
        values = Rows()
        for start in range(0, len(rows), _BLOCK):
            values.append(self.rows.take(rows[start : start + _BLOCK]))
        table = {name: column[rows] for name, column in self.table.items()}
        table['owner'] = new[table['owner']]
        self.restore(values, table, [self.names[number] for number in kept])

    def images(self, name: str) -> int:
        """Return the number of images of an identity."""
        return int(self.table['images'][self._rows_of([self.known(name)])].sum())

    def all_images(self) -> dict[str, int]:
        """Return the number of images of each identity, in the order of enrolment."""
        alive = self.table['alive']
        sums = np.bincount(
            self.table['owner'][alive], self.table['images'][alive], minlength=len(self.names)
        )
        return {
            name: int(count)
            for name, count in zip(self.names, sums, strict=True)
            if name is not None
        }

    def known(self, name: str) -> str:
        """Return a name that is enrolled, or raise."""
        if name not in self.number:
            raise GalleryError(
                f'{name!r} is not enrolled; the gallery has {len(self.number)} identities'
            )
        return name

    def _join(
        self,
        shared: list[str],
        names: list[str],
        codes: Array,
        common: Array,
        unit: Array,
        images: Array,
        length: Array,
    ) -> None:
        """Add our sums to the incoming rows of the same identities, in place."""
        at = {
            int(code): int(row)
            for row, code in zip(np.flatnonzero(common), codes[common], strict=True)
        }
        place = {name: at[position] for position, name in enumerate(names) if position in at}
        own = self._rows_of(shared)
        target = np.array([place[str(self.names[n])] for n in self.table['owner'][own]])
        sums = unit[target] * length[target, None]
        sums += self.rows.take(own) * self.table['length'][own, None]
        total = images[target] + self.table['images'][own]
        joined = np.linalg.norm(sums, axis=1)
        owners = [str(self.names[number]) for number in self.table['owner'][own]]
        _check_means(owners, joined / total)
        unit[target] = unit_rows(sums, lambda position: repr(owners[position]))
        images[target], length[target] = total, joined

    def _append(
        self, names: list[str], codes: Array, unit: Array, images: Array, length: Array
    ) -> None:
        """Add rows whose identities are ``names[codes]``, and the names that are new."""
        numbers = np.zeros(len(names), np.int64)
        for position, name in enumerate(names):
            if name not in self.number:
                self.number[name] = len(self.names)
                self.names.append(name)
            numbers[position] = self.number[name]
        columns = {
            'owner': numbers[codes],
            'alive': np.ones(len(unit), np.bool_),
            'images': images,
            'length': length,
        }
        self.rows.append(unit)
        self.table = {
            name: np.concatenate([self.table[name], column]).astype(_COLUMNS[name])
            for name, column in columns.items()
        }

    def _rows_of(self, names: Sequence[str]) -> Array:
        """Return the rows that count of identities, ascending."""
        numbers = [self.number[name] for name in names]
        if not numbers:
            return np.zeros(0, np.int64)
        alive = self.table['alive']
        return np.flatnonzero(alive & np.isin(self.table['owner'], numbers))


def check_name(name: object) -> None:
    """Raise GalleryError unless a value can be a name."""
    if not isinstance(name, str) or not name.strip():
        raise GalleryError(
            f'a name must be a text that is not empty, got {name!r}: of a number, take str(number)'
        )
    if name == UNKNOWN:
        raise GalleryError(f'{UNKNOWN!r} is the result for people who are not enrolled: rename')


def _check_means(names: Sequence[str], shares: Array) -> None:
    """Raise GalleryError if the images of an identity cancel out."""
    wrong = [names[int(position)] for position in np.flatnonzero(shares < _LEAST_LENGTH)]
    if wrong:
        raise GalleryError(
            f'the embeddings of {", ".join(map(repr, wrong[:_EXAMPLES]))} point in opposite '
            "directions and have no mean: they are not one person's, or take pooling='best'"
        )
