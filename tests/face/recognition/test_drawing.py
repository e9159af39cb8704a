"""Boxes and names on images."""

from __future__ import annotations

import numpy as np
import pytest

from mmdet_ext.face.gallery import Candidate
from mmdet_ext.face.recognition import FaceRecognizer, Recognition
from mmdet_ext.face.recognition.drawing import draw_recognitions
from tests.face.recognition.stubs import Colours

BOX = (40.0, 60.0, 90.0, 120.0)


def named(name: str, similarity: float | None = 0.5, box: tuple[float, ...] = BOX) -> Recognition:
    """Return a face with a name."""
    x1, y1, x2, y2 = box
    points = np.array([[50, 70], [80, 70], [65, 90], [55, 105], [75, 105]], np.float64)
    return Recognition((x1, y1, x2, y2), 0.9, points, name, similarity, (Candidate(name, 0.5),))


def test_a_box_is_drawn_and_the_image_itself_stays() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    drawn = FaceRecognizer(Colours()).draw(image, [named('ann')])
    assert not image.any() and drawn.shape == image.shape
    rows, columns = np.nonzero(drawn[61:].any(2))  # below the label
    assert rows.max() + 61 - 120 in (0, 1) and columns.max() - 90 in (0, 1)
    assert drawn[70, 50].any() and drawn[105, 75].any() and not drawn[80, 65].any()


def test_a_person_has_one_colour_and_unknown_people_are_grey() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    ann, bob, nobody = (
        draw_recognitions(image, [named(name)])[119, 40].tolist()
        for name in ('ann', 'bob', 'unknown')
    )
    assert ann != bob and len(set(nobody)) == 1
    other = draw_recognitions(image, [named('ann', 0.1, (4, 60, 20, 80))])
    assert other[79, 4].tolist() == ann


@pytest.mark.parametrize(
    ('name', 'box', 'size'),
    [
        ('Müller 李雷 with a name that is much wider than the image', (0, 0, 3, 3), (20, 20)),
        ('ann', (-1e12, -5, 1e12, 9), (64, 64)),
        ('ann', (0, 0, 1, 1), (1, 1)),
    ],
)
def test_labels_at_the_border_and_strange_letters_are_drawn(
    name: str, box: tuple[float, ...], size: tuple[int, int]
) -> None:
    image = np.zeros((*size, 3), np.uint8)
    assert draw_recognitions(image, [named(name, None, box)]).any()


def test_nothing_is_drawn_without_faces() -> None:
    image = np.full((9, 9), 7, np.uint8)
    assert (FaceRecognizer(Colours()).draw(image, []) == np.full((9, 9, 3), 7)).all()
