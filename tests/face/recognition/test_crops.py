"""Crops of faces: aligned by landmarks, squares around boxes, and the rule of norm_crop."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mmdet_ext.data.face.alignment import TEMPLATE, insightface_template, scaled_template
from mmdet_ext.face.recognition import DetectedFace, FaceRecognizer, crop_faces
from mmdet_ext.face.recognition.crops import square_box
from mmdet_ext.face.transforms import AlignFace
from tests.face.recognition.stubs import RED, Colours, scene

FACE = np.array(TEMPLATE)


def smooth(seed: int, size: tuple[int, int] = (200, 260)) -> np.ndarray:
    """Return an image of smooth noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    return cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)


def turned(angle: float, scale: float, centre: tuple[float, float]) -> np.ndarray:
    """Return the landmarks of a face that is turned, scaled and moved."""
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved: np.ndarray = (FACE - 56) @ turn.T + centre
    return moved


def test_a_face_with_landmarks_is_aligned_as_in_training() -> None:
    image, points = smooth(0), turned(0.4, 0.7, (120, 90))
    (crop,) = crop_faces(
        image, [DetectedFace((0, 0, 9, 9), 1.0, points)], (112, 96), scaled_template((96, 112))
    )
    expected = AlignFace(size=(96, 112)).transform({'img': image, 'landmarks': points})['img']
    assert np.array_equal(crop, expected)


def test_a_face_in_place_is_cropped_as_it_is() -> None:
    image = smooth(1, (112, 112))
    (crop,) = crop_faces(image, [DetectedFace((0, 0, 1, 1), 1.0, FACE)], (112, 112), FACE)
    assert np.array_equal(crop, image)


def test_a_box_is_cut_as_a_square_and_what_is_outside_is_black() -> None:
    image = smooth(2)
    (crop,) = crop_faces(image, [DetectedFace((-10, 20, 30, 40), 1.0)], (40, 40), FACE)
    assert not crop[:, :10].any()
    assert np.array_equal(crop[:, 10:], image[10:50, :30])


def test_a_margin_widens_the_square_on_each_side() -> None:
    image = smooth(3)
    face = DetectedFace((60, 50, 100, 90), 1.0)
    (crop,) = crop_faces(image, [face], (60, 60), FACE, margin=0.25)
    assert np.array_equal(crop, image[40:100, 50:110])


def test_a_large_box_shrinks_to_the_mean_of_its_pixels() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[::2] = 200
    (crop,) = crop_faces(image, [DetectedFace((0, 0, 64, 64), 1.0)], (8, 8), FACE)
    assert np.array_equal(crop, np.full((8, 8, 3), 100))


@pytest.mark.parametrize(
    ('box', 'size', 'margin', 'expected'),
    [
        ((10, 20, 30, 60), (112, 112), 0.0, (0, 20, 40, 60)),
        ((10, 20, 30, 60), (112, 112), 0.5, (-20, 0, 60, 80)),
        ((0, 0, 40, 10), (112, 112), 0.0, (0, -15, 40, 25)),
        ((0, 0, 48, 10), (112, 96), 0.0, (0, -23, 48, 33)),
        ((0, 0, 10, 56), (112, 96), 0.0, (-19, 0, 29, 56)),
    ],
)
def test_a_square_has_the_ratio_of_the_crop_around_the_box(
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    margin: float,
    expected: tuple[float, ...],
) -> None:
    assert square_box(box, size, margin) == pytest.approx(expected)


def test_landmarks_that_determine_no_transform_leave_the_box() -> None:
    image, box = smooth(4), (60, 50, 100, 90)
    equal = DetectedFace(box, 1.0, np.ones((5, 2)))
    found, expected = crop_faces(image, [equal, DetectedFace(box, 1.0)], (40, 40), FACE)
    assert np.array_equal(found, expected)


def test_a_box_far_beyond_the_image_needs_no_more_memory() -> None:
    image = smooth(5)
    (crop,) = crop_faces(image, [DetectedFace((-1e9, -1e9, 1e9, 1e9), 1.0)], (8, 8), FACE)
    assert crop.shape == (8, 8, 3)
    assert crop.max() > 0 and not crop[0].any()


def test_a_recogniser_crops_by_its_own_template() -> None:
    image, points = smooth(6), turned(-0.2, 0.9, (100, 100))
    plain = Colours()
    plain.size = (128, 128)
    people = FaceRecognizer(
        plain,
        None,
        lambda image: [DetectedFace((0, 0, 99, 99), 1.0, points)],
        template=insightface_template(128),
    )
    (face,) = people.faces(image)
    (expected,) = crop_faces(
        image,
        [DetectedFace((0, 0, 99, 99), 1.0, points)],
        (128, 128),
        FACE + (8, 0),
    )
    assert np.array_equal(face.crop, expected)
    assert not np.array_equal(face.crop, scene((0, 0, 9, RED), size=(128, 128)))


@pytest.mark.parametrize(
    ('size', 'left_eye', 'nose'),
    [
        (112, (38.2946, 51.6963), (56.0252, 71.7366)),
        (224, (76.5892, 103.3926), (112.0504, 143.4732)),
        (128, (46.2946, 51.6963), (64.0252, 71.7366)),
        (256, (92.5892, 103.3926), (128.0504, 143.4732)),
    ],
)
def test_the_template_follows_the_rule_of_norm_crop(
    size: int, left_eye: tuple[float, float], nose: tuple[float, float]
) -> None:
    points = insightface_template(size)
    np.testing.assert_allclose(points[0], left_eye)
    np.testing.assert_allclose(points[2], nose)


@pytest.mark.parametrize('size', [0, 100, -112, 130])
def test_a_size_without_a_rule_of_norm_crop_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f'multiple of 112 or of 128 px, got {size}'):
        insightface_template(size)


def least_squares(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Solve for the similarity transform as a linear system: another way than the closed form."""
    rows = [[x, -y, 1, 0] for x, y in source] + [[y, x, 0, 1] for x, y in source]
    values = np.concatenate([target[:, 0], target[:, 1]])
    a, b, c, d = np.linalg.lstsq(np.array(rows), values, rcond=None)[0]
    return np.array([[a, -b, c], [b, a, d]])


@pytest.mark.parametrize('size', [112, 128, 224])
@pytest.mark.parametrize('seed', [0, 1, 2, 3])
def test_alignment_equals_the_published_rule_within_one_grey_level(size: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    image = smooth(seed, (300, 400))
    points = turned(generator.normal(0, 0.6), np.exp(generator.normal(0, 0.5)), (200, 150))
    points += generator.normal(0, 2, (5, 2))
    target = FACE * size / 112 if size % 112 == 0 else FACE * size / 128 + (8 * size / 128, 0)
    # float32, as InsightFace's table and landmarks are.
    matrix = least_squares(points.astype(np.float32), target.astype(np.float32))
    expected = cv2.warpAffine(image, matrix, (size, size), borderValue=0.0)
    face = DetectedFace((0, 0, 9, 9), 1.0, points)
    (crop,) = crop_faces(image, [face], (size, size), insightface_template(size))
    assert np.abs(crop.astype(int) - expected).max() <= 1
    assert (crop != expected).mean() < 0.01
