"""Tests of stated sizes: each difference from the file has its name."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mmdet_ext.data.coco.sizes import (
    drawn_at_stated_size,
    fits,
    read_size,
    show_sizes,
    size_difference,
)


@pytest.mark.parametrize(
    ('stated', 'true', 'expected'),
    [
        ((640, 480), (640, 480), None),
        ((640.0, '480'), (640, 480), None),
        ((480, 640), (640, 480), 'width and height swapped'),
        (('480', '640.0'), (640, 480), 'width and height swapped'),
        ((1280, 960), (640, 480), 'size of another scale'),
        ((320, 240), (640, 480), 'size of another scale'),
        ((1001, 667), (500, 333), 'size of another scale'),  # rounded
        ((333, 222), (1000, 667), 'size of another scale'),
        ((960, 1280), (640, 480), 'width and height swapped, of another scale'),
        ((640.4, 479.6), (640, 480), None),  # rounding
        ((641, 480), (640, 480), 'size wrong'),
        ((641, 481), (640, 480), 'size wrong'),
        ((640, 640), (640, 480), 'size wrong'),
        ((1920, 1080), (640, 480), 'size wrong'),
        (None, (640, 480), 'size missing'),
        ((None, None), (640, 480), 'size missing'),
        ((640, None), (640, 480), 'size missing'),
        ((-1, -1), (640, 480), 'size missing'),
        ((0, 480), (640, 480), 'size missing'),
        (('', 'x'), (640, 480), 'size missing'),
        ((math.nan, 480), (640, 480), 'size missing'),
        ((math.inf, 480), (640, 480), 'size missing'),
        ((True, 480), (640, 480), 'size missing'),
    ],
)
def test_each_difference_has_its_name(
    stated: tuple[Any, Any] | None, true: tuple[int, int], expected: str | None
) -> None:
    assert size_difference(stated, true) == expected


def test_sizes_are_read_from_text_and_shown_as_stated() -> None:
    assert read_size(' 640', 480.0) == (640, 480)
    assert read_size('640px', 480) is None
    assert show_sizes(('640', 480), (480, 640)) == '640x480, true 480x640'
    assert show_sizes((-1, None), (480, 640)) == '-1x?, true 480x640'
    assert show_sizes(None, (480, 640)) == show_sizes((None, None), (480, 640))


def test_a_box_fits_up_to_rounding() -> None:
    assert fits((-1, 0, 641, 480), (640, 480))
    assert not fits((0, 0, 650, 480), (640, 480))
    assert not fits((0, -9, 640, 480), (640, 480))


def test_boxes_belong_to_the_stated_size_only_where_that_is_certain() -> None:
    small, right, below = (10, 10, 50, 50), (900, 10, 1000, 50), (10, 600, 50, 700)
    large, true = (1280, 960), (640, 480)
    assert drawn_at_stated_size([small, right], large, true)
    assert not drawn_at_stated_size([small], large, true)  # fits both
    assert not drawn_at_stated_size([right, (0, 0, 2000, 50)], large, true)  # fits neither
    assert not drawn_at_stated_size([right], true, large)  # fits the file
    assert drawn_at_stated_size([small, below], (640, 1000), (1000, 640))
    assert not drawn_at_stated_size([right, below], (640, 1000), (1000, 640))
