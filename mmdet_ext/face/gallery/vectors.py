"""Unit vectors and their cosines, the same alone and in a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mmdet_ext.face.gallery.errors import GalleryError

#: Cosines are multiples of 1 / GRID, about 1e-6, as in the metrics of this package.
GRID = 2.0**20
_CHUNK = 4096
_EXAMPLES = 5


def unit_rows(
    embeddings: Any, name_of: Callable[[int], str], dim: int | None = None
) -> np.ndarray[Any, Any]:
    """Normalise embeddings in float64.

    Args:
        embeddings: (N, D) numbers, of any length.
        name_of: function from the place of an embedding to its name in an error.
        dim: required D; None for any.

    Returns:
        ndarray: (N, D) float32, of length 1.

    Raises:
        GalleryError: if they have another form, or one is not finite or has the length 0.
    """
    given = np.asarray(embeddings)
    if given.ndim != 2 or given.dtype.kind not in 'fiu' or not given.shape[1]:
        raise GalleryError(
            f'embeddings have shape {given.shape} and type {given.dtype}, but must be (number, '
            'size) of real numbers; of one embedding: embedding[None]'
        )
    if dim is not None and given.shape[1] != dim:
        raise GalleryError(
            f'embeddings have {given.shape[1]} numbers, those of the gallery {dim}: they are of '
            'another recogniser'
        )
    unit = np.empty(given.shape, np.float32)
    bad: list[str] = []
    for start in range(0, len(given), _CHUNK):
        rows = given[start : start + _CHUNK].astype(np.float64)
        finite = np.asarray(np.isfinite(rows).all(1))
        largest = np.abs(rows).max(1)
        usable = finite & (largest > 0)
        for place in np.flatnonzero(~usable):
            what = 'has the length 0' if finite[place] else 'is not finite'
            bad.append(f'{name_of(start + int(place))} {what}')
        # Divided first by the largest number, as the squares of 1e-200 and 1e200 do not exist.
        rows = rows[usable] / largest[usable, None]
        rows /= np.sqrt((rows * rows).sum(1, keepdims=True))
        unit[start : start + _CHUNK][usable] = rows
    if bad:
        more = f' and {len(bad) - _EXAMPLES} more' if len(bad) > _EXAMPLES else ''
        raise GalleryError(
            f'{len(bad)} of {len(given)} embeddings cannot be compared: '
            f'{", ".join(bad[:_EXAMPLES])}{more}. Leave them out'
        )
    return unit


def cosines(rows: np.ndarray[Any, Any], query: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Compute the cosines of a query with rows, each independent of the others.

    A matrix product sums in an order that depends on the shapes; here each row is summed alone.

    Args:
        rows: (N, D) float32 of length 1.
        query: (D,) float32 of length 1.

    Returns:
        ndarray: (N,) float64, multiples of 1 / GRID in [-1, 1].
    """
    wide = query.astype(np.float64)
    sums = [
        (rows[start : start + _CHUNK].astype(np.float64) * wide).sum(1)
        for start in range(0, len(rows), _CHUNK)
    ]
    return on_grid(np.concatenate(sums)) if sums else np.zeros(0)


def on_grid(values: Any) -> np.ndarray[Any, Any]:
    """Round to multiples of 1 / GRID, and clip to [-1, 1].

    >>> float(on_grid(1.0000007))
    1.0
    """
    return np.clip(np.round(np.asarray(values, np.float64) * GRID) / GRID, -1.0, 1.0)
