"""Work of the page: consent, searches, deletion from memory and files, one change at a time."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdet_ext.face.gallery import FaceGallery, GalleryError
from mmdet_ext.face.page import ConsentError, FaceDesk, Limits, RefusedImageError
from mmdet_ext.face.recognition import DetectedFace, FaceRecognizer
from tests.face.page.made import THRESHOLD, PixelEmbedder, draw_face, write_face


def new_desk(folder: Path, **options: Any) -> FaceDesk:
    recognizer = FaceRecognizer(PixelEmbedder(), threshold=THRESHOLD, **options)
    return FaceDesk(recognizer, folder / 'people.gallery')


@pytest.fixture
def desk(tmp_path: Path) -> FaceDesk:
    return new_desk(tmp_path)


def contents(desk: FaceDesk) -> bytes:
    """Return all bytes and all names in the folder of the gallery."""
    files = [path for path in desk.folder.rglob('*') if path.is_file()]
    return b''.join(path.name.encode() + path.read_bytes() for path in files)


def vectors(desk: FaceDesk, *images: np.ndarray) -> list[bytes]:
    """Return the bytes of the embeddings of images, of length 1 as a gallery holds them."""
    rows = desk.recognizer.embedder.embed_crops(list(images)).astype(np.float64)
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return [row.tobytes() for row in unit]


def test_enrolled_people_are_found_and_others_unknown(desk: FaceDesk, tmp_path: Path) -> None:
    for name, identity in (('ann', 1), ('bob', 2)):
        done = desk.enrol(name, [write_face(tmp_path, f'{name}.png', identity)], consent=True)
        assert (done.name, done.images, done.refused) == (name, 1, ())
    third, stranger = write_face(tmp_path, 'c.png', 2, 7), write_face(tmp_path, 'd.png', 3)
    assert [face.name for face in desk.search(third).faces] == ['bob']
    assert [face.name for face in desk.search(stranger).faces] == ['unknown']
    assert FaceGallery.open(desk.folder).names == ('ann', 'bob')
    assert new_desk(tmp_path).people() == {'ann': 1, 'bob': 1}


@pytest.mark.parametrize('consent', [False, None, 1, 'yes'])
def test_without_consent_nothing_is_read_and_nothing_stored(
    desk: FaceDesk, tmp_path: Path, consent: Any
) -> None:
    with pytest.raises(ConsentError, match='nobody is enrolled without consent: tick the box'):
        desk.enrol('ann', [tmp_path / 'absent.png'], consent)
    assert not desk.folder.exists() and desk.people() == {}


def test_a_deleted_person_is_in_no_file_and_in_no_search(desk: FaceDesk, tmp_path: Path) -> None:
    name, images = 'Änna Müller', [draw_face(1, 0), draw_face(2, 0)]
    desk.enrol(name, [write_face(tmp_path, 'a.png', 1)], consent=True)
    desk.enrol('bob', [write_face(tmp_path, 'b.png', 2)], consent=True)
    for identity in range(3, 9):  # so many that a save alone would keep what was removed
        desk.enrol(f'p{identity}', [write_face(tmp_path, 'c.png', identity)], consent=True)
    anna, bob = vectors(desk, *images)
    before = contents(desk)
    assert name.encode() in before and anna in before and bob in before
    assert desk.remove(name) == 1
    after = contents(desk)
    assert name.encode() not in after and b'M\\u00fcller' not in after and anna not in after
    assert b'bob' in after and bob in after
    rows = desk.recognizer.gallery._people.rows
    assert len(rows) == 7 and anna not in np.asarray(rows.take(np.arange(7))).tobytes()
    (face,) = desk.search(write_face(tmp_path, 'again.png', 1, 5)).faces
    assert face.name == 'unknown' and name not in [each.name for each in face.candidates]


def test_the_last_person_can_be_deleted_and_enrolled_again(desk: FaceDesk, tmp_path: Path) -> None:
    image = write_face(tmp_path, 'a.png', 1)
    desk.enrol('ann', [image], consent=True)
    assert desk.remove('ann') == 1 and desk.people() == {}
    assert vectors(desk, draw_face(1))[0] not in contents(desk) and b'ann' not in contents(desk)
    assert new_desk(tmp_path).people() == {}
    assert [face.name for face in desk.search(image).faces] == ['unknown']
    desk.enrol('ann', [image], consent=True)
    assert new_desk(tmp_path).people() == {'ann': 1}


def test_no_image_is_stored(desk: FaceDesk, tmp_path: Path) -> None:
    image = write_face(tmp_path, 'a.png', 1)
    desk.enrol('ann', [image], consent=True)
    stored = contents(desk)
    assert image.read_bytes()[:64] not in stored and b'a.png' not in stored
    assert draw_face(1).tobytes()[:64] not in stored and len(stored) < 5000


def test_images_that_cannot_be_used_are_named(desk: FaceDesk, tmp_path: Path) -> None:
    good, bad = write_face(tmp_path, 'good.png', 1), tmp_path / 'bad.png'
    bad.write_bytes(b'text')
    done = desk.enrol('ann', [bad, good], consent=True)
    assert done.images == 1
    assert [name for name, _ in done.refused] == ['bad.png']
    assert done.refused[0][1].startswith('bad.png is no image')
    done = desk.enrol('bob', [bad], consent=True)
    assert done.images == 0 and desk.people() == {'ann': 1}


def test_two_faces_in_an_image_to_enrol_are_refused(tmp_path: Path) -> None:
    def two(image: np.ndarray, /) -> list[DetectedFace]:
        return [DetectedFace((0, 0, 80, 160), 0.9), DetectedFace((80, 0, 160, 160), 0.9)]

    desk = new_desk(tmp_path, detector=two)
    done = desk.enrol('ann', [write_face(tmp_path, 'pair.png', 1)], consent=True)
    assert done.images == 0 and desk.people() == {}
    ((name, reason),) = done.refused
    assert name == 'pair.png' and '2 faces were found' in reason
    assert not desk.folder.exists()


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('', 'a name has 1 to 100 letters, got 0'),
        ('  ', 'a name has 1 to 100 letters, got 0'),
        ('x' * 101, 'got 101'),
        ('a\nb', 'letters that cannot be seen'),
        ('a\u202eb', 'letters that cannot be seen'),
        ('unknown', "'unknown' is the result for people who are not enrolled"),
    ],
)
def test_names_that_cannot_be_used_are_refused(
    desk: FaceDesk, tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(GalleryError, match=message):
        desk.enrol(name, [write_face(tmp_path, 'a.png', 1)], consent=True)
    assert desk.people() == {}


def test_two_spellings_of_a_letter_are_one_name(desk: FaceDesk, tmp_path: Path) -> None:
    image = write_face(tmp_path, 'a.png', 1)
    desk.enrol('A\u0308nna', [image], consent=True)
    desk.enrol(' \u00c4nna ', [image], consent=True)
    assert desk.people() == {'\u00c4nna': 2}


def test_numbers_of_images_are_limited(tmp_path: Path) -> None:
    desk = FaceDesk(FaceRecognizer(PixelEmbedder()), tmp_path / 'g', Limits(max_files=1))
    image = write_face(tmp_path, 'a.png', 1)
    with pytest.raises(RefusedImageError, match='2 images are more than the 1'):
        desk.enrol('ann', [image, image], consent=True)
    with pytest.raises(RefusedImageError, match='there is no image'):
        desk.enrol('ann', [], consent=True)


def test_a_change_that_cannot_be_saved_is_undone(
    desk: FaceDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = write_face(tmp_path, 'a.png', 1)
    desk.enrol('ann', [image], consent=True)

    def full(self: FaceGallery, folder: Path) -> None:
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(FaceGallery, 'save', full)
        for change in (lambda: desk.enrol('bob', [image], True), lambda: desk.remove('ann')):
            with pytest.raises(GalleryError, match='No space left on device.*nothing was changed'):
                change()
            assert desk.people() == {'ann': 1}
    assert [face.name for face in desk.search(image).faces] == ['ann']


def test_a_change_of_another_process_is_noticed_and_taken_over(
    desk: FaceDesk, tmp_path: Path
) -> None:
    image = write_face(tmp_path, 'a.png', 1)
    desk.enrol('ann', [image], consent=True)
    new_desk(tmp_path).enrol('bob', [write_face(tmp_path, 'b.png', 2)], consent=True)
    with pytest.raises(GalleryError, match='was saved by another process'):
        desk.remove('ann')
    assert desk.people() == {'ann': 1, 'bob': 1}
    assert desk.remove('ann') == 1


def test_a_person_who_is_not_enrolled_cannot_be_deleted(desk: FaceDesk) -> None:
    with pytest.raises(GalleryError, match="'eve' is not enrolled"):
        desk.remove('eve')


def test_requests_run_one_after_the_other(
    desk: FaceDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = write_face(tmp_path, 'a.png', 1)
    inside, most, guard = [0], [0], threading.Lock()
    original = PixelEmbedder.embed_crops

    def watched(self: PixelEmbedder, crops: Any, /) -> np.ndarray:
        with guard:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        rows = original(self, crops)
        with guard:
            inside[0] -= 1
        return rows

    monkeypatch.setattr(PixelEmbedder, 'embed_crops', watched)
    threads = [
        threading.Thread(target=desk.enrol, args=(f'person {k}', [image], True)) for k in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert desk.people() == new_desk(tmp_path).people() == {f'person {k}': 1 for k in range(8)}
