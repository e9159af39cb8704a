"""Tests of the parts of figures of images with boxes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet_ext.plots.detection.boxes import image_grid, outline, read_image


def test_a_grid_has_rows_of_columns_without_axes() -> None:
    figure, panels = image_grid(5, 3, 2.0, 1.5, margin=0.5)
    assert tuple(figure.get_size_inches()) == (6.0, 3.5)
    assert len(panels) == 6 and not any(axes.axison for axes in panels)
    narrow, panels = image_grid(2, 3, 2.0, 1.5, margin=0.5)
    assert narrow.get_size_inches()[0] == 4.0 and len(panels) == 2
    with pytest.raises(ValueError, match='there is no image to draw'):
        image_grid(0, 3, 2.0, 1.5, margin=0.5)


def test_an_outline_lies_on_a_wider_white_one() -> None:
    _, (axes,) = image_grid(1, 1, 2.0, 1.5, margin=0.5)
    outline(axes, (3, 4, 10, 20), 'red', '--', thickness=2)
    white, line = axes.patches
    for patch in (white, line):
        assert (*patch.get_xy(), patch.get_width(), patch.get_height()) == (3, 4, 10, 20)
        assert not patch.get_fill()
    assert white.get_edgecolor()[:3] == (1, 1, 1) and line.get_edgecolor()[:3] == (1, 0, 0)
    assert white.get_linewidth() > line.get_linewidth() == 2
    assert (white.get_linestyle(), line.get_linestyle()) == ('-', '--')


def test_images_are_rgb_and_others_raise_the_error_of_the_caller(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((2, 3, 3), (10, 20, 30), np.uint8))
    assert read_image(tmp_path / 'a.png', KeyError)[0, 0].tolist() == [30, 20, 10]
    (tmp_path / 'text.png').write_text('no image')
    for name in ('text.png', 'absent.png'):
        with pytest.raises(KeyError, match=f'{name}: the image is absent or cannot be read'):
            read_image(tmp_path / name, KeyError)
