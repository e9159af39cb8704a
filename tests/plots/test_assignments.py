"""Figures of label assignment."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet_ext.plots.assignments import ImageAssignment, LevelAssignment, draw_assignments


def test_each_row_is_drawn_on_its_own_image(tmp_path: Path) -> None:
    level = LevelAssignment(np.zeros((0, 2)), np.zeros(0, dtype=np.int64))
    row = ImageAssignment('title', np.zeros((0, 4)), (level,))
    wide, square = np.zeros((40, 80, 3), np.uint8), np.zeros((80, 80, 3), np.uint8)
    wide[..., 0] = square[..., 2] = 255
    draw_assignments([wide, square], [row, row], tmp_path / 'x.png')
    shown = cv2.imread(str(tmp_path / 'x.png'))[..., ::-1].astype(int)
    (red, _), (blue, _) = (
        np.nonzero((shown[..., one] == 255) & (shown[..., other] < 150))
        for one, other in ((0, 2), (2, 0))
    )
    assert red.max() < blue.min()
    assert np.ptp(blue) == pytest.approx(2 * np.ptp(red), rel=0.05)
