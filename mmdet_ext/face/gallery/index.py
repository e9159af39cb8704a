"""Approximate index of rows by faiss, whose own ids are never used."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmdet_ext.face.gallery.errors import FaissAbsentError, GalleryError
from mmdet_ext.face.gallery.rows import Rows

Array = np.ndarray[Any, Any]
Kind = Literal['ivf', 'hnsw']

_BLOCK = 16384
#: Training rows of a cell; with fewer faiss warns, with fewer rows than cells it raises.
_PER_CELL = 40
_LINKS = 32
_SEED = 1234


def load_faiss(reason: str) -> Any:
    """Import faiss.

    Raises:
        FaissAbsentError: if it is not installed, with ``reason``.
    """
    try:
        return importlib.import_module('faiss')
    except ImportError as error:
        raise FaissAbsentError(
            f"{reason} needs faiss: pip install 'mmdet-ext[gallery]', or take index='flat'"
        ) from error


class ApproximateIndex:
    """Index of distinct rows, one byte per number.

    Its candidates are compared exactly afterwards, so that the bytes cost no precision. Rows are
    found by their places in the index, which never change, as nothing is removed from it. Equal
    rows have one place: thousands of them would fill the candidates, or part the graph of HNSW.

    Args:
        kind: ``ivf``, cells around centres, or ``hnsw``, a graph of neighbours.
        dim: numbers of a row.
        count: rows that it is made for.
    """

    def __init__(self, kind: Kind, dim: int, count: int) -> None:
        self.kind: Kind = kind
        self.dim = dim
        self.faiss = load_faiss(f'index={kind!r}')
        self.cells = max(1, min(int(2 * count**0.5), count // _PER_CELL))
        self.index = self._made()
        self.row = np.zeros(0, np.int64)
        self._hash = np.zeros(0, np.uint64)
        self._twin_place = np.zeros(0, np.int64)
        self._twin_row = np.zeros(0, np.int64)
        #: Rows when it was trained, and rows of the table that were looked at so far.
        self.trained = count
        self.seen = 0

    def __len__(self) -> int:
        return len(self.row)

    @property
    def twins(self) -> int:
        """Number of rows that equal a row of the index."""
        return len(self._twin_row)

    @property
    def usual_effort(self) -> int:
        """Cells to probe, or candidates to keep on the way, unless another number is asked for."""
        return max(16, -(-self.cells // 12)) if self.kind == 'ivf' else 128

    @property
    def least_effort(self) -> int:
        """Smallest effort that makes a difference."""
        return 1 if self.kind == 'ivf' else 64

    @property
    def most_effort(self) -> int:
        """Largest effort that makes sense."""
        return self.cells if self.kind == 'ivf' else max(1, len(self))

    def train(self, rows: Rows, index: Array) -> None:
        """Learn cells and ranges from rows of ``index``, at random with a fixed seed."""
        most = max(_BLOCK, self.cells * _PER_CELL)
        if len(index) > most:
            index = np.sort(np.random.default_rng(_SEED).choice(index, most, replace=False))
        self.index.train(rows.take(index))

    def add(self, rows: Rows, index: Array) -> None:
        """Add the rows of ``index``, (N,) ascending."""
        for start in range(0, len(index), _BLOCK):
            some = index[start : start + _BLOCK]
            self._add(rows, rows.take(some), some)

    def candidates(self, queries: Array, count: int, effort: int) -> Iterator[Array]:
        """Yield rows near to each query, in any order.

        Args:
            queries: (Q, D) float32.
            count: distinct rows asked for.
            effort: as in `usual_effort`.
        """
        if not len(self):
            yield from (self.row for _ in queries)
            return
        if self.kind == 'ivf':
            self.index.nprobe = min(effort, self.cells)
        else:
            self.index.hnsw.efSearch = max(effort, count)
        _, places = self.index.search(np.ascontiguousarray(queries), min(count, len(self)))
        for found in places:
            yield self._rows_at(found[found >= 0])  # -1 stands for none

    def write(self, path: Path) -> None:
        """Write faiss's part."""
        self.faiss.write_index(self.index, str(path))

    def arrays(self) -> dict[str, Array]:
        """Return our part."""
        return {
            'row': self.row,
            'hash': self._hash,
            'twin_place': self._twin_place,
            'twin_row': self._twin_row,
            'counts': np.array([self.trained, self.seen, self.cells]),
        }

    @classmethod
    def read(cls, kind: Kind, dim: int, path: Path, arrays: dict[str, Array]) -> ApproximateIndex:
        """Read what `write` and `arrays` gave.

        Raises:
            GalleryError: if the file is no index of these rows.
        """
        trained, seen, cells = map(int, arrays['counts'])
        own = cls(kind, dim, trained)
        own.seen, own.cells = seen, cells
        try:
            own.index = own.faiss.read_index(str(path))
        except RuntimeError as error:
            raise GalleryError(f'{path}: faiss cannot read it ({error})') from error
        own.row, own._hash = arrays['row'], arrays['hash']
        own._twin_place, own._twin_row = arrays['twin_place'], arrays['twin_row']
        if own.index.ntotal != len(own.row) or own.index.d != dim:
            raise GalleryError(
                f'{path} has {own.index.ntotal} rows of {own.index.d} numbers, expected '
                f'{len(own.row)} of {dim}'
            )
        return own

    def _made(self) -> Any:
        metric = self.faiss.METRIC_INNER_PRODUCT
        name = f'IVF{self.cells},SQ8' if self.kind == 'ivf' else f'HNSW{_LINKS},SQ8'
        made = self.faiss.index_factory(self.dim, name, metric)
        if self.kind == 'ivf':
            made.cp.seed, made.cp.niter, made.cp.spherical = _SEED, 10, True
            made.cp.min_points_per_centroid = 1
        else:
            made.hnsw.efConstruction = 80
        return made

    def _add(self, rows: Rows, values: Array, index: Array) -> None:
        hashes = _hashes(values)
        order = np.argsort(self._hash, kind='stable')
        known = self._hash[order]
        distinct, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        at = np.searchsorted(known, distinct)
        in_index = np.searchsorted(known, distinct, 'right') > at
        # Of each distinct row of this block: its place in the index, if it is there already.
        place = np.full(len(distinct), -1)
        place[in_index] = order[at[in_index]]
        fresh = np.sort(first[~in_index])
        place[~in_index] = len(self.row) + np.searchsorted(fresh, first[~in_index])
        self.row = np.concatenate([self.row, index[fresh]])
        self._hash = np.concatenate([self._hash, hashes[fresh]])
        places = place[inverse]
        others = np.setdiff1d(np.arange(len(index)), fresh)
        same = (rows.take(self.row[places[others]]) == values[others]).all(1)
        twins, strangers = others[same], others[~same]  # strangers: equal hashes of other rows
        self.index.add(values[fresh])
        self._twin_place = np.concatenate([self._twin_place, places[twins]])
        self._twin_row = np.concatenate([self._twin_row, index[twins]])
        order = np.argsort(self._twin_place, kind='stable')
        self._twin_place, self._twin_row = self._twin_place[order], self._twin_row[order]
        if len(strangers):
            self.row = np.concatenate([self.row, index[strangers]])
            self._hash = np.concatenate([self._hash, hashes[strangers]])
            self.index.add(values[strangers])

    def _rows_at(self, places: Array) -> Array:
        found = [self.row[places]]
        if len(self._twin_place):
            first = np.searchsorted(self._twin_place, places, 'left')
            last = np.searchsorted(self._twin_place, places, 'right')
            found += [
                self._twin_row[start:stop]
                for start, stop in zip(first, last, strict=True)
                if stop > start
            ]
        return np.concatenate(found)


def _hashes(values: Array) -> Array:
    """Compute a number of 64 bits per row, equal for rows of equal bits."""
    bits = np.ascontiguousarray(values).view(np.uint32).astype(np.uint64)
    odd = np.random.default_rng(_SEED).integers(0, 2**63, bits.shape[1], dtype=np.uint64) * 2 + 1
    mixed: Array = (bits * odd).sum(1, dtype=np.uint64)
    return mixed ^ (mixed >> np.uint64(29))
