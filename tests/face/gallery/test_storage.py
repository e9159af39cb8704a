"""Folder of a gallery: saving, opening, errors in the middle of a save, readers beside a writer."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdet_ext.face.gallery import FaceGallery, GalleryError, storage
from mmdet_ext.face.gallery.index import ApproximateIndex
from mmdet_ext.face.gallery.storage import MANIFEST

Array = np.ndarray[Any, Any]
DIM = 8


def faces(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, DIM))


def made(count: int = 20, **options: Any) -> FaceGallery:
    gallery = FaceGallery('r', **options)
    gallery.enrol([f'p{number}' for number in range(count)], faces(count))
    return gallery


def state(gallery: FaceGallery) -> tuple[Any, ...]:
    return gallery.images, gallery.search(faces(9, seed=5), k=50)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the wait for the disk, which no test can see."""
    monkeypatch.setattr(os, 'fsync', lambda file: None)


@pytest.mark.parametrize('pooling', ['mean', 'best'])
@pytest.mark.parametrize('index', ['flat', 'ivf', 'hnsw'])
def test_an_opened_gallery_equals_the_saved_one(index: Any, pooling: Any, tmp_path: Path) -> None:
    if index != 'flat':
        pytest.importorskip('faiss')
    gallery = made(pooling=pooling, index=index, effort=77)
    gallery.search(faces(1))
    for step in range(3):
        gallery.enrol([f'p{step}', f'new{step}'], faces(2, seed=step + 1))
        gallery.remove(f'p{step + 10}')
        gallery.rename(f'new{step}', f'of step {step}, "é"\n')
        gallery.save(tmp_path)
        opened = FaceGallery.open(tmp_path, recogniser='r')
        assert state(opened) == state(gallery) and opened.names == gallery.names
        assert (opened.pooling, opened.index, opened.effort) == (pooling, index, 77)
        gallery = opened
    assert len(files(tmp_path)) <= 9  # old files are gone


def test_few_files_hold_many_saves(tmp_path: Path) -> None:
    gallery = made(1)
    for step in range(20):
        gallery.enrol(f'new{step}', faces(1, seed=step))
        gallery.save(tmp_path)
    assert len([name for name in files(tmp_path) if name.startswith('rows')]) <= 6
    assert state(FaceGallery.open(tmp_path)) == state(gallery)


def test_what_is_removed_leaves_the_files_by_compact(tmp_path: Path) -> None:
    gallery = made(20)
    row = gallery._people.rows.take(np.array([3])).tobytes()

    def kept() -> bool:
        return any(row in path.read_bytes() for path in tmp_path.glob('rows-*'))

    gallery.save(tmp_path)
    gallery.remove('p3')
    gallery.save(tmp_path)
    assert kept()
    gallery.compact()
    gallery.save(tmp_path)
    assert not kept() and len(FaceGallery.open(tmp_path)) == 19


class Stop(Exception):
    """An error that nothing catches, in place of the end of the process."""


def stop_at(monkeypatch: pytest.MonkeyPatch, name: str, call: int) -> list[int]:
    """Let the given call of a function of ``os`` or of the storage raise, after half its work."""
    where: Any = storage if hasattr(storage, name) else os
    real, calls = getattr(where, name), [0]

    def stopping(*given: Any) -> Any:
        calls[0] += 1
        if calls[0] != call:
            return real(*given)
        if name in ('_write_json', '_write_rows'):
            real(*given)
            os.truncate(given[0], os.path.getsize(given[0]) // 2)
        raise Stop(f'{name} {call}')

    monkeypatch.setattr(where, name, stopping)
    return calls


STEPS = [
    *[('_write_rows', 1), ('_write_json', 1), ('_write_json', 2)],
    *[('_sync', call) for call in range(1, 8)],
    *[('replace', 1), ('remove_old_files', 1)],
]


@pytest.mark.parametrize(('name', 'call'), STEPS)
def test_an_end_in_the_middle_of_a_save_loses_nothing(name: str, call: int, tmp_path: Path) -> None:
    pytest.importorskip('faiss')
    gallery = made(index='ivf')
    gallery.search(faces(1))
    gallery.save(tmp_path)
    old = state(gallery)
    gallery.remove('p2')
    gallery.enrol(['p1', 'new'], faces(2, seed=3))
    gallery.enrol([f'more{number}' for number in range(30)], faces(30, seed=4))
    new = state(gallery)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, name, call)
        with pytest.raises(Stop):
            gallery.save(tmp_path)
    # Each step before the renaming leaves the old state, each step after it the new one.
    switched = (name, call) in [('_sync', 7), ('remove_old_files', 1)]
    assert state(FaceGallery.open(tmp_path)) == (new if switched else old)
    # Another process goes on from what is there, and its files replace those of the broken save.
    again = FaceGallery.open(tmp_path)
    again.enrol('later', faces(1, seed=6))
    again.save(tmp_path)
    assert state(FaceGallery.open(tmp_path)) == state(again)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert files(tmp_path) == {*manifest['sizes'], MANIFEST, 'lock'}


