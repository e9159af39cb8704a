"""Gallery of enrolled people, searched by embeddings."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmdet_ext.face.gallery import storage
from mmdet_ext.face.gallery.errors import GalleryError
from mmdet_ext.face.gallery.exact import Nearest
from mmdet_ext.face.gallery.index import ApproximateIndex
from mmdet_ext.face.gallery.people import People, Pooling, check_name
from mmdet_ext.face.gallery.results import UNKNOWN, Candidate, Found, Recall
from mmdet_ext.face.gallery.rows import Array
from mmdet_ext.face.gallery.searcher import IndexOption, Searcher
from mmdet_ext.face.gallery.vectors import on_grid, unit_rows

#: Share of the rows that may be removed or replaced before a save leaves them out.
_MOST_DEAD = 0.2


class FaceGallery:
    """Gallery of enrolled people, searched by the cosine of embeddings.

    It holds the embeddings, float32 of length 1, in the order of enrolment. The exact search
    compares all of them. An index of faiss finds candidates, which are then compared exactly: its
    candidates have the same cosines, and only who is among them is approximate. The index follows
    every change at the next search.

    Results do not depend on the batch of a query: cosines are summed alone, are multiples of 2^-20
    in [-1, 1], and equal ones are in the order of enrolment. One process may save while others
    read; changes by several threads at once need a lock of the caller.

    Args:
        recogniser: identifier of the recogniser whose embeddings these are: any text, such as one
            of `recogniser_id`. Embeddings of another one are refused where their identifier is
            given.
        pooling: 'mean', an identity is the mean of its images; 'best', it is as similar as its
            best image.
        index: 'flat', exact, without faiss; 'ivf', cells, of which the nearest are searched;
            'hnsw', a graph of neighbours; 'auto', flat below 50,000 rows, ivf from there on, and
            flat with a warning where faiss is absent.
        effort: cells probed (ivf) or candidates kept on the way (hnsw); None for the usual number.
            More is slower and finds more: see `tune`.

    Raises:
        GalleryError: if an option is not one of these.
        FaissAbsentError: if ``index`` asks for faiss and it is not installed.
    """

    def __init__(
        self,
        recogniser: str,
        pooling: Pooling = 'mean',
        index: IndexOption = 'auto',
        effort: int | None = None,
    ) -> None:
        if not isinstance(recogniser, str) or not recogniser:
            raise GalleryError(f'recogniser must be a text that is not empty, got {recogniser!r}')
        if pooling not in ('mean', 'best'):
            raise GalleryError(f"pooling must be 'mean' or 'best', got {pooling!r}")
        self.recogniser = recogniser
        self._people = People(pooling)
        self._dim: int | None = None
        self._id = uuid.uuid4().hex
        self._searcher = Searcher(self._people)
        self._saved_index: tuple[ApproximateIndex, int, dict[str, Any]] | None = None
        self._saved: storage.Saved | None = None
        self.use_index(index, effort)

    def __len__(self) -> int:
        return len(self._people.number)

    def __contains__(self, name: object) -> bool:
        return name in self._people.number

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the identities, in the order of enrolment."""
        return tuple(name for name in self._people.names if name is not None)

    @property
    def images(self) -> dict[str, int]:
        """Number of enrolled images of each identity, in the order of enrolment."""
        return self._people.all_images()

    @property
    def pooling(self) -> Pooling:
        """Pooling of the images of an identity."""
        return self._people.pooling

    @property
    def dim(self) -> int | None:
        """Numbers of an embedding; None before the first."""
        return self._dim

    @property
    def kind(self) -> str:
        """Search that a query gets now: 'flat', 'ivf' or 'hnsw'."""
        return self._searcher.kind() or 'flat'

    @property
    def index(self) -> IndexOption:
        """Option of the index."""
        return self._searcher.option

    @property
    def effort(self) -> int | None:
        """Cells probed, or candidates kept on the way; None for the usual number."""
        return self._searcher.effort

    def use_index(self, index: IndexOption, effort: int | None = None) -> None:
        """Choose the index of further searches; the options are those of the class."""
        self._searcher.choose(index, effort)

    def enrol(
        self, names: str | Sequence[str], embeddings: Any, recogniser: str | None = None
    ) -> None:
        """Enrol images; those of an identity that is enrolled are added to it.

        Args:
            names: name of the identity of all embeddings, or a name for each. 'unknown' cannot be
                enrolled.
            embeddings: (N, D) numbers of any length.
            recogniser: identifier of the recogniser that made them; None for no check.

        Raises:
            GalleryError: if a name or an embedding cannot be used, each by its name. Nothing is
                enrolled then.
        """
        self._check_recogniser(recogniser, 'the embeddings')
        count = len(embeddings) if np.ndim(embeddings) else 0
        many = [names] * count if isinstance(names, str) else list(names)
        if len(many) != count:
            raise GalleryError(f'there are {len(many)} names and {count} embeddings')
        if not many:
            raise GalleryError('there is no embedding to enrol')
        for name in dict.fromkeys(many):
            check_name(name)
        unit = unit_rows(embeddings, lambda row: f'image {row} ({many[row]!r})', self._dim)
        self._people.enrol(many, unit)
        self._dim = unit.shape[1]

    def remove(self, name: str) -> int:
        """Remove an identity, and return its number of images.

        No search finds it from now on. Its numbers stay in the files until `compact` and `save`.

        Raises:
            GalleryError: if it is not enrolled.
        """
        return self._people.remove(name)

    def rename(self, old: str, new: str) -> None:
        """Rename an identity; its place in the order of enrolment stays.

        Raises:
            GalleryError: if ``old`` is not enrolled, or ``new`` is.
        """
        self._people.rename(old, new)

    def merge(self, other: FaceGallery, shared: Literal['error', 'join'] = 'error') -> None:
        """Add the identities of another gallery after those of this one.

        Args:
            other: gallery of the same recogniser and pooling; it does not change.
            shared: names in both: 'error' refuses them; 'join' takes each for one person.

        Raises:
            GalleryError: if the galleries do not fit. Nothing is merged then.
        """
        if other is self:
            raise GalleryError('a gallery cannot be merged into itself')
        if shared not in ('error', 'join'):
            raise GalleryError(f"shared must be 'error' or 'join', got {shared!r}")
        self._check_recogniser(other.recogniser, 'the other gallery')
        if other.pooling != self.pooling:
            raise GalleryError(
                f'the other gallery has pooling={other.pooling!r}, this one {self.pooling!r}'
            )
        if None not in (self._dim, other.dim) and other.dim != self._dim:
            raise GalleryError(
                f'the other gallery has embeddings of {other.dim} numbers, this one of {self._dim}'
            )
        self._people.merge(other._people, shared == 'join')
        self._dim = self._dim or other.dim

    def search(
        self,
        embeddings: Any,
        k: int = 1,
        threshold: float | None = None,
        recogniser: str | None = None,
    ) -> list[Found]:
        """Search for people.

        Args:
            embeddings: (Q, D) numbers of any length.
            k: largest number of candidates.
            threshold: least cosine of a name; below it the name is 'unknown'. None for any.
            recogniser: identifier of the recogniser that made the embeddings; None for no check.

        Returns:
            list[Found]: of each embedding.

        Raises:
            GalleryError: if an embedding cannot be compared, or an option is out of range.
        """
        self._check_recogniser(recogniser, 'the embeddings')
        if k < 1:
            raise GalleryError(f'k must be at least 1, got {k}')
        if threshold is not None and not -1 <= threshold <= 1:
            raise GalleryError(f'threshold must be a cosine in [-1, 1], got {threshold}')
        queries = unit_rows(embeddings, 'query {}'.format, self._dim)
        least = -1.0 if threshold is None else float(on_grid(threshold))
        return [self._found(near, least) for near in self._searcher.nearest(queries, k)]

    def measure_recall(
        self, queries: Any = None, sample: int = 1000, likeness: float = 0.6, seed: int = 0
    ) -> Recall:
        """Compare the best candidates of the index with those of the exact search.

        Args:
            queries: (Q, D) embeddings of faces as they will come; None draws enrolled ones and adds
                noise in all directions. Real faces vary otherwise: prefer your own.
            sample: largest number of queries, drawn at random.
            likeness: cosine of a drawn query with its embedding, in (0, 1].
            seed: of the draws.

        Returns:
            Recall: 1.0 where the search is exact.

        Raises:
            GalleryError: if nobody is enrolled, or there is no query.
        """
        return self._searcher.measure(self._queries(queries, sample, likeness, seed))

    def tune(
        self,
        recall: float = 0.99,
        queries: Any = None,
        sample: int = 1000,
        likeness: float = 0.6,
        seed: int = 0,
    ) -> Recall:
        """Set ``effort`` to about the least at which the index has a recall.

        It halves from the usual effort while the recall holds, or doubles until it does, and then
        comes to within an eighth of the least. Further arguments are those of `measure_recall`.
        Measure with other queries afterwards.

        Returns:
            Recall: with the effort that is set.

        Raises:
            GalleryError: as `measure_recall`; or if no effort reaches the recall: take
                index='flat'.
        """
        if not 0 < recall <= 1:
            raise GalleryError(f'recall must be in (0, 1], got {recall}')
        return self._searcher.tune(recall, self._queries(queries, sample, likeness, seed))

    def compact(self) -> None:
        """Leave out what was removed or replaced; with the next save it is gone from the files."""
        self._people.compact()
        self._searcher.index = self._saved_index = None

    def save(self, folder: str | PathLike[str]) -> None:
        """Save into a folder: all or nothing, also where the process ends in the middle.

        The index is made or completed first, so that who opens the folder can search at once.

        Args:
            folder: a new or empty folder, or the one it was opened from or saved to last.

        Raises:
            GalleryError: if the folder holds other files or another gallery, or another process
                saved into it since. Nothing is changed then.
            OSError: if a file cannot be written. What was saved before is whole.
        """
        if len(self._people.rows) - self._people.living > _MOST_DEAD * len(self._people.rows):
            self.compact()
        self._searcher.complete()
        index, files, write_index = self._searcher.index, {}, None
        if index is not None:
            kept = self._saved_index
            if (
                kept is not None
                and kept[0] is index
                and len(index) <= 1.1 * kept[1]
                and self._saved is not None
                and self._saved.folder.resolve() == Path(folder).resolve()
            ):
                files = kept[2]
            else:
                write_index = index.write
        facts = {
            'gallery': self._id,
            'recogniser': self.recogniser,
            'pooling': self.pooling,
            'dim': self._dim,
            'index': self.index,
            'effort': self.effort,
            'kind': None if index is None else index.kind,
            'identities': len(self),
        }
        content = storage.Content(
            facts,
            self._people.rows,
            self._people.table,
            self._people.names,
            write_index,
            index.arrays() if index is not None else {},
            files,
        )
        self._saved, self._people.rows = storage.write(Path(folder), content, self._saved)
        self._note_index(len(index) if write_index is not None and index is not None else None)
        storage.remove_old_files(self._saved)

    @classmethod
    def open(cls, folder: str | PathLike[str], recogniser: str | None = None) -> FaceGallery:
        """Open a saved gallery; what it holds then stays, whatever is saved later.

        Args:
            folder: of `save`.
            recogniser: identifier of the recogniser to be used with it; None for no check.

        Raises:
            GalleryError: if there is no gallery, it is damaged, or belongs to another recogniser.
        """
        saved, content = storage.read(Path(folder))
        facts = content.facts
        own = cls(facts['recogniser'], facts['pooling'], 'flat')
        own._check_recogniser(recogniser, 'the recogniser in use')
        own._people.restore(content.rows, dict(content.table), list(content.names))
        own._id, own._dim, own._saved = facts['gallery'], facts['dim'], saved
        own._searcher.option, own._searcher.effort = facts['index'], facts['effort']
        own._read_index(content)
        return own

    def _read_index(self, content: storage.Content) -> None:
        """Read the index of a folder; where it cannot be used, the next search makes it anew."""
        if not content.index_files or self._saved is None or self._dim is None:
            return
        path = self._saved.folder / content.index_files['index']
        self._searcher.read(content.facts['kind'], self._dim, path, dict(content.places))
        index = self._searcher.index
        self._note_index(None if index is None else len(index))

    def _note_index(self, written: int | None) -> None:
        """Remember the files of the index, and with how many rows it was written."""
        assert self._saved is not None
        index = self._searcher.index
        if index is None:
            self._saved_index = None
        elif written is not None:
            files = self._saved.manifest['files']
            kept = {name: files[name] for name in ('index', 'places')}
            self._saved_index = index, written, kept

    def _check_recogniser(self, other: str | None, what: str) -> None:
        if other is not None and other != self.recogniser:
            raise GalleryError(
                f'{what}: of the recogniser {other!r}, but the gallery is of {self.recogniser!r}; '
                'their embeddings cannot be compared. Embed the images anew by one of them'
            )

    def _found(self, near: Nearest, least: float) -> Found:
        candidates = tuple(
            Candidate(str(self._people.names[number]), float(cosine))
            for number, cosine in zip(near.identity, near.cosine, strict=True)
        )
        known = bool(candidates) and candidates[0].cosine >= least
        return Found(candidates[0].name if known else UNKNOWN, candidates)

    def _queries(self, queries: Any, sample: int, likeness: float, seed: int) -> Array:
        if not len(self) or sample < 1 or not 0 < likeness <= 1:
            raise GalleryError(
                'recall needs enrolled people, sample of at least 1 and likeness in (0, 1], got '
                f'{len(self)} people, sample={sample}, likeness={likeness}'
            )
        generator = np.random.default_rng(seed)
        if queries is not None:
            given = unit_rows(queries, 'query {}'.format, self._dim)
            if not len(given):
                raise GalleryError('queries is empty')
            chosen = generator.permutation(len(given))[:sample]
            return np.asarray(given[np.sort(chosen)])
        living = np.flatnonzero(self._people.table['alive'])
        chosen = np.sort(generator.permutation(living)[:sample])
        rows = self._people.rows.take(chosen)
        noise = generator.standard_normal(rows.shape)
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        drawn = likeness * rows + (1 - likeness**2) ** 0.5 * noise
        return unit_rows(drawn, 'query {}'.format)
