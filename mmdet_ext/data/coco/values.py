"""Values of annotation files as people write them: flags, numbers and boxes.

Programs write ``"iscrowd": "0"``, ``"width": "640"`` or ``difficult`` as ``true``. All readers take
them from here, so that one value means the same in each. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

_TRUE = frozenset(('true', 'yes', 'y', 't', 'on'))
_FALSE = frozenset(('', 'false', 'no', 'n', 'f', 'off'))
_NUMBER = re.compile(
    r'[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?|nan)', re.IGNORECASE | re.ASCII
)

#: Rounding of boxes in fractions of the image's size, by which they may leave 0..1.
_SLACK = 0.01


def read_flag(value: Any) -> bool | None:
    """Read a flag such as ``iscrowd``, ``ignore`` or ``difficult``.

    Args:
        value: The value of the file, None if the file has none: true, false, a number or text.

    Returns:
        The flag, or None if the value is none.

    >>> read_flag('0'), read_flag('True'), read_flag(None), read_flag('maybe')
    (False, True, False, None)
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
    number = read_number(value)
    return bool(number) if number in (0, 1) else None


def read_number(value: Any) -> int | float | None:
    """Read a number, or a text that is one.

    Infinity and NaN are numbers here, in text as in json; the check of a box refuses them.

    Args:
        value: The value of the file.

    Returns:
        The number, an integer where it is written as one; None if the value is none, such as true,
        an empty text or ``'640px'``.

    >>> read_number(' 640 '), read_number('12.5'), read_number('12,5'), read_number(True)
    (640, 12.5, None, None)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return value
    text = value.strip() if isinstance(value, str) else ''
    if not _NUMBER.fullmatch(text):
        return None
    try:
        return int(text)
    except ValueError:  # not written as an integer, or with more digits than Python reads
        return float(text)


def lives_in_unit(numbers: Iterable[float]) -> bool:
    """Return whether all numbers of a box lie in 0..1, up to rounding.

    Args:
        numbers: The four numbers of a box, in any form.
    """
    return all(-_SLACK <= number <= 1 + _SLACK for number in numbers)


def is_fraction_box(x: float, y: float, width: float, height: float) -> bool:
    """Return whether a box is in fractions of the image's size, rather than in px.

    Such a box lies in 0..1 and is narrower or lower than a pixel, so that training leaves it out.

    >>> is_fraction_box(0.25, 0.5, 0.5, 0.4), is_fraction_box(0, 0, 1, 1)
    (True, False)
    """
    return (
        width > 0 and height > 0 and min(width, height) < 1 and lives_in_unit((x, y, width, height))
    )


def in_fractions(boxes: Iterable[Sequence[float]]) -> bool:
    """Return whether the boxes of a file are in fractions of the image's size.

    That is so if more than half of the boxes with an area lie in 0..1, and one of them is narrower
    or lower than a pixel. A box that fills its image, which is 0, 0, 1, 1 in fractions and might
    be one pixel, is then a fraction like the others.

    Args:
        boxes: Boxes as x, y, width, height.
    """
    total = inside = certain = 0
    for x, y, width, height in boxes:
        if width > 0 and height > 0:
            total += 1
            inside += lives_in_unit((x, y, width, height))
            certain += is_fraction_box(x, y, width, height)
    return certain > 0 and 2 * inside > total
