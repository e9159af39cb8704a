"""Sizes of images that annotations state, compared with those of the files.

Both readers, of COCO and of Pascal VOC, report a difference in these words. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from mmdet_ext.data.coco.values import read_number

Size = tuple[float, float]
#: Reason that a stated size differs from that of the file.
Difference = Literal[
    'size missing',
    'width and height swapped',
    'size of another scale',
    'width and height swapped, of another scale',
    'size wrong',
]

#: Largest difference in px that rounding or another count of the edge makes.
_ROUNDING = 2
#: Share of the difference of two sizes by which a careless box may lie beyond the smaller one.
_CARELESS = 0.1


def read_size(width: Any, height: Any) -> Size | None:
    """Read a stated size, numbers or text of numbers.

    Args:
        width: Width of the image in px as the annotations state it, None if absent.
        height: Height of the image in px, or None.

    Returns:
        Width and height, or None unless both are finite numbers above 0.

    >>> read_size('640', 480), read_size(-1, -1), read_size(None, 480)
    ((640, 480), None, None)
    """
    read = read_number(width), read_number(height)
    if read[0] is None or read[1] is None:
        return None
    usable = all(0 < side < float('inf') for side in read if side is not None)
    return (read[0], read[1]) if usable else None


def size_difference(stated: tuple[Any, Any] | None, true: Size) -> Difference | None:
    """Return how a stated size differs from that of the image's file, or None if it is equal.

    Args:
        stated: Width and height in px as the annotations state them; None if absent.
        true: Width and height of the image as the loader gives it, turned by its EXIF orientation.

    Returns:
        The reason. A size is missing if a side is absent, not a number, 0 or negative. Sides may be
        off by rounding for "another scale".

    >>> size_difference((80, 60), (60, 80))
    'width and height swapped'
    >>> size_difference((1280, 961), (640, 480))
    'size of another scale'
    >>> size_difference((0, 0), (640, 480))
    'size missing'
    """
    size = read_size(*stated) if stated else None
    if size is None:
        return 'size missing'
    if abs(size[0] - true[0]) < 1 and abs(size[1] - true[1]) < 1:
        return None  # equal but for rounding
    turned = true[1], true[0]
    if size == turned:
        return 'width and height swapped'
    if _is_scaled(size, true):
        return 'size of another scale'
    if _is_scaled(size, turned):
        return 'width and height swapped, of another scale'
    return 'size wrong'


def show_sizes(stated: tuple[Any, Any] | None, true: Size | None = None) -> str:
    """Show both sizes for a message, an absent side as a question mark.

    >>> show_sizes((80, '60'), (60, 80)), show_sizes((None, 0), (60, 80)), show_sizes(None)
    ('80x60, true 60x80', '?x0, true 60x80', 'none')
    """
    sides = [
        '?' if side is None else f'{side:.20}' if isinstance(side, str) else f'{side}'
        for side in stated or ()
    ]
    shown = 'none' if set(sides) <= {'?'} else 'x'.join(sides)
    return f'{shown}, true {true[0]}x{true[1]}' if true else shown


def fits(corners: Sequence[float], size: Size, slack: Size = (_ROUNDING, _ROUNDING)) -> bool:
    """Return whether a box lies within an image, up to rounding.

    Args:
        corners: Left, upper, right and lower edge in px.
        size: Width and height of the image in px.
        slack: Distance in px by which a box may lie beyond the right and the lower edge.
    """
    return (
        min(corners[:2]) >= -_ROUNDING
        and corners[2] <= size[0] + slack[0]
        and corners[3] <= size[1] + slack[1]
    )


def drawn_at_stated_size(boxes: Iterable[Sequence[float]], stated: Size, true: Size) -> bool:
    """Return whether boxes certainly belong to an image of the stated size, not to the file's.

    That is so if all fit into the stated size, and one of them reaches beyond the file's by more
    than a tenth of the difference, which is more than carelessness.

    Args:
        boxes: Corners in px.
        stated: Width and height that the annotations state.
        true: Width and height of the file.
    """
    slack = (
        max(_ROUNDING, _CARELESS * (stated[0] - true[0])),
        max(_ROUNDING, _CARELESS * (stated[1] - true[1])),
    )
    certain = False
    for corners in boxes:
        if not fits(corners, stated):
            return False
        certain = certain or not fits(corners, true, slack)
    return certain


def _is_scaled(size: Size, true: Size) -> bool:
    """Return whether both sides are larger or smaller by one factor, up to rounding."""
    if max(abs(size[0] - true[0]), abs(size[1] - true[1])) <= _ROUNDING:
        return False
    ratios = size[0] / true[0], size[1] / true[1]
    slack = max(1.0, *ratios)  # a pixel of the smaller image
    return abs(ratios[0] - ratios[1]) <= slack / true[0] + slack / true[1]
