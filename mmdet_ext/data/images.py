"""Checks of image files, their sizes, and decoding.

An image cut short by an interrupted copy stops a training hours later, so it is looked for
beforehand. JPEG and PNG files mark their end: their header and last bytes distinguish nearly every
cut file from a whole one. Only doubtful files are decoded.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

#: What OpenCV raises where it refuses an image, of no pixels for one.
OpenCVError = cv2.error

_JPEG_START = b'\xff\xd8'
_JPEG_END = b'\xff\xd9'
_JPEG_SCAN = 0xDA
_PNG_START = b'\x89PNG\r\n\x1a\n'
_PNG_END = b'IEND\xaeB`\x82'
_TAIL = 4096
_PROGRESS_FROM = 5000
_PROGRESS_STEP = 1000
_ORIENTATION_TAG = 0x0112
_QUARTER_TURNED = (5, 6, 7, 8)


class ImageCheck(NamedTuple):
    """Result of the check of one image file; one of the two is None.

    Attributes:
        problem: Short reason that the image cannot be used, see :func:`image_problem`.
        size: Width and height in px, see :func:`image_size`.
    """

    problem: str | None
    size: tuple[int, int] | None


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
    return check_image(path).problem


def check_image(path: str | os.PathLike[str], *, turned: bool = True) -> ImageCheck:
    """Check an image file and read its size; the file is opened once.

    Args:
        path: The image file.
        turned: Whether the loader turns images by their EXIF orientation, see :func:`image_size`.

    Returns:
        The problem, or the size of a whole image.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # the latter: a null byte in the path
        return ImageCheck('missing', None)
    if not stat.S_ISREG(mode):
        return ImageCheck('not a file', None)
    try:
        with open(path, 'rb') as file:
            head = file.read(len(_PNG_START))
            if not head:
                return ImageCheck('empty file', None)
            if head.startswith(_JPEG_START):
                kind, ended = 'JPEG', _jpeg_ended(file)
            elif head == _PNG_START:
                kind, ended = 'PNG', _marker_ended(file, _PNG_END, len(_PNG_START))
            else:
                kind, ended = '', None
            if ended is False:
                return ImageCheck(f'truncated {kind} (no end marker)', None)
            return _check_header(file, kind, decode=ended is None, turned=turned)
    except OSError as error:
        return ImageCheck(f'unreadable ({error.strerror})', None)


def image_size(path: str | os.PathLike[str], *, turned: bool = True) -> tuple[int, int]:
    """Read the size of an image from its header, turned by the EXIF orientation.

    mmcv's loader gives the image this size where it decodes with OpenCV, as it does by default.
    Which formats OpenCV turns depends on its release.

    Args:
        path: The image file.
        turned: Whether the loader turns images: False stands for the ``color_type``
            'color_ignore_orientation' or 'unchanged' of ``LoadImageFromFile``.

    Returns:
        ``(width, height)`` in pixels.

    Raises:
        OSError: If the file is missing or has no header of an image.
    """
    with Image.open(path) as image:
        return _loaded_size(image, turned)


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
    checks = check_images(paths, workers)
    return {path: check.problem for path, check in checks.items() if check.problem is not None}


def check_images(
    paths: Iterable[Path], workers: int = 8, *, turned: bool = True
) -> dict[Path, ImageCheck]:
    """Check many images in threads and read their sizes, each file once.

    More than 5,000 of them show a progress line on stderr.

    Args:
        paths: The image files.
        workers: Number of threads, at least 1.
        turned: Whether the loader turns images by their EXIF orientation, see :func:`image_size`.

    Returns:
        The check of each image, in the order of ``paths``.

    Raises:
        ValueError: If ``workers`` is below 1.
    """
    if workers < 1:
        raise ValueError(f'workers is {workers}; at least 1 thread is needed')
    paths = list(dict.fromkeys(paths))
    shows_progress = len(paths) > _PROGRESS_FROM
    checks: dict[Path, ImageCheck] = {}
    bad = 0
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(partial(check_image, turned=turned), paths)
        for done, (path, check) in enumerate(zip(paths, found, strict=True), start=1):
            checks[path] = check
            bad += check.problem is not None
            if shows_progress and (done % _PROGRESS_STEP == 0 or done == len(paths)):
                end = '\n' if done == len(paths) else ''
                print(
                    f'\rchecked {done} of {len(paths)} images, {bad} bad',
                    end=end,
                    file=sys.stderr,
                    flush=True,
                )
    return checks


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


def _check_header(file: BinaryIO, kind: str, *, decode: bool, turned: bool) -> ImageCheck:
    """Read the header of an image, and with ``decode`` its pixels."""
    file.seek(0)
    try:
        with Image.open(file) as image:
            if decode:
                image.load()
            return ImageCheck(None, _loaded_size(image, turned))
    except UnidentifiedImageError:
        return ImageCheck(f'broken {kind} header' if kind else 'not an image', None)
    except Exception as error:  # decoders raise many types of errors on damaged files
        return ImageCheck(f'cannot be decoded ({error})', None)


def _loaded_size(image: Image.Image, turned: bool) -> tuple[int, int]:
    """Return the size that OpenCV gives an opened image."""
    width, height = image.size
    swaps = _orientation(image) in _QUARTER_TURNED and _loader_swaps(image.format or '', turned)
    return (height, width) if swaps else (width, height)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 if it has none.

    ``Image.getexif`` would decode a PNG without a tag, and takes the XMP tag too, which OpenCV does
    not read.
    """
    if image.format == 'TIFF':
        return int(getattr(image, 'tag_v2', {}).get(_ORIENTATION_TAG, 1))
    data = image.info.get('exif')
    if not data:
        return 1
    exif = Image.Exif()
    try:
        exif.load(data)
        return int(exif.get(_ORIENTATION_TAG, 1))
    except Exception:  # a damaged tag, which OpenCV passes over
        return 1


@cache
def _loader_swaps(kind: str, turned: bool) -> bool:
    """Return whether OpenCV swaps the sides that Pillow states for a quarter-turned image.

    Releases of both differ in the formats that they turn, so a small image is tried.

    Args:
        kind: Pillow's name of the format.
        turned: False to decode with the flag that ignores the orientation.
    """
    exif = Image.Exif()
    exif[_ORIENTATION_TAG] = _QUARTER_TURNED[1]
    flags = cv2.IMREAD_COLOR | (0 if turned else cv2.IMREAD_IGNORE_ORIENTATION)
    buffer = io.BytesIO()
    try:
        Image.new('RGB', (32, 16)).save(buffer, 'JPEG' if kind == 'MPO' else kind, exif=exif)
        found = cv2.imdecode(np.frombuffer(buffer.getvalue(), np.uint8), flags)
        with Image.open(buffer) as stated:
            return found is not None and found.shape[1::-1] != stated.size
    except Exception:  # a format that Pillow does not write, or OpenCV does not read
        return False
