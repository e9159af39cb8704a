"""Tests of the figure of a confusion matrix, on the pixels of the file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet_ext.plots.confusion import NAMES_UP_TO, draw_confusion

DARKEST = (107, 48, 8)  # BGR, a share of 1
GREY = (221, 221, 221)  # the row of a class without ground truth


def drawn(counts: list[list[int]], path: Path) -> np.ndarray:
    classes = [f'class {k}' for k in range(len(counts))]
    draw_confusion(classes, np.array(counts), path)
    return cv2.imread(str(path))


def places(image: np.ndarray, colour: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Return x, y and the area of each large area of a colour, from left to right."""
    mask = (np.abs(image.astype(int) - colour).max(axis=2) <= 2).astype(np.uint8)
    _, _, stats, centres = cv2.connectedComponentsWithStats(mask, connectivity=4)
    found = [
        (round(x), round(y), int(row[cv2.CC_STAT_AREA]))
        for row, (x, y) in zip(stats[1:], centres[1:], strict=True)
        if row[cv2.CC_STAT_AREA] > 4000
    ]
    return sorted(found)


def test_rows_are_the_ground_truth_and_columns_the_predictions(tmp_path: Path) -> None:
    image = drawn([[5, 0, 0], [0, 0, 900], [0, 70, 0]], tmp_path / 'a.png')
    cells = places(image, DARKEST)[:3]  # the end of the colour bar is smaller
    assert len(cells) == 3
    (x0, y0, _), (x1, y1, _), (x2, y2, _) = cells
    side = x1 - x0
    assert x2 - x1 == pytest.approx(side, abs=4)
    # Class 0 is right; class 1 is predicted as 2, in the last column, and class 2 as 1.
    assert y1 - y0 == pytest.approx(2 * side, abs=4) and y2 - y0 == pytest.approx(side, abs=4)


def test_the_row_of_a_class_without_ground_truth_is_grey(tmp_path: Path) -> None:
    whole = drawn([[5, 1], [2, 9]], tmp_path / 'a.png')
    lacking = drawn([[5, 1], [0, 0]], tmp_path / 'b.png')
    assert not places(whole, GREY)
    ((_, y, area),) = places(lacking, GREY)
    assert y > lacking.shape[0] / 2 and area > 2 * 4000


@pytest.mark.parametrize('classes', [1, 12, 13, 31, NAMES_UP_TO + 1])
def test_any_number_of_classes_is_drawn(classes: int, tmp_path: Path) -> None:
    image = drawn(np.eye(classes, dtype=int).tolist(), tmp_path / 'a.png')
    assert 500 < image.shape[0] < image.shape[1] + 200 < 2800
    dark = (np.abs(image.astype(int) - DARKEST).max(axis=2) <= 2).sum()
    assert dark > 1000


def test_names_that_do_not_fit_the_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'2 classes make a table of \(2, 2\), got \(3, 3\)'):
        draw_confusion(['a', 'b'], np.eye(3, dtype=int), tmp_path / 'a.png')
    assert not list(tmp_path.iterdir())