def test_the_same_gallery_saves_again_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = made()
    gallery.save(tmp_path)
    gallery.enrol('new', faces(1, seed=3))
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 'replace', 1)
        with pytest.raises(Stop):
            gallery.save(tmp_path)
    gallery.save(tmp_path)
    assert state(FaceGallery.open(tmp_path)) == state(gallery)


def test_a_reader_keeps_what_it_opened(tmp_path: Path) -> None:
    writer = made()
    writer.save(tmp_path)
    reader = FaceGallery.open(tmp_path)
    before = state(reader)
    for step in range(5):
        writer.enrol([f'p{number}' for number in range(20)], faces(20, seed=step + 1))
        writer.save(tmp_path)
        assert state(reader) == before


def test_opening_during_a_save_gives_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two steps of a reader a writer saves: it opens one state, and no mixture."""
    writer = made(pooling='best')
    writer.save(tmp_path)
    states = [state(writer)]
    real, saves = storage._arrays, [0]

    def save_first(path: Path) -> Any:
        if saves[0] < 3:
            saves[0] += 1
            writer.compact()
            writer.enrol(f'new{saves[0]}', faces(1, seed=saves[0] + 1))
            monkeypatch.setattr(storage, '_arrays', real)
            writer.save(tmp_path)
            states.append(state(writer))
            monkeypatch.setattr(storage, '_arrays', save_first)
        return real(path)

    monkeypatch.setattr(storage, '_arrays', save_first)
    opened = FaceGallery.open(tmp_path)
    assert saves[0] == 3 and state(opened) == states[-1]


def test_of_two_writers_the_second_is_refused(tmp_path: Path) -> None:
    made().save(tmp_path)
    first, second = FaceGallery.open(tmp_path), FaceGallery.open(tmp_path)
    first.enrol('a', faces(1))
    first.save(tmp_path)
    second.enrol('b', faces(1))
    with pytest.raises(GalleryError, match='save 2; opened at save 1.*open it again'):
        second.save(tmp_path)
    assert 'a' in FaceGallery.open(tmp_path)
    second.save(tmp_path / 'copy')
    assert 'b' in FaceGallery.open(tmp_path / 'copy')


def test_the_files_of_a_later_save_are_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process opens and saves between the renaming and the removal of old files."""
    gallery, real, later = made(), storage.remove_old_files, []

    def other_first(saved: storage.Saved) -> None:
        monkeypatch.setattr(storage, 'remove_old_files', real)
        later.append(FaceGallery.open(tmp_path))
        later[0].enrol([f'more{number}' for number in range(50)], faces(50, seed=1))
        later[0].save(tmp_path)
        real(saved)

    monkeypatch.setattr(storage, 'remove_old_files', other_first)
    gallery.save(tmp_path)
    assert len(FaceGallery.open(tmp_path)) == 70
    assert state(FaceGallery.open(tmp_path)) == state(later[0])


