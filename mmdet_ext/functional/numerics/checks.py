"""Checks of options and arguments, in one wording: ``NAME must be WANTED, got VALUE: WHY``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import TypeGuard, get_args

__all__ = [
    'OptionError',
    'check_count',
    'check_number',
    'check_one_of',
    'check_that',
    'check_whole',
    'is_number',
    'is_pair',
    'is_real',
    'is_whole',
]


class OptionError(ValueError, AssertionError):
    """Error for an option that mmdet asserts, so that callers may catch either class."""


def is_real(value: object) -> TypeGuard[float]:
    """Return whether the value is a real number, of Python or NumPy, and not a bool."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Return whether the value is a real number other than NaN."""
    # By comparison: math.isnan and math.isinf break a compiled graph.
    return is_real(value) and value == value


def is_whole(value: object) -> TypeGuard[int]:
    """Return whether the value is of an integer type, of Python or NumPy, and not a bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_pair(value: object) -> TypeGuard[tuple[float, float]]:
    """Return whether the value is a list or tuple of two numbers."""
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(is_number, value))


def check_that(
    holds: bool,
    name: str,
    value: object,
    wanted: str,
    why: str = '',
    error: type[ValueError] = ValueError,
) -> None:
    """Raise ``error`` unless ``holds``; the other checks are made of this one.

    Args:
        holds: the condition on the option.
        name: name of the option.
        value: value of the option, shown in the error.
        wanted: words for the allowed values, after "must be".
        why: reason or advice, shown last.
        error: class of the error.

    >>> check_that(2 > 3, 'end', 2, 'after begin=3')
    Traceback (most recent call last):
    ValueError: end must be after begin=3, got 2
    """
    if not holds:
        raise error(f'{name} must be {wanted}, got {value!r}' + (f': {why}' if why else ''))


def check_number(
    name: str,
    value: object,
    wanted: str = '',
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    finite: bool = False,
    why: str = '',
    error: type[ValueError] = ValueError,
) -> None:
    """Raise ``error`` unless the option is a number within its bounds. NaN never is.

    Args:
        name: name of the option.
        value: value of the option.
        wanted: words for the allowed values; without it they are made from the bounds.
        above: exclusive lower bound.
        least: inclusive lower bound.
        below: exclusive upper bound.
        most: inclusive upper bound.
        finite: refuse infinity too.
        why: reason or advice, shown last.
        error: class of the error.

    >>> check_number('gamma', 2, above=0, finite=True)
    >>> check_number('alpha', 1.5, least=0, most=1)
    Traceback (most recent call last):
    ValueError: alpha must be in [0, 1], got 1.5
    """
    holds = (
        is_number(value)
        and (above is None or value > above)
        and (least is None or value >= least)
        and (below is None or value < below)
        and (most is None or value <= most)
        and not (finite and abs(value) == math.inf)
    )
    if not holds:
        wanted = wanted or _words(above, least, below, most, finite)
        check_that(False, name, value, wanted, why, error)


def _words(
    above: float | None,
    least: float | None,
    below: float | None,
    most: float | None,
    finite: bool,
) -> str:
    """Return the bounds of `check_number` in words."""
    if least is not None and most is not None:
        return f'in [{least}, {most}]'
    bounds = {'above': above, 'at least': least, 'below': below, 'at most': most}
    words = [f'{word} {bound}' for word, bound in bounds.items() if bound is not None]
    if not words:
        return 'a finite number' if finite else 'a number'
    return ' and '.join([*words, 'finite'] if finite else words)


def check_whole(
    name: str,
    value: object,
    least: int = 1,
    *,
    wanted: str = '',
    why: str = '',
    error: type[ValueError] = ValueError,
) -> None:
    """Raise ``error`` unless the option is a whole number of at least ``least``.

    Args:
        name: name of the option.
        value: value of the option.
        least: smallest allowed value.
        wanted: words for the allowed values; without it "a whole number from ``least`` on".
        why: reason or advice, shown last.
        error: class of the error.
    """
    wanted = wanted or f'a whole number from {least} on'
    check_that(is_whole(value) and value >= least, name, value, wanted, why, error)


def check_count(name: str, value: object, error: type[ValueError] = ValueError) -> None:
    """Raise ``error`` unless the option is a whole number of at least 1.

    The error says which of the two it is not.
    """
    wanted = 'at least 1' if is_whole(value) else 'a whole number of at least 1'
    check_whole(name, value, wanted=wanted, error=error)


def check_one_of(
    name: str, value: object, options: object, error: type[ValueError] = ValueError
) -> None:
    """Raise ``error`` unless the option is one of several.

    Args:
        name: name of the option.
        value: value of the option.
        options: a ``Literal``, of which the error lists the values as a tuple; or a sequence,
            which it lists in words.
        error: class of the error.

    >>> check_one_of('mode', 'cubic', ('linear', 'square', 'log'))
    Traceback (most recent call last):
    ValueError: mode must be 'linear', 'square' or 'log', got 'cubic'
    """
    if isinstance(options, Sequence):
        *first, last = map(repr, options)
        values, wanted = options, f'{", ".join(first)} or {last}' if first else last
    else:
        values = get_args(options)
        wanted = f'one of {values}'
    check_that(value in values, name, value, wanted, error=error)
