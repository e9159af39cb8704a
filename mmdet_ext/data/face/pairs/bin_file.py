"""Pairs of faces in InsightFace's ``.bin``.

A ``.bin`` is a pickle of (images, same): 2K encoded images, of which 2k and 2k + 1 are pair k, and
K flags, bools or numbers 0 and 1. An image is bytes, a bytearray or an array of uint8.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.data.face.pairs.collected import (
    FacePairs,
    PairsError,
    consecutive_folds,
    note_oddities,
)
from mmdet_ext.data.face.pairs.flags import read_flag
from mmdet_ext.data.face.safe_pickle import BrokenPickleError, load_safe_pickle


def read_bin_pairs(path: str | os.PathLike[str], folds: int = 10) -> FacePairs:
    """Read InsightFace's ``.bin``, and refuse any content that could run code.

    Images with equal bytes are merged into one.

    Args:
        path: the file.
        folds: number of folds, which the pairs are divided into in their order.

    Raises:
        FileNotFoundError: if there is no such file.
        UnsafePickleError: if it holds anything but bytes, numbers, lists, tuples and arrays.
        PairsError: if it is not a pickle, is cut, or holds something other than images and flags.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'list of pairs {str(path)!r} is not there')
    try:
        content = load_safe_pickle(path)
    except BrokenPickleError as error:
        raise PairsError(str(error)) from error
    if not isinstance(content, (tuple, list)) or len(content) != 2:
        raise PairsError(f'{path} must hold two lists, images and bools; it holds {_kind(content)}')
    encoded = [_encoded(path, place, one) for place, one in enumerate(_entries(path, content[0]))]
    same = [_flag(path, place, one) for place, one in enumerate(_entries(path, content[1]))]
    if len(encoded) != 2 * len(same) or not same:
        raise PairsError(
            f'{path} has {len(encoded)} images and {len(same)} pairs: a pair needs two images'
        )
    places: dict[bytes, int] = {}
    flat = [places.setdefault(image, len(places)) for image in encoded]
    result = FacePairs(
        images=[*places],
        index=np.array(flat, np.int64).reshape(-1, 2),
        same=np.array(same, np.bool_),
        fold=consecutive_folds(len(same), folds),
        labels=np.full(len(places), -1, np.int64),
    )
    if len(places) < len(encoded):
        result.notes.append(
            f'{len(encoded)} images, {len(places)} of them distinct: equal ones are taken once'
        )
    note_oddities(result, [f'pair {place}' for place in range(len(same))])
    return result


def _kind(value: Any) -> str:
    """Name the type of a value, and the length of a list or a number, for a message."""
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        return f'the number {value}'
    size = f' of {len(value)}' if isinstance(value, (list, tuple, bytes)) else ''
    return f'a {type(value).__name__}{size}'


def _entries(path: Path, value: Any) -> Iterable[Any]:
    """Return the value if it is a list of some type, or raise PairsError."""
    is_list = value.ndim > 0 if isinstance(value, np.ndarray) else isinstance(value, (list, tuple))
    if not is_list:
        raise PairsError(f'{path} must hold two lists, images and bools; one is {_kind(value)}')
    return value


def _encoded(path: Path, place: int, value: Any) -> bytes:
    """Return an encoded image as bytes; it may be an array, as ``cv2.imencode`` returns it."""
    if (
        isinstance(value, np.ndarray)
        and value.dtype == np.uint8
        and (value.size == max(value.shape, default=0))
    ):
        value = value.tobytes()
    if not isinstance(value, bytes) or value == b'':
        raise PairsError(
            f'{path}: image {place} must be the bytes of an encoded image, it is {_kind(value)}'
        )
    return value


def _flag(path: Path, place: int, value: Any) -> bool:
    """Return the kind of a pair as a bool, or raise PairsError."""
    flag = None if isinstance(value, (str, bytes)) else read_flag(value)
    if flag is None:
        raise PairsError(
            f'{path}: pair {place} must be true or false, it is {_kind(value)}. Of numbers, 1 and '
            '0 are read'
        )
    return flag
