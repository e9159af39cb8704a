"""Index of faiss: what faiss does alone, and what the gallery makes of it."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from mmdet_ext.face.gallery import FaceGallery, FaissAbsentError, GalleryError
from mmdet_ext.face.gallery import index as module
from mmdet_ext.face.gallery.results import Recall
from mmdet_ext.face.gallery.searcher import Searcher

Array = np.ndarray[Any, Any]


def faces(count: int, dim: int = 16, seed: int = 0) -> Array:
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def names(count: int, prefix: str = 'p') -> list[str]:
    return [f'{prefix}{number}' for number in range(count)]


@pytest.fixture
def no_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'faiss', None)


def test_without_faiss_the_flat_search_works(no_faiss: None) -> None:
    gallery = FaceGallery('r', index='flat')
    gallery.enrol(names(50), faces(50))
    assert [found.name for found in gallery.search(faces(50))] == names(50)
    assert gallery.measure_recall().recall == 1.0


def test_without_faiss_an_index_names_what_to_install(
    no_faiss: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FaissAbsentError, match=r"pip install 'mmdet-ext\[gallery\]'"):
        FaceGallery('r', index='hnsw')
    monkeypatch.setattr('mmdet_ext.face.gallery.searcher.AUTO_ROWS', 10)
    gallery = FaceGallery('r')
    gallery.enrol(names(20), faces(20))
    with pytest.warns(UserWarning, match=r"exact and slow: .* pip install 'mmdet-ext\[gallery\]'"):
        found = gallery.search(faces(20))
    assert [each.name for each in found] == names(20)
    assert gallery.search(faces(20)) == found  # warned once


def test_the_size_chooses_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('faiss')
    monkeypatch.setattr('mmdet_ext.face.gallery.searcher.AUTO_ROWS', 10)
    gallery = FaceGallery('r')
    gallery.enrol(names(9), faces(9))
    assert gallery.kind == 'flat'
    gallery.enrol('one more', faces(1, seed=1))
    assert gallery.kind == 'ivf'


@pytest.mark.parametrize('index', ['ivf', 'hnsw'])
def test_the_index_follows_every_change(index: Any) -> None:
    pytest.importorskip('faiss')
    gallery, flat = FaceGallery('r', index=index, effort=10_000), FaceGallery('r', index='flat')
    generator = np.random.default_rng(0)
    for step in range(8):
        for each in (gallery, flat):
            each.enrol(names(60, f's{step}-'), faces(60, seed=step))
        for name in generator.permutation(gallery.names)[:9]:
            for each in (gallery, flat):
                each.remove(str(name))
        queries = faces(30, seed=step) + 0.2 * faces(30, seed=100 + step)
        assert gallery.search(queries, k=3) == flat.search(queries, k=3)


def test_fewer_rows_than_cells_are_no_error() -> None:
    faiss = pytest.importorskip('faiss')
    alone = faiss.index_factory(16, 'IVF100,Flat')
    with pytest.raises(RuntimeError, match='should be at least as large as number of clusters'):
        alone.train(faces(30))
    for count in (1, 2, 39, 100):
        gallery = FaceGallery('r', index='ivf')
        gallery.enrol(names(count), faces(count))
        assert [found.name for found in gallery.search(faces(count))] == names(count)


def test_one_cell_of_faiss_loses_people_and_ours_are_found() -> None:
    faiss = pytest.importorskip('faiss')
    rows = faces(3000)
    probes = rows + 0.7 * faces(3000, seed=1)
    gallery, flat = FaceGallery('r', index='ivf'), FaceGallery('r', index='flat')
    for each in (gallery, flat):
        each.enrol(names(3000), rows)
    alone = faiss.index_factory(16, 'IVF75,Flat', faiss.METRIC_INNER_PRODUCT)
    alone.train(rows)
    alone.add(rows)
    best = [int(found.name[1:]) for found in flat.search(probes[:200])]
    of_faiss = (alone.search(probes[:200], 1)[1][:, 0] == best).mean()
    assert of_faiss < 0.8
    assert gallery.measure_recall(probes).recall > of_faiss + 0.1
    tuned = gallery.tune(0.99, probes[:1000])
    assert tuned.recall >= 0.99 and tuned.effort == gallery.effort
    assert gallery.measure_recall(probes[1000:]).recall >= 0.97


@pytest.mark.parametrize('least', [1, 2, 9, 37, 75])
@pytest.mark.parametrize('start', [None, 1, 64])
def test_tune_comes_to_within_an_eighth_of_the_least_effort(
    start: int | None, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('faiss')
    gallery = FaceGallery('r', index='ivf', effort=start)
    gallery.enrol(names(3000), faces(3000))
    measure = Searcher.measure

    def from_least_on(searcher: Searcher, queries: Any, exact: Any = None) -> Recall:
        effort = measure(searcher, queries, exact).effort
        return Recall(float(effort >= least), len(queries), effort)

    monkeypatch.setattr(Searcher, 'measure', from_least_on)
    tuned = gallery.tune(0.99, faces(20, seed=1))
    assert least <= tuned.effort <= least + max(tuned.effort // 8, 1) and tuned.recall == 1


@pytest.mark.parametrize('index', ['ivf', 'hnsw'])
def test_people_behind_many_equal_images_are_found(index: Any) -> None:
    pytest.importorskip('faiss')
    gallery = FaceGallery('r', pooling='best', index=index)
    gallery.enrol(names(300), faces(300))
    gallery.enrol('blank', np.repeat(faces(1, seed=7), 2000, axis=0))
    gallery.enrol(names(300, 'q'), faces(300, seed=2))
    assert [found.name for found in gallery.search(faces(300))] == names(300)
    assert [found.name for found in gallery.search(faces(300, seed=2))] == names(300, 'q')
    (found,) = gallery.search(faces(1, seed=7), k=4)
    assert found.name == 'blank' and len({each.name for each in found.candidates}) == 4


def test_rows_with_equal_hashes_are_both_found(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('faiss')
    monkeypatch.setattr(module, '_hashes', lambda rows: np.zeros(len(rows), np.uint64))
    monkeypatch.setattr(module, '_BLOCK', 7)
    gallery = FaceGallery('r', pooling='best', index='ivf')
    gallery.enrol(names(40), faces(40))
    gallery.enrol('twin', faces(40)[:1])
    assert [found.name for found in gallery.search(faces(40))] == names(40)
    (found,) = gallery.search(faces(40)[:1], k=2)
    assert [each.name for each in found.candidates] == ['p0', 'twin']


def test_a_recall_that_no_effort_reaches_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('faiss')
    gallery = FaceGallery('r', index='ivf', effort=1)
    gallery.enrol(names(200), faces(200))
    wrong = module.ApproximateIndex.candidates

    def blind(self: Any, queries: Array, count: int, effort: int) -> Any:
        return (rows[rows != 0][:5] for rows in wrong(self, -queries, count, effort))

    monkeypatch.setattr(module.ApproximateIndex, 'candidates', blind)
    with pytest.raises(GalleryError, match=r'ivf reaches a recall of 0\.\d+, asked for 0.99: '):
        gallery.tune(0.99)
    assert gallery.effort == 1


def test_drawn_queries_depend_on_the_seed_alone() -> None:
    pytest.importorskip('faiss')
    gallery = FaceGallery('r', index='ivf', effort=1)
    gallery.enrol(names(3000), faces(3000))
    first = gallery.measure_recall(sample=300, seed=4)
    assert 0 < first.recall < 1 and first.queries == 300 and first.effort == 1
    assert gallery.measure_recall(sample=300, seed=4) == first
    assert gallery.measure_recall(sample=300, seed=5) != first
    with pytest.raises(GalleryError, match='recall needs enrolled people'):
        FaceGallery('r').measure_recall()
