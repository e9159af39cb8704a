"""Check that a component refuses misspelt options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any


def assert_misspelt_options_are_named(
    make: Callable[..., Any], cls: type, more: Sequence[str] = ()
) -> None:
    """Check that each option with one letter too many is refused, with the right option named.

    Args:
        make: Function that builds the component with options beside those that it needs.
        cls: Class of the component.
        more: Options that the class passes on with ``**kwargs``.
    """
    own = [
        name
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    for name in (*own, *more):
        wrong = f'{name}{name[-1]}'
        message = f'mmdet_ext.{cls.__name__} has no option {wrong!r}; did you mean {name!r}?'
        assert message in _refusal(make, wrong), name
    if not own:
        answer = _refusal(make, 'margin')
        assert cls.__name__ in answer and "'margin'" in answer, answer


def _refusal(make: Callable[..., Any], option: str) -> str:
    """Return the error of a component for an option that it does not have."""
    try:
        make(**{option: 1})
    except TypeError as error:
        return str(error)
    raise AssertionError(f'option {option!r} was taken')
