"""What options and arguments of losses and assigners must be, in one wording."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import TypeGuard, get_args

from torch import Tensor


class OptionError(ValueError, AssertionError):
    """An option that stock asserts, so that callers may catch either."""


def check_overlap_options(eps: float, power: float, inner_ratio: float) -> None:
    """Raise ValueError, naming the option, unless all three are above 0."""
    for name, value, why in (
        ('eps', eps, 'it keeps quotients finite'),
        ('power', power, 'it is the exponent of the IoU and of the penalties, 1 for none'),
        ('inner_ratio', inner_ratio, 'boxes are scaled by it for the overlap, 1 for as they are'),
    ):
        check_above(name, value, 0, why)


def check_above(name: str, value: float, bound: float, why: str) -> None:
    """Raise ValueError, naming the option, unless it is a finite number above ``bound``."""
    if not isinstance(value, Real) or not bound < float(value) < math.inf:
        raise ValueError(f'{name} must be above {bound} and finite, got {value!r}: {why}')


def check_not_negative(name: str, value: float, why: str) -> None:
    """Raise ValueError, naming the option, unless it is a finite number of at least 0."""
    if value != 0:
        check_above(name, value, 0, f'0 will do as well; {why}')


def check_whole(name: str, value: object, least: int = 1) -> None:
    """Raise ValueError, naming the option, unless it is a whole number from ``least`` on."""
    if not is_whole(value) or value < least:
        raise ValueError(f'{name} must be a whole number from {least} on, got {value!r}')


def check_count(name: str, value: object, error: type[ValueError] = ValueError) -> None:
    """Raise an error, naming the option, unless it is a whole number of at least 1."""
    if not is_whole(value):
        raise error(f'{name} must be a whole number of at least 1, got {value!r}')
    if value < 1:
        raise error(f'{name} must be at least 1, got {value!r}')


def is_whole(value: object) -> TypeGuard[int]:
    """Whether it is of a type of whole numbers, NumPy's too, and no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_real(value: object) -> TypeGuard[float]:
    """Whether it is of a type of real numbers, NumPy's too, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a real number that has a place among the others: not NaN."""
    return is_real(value) and not math.isnan(value)


def check_number(
    name: str,
    value: object,
    wanted: str = 'a number',
    fits: Callable[[float], bool] = lambda number: True,
) -> None:
    """Raise ValueError, naming the option, unless it is a number that fits.

    Args:
        name: of the option.
        value: of the option.
        wanted: what it must be, in words.
        fits: whether a number is that.
    """
    if not is_number(value) or not fits(value):
        raise ValueError(f'{name} must be {wanted}, got {value!r}')


def check_weight(name: str, value: object) -> None:
    """Raise ValueError, naming the option, unless it is a finite number of at least 0."""
    check_number(name, value, 'at least 0 and finite', lambda weight: 0 <= weight < math.inf)


def check_share(name: str, value: object) -> None:
    """Raise ValueError, naming the option, unless it is a number in [0, 1]."""
    check_number(name, value, 'in [0, 1]', lambda share: 0 <= share <= 1)


def is_pair(value: object) -> TypeGuard[tuple[float, float]]:
    """Whether it is a list or tuple of two numbers."""
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(is_number, value))


def check_one_of(name: str, value: object, options: object) -> None:
    """Raise ValueError, naming the option, unless it is one of a ``Literal``'s."""
    names = get_args(options)
    if value not in names:
        raise ValueError(f'{name} must be one of {names}, got {value!r}')


def check_aligned_boxes(pred: Tensor, target: Tensor) -> None:
    """Raise an error that names both, unless these are aligned boxes (..., 4)."""
    for name, boxes in (('pred', pred), ('target', target)):
        if not isinstance(boxes, Tensor):
            raise TypeError(
                f'{name} must be a tensor of boxes (..., 4), got {type(boxes).__name__}'
            )
    if pred.shape != target.shape or pred.shape[-1:] != (4,):
        raise ValueError(
            'pred and target must be boxes of one shape (..., 4), got '
            f'{tuple(pred.shape)} and {tuple(target.shape)}'
        )
