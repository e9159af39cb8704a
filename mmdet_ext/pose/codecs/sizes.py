"""Checks of the options that codecs share."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet_ext.functional.numerics.checks import check_that, is_whole


def check_sizes(
    input_size: Sequence[int], heatmap_size: Sequence[int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return both sizes as tuples (width, height).

    Raises:
        ValueError: unless each is two whole numbers from 2 on.
    """
    sizes = []
    for name, size in (('input_size', input_size), ('heatmap_size', heatmap_size)):
        fits = isinstance(size, (list, tuple)) and len(size) == 2
        fits = fits and all(is_whole(side) and side >= 2 for side in size)
        check_that(fits, name, size, 'width and height, whole numbers from 2 on')
        sizes.append((int(size[0]), int(size[1])))
    return sizes[0], sizes[1]


def check_kernel(name: str, kernel: object) -> None:
    """Raise ValueError unless the side of a square is an odd number from 1 on."""
    check_that(is_whole(kernel) and kernel >= 1 and kernel % 2 == 1, name, kernel, 'odd, from 1 on')
