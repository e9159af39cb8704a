"""Checks of image files, their sizes, and decoding.

An image cut short by an interrupted copy stops a training hours later, so it is looked for
beforehand. JPEG and PNG files mark their end: their header and last bytes distinguish nearly every
cut file from a whole one. Only doubtful files are decoded.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

_JPEG_START = b'\xff\xd8'
_JPEG_END = b'\xff\xd9'
_JPEG_SCAN = 0xDA
_PNG_START = b'\x89PNG\r\n\x1a\n'
_PNG_END = b'IEND\xaeB`\x82'
_TAIL = 4096
_PROGRESS_FROM = 5000
_PROGRESS_STEP = 1000
_ORIENTATION_TAG = 0x0112


def image_problem(path: str | os.PathLike[str]) -> str | None:
    """Return the problem of an image file, or None.

    A JPEG or PNG passes without being decoded if its header can be read and its end marker is near
    the end of the file, so damaged pixels in the middle of a file of full length are not found.
    Doubtful files, and all other formats, are decoded.

    Args:
        path: The image file.

    Returns:
        None for a whole image, otherwise a short reason such as ``'missing'``, ``'empty file'``,
        ``'truncated JPEG (no end marker)'`` or ``'not an image'``.
    """
    path = Path(path)
    if not path.exists():
        return 'missing'
    if not path.is_file():
        return 'not a file'
    try:
        with path.open('rb') as file:
            head = file.read(len(_PNG_START))
            if not head:
                return 'empty file'
            if head.startswith(_JPEG_START):
                kind, ended = 'JPEG', _jpeg_ended(file)
            elif head == _PNG_START:
                kind, ended = 'PNG', _marker_ended(file, _PNG_END, len(_PNG_START))
            else:
                kind, ended = '', None
    except OSError as error:
        return f'unreadable ({error.strerror})'
    if ended is False:
        return f'truncated {kind} (no end marker)'
    return _decoding_problem(path, kind, decode=ended is None)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Read the size of an image from its header, turned by the EXIF orientation.

    OpenCV, and so mmcv's loader, gives the image this size.

    Args:
        path: The image file.

    Returns:
        ``(width, height)`` in pixels.

    Raises:
        OSError: If the file is missing or has no header of an image.
    """
    with Image.open(path) as image:
        width, height = image.size
        quarter_turned = image.getexif().get(_ORIENTATION_TAG) in (5, 6, 7, 8)
    return (height, width) if quarter_turned else (width, height)


def decode_image(data: bytes, *, any_depth: bool = False) -> np.ndarray[Any, Any]:
    """Decode an image to three channels; grey and CMYK images are converted.

    Args:
        data: An encoded image.
        any_depth: Keep the type of the pixels; False converts them to uint8.

    Returns:
        Pixels, shape (height, width, 3), channels in the order BGR.

    Raises:
        ValueError: With a short reason, if the image cannot be decoded whole.
    """
    if not data:
        raise ValueError('no image in it')
    # OpenCV 4 fills the missing part of a cut JPEG with grey and reports nothing.
    if data.startswith(_JPEG_START) and (
        _JPEG_END not in data or _jpeg_ended(io.BytesIO(data)) is False
    ):
        raise ValueError('truncated JPEG (no end marker)')
    flags = cv2.IMREAD_COLOR | (cv2.IMREAD_ANYDEPTH if any_depth else 0)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(f'image cannot be decoded ({error})') from error
    if image is None:
        raise ValueError('image cannot be decoded')
    return image if any_depth else np.asarray(image, np.uint8)


def find_bad_images(paths: Iterable[Path], workers: int = 8) -> dict[Path, str]:
    """Check many images in threads; more than 5,000 of them show a progress line on stderr.

    Args:
        paths: The image files.
        workers: Number of threads, at least 1.

    Returns:
        The problem (see :func:`image_problem`) of each bad image, in the order of ``paths``.

    Raises:
        ValueError: If ``workers`` is below 1.
    """
    if workers < 1:
        raise ValueError(f'workers is {workers}; at least 1 thread is needed')
    paths = list(paths)
    shows_progress = len(paths) > _PROGRESS_FROM
    bad = {}
    with ThreadPoolExecutor(workers) as pool:
        for done, (path, problem) in enumerate(
            zip(paths, pool.map(image_problem, paths), strict=True), start=1
        ):
            if problem is not None:
                bad[path] = problem
            if shows_progress and (done % _PROGRESS_STEP == 0 or done == len(paths)):
                end = '\n' if done == len(paths) else ''
                print(
                    f'\rchecked {done} of {len(paths)} images, {len(bad)} bad',
                    end=end,
                    file=sys.stderr,
                    flush=True,
                )
    return bad


def _jpeg_ended(file: BinaryIO) -> bool | None:
    """Look for the end of a JPEG, reading its segments from the first one on.

    The end marker counts only behind the start of the pixel data, because cameras put a thumbnail
    into the header: a JPEG with an end marker of its own.

    Returns:
        True if the marker is near the end of the file, False if there is none, None if in doubt.
    """
    file.seek(len(_JPEG_START))
    while True:
        segment = file.read(4)
        if len(segment) < 4:
            return False
        if segment[0] != 0xFF:
            return None
        if segment[1] == 0xFF:  # a fill byte before the marker
            file.seek(-3, os.SEEK_CUR)
        elif segment[1] == _JPEG_SCAN:
            return _marker_ended(file, _JPEG_END, file.tell())
        else:  # the length counts its own two bytes, which are read already
            file.seek(max(int.from_bytes(segment[2:], 'big') - 2, 0), os.SEEK_CUR)


def _marker_ended(file: BinaryIO, marker: bytes, start: int) -> bool | None:
    """Look for a marker from ``start`` on.

    Returns:
        True if it is near the end of the file, None if it is further in, False if there is none.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(start, size - _TAIL))
    if marker in file.read():
        return True
    file.seek(start)
    return None if marker in file.read() else False


def _decoding_problem(path: Path, kind: str, *, decode: bool) -> str | None:
    """Return the reason why the header of an image, or with ``decode`` its pixels, fail to load."""
    try:
        with Image.open(path) as image:
            if decode:
                image.load()
    except UnidentifiedImageError:
        return f'broken {kind} header' if kind else 'not an image'
    except Exception as error:  # decoders raise many types of errors on damaged files
        return f'cannot be decoded ({error})'
    return None
