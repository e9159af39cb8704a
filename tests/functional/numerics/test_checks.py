"""Checks of options: their bounds, their words, and the classes of their errors."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest

from mmdet_ext.functional.numerics.checks import (
    OptionError,
    check_count,
    check_number,
    check_one_of,
    check_that,
    check_whole,
    is_pair,
)


@pytest.mark.parametrize(
    ('bounds', 'good', 'bad', 'words'),
    [
        ({}, [0, -2.5, math.inf, np.float32(1)], [math.nan, True, '1', None], 'a number'),
        ({'finite': True}, [0, -1e300], [math.inf, -math.inf], 'a finite number'),
        ({'above': 0}, [1e-9, math.inf], [0, -1], 'above 0'),
        ({'above': 0, 'finite': True}, [1], [0, math.inf, math.nan], 'above 0 and finite'),
        ({'least': 0, 'finite': True}, [0, 3], [-1e-9, math.inf], 'at least 0 and finite'),
        ({'least': 0, 'most': 1}, [0, 0.5, 1], [-0.1, 1.1, math.nan], r'in \[0, 1\]'),
        ({'above': 0, 'most': 1}, [0.1, 1], [0, 1.1], 'above 0 and at most 1'),
        ({'least': 0, 'below': 1}, [0, 0.9], [1, -0.1], 'at least 0 and below 1'),
    ],
)
def test_numbers_within_their_bounds(
    bounds: dict[str, Any], good: list[Any], bad: list[Any], words: str
) -> None:
    for value in good:
        check_number('x', value, **bounds)
    for value in bad:
        with pytest.raises(ValueError, match=f'^x must be {words}, got '):
            check_number('x', value, **bounds)


def test_words_and_reason_of_the_caller_stand_in_the_error() -> None:
    with pytest.raises(ValueError, match='^x must be a share, got 2: it is one$'):
        check_number('x', 2, 'a share', most=1, why='it is one')
    with pytest.raises(OptionError, match="^x must be larger, got 'a'$") as caught:
        check_that(False, 'x', 'a', 'larger', error=OptionError)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, AssertionError)


def test_whole_numbers() -> None:
    for value in (1, 7, np.int64(3)):
        check_whole('n', value)
        check_count('n', value)
    check_whole('n', 0, 0)
    for bad in (0, -1, 1.0, True, '1', None):
        with pytest.raises(ValueError, match='^n must be a whole number from 1 on, got '):
            check_whole('n', bad)
    with pytest.raises(ValueError, match='^n must be at least 1, got 0$'):
        check_count('n', 0)
    with pytest.raises(OptionError, match=r'^n must be a whole number of at least 1, got 1\.5$'):
        check_count('n', 1.5, OptionError)


def test_one_of_several_options() -> None:
    Form = Literal['a', 'b']
    check_one_of('form', 'b', Form)
    check_one_of('form', 'b', ('a', 'b', 'c'))
    with pytest.raises(ValueError, match=r"^form must be one of \('a', 'b'\), got 'c'$"):
        check_one_of('form', 'c', Form)
    with pytest.raises(ValueError, match="^form must be 'a', 'b' or 'c', got None$"):
        check_one_of('form', None, ('a', 'b', 'c'))
    with pytest.raises(OptionError, match="^form must be 'a', got 'b'$"):
        check_one_of('form', 'b', ('a',), OptionError)


def test_pairs() -> None:
    assert is_pair((1, 2.5)) and is_pair([0, math.inf])
    assert not any(map(is_pair, ((1,), (1, math.nan), (1, '2'), '12', None)))
