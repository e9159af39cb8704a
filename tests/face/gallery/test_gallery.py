"""Gallery: enrolment, search against a slow reference, ties, names, merging."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mmdet_ext.face.gallery import UNKNOWN, FaceGallery, GalleryError, recogniser_id
from mmdet_ext.face.gallery.rows import Rows

Array = np.ndarray[Any, Any]

OURS = 'sha256:1'


def faces(count: int, dim: int = 8, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, dim))


def gallery_of(count: int, dim: int = 8, **options: Any) -> FaceGallery:
    gallery = FaceGallery(OURS, **options)
    gallery.enrol([f'p{number}' for number in range(count)], faces(count, dim))
    return gallery


def slow_search(people: dict[str, Array], query: Array, k: int, pooling: str) -> list[str]:
    """Compare all images of all people one by one."""
    scores = []
    for order, (name, images) in enumerate(people.items()):
        units = [image / np.linalg.norm(image) for image in images]
        parts = [np.mean(units, axis=0)] if pooling == 'mean' else units
        cosines = [p @ query / np.linalg.norm(p) / np.linalg.norm(query) for p in parts]
        scores.append((-max(cosines), order, name))
    return [name for _, _, name in sorted(scores)[:k]]


@pytest.mark.parametrize('pooling', ['mean', 'best'])
@pytest.mark.parametrize('index', ['flat', 'ivf', 'hnsw'])
def test_search_equals_a_slow_reference(index: Any, pooling: Any) -> None:
    if index != 'flat':
        pytest.importorskip('faiss')
    people = {f'p{number}': faces(1 + number % 4, seed=number) for number in range(30)}
    gallery = FaceGallery(OURS, pooling=pooling, index=index, effort=1000)
    for name, images in people.items():
        gallery.enrol(name, images)
    queries = faces(12, seed=99)
    for query, found in zip(queries, gallery.search(queries, k=5), strict=True):
        names = [candidate.name for candidate in found.candidates]
        assert names == slow_search(people, query, 5, pooling)
        assert found.name == names[0]


def test_a_small_chunk_of_rows_changes_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = gallery_of(50)
    queries = faces(7, seed=5)
    whole = gallery.search(queries, k=3)
    monkeypatch.setattr('mmdet_ext.face.gallery.exact._ROWS', 4)
    monkeypatch.setattr('mmdet_ext.face.gallery.exact._QUERIES', 2)
    assert gallery.search(queries, k=3) == whole


def test_a_query_alone_and_in_a_batch_gives_the_same_bits() -> None:
    gallery = gallery_of(200, dim=130)
    queries = faces(40, 130, seed=3).astype(np.float32)
    batch = gallery.search(queries, k=4)
    assert batch == [gallery.search(query[None], k=4)[0] for query in queries]


def test_mean_of_images_enrolled_at_once_and_one_by_one_is_the_same() -> None:
    images = faces(5)
    at_once, one_by_one = FaceGallery(OURS), FaceGallery(OURS)
    at_once.enrol('ann', images)
    for image in images:
        one_by_one.enrol('ann', image[None])
    unit = images / np.linalg.norm(images, axis=1, keepdims=True)
    expected = unit.mean(0) / np.linalg.norm(unit.mean(0))
    for gallery in (at_once, one_by_one):
        assert gallery.images == {'ann': 5}
        (found,) = gallery.search(images[:1])
        assert found.candidates[0].cosine == pytest.approx(float(expected @ unit[0]), abs=2e-6)


def test_below_the_threshold_is_unknown_and_at_it_is_known() -> None:
    gallery = FaceGallery(OURS)
    gallery.enrol('ann', [[1.0, 0.0]])
    query = [[0.3, np.sqrt(1 - 0.09)]]
    (found,) = gallery.search(query, threshold=0.3)
    assert found.name == 'ann'
    (found,) = gallery.search(query, threshold=0.31)
    assert found.name == UNKNOWN and found.candidates[0].name == 'ann'


def test_an_empty_gallery_knows_nobody() -> None:
    assert FaceGallery(OURS).search([[1.0, 2.0]])[0] == (UNKNOWN, ())
    gallery = gallery_of(1)
    gallery.remove('p0')
    assert gallery.search(faces(1))[0] == (UNKNOWN, ()) and len(gallery) == 0


@pytest.mark.parametrize('index', ['flat', 'ivf', 'hnsw'])
@pytest.mark.parametrize('k', [1, 2, 5])
def test_equal_scores_are_in_the_order_of_enrolment(index: Any, k: int) -> None:
    if index != 'flat':
        pytest.importorskip('faiss')
    gallery = FaceGallery(OURS, index=index)
    names = [f'p{number}' for number in range(400)]
    gallery.enrol(names, np.repeat(faces(1), 400, axis=0))
    gallery.enrol('other', -faces(1))
    gallery.remove('p0')
    gallery.rename('p1', 'first')
    (found,) = gallery.search(faces(1), k=k)
    assert [candidate.name for candidate in found.candidates] == ['first', *names[2:]][:k]


def test_cosines_stay_within_1() -> None:
    rows = faces(300, 512).astype(np.float32)
    gallery = FaceGallery(OURS)
    gallery.enrol([str(number) for number in range(300)], rows)
    best = [found.candidates[0].cosine for found in gallery.search(rows)]
    assert best == [1.0] * 300
    assert [found.candidates[-1].cosine for found in gallery.search(-rows[:5], k=300)] == [-1.0] * 5


@pytest.mark.parametrize('scale', [1e-30, 1e-300, 1e200, 1.0])
def test_the_length_of_an_embedding_does_not_count(scale: float) -> None:
    gallery = gallery_of(20)
    gallery.enrol('scaled', faces(1, seed=8) * scale)
    (found,) = gallery.search(faces(1, seed=8))
    assert found.candidates[0] == ('scaled', 1.0)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 0.0])
def test_embeddings_that_cannot_be_compared_are_refused_by_name(value: float) -> None:
    gallery = gallery_of(3)
    rows = faces(4)
    rows[2] = value
    what = 'has the length 0' if value == 0 else 'is not finite'
    with pytest.raises(GalleryError, match=rf"1 of 4 embeddings .*image 2 \('c'\) {what}"):
        gallery.enrol(['a', 'b', 'c', 'd'], rows)
    assert gallery.names == ('p0', 'p1', 'p2')
    with pytest.raises(GalleryError, match=f'query 2 {what}'):
        gallery.search(rows)


@pytest.mark.parametrize('name', [-1, 7, 1.5, None, '', ' ', UNKNOWN, b'ann'])
def test_names_that_cannot_be_kept_are_refused(name: Any) -> None:
    gallery = gallery_of(2)
    with pytest.raises(GalleryError, match='a name must be a text|who are not enrolled'):
        gallery.enrol(['good', name], faces(2))
    with pytest.raises(GalleryError, match='a name must be a text|who are not enrolled'):
        gallery.rename('p0', name)
    assert gallery.names == ('p0', 'p1') and 'good' not in gallery


def test_the_text_minus_1_is_a_name_like_any_other() -> None:
    pytest.importorskip('faiss')
    gallery = FaceGallery(OURS, index='ivf')
    gallery.enrol(['-1', '0'], np.eye(2))
    assert [found.name for found in gallery.search(np.eye(2))] == ['-1', '0']
    (found,) = gallery.search([[0.0, 1.0]], k=9)
    assert [candidate.name for candidate in found.candidates] == ['0', '-1']


def test_a_name_twice_is_one_identity_and_is_removed_once() -> None:
    gallery = gallery_of(3, pooling='best')
    gallery.enrol(['p1', 'p1'], faces(2, seed=4))
    assert gallery.images == {'p0': 1, 'p1': 3, 'p2': 1} and len(gallery) == 3
    assert gallery.remove('p1') == 3 and 'p1' not in gallery
    with pytest.raises(GalleryError, match="'p1' is not enrolled; the gallery has 2 identities"):
        gallery.remove('p1')
    gallery.enrol('p1', faces(1, seed=4))
    assert gallery.names == ('p0', 'p2', 'p1')


@pytest.mark.parametrize('index', ['flat', 'ivf', 'hnsw'])
def test_removals_misname_nobody(index: Any) -> None:
    if index != 'flat':
        pytest.importorskip('faiss')
    gallery = gallery_of(300, index=index, effort=1000)
    gallery.search(faces(1))
    for number in range(0, 300, 7):  # few enough that the index is not made anew
        gallery.remove(f'p{number}')
    found = gallery.search(faces(300), threshold=0.999)
    assert [each.name for each in found] == [
        UNKNOWN if number % 7 == 0 else f'p{number}' for number in range(300)
    ]
    gallery.compact()
    assert gallery.search(faces(300), threshold=0.999) == found


def test_rename_keeps_the_images_and_refuses_a_name_in_use() -> None:
    gallery = gallery_of(3)
    gallery.rename('p1', 'eve')
    assert gallery.names == ('p0', 'eve', 'p2')
    assert gallery.search(faces(3))[1].name == 'eve'
    with pytest.raises(GalleryError, match="'p2' is enrolled already"):
        gallery.rename('eve', 'p2')
    with pytest.raises(GalleryError, match="'p1' is not enrolled"):
        gallery.rename('p1', 'new')
    assert gallery.names == ('p0', 'eve', 'p2')


@pytest.mark.parametrize('pooling', ['mean', 'best'])
def test_merging_equals_enrolling_together(pooling: Any) -> None:
    first, second, together = (FaceGallery(OURS, pooling=pooling) for _ in range(3))
    names, rows = [f'p{number % 6}' for number in range(20)], faces(20)
    first.enrol(names[:9], rows[:9])
    second.enrol(names[9:] + ['new'], np.concatenate([rows[9:], faces(1, seed=7)]))
    together.enrol([*names, 'new'], np.concatenate([rows, faces(1, seed=7)]))
    before = first.images
    with pytest.raises(GalleryError, match="6 names are in both .*shared='join'"):
        first.merge(second)
    assert first.images == before
    first.merge(second, shared='join')
    assert first.images == together.images
    for one, other in zip(
        first.search(faces(9, seed=2), k=7), together.search(faces(9, seed=2), k=7), strict=True
    ):
        assert [each.name for each in one.candidates] == [each.name for each in other.candidates]
        assert [each.cosine for each in one.candidates] == pytest.approx(
            [each.cosine for each in other.candidates], abs=2e-6
        )


def test_another_recogniser_is_refused_with_both_identifiers() -> None:
    gallery, other = gallery_of(2), FaceGallery('sha256:2')
    both = "of the recogniser 'sha256:2', but the gallery is of 'sha256:1'"
    with pytest.raises(GalleryError, match=both):
        gallery.enrol('a', faces(1), recogniser='sha256:2')
    with pytest.raises(GalleryError, match=both):
        gallery.search(faces(1), recogniser='sha256:2')
    with pytest.raises(GalleryError, match=both):
        gallery.merge(other)
    with pytest.raises(GalleryError, match='5 numbers, those of the gallery 8'):
        gallery.search(faces(1, 5))
    assert gallery.names == ('p0', 'p1')


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        (dict(pooling='max'), "pooling must be 'mean' or 'best', got 'max'"),
        (dict(index='lsh'), "index must be 'auto', .* got 'lsh'"),
        (dict(effort=0), 'effort must be at least 1 or None, got 0'),
        (dict(recogniser=''), "recogniser must be a text that is not empty, got ''"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(GalleryError, match=named):
        FaceGallery(**{'recogniser': OURS, **options})


def test_bad_searches_are_named() -> None:
    gallery = gallery_of(2)
    with pytest.raises(GalleryError, match='k must be at least 1, got 0'):
        gallery.search(faces(1), k=0)
    with pytest.raises(GalleryError, match=r'a cosine in \[-1, 1\], got 2'):
        gallery.search(faces(1), threshold=2)
    with pytest.raises(GalleryError, match=r'shape \(8,\) .*embedding\[None\]'):
        gallery.search(faces(1)[0])
    with pytest.raises(GalleryError, match='there are 2 names and 1 embeddings'):
        gallery.enrol(['a', 'b'], faces(1))
    with pytest.raises(GalleryError, match="of 'a' point in opposite directions"):
        gallery.enrol('a', [[1.0] * 8, [-1.0] * 8])
    assert 'a' not in gallery


def test_rows_of_many_segments_are_those_of_one_table() -> None:
    rows, table = Rows(), faces(200).astype(np.float32)
    for start, stop in zip([0, 1, 2, 90, 93], [1, 2, 90, 93, 200], strict=True):
        rows.append(table[start:stop])
    index = np.random.default_rng(0).permutation(200)
    np.testing.assert_array_equal(rows.take(index), table[index])
    joined = np.concatenate([block for _, block in rows.blocks(7)])
    np.testing.assert_array_equal(joined, table)
    assert [start for start, _ in rows.blocks(1000)][0] == 0 and len(rows.segments) < 4


def test_an_identifier_follows_the_contents_of_the_files(tmp_path: Any) -> None:
    for name, content in (('a', b'1'), ('b', b'1'), ('c', b'2')):
        (tmp_path / name).write_bytes(content)
    a, b, c = (recogniser_id([tmp_path / name]) for name in 'abc')
    assert a == b != c and a.startswith('sha256:')
    assert recogniser_id([tmp_path / 'a', tmp_path / 'c']) not in (a, c)
    with pytest.raises(GalleryError, match='absent: cannot be read'):
        recogniser_id([tmp_path / 'absent'])
