"""Tests of the figures of pose: what is drawn where, read from the pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet_ext.plots.pose import (
    Connection,
    People,
    draw_fields,
    draw_matching,
    draw_people,
    draw_tags,
)
from mmdet_ext.plots.pose import maps as maps_of_figures
from mmdet_ext.plots.style import COLOURS

IMAGE = np.full((48, 64, 3), 255, np.uint8)
LIMBS = [(0, 1), (1, 2)]


def count(path: Path, colour: str) -> int:
    """Count the pixels of a figure that have a colour."""
    image = cv2.imread(str(path))[..., ::-1].astype(int)
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(image - wanted).max(2) < 12).sum())


def people(number: int) -> People:
    keypoints = np.array([[[10.0, 10], [30, 30], [50, 12]], [[5.0, 40], [20, 44], [60, 40]]])
    return People(keypoints[:number], np.ones((number, 3), bool))


def test_each_person_has_a_colour_and_only_shown_limbs_are_drawn(tmp_path: Path) -> None:
    both, hidden = people(2), people(2)
    hidden.shown[1] = False
    draw_people([IMAGE, IMAGE], [('all', [both, both])], LIMBS, tmp_path / 'both.png')
    draw_people([IMAGE, IMAGE], [('one', [hidden, people(1)])], LIMBS, tmp_path / 'one.png')
    for colour in COLOURS[:2]:
        assert count(tmp_path / 'both.png', colour) > 200
    assert count(tmp_path / 'one.png', COLOURS[0]) == count(tmp_path / 'both.png', COLOURS[0])
    assert count(tmp_path / 'one.png', COLOURS[1]) == 0


def test_an_image_without_people_is_shown(tmp_path: Path) -> None:
    draw_people([IMAGE], [('none', [people(0)])], LIMBS, tmp_path / 'none.png')
    assert cv2.imread(str(tmp_path / 'none.png')) is not None
    assert count(tmp_path / 'none.png', COLOURS[0]) == 0


def test_tags_of_people_have_their_colours(tmp_path: Path) -> None:
    heatmaps = np.zeros((3, 12, 16))
    heatmaps[:, 3:6, 3:6] = 0.9
    tags = np.arange(3 * 12 * 16, dtype=float).reshape(3, 12, 16)
    of_joints = np.array([[0.0, 0.1, 0.2], [3.0, 3.1, 2.9]])
    for number in (0, 1, 2):
        path = tmp_path / f'{number}.png'
        draw_tags(IMAGE, heatmaps, tags, people(number), of_joints[:number], LIMBS, path)
        seen = [count(path, colour) > 300 for colour in COLOURS[:2]]
        assert seen == [number > 0, number > 1]


def test_arrows_point_along_the_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    class Panel:
        def quiver(self, x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray, **_: object):
            drawn.append(np.stack([x, y, u, v], 1))

    field = np.zeros((2, 12, 16))
    field[:, 2, 5], field[:, 7, 1] = (0.6, 0.8), (0.1, 0.1)
    maps_of_figures._arrows(Panel(), field, np.array([4.0, 4.0]), 'red')
    # One vector is long enough; the first cell is at the first pixel.
    np.testing.assert_allclose(drawn[0], [[20, 8, 0.6, 0.8]])
    draw_fields(IMAGE, np.zeros((3, 12, 16)), field[None], ['arm'], tmp_path / 'fields.png')
    assert count(tmp_path / 'fields.png', COLOURS[0]) > 20


def test_kept_connections_stand_out_and_bad_ones_are_absent(tmp_path: Path) -> None:
    first, second = np.array([[8.0, 8], [8, 40]]), np.array([[56.0, 8], [56, 40]])

    def graph(kept: bool, score: float) -> int:
        edges = [Connection((8.0, 8.0), (56.0, 40.0), score, kept)]
        path = tmp_path / f'{kept}{score}.png'
        draw_matching(IMAGE, [('arm', first, second, edges)], path)
        assert min(count(path, colour) for colour in COLOURS[:2]) > 20  # candidates
        return count(path, COLOURS[2])

    assert graph(True, 0.9) > 60
    assert graph(False, 0.9) == 0
    assert graph(True, -0.1) == 0
