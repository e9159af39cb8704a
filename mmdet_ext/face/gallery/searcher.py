"""Search among the rows of a gallery, exact or by an index that follows every change."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import numpy as np

from mmdet_ext.face.gallery.errors import FaissAbsentError, GalleryError
from mmdet_ext.face.gallery.exact import Nearest, rank, scan
from mmdet_ext.face.gallery.index import ApproximateIndex, Kind, load_faiss
from mmdet_ext.face.gallery.people import People
from mmdet_ext.face.gallery.results import Recall
from mmdet_ext.face.gallery.rows import Array
from mmdet_ext.face.gallery.vectors import cosines

IndexOption = Literal['auto', 'flat', 'ivf', 'hnsw']

#: Rows from which on 'auto' takes IVF.
AUTO_ROWS = 50_000
#: Share of the rows of an index that may be removed before it is made anew.
_MOST_DEAD = 0.2
#: Growth of the rows since the training of an index at which it is made anew.
_MOST_GROWTH = 4
_LEAST_CANDIDATES = 64
_QUERIES = 1024


class Searcher:
    """Search among people, by the index that is chosen.

    Args:
        people: that are searched; they may change between searches.

    Attributes:
        option: as `FaceGallery`'s ``index``.
        effort: as `FaceGallery`'s.
        index: the index that is there; None for none yet.
    """

    def __init__(self, people: People) -> None:
        self.people = people
        self.option: IndexOption = 'flat'
        self.effort: int | None = None
        self.index: ApproximateIndex | None = None
        self._warned = False

    def choose(self, option: IndexOption, effort: int | None) -> None:
        """Choose the index of further searches."""
        if option not in ('auto', 'flat', 'ivf', 'hnsw'):
            raise GalleryError(f"index must be 'auto', 'flat', 'ivf' or 'hnsw', got {option!r}")
        if effort is not None and effort < 1:
            raise GalleryError(f'effort must be at least 1 or None, got {effort}')
        if option in ('ivf', 'hnsw'):
            load_faiss(f'index={option!r}')
        self.option, self.effort, self._warned = option, effort, False

    def kind(self) -> Kind | None:
        """Return the kind of index to search, None for the exact search."""
        if self.option != 'auto':
            return None if self.option == 'flat' else self.option
        if self.people.living < AUTO_ROWS:
            return None
        try:
            load_faiss(f'an index of {self.people.living} rows')
        except FaissAbsentError as error:
            if not self._warned:
                warnings.warn(f'the search is exact and slow: {error}', stacklevel=4)
            self._warned = True
            return None
        return 'ivf'

    def read(self, kind: Kind, dim: int, path: Path, arrays: dict[str, Array]) -> None:
        """Read an index; where it cannot be used, the next search makes it anew."""
        try:
            self.index = ApproximateIndex.read(kind, dim, path, arrays)
        except FaissAbsentError:
            return  # named by the search that needs it
        except (GalleryError, KeyError) as error:
            warnings.warn(f'the index is made anew: {error}', stacklevel=4)

    def ready(self) -> ApproximateIndex | None:
        """Return the index, made or completed if need be; None for the exact search."""
        kind, people = self.kind(), self.people
        if kind is None or not people.living:
            return None
        alive = people.table['alive']
        if self.index is None or self._is_worn(self.index, kind):
            dim = people.rows.segments[0].values.shape[1]
            self.index = ApproximateIndex(kind, dim, people.living)
            self.index.train(people.rows, np.flatnonzero(alive))
        index = self.index
        if index.seen < len(people.rows):
            index.add(people.rows, index.seen + np.flatnonzero(alive[index.seen :]))
            index.seen = len(people.rows)
        return index

    def complete(self) -> None:
        """Make or complete the index, if one is chosen and faiss is there."""
        try:
            self.ready()
        except FaissAbsentError:
            return  # named by the search that needs it

    def nearest(self, queries: Array, k: int) -> list[Nearest]:
        """Find the k nearest identities of each query (Q, D)."""
        people, index = self.people, self.ready()
        if not people.living:
            return [Nearest(np.zeros(0, np.int64), np.zeros(0)) for _ in queries]
        owner, alive = people.table['owner'], people.table['alive']
        if index is None:
            return scan(people.rows, owner, alive, queries, k)
        wanted = min(k, len(people.number))
        images = -(-people.living // len(people.number))
        count = max(_LEAST_CANDIDATES, 4 * k * images)
        found: list[Nearest] = []
        for start in range(0, len(queries), _QUERIES):
            some = queries[start : start + _QUERIES]
            rows_of = index.candidates(some, count, self.effort or index.usual_effort)
            for query, rows in zip(some, rows_of, strict=True):
                rows = rows[alive[rows]]
                near = rank(owner[rows], cosines(people.rows.take(rows), query), k)
                if len(near.identity) < wanted:  # such as many images of few people
                    (near,) = scan(people.rows, owner, alive, query[None], k)
                found.append(near)
        return found

    def measure(self, queries: Array, exact: Array | None = None) -> Recall:
        """Compare the best candidates of queries (Q, D) with those of the exact search.

        Args:
            queries: of length 1.
            exact: (Q,) best cosines; None computes them.
        """
        best = self._best(queries) if exact is None else exact
        found = np.array([near.cosine[0] for near in self.nearest(queries, 1)])
        index = self.ready()
        effort = 0 if index is None else self.effort or index.usual_effort
        return Recall(float((found >= best).mean()), len(queries), effort)

    def tune(self, recall: float, queries: Array) -> Recall:
        """Set the effort to about the least at which queries (Q, D) have a recall."""
        index, before, exact = self.ready(), self.effort, self._best(queries)
        if index is None:
            return self.measure(queries, exact)
        self.effort = min(before or index.usual_effort, index.most_effort)
        found, too_little = self.measure(queries, exact), index.least_effort - 1
        while found.recall < recall:
            too_little = found.effort
            if found.effort >= index.most_effort:
                self.effort = before
                raise GalleryError(
                    f'{index.kind} reaches a recall of {found.recall:.4f}, asked for {recall}: '
                    "take index='flat'"
                )
            self.effort = min(2 * found.effort, index.most_effort)
            found = self.measure(queries, exact)
        # Halving towards what is too little, to within an eighth.
        while found.effort - too_little > max(found.effort // 8, 1):
            self.effort = (found.effort + too_little) // 2
            less = self.measure(queries, exact)
            if less.recall < recall:
                too_little = less.effort
            else:
                found = less
        self.effort = found.effort
        return found

    def _is_worn(self, index: ApproximateIndex, kind: Kind) -> bool:
        """Return whether an index is of another kind, or too much has changed since it was made."""
        people = self.people
        counted = index.twins + len(index)
        dead = counted - int(np.count_nonzero(people.table['alive'][: index.seen]))
        grown = people.living > _MOST_GROWTH * index.trained
        return index.kind != kind or dead > _MOST_DEAD * counted or grown

    def _best(self, queries: Array) -> Array:
        table = self.people.table
        found = scan(self.people.rows, table['owner'], table['alive'], queries, 1)
        return np.array([near.cosine[0] for near in found])