def test_a_save_beside_another_is_refused(tmp_path: Path) -> None:
    pytest.importorskip('fcntl')
    gallery = made()
    with storage._locked(tmp_path), pytest.raises(GalleryError, match='another process saves'):
        gallery.save(tmp_path)
    gallery.save(tmp_path)


def test_folders_of_other_contents_are_refused(tmp_path: Path) -> None:
    (tmp_path / 'letter.txt').write_text('dear')
    with pytest.raises(GalleryError, match=r'holds other files \(letter.txt\)'):
        made().save(tmp_path)
    assert files(tmp_path) == {'letter.txt'}
    made().save(tmp_path / 'one')
    with pytest.raises(GalleryError, match='holds a gallery already'):
        made().save(tmp_path / 'one')
    with pytest.raises(GalleryError, match='there is no gallery'):
        FaceGallery.open(tmp_path / 'absent')


def test_another_recogniser_is_refused_when_opening(tmp_path: Path) -> None:
    made().save(tmp_path)
    with pytest.raises(GalleryError, match="of the recogniser 's', but the gallery is of 'r'"):
        FaceGallery.open(tmp_path, recogniser='s')


@pytest.mark.parametrize(
    ('pattern', 'named'),
    [
        ('rows-*', r'rows-000001.npy has \d+ bytes, expected \d+: it is damaged'),
        ('table-*', r'table-000001.npz has \d+ bytes'),
        ('names-*', r'names-000001.json has \d+ bytes'),
        (MANIFEST, r'gallery.json cannot be read'),
    ],
)
def test_damaged_files_are_named(pattern: str, named: str, tmp_path: Path) -> None:
    made().save(tmp_path)
    (path,) = tmp_path.glob(pattern)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(GalleryError, match=named):
        FaceGallery.open(tmp_path)
    path.unlink()
    with pytest.raises(GalleryError, match='absent'):
        FaceGallery.open(tmp_path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    made().save(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps({**manifest, 'format': 99}))
    with pytest.raises(GalleryError, match='has the format 99, .* reads 1'):
        FaceGallery.open(tmp_path)


def test_an_index_that_cannot_be_read_is_made_anew(tmp_path: Path) -> None:
    pytest.importorskip('faiss')
    gallery = made(index='ivf')
    before = state(gallery)
    gallery.save(tmp_path)
    (path,) = tmp_path.glob('index-*')
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.warns(UserWarning, match='the index is made anew: .*faiss cannot read it'):
        opened = FaceGallery.open(tmp_path)
    assert state(opened) == before


@pytest.mark.parametrize('index', ['ivf', 'hnsw'])
def test_an_opened_gallery_has_the_index_of_all_its_rows(
    index: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('faiss')
    gallery = made(index=index)
    gallery.save(tmp_path)  # without a search
    gallery = FaceGallery.open(tmp_path)
    gallery.remove('p3')
    gallery.compact()
    gallery.save(tmp_path)
    opened = FaceGallery.open(tmp_path)
    monkeypatch.setattr(ApproximateIndex, 'train', None)  # to be called by no search
    monkeypatch.setattr(ApproximateIndex, 'add', None)
    assert state(opened) == state(gallery)


def test_people_are_removed_where_faiss_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('faiss')
    made(index='ivf').save(tmp_path)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, 'faiss', None)
        gallery = FaceGallery.open(tmp_path)
        gallery.remove('p3')
        gallery.compact()
        gallery.save(tmp_path)
        with pytest.raises(GalleryError, match='needs faiss'):
            FaceGallery.open(tmp_path).search(faces(1))
    opened = FaceGallery.open(tmp_path)
    assert 'p3' not in opened and opened.search(faces(20)[4:5])[0].name == 'p4'


def test_an_empty_gallery_is_saved_and_opened(tmp_path: Path) -> None:
    FaceGallery('r').save(tmp_path)
    opened = FaceGallery.open(tmp_path)
    assert len(opened) == 0 and opened.dim is None
    opened.enrol('a', faces(1))
    opened.save(tmp_path)
    opened.remove('a')
    opened.compact()
    opened.save(tmp_path)
    assert len(FaceGallery.open(tmp_path)) == 0
