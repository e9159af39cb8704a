"""Recognition of people in images: names, enrolment, faces, and bad input of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import mmdet_ext.face
from mmdet_ext.deploy import ImageError
from mmdet_ext.face.gallery import FaceGallery, GalleryError
from mmdet_ext.face.recognition import DetectedFace, FaceRecognizer, RecognitionError
from tests.face.recognition.stubs import BLUE, GREEN, RED, Colours, find_squares, scene


def recognizer(**options: Any) -> FaceRecognizer:
    """Return a recogniser that finds squares; ann is red and bob green."""
    found = FaceRecognizer(Colours(), None, find_squares, **options)
    found.enrol('ann', scene((10, 10, 20, RED)))
    found.enrol('bob', scene((10, 10, 20, GREEN)))
    return found


def test_it_is_importable_from_the_part_of_faces() -> None:
    assert mmdet_ext.face.FaceRecognizer is FaceRecognizer
    with pytest.raises(AttributeError, match='FaceRecogniser'):
        mmdet_ext.face.FaceRecogniser  # type: ignore[attr-defined]  # noqa: B018


def test_faces_of_a_scene_get_their_names_and_strangers_none() -> None:
    image = scene((5, 5, 20, GREEN), (40, 10, 30, BLUE), (90, 20, 25, RED))
    (faces,) = recognizer().recognize([image])
    assert [face.name for face in faces] == ['bob', 'unknown', 'ann']
    assert [face.box for face in faces] == [(5, 5, 25, 25), (40, 10, 70, 40), (90, 20, 115, 45)]
    assert [face.score for face in faces] == [220 / 255] * 3
    assert faces[0].candidates[0].name == 'bob' and len(faces[0].candidates) == 2
    # The mean colours plus 1: (1, 221, 1) and (1, 1, 221).
    cosine = (221 + 1 + 221) / (1 + 221**2 + 1)
    assert faces[1].similarity == pytest.approx(cosine, abs=2e-6)
    assert faces[0].similarity == faces[2].similarity == 1


def test_a_batch_equals_its_images_and_shares_the_calls_of_the_embedder() -> None:
    images = [
        scene((5, 5, 20, GREEN), (40, 10, 30, RED)),
        scene(),
        scene((9, 9, 11, RED), (50, 9, 14, BLUE)),
    ]
    many = recognizer(batch=3)
    many.embedder.calls.clear()  # type: ignore[attr-defined]
    found = many.recognize(images)
    assert many.embedder.calls == [3, 1]  # type: ignore[attr-defined]
    assert [[face.name for face in each] for each in found] == [
        ['bob', 'ann'],
        [],
        ['ann', 'unknown'],
    ]
    alone = [recognizer().recognize(image)[0] for image in images]
    assert [[f.to_dict() for f in each] for each in found] == [
        [f.to_dict() for f in each] for each in alone
    ]
    assert recognizer().recognize([]) == []


def test_everyone_is_unknown_to_an_empty_gallery() -> None:
    ((face,),) = FaceRecognizer(Colours(), None, find_squares).recognize(scene((1, 1, 9, RED)))
    assert (face.name, face.similarity, face.candidates) == ('unknown', None, ())


@pytest.mark.parametrize(('threshold', 'name'), [(0.009, 'ann'), (0.02, 'unknown')])
def test_a_name_needs_the_threshold(threshold: float, name: str) -> None:
    ((face,),) = recognizer(threshold=threshold).recognize(scene((1, 1, 9, BLUE)))
    assert face.name == name and face.candidates[0].name == 'ann'


def test_faces_below_the_least_score_or_size_or_beside_the_image_are_left_out() -> None:
    faint = scene((5, 5, 20, (0, 0, 100)), (60, 5, 20, RED))
    assert len(recognizer().faces(faint)) == 1
    assert len(recognizer(min_score=0.3).faces(faint)) == 2
    assert len(recognizer(min_size=21).faces(faint)) == 0

    def beside(image: np.ndarray) -> list[DetectedFace]:
        return [DetectedFace((500, 5, 520, 25), 1.0), DetectedFace((20, 5, 20, 9), 1.0)]

    assert FaceRecognizer(Colours(), None, beside).faces(faint) == []


def test_the_largest_face_alone_counts_if_that_is_wanted() -> None:
    image = scene((5, 5, 20, GREEN), (40, 10, 30, RED), (90, 5, 10, BLUE))
    ((face,),) = recognizer(largest_only=True).recognize(image)
    assert face.name == 'ann'


def test_an_image_is_one_face_as_it_is_where_there_is_no_detector() -> None:
    people = FaceRecognizer(Colours())
    image = scene((0, 0, 40, RED), size=(40, 60))
    (face,) = people.faces(image)
    assert face.box == (0, 0, 60, 40) and face.landmarks is None and face.score == 1
    assert np.array_equal(face.crop, image)
    np.testing.assert_allclose(face.embedding, [1, 1, 1 + 220 * 40 / 60])


def test_enrolment_reports_each_image_that_has_no_single_face(tmp_path: Path) -> None:
    people = FaceRecognizer(Colours(), None, find_squares)
    good, empty = tmp_path / 'good.png', tmp_path / 'empty.png'
    cv2.imwrite(str(good), scene((5, 5, 20, RED)))
    empty.write_bytes(b'')
    done = people.enrol(
        'ann',
        [good, scene(), scene((5, 5, 20, RED), (60, 5, 20, RED)), empty, tmp_path / 'absent.jpg'],
    )
    assert done.images == (str(good),) and len(done.faces) == 1
    assert [each.image for each in done.refused] == [
        'image 1',
        'image 2',
        str(empty),
        str(tmp_path / 'absent.jpg'),
    ]
    reasons = [each.reason for each in done.refused]
    assert reasons[0] == 'no face was found' and reasons[1].startswith('2 faces were found')
    assert 'is empty' in reasons[2] and 'cannot be read' in reasons[3]
    assert people.gallery.images == {'ann': 1}
    assert done.to_dict()['refused'][0] == {'image': 'image 1', 'reason': 'no face was found'}


def test_nothing_is_enrolled_where_no_image_can_be_used() -> None:
    people = FaceRecognizer(Colours(), None, find_squares)
    done = people.enrol('ann', [scene(), scene()])
    assert done.images == () and len(done.refused) == 2 and 'ann' not in people.gallery


def test_several_images_of_one_person_are_pooled() -> None:
    people = FaceRecognizer(Colours(), None, find_squares)
    people.enrol('ann', [scene((1, 1, 9, RED)), scene((1, 1, 9, GREEN))])
    people.enrol('ann', scene((1, 1, 9, RED)))
    assert people.gallery.images == {'ann': 3}
    ((red,), (green,)) = people.recognize([scene((1, 1, 9, RED)), scene((1, 1, 9, GREEN))])
    # Mean of two unit vectors of red and one of green, nearly at right angles: (2, 1) / sqrt(5).
    assert red.similarity == pytest.approx(2 / 5**0.5, abs=0.01)
    assert green.similarity == pytest.approx(1 / 5**0.5, abs=0.01)


@pytest.mark.parametrize('name', ['unknown', '', 3])
def test_a_name_that_cannot_be_enrolled_is_refused(name: Any) -> None:
    with pytest.raises(GalleryError):
        recognizer().enrol(name, scene((1, 1, 9, RED)))


GREY = scene((0, 0, 30, (200, 200, 200)), size=(30, 30))


@pytest.mark.parametrize(
    'image',
    [
        GREY[..., 0],
        GREY[..., :1],
        np.dstack([GREY, np.zeros((30, 30), np.uint8)]),
        GREY[:, ::-1],
        np.asfortranarray(GREY),
        GREY[:1, :1],
    ],
    ids=['grey', 'one channel', 'transparent', 'negative stride', 'Fortran order', '1 x 1'],
)
def test_images_of_every_form_are_read_alike(image: np.ndarray) -> None:
    (face,) = FaceRecognizer(Colours(), None, find_squares).faces(image)
    np.testing.assert_allclose(face.embedding, [201] * 3)


@pytest.mark.parametrize('form', ['grey', 'transparent', 'deep', 'pixel'])
def test_files_of_every_form_are_read_alike(form: str, tmp_path: Path) -> None:
    alpha = np.dstack([GREY, np.full((30, 30), 7, np.uint8)])
    deep = GREY.astype(np.uint16) * 257
    image = {'grey': GREY[..., 0], 'transparent': alpha, 'deep': deep, 'pixel': GREY[:1, :1]}[form]
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    people = FaceRecognizer(Colours(), None, find_squares)
    if form == 'deep':
        with pytest.warns(UserWarning, match='16 bits'):
            (face,) = people.faces(tmp_path / 'a.png')
    else:
        (face,) = people.faces(tmp_path / 'a.png')
    np.testing.assert_allclose(face.embedding, [201] * 3)


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (None, r'image 1: an image is a path or an array of uint8, got NoneType'),
        (GREY.astype(np.uint16), r'image 1: .*uint16.* 16 bits: \(image // 257\)'),
        (GREY.astype(np.float32), 'image 1: .*float32'),
        (np.zeros((0, 9, 3), np.uint8), r'image 1: .*\(0, 9, 3\)'),
        (np.zeros((4, 4, 2), np.uint8), r'image 1: .*\(4, 4, 2\)'),
        (__file__, r'test_recognizer\.py: the file is no image'),
    ],
    ids=['None', '16 bits', 'floats', 'empty', 'two channels', 'no image'],
)
def test_what_is_no_image_is_refused_by_its_name(image: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        recognizer().recognize([GREY, image])


def test_what_is_no_list_of_images_is_refused() -> None:
    with pytest.raises(ImageError, match='images must be a list of paths or of arrays, got int'):
        recognizer().recognize(3)  # type: ignore[arg-type]


BOX = (1.0, 1.0, 9.0, 9.0)


@pytest.mark.parametrize(
    ('found', 'message'),
    [
        (None, 'image 0: the detector gave NoneType'),
        ([3], 'image 0, face 0: the detector gave 3'),
        ([(BOX, 1.0), ((1, 2, 3), 1.0)], r'image 0, face 1: box \[1.0, 2.0, 3.0\]'),
        ([((1, 2, np.nan, 4), 1.0)], 'four finite numbers'),
        ([(BOX, float('inf'))], 'finite score'),
        ([(BOX, 1.0, np.zeros((4, 2)))], r'landmarks of shape \(4, 2\) must be 5 finite points'),
        ([(BOX, 1.0, np.full((5, 2), np.nan))], 'must be 5 finite points'),
    ],
)
def test_a_detector_that_returns_what_it_must_not_is_named(found: Any, message: str) -> None:
    with pytest.raises(RecognitionError, match=message):
        FaceRecognizer(Colours(), None, lambda image: found).faces(GREY)


def test_an_embedder_that_returns_what_it_must_not_is_named() -> None:
    class Wrong(Colours):
        def embed_crops(self, crops: Any, /) -> np.ndarray:
            return np.zeros((len(crops) + 1, 4))

    with pytest.raises(RecognitionError, match=r'Wrong gave shape \(2, 4\) for 1 crops'):
        FaceRecognizer(Wrong()).faces(GREY)
    with pytest.raises(RecognitionError, match='embedder is object, which has no recogniser'):
        FaceRecognizer(object())  # type: ignore[arg-type]


def test_a_gallery_of_another_recogniser_is_refused() -> None:
    with pytest.raises(GalleryError, match="'another', the embedder is 'mean colour'"):
        FaceRecognizer(Colours(), FaceGallery('another'))


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        ('threshold', 1.1),
        ('threshold', float('nan')),
        ('min_score', -0.1),
        ('margin', -0.5),
        ('min_size', -1),
        ('top_k', 0),
        ('batch', 0),
        ('template', [[1, 2]]),
    ],
)
def test_an_option_out_of_range_is_named(option: str, value: Any) -> None:
    with pytest.raises(RecognitionError, match=option):
        FaceRecognizer(Colours(), **{option: value})
