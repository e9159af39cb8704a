"""Tests of flags, numbers and boxes as people write them into annotation files."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mmdet_ext.data.coco.values import (
    in_fractions,
    is_fraction_box,
    lives_in_unit,
    read_flag,
    read_number,
)

TRUE = [True, 1, 1.0, '1', '1.0', ' 1 ', '+1', 'true', 'True', 'TRUE', 'yes', 'Y', 't', 'on']
FALSE = [None, False, 0, 0.0, -0.0, '', '  ', '0', '0.0', '00', 'false', 'False', 'no', 'N', 'off']
NO_FLAG = ['maybe', 2, -1, 0.5, '2', 'nan', math.nan, math.inf, [], [1], {}, '1 0', 'none']


@pytest.mark.parametrize('value', TRUE, ids=repr)
def test_flags_that_are_set(value: Any) -> None:
    assert read_flag(value) is True


@pytest.mark.parametrize('value', FALSE, ids=repr)
def test_flags_that_are_not_set(value: Any) -> None:
    assert read_flag(value) is False


@pytest.mark.parametrize('value', NO_FLAG, ids=repr)
def test_values_that_are_no_flag(value: Any) -> None:
    assert read_flag(value) is None


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        (5, 5),
        (-2.5, -2.5),
        ('640', 640),
        (' 12.5\n', 12.5),
        ('-3', -3),
        ('+4', 4),
        ('007', 7),
        ('1e3', 1000.0),
        ('.5', 0.5),
        ('5.', 5.0),
        ('inf', math.inf),
        ('-Infinity', -math.inf),
        (10**400, 10**400),
    ],
    ids=repr,
)
def test_numbers_and_texts_of_numbers(value: Any, expected: float) -> None:
    found = read_number(value)
    assert found == expected and type(found) is type(expected)


def test_nan_is_a_number() -> None:
    assert all(math.isnan(read_number(value) or 0) for value in (math.nan, 'nan', 'NaN'))


@pytest.mark.parametrize(
    'value', [None, True, False, '', ' ', '640px', '12,5', '1_000', '0x10', '--1', [], [1], {}, 'e']
)
def test_values_that_are_no_number(value: Any) -> None:
    assert read_number(value) is None


@pytest.mark.parametrize(
    ('box', 'expected'),
    [
        ((0.25, 0.5, 0.5, 0.4), True),
        ((0, 0, 1, 0.5), True),
        ((0, 0, 1.0004, 0.9), True),  # rounding
        ((0, 0, 1, 1), False),  # a pixel, for all that the box alone shows
        ((0, 0, 5, 0.5), False),
        ((3, 4, 0.5, 0.5), False),
        ((0.5, 0.5, 0, 0.2), False),  # of no size in any unit
        ((0.5, 0.5, -0.2, 0.2), False),
        ((0.5, math.nan, 0.2, 0.2), False),
    ],
)
def test_boxes_in_fractions_are_recognised(box: tuple[float, ...], expected: bool) -> None:
    assert is_fraction_box(*box) is expected


def test_corners_in_the_unit_square_are_recognised() -> None:
    assert lives_in_unit((0.1, 0.2, 0.9, 1.001)) and not lives_in_unit((0.1, 0.2, 0.9, 3))


def test_a_file_is_in_fractions_if_most_of_its_boxes_are() -> None:
    fraction, full, pixels, flat = (0.1, 0.2, 0.3, 0.4), (0, 0, 1, 1), (5, 6, 20, 30), (0, 0, 0, 1)
    assert in_fractions([fraction, full, full, flat, flat])
    assert in_fractions([fraction, full, pixels])
    assert not in_fractions([fraction, pixels])
    assert not in_fractions([full, full])  # boxes of one pixel
    assert not in_fractions([flat]) and not in_fractions([])
