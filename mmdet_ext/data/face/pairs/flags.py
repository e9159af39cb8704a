"""Reading of the flags by which files of pairs mark genuine pairs."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmdet_ext.data.coco import values

_WORDS = {'same': True, 'different': False, 'diff': False}


def read_flag(value: Any) -> bool | None:
    """Read a flag as all readers do, or a number or an array of numpy that holds one.

    Unlike elsewhere, an absent or empty flag is none, because each pair needs one.

    Args:
        value: the flag.

    Returns:
        The flag; None for anything else, so that the caller can name its place.

    >>> [read_flag(flag) for flag in (True, 1.0, '0.0', 'No', -1, '', 'maybe')]
    [True, True, False, False, None, None, None]
    """
    if isinstance(value, (np.ndarray, np.generic)) and value.size == 1:
        value = value.item()
    if isinstance(value, str):
        value = value.strip().lower()
        value = _WORDS.get(value, value)
    is_empty = value is None or (isinstance(value, str) and not value)
    return None if is_empty else values.read_flag(value)
