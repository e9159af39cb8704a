"""Errors of what a user gave, in one line for a command-line tool."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """Error in something that the user gave; the message says what to do."""


@contextmanager
def explained(what: str, with_place: bool = False) -> Iterator[None]:
    """Turn any error within the context into a `InputError` of one line.

    Configs, data sets and detectors run code of all kinds, so that any error can come.

    Args:
        what: what did not work, the begin of the message.
        with_place: whether to name the line of code, for errors that say little by themselves.

    Raises:
        InputError: for any error within the context.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
        if not isinstance(error, (OSError, ValueError)) or not text:
            text = f'{type(error).__name__}: {text}'
        text = ' '.join(text.split())
        if with_place:
            place = traceback.extract_tb(error.__traceback__)[-1]
            text += f' ({Path(place.filename).name}, line {place.lineno})'
        raise InputError(f'{what}: {text}') from error
