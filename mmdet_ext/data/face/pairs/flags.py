"""Reading of the flags by which files of pairs mark genuine pairs."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

_WORDS = {
    **dict.fromkeys(('true', 't', 'yes', 'y', 'same'), True),
    **dict.fromkeys(('false', 'f', 'no', 'n', 'different', 'diff'), False),
}


def read_flag(value: Any) -> bool | None:
    """Read a bool, a number 0 or 1, an array of one of them, or text that says one.

    Args:
        value: the flag.

    Returns:
        The flag; None for anything else, so that the caller can name its place.

    >>> [read_flag(flag) for flag in (True, 1.0, '0.0', 'No', -1, 'maybe')]
    [True, True, False, False, None, None]
    """
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _WORDS:
            return _WORDS[word]
        try:
            value = float(word)
        except ValueError:
            return None
    is_number = isinstance(value, (bool, np.bool_, numbers.Real))
    return bool(value) if is_number and value in (0, 1) else None
