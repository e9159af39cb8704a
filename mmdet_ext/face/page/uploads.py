"""Uploaded images: refused by bytes and by the size in their header before they are decoded.

The folder of uploads is private, and is emptied after each request and at the end.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import threading
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmdet_ext.data.images import image_problem
from mmdet_ext.deploy.errors import ImageError
from mmdet_ext.deploy.images import read_image

#: Formats whose header Pillow reads without decoding; that of WebP is read here.
_FORMATS = ('JPEG', 'PNG', 'BMP')
_KINDS = 'JPEG, PNG, BMP or WebP'
_WEBP_HEADER = 30


class RefusedImageError(ValueError):
    """Error for an upload that is not accepted; its message is for the user of the page."""


@dataclass(frozen=True)
class Limits:
    """Largest uploads.

    Attributes:
        max_bytes: bytes of a file.
        max_pixels: width times height of an image, px.
        max_files: images of one enrolment.

    Raises:
        ValueError: if one of them is below 1.
    """

    max_bytes: int = 8 * 2**20
    max_pixels: int = 16_000_000
    max_files: int = 20

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f'{name} must be at least 1, got {value}')


def read_upload(path: str | os.PathLike[str], limits: Limits) -> np.ndarray:
    """Read an uploaded image: first its bytes are counted, then its header is read, then decoded.

    Args:
        path: the file; its name is part of the messages.
        limits: largest uploads.

    Returns:
        ndarray: (H, W, 3) uint8, BGR, turned as its EXIF data say.

    Raises:
        RefusedImageError: if it is too large, no image, or damaged.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise RefusedImageError(f'{path.name} is no longer here: upload it again') from error
    if size > limits.max_bytes:
        raise RefusedImageError(
            f'{path.name} has {_megabytes(size)}, more than the {_megabytes(limits.max_bytes)} '
            'that are accepted: make it smaller'
        )
    _check_pixels(path.name, *_header_size(path), limits)
    problem = image_problem(path)
    if problem is not None:
        raise RefusedImageError(f'{path.name} is damaged ({problem}): choose another file')
    try:
        image = read_image(path)
    except ImageError as error:
        raise RefusedImageError(f'{path.name} cannot be decoded: choose another file') from error
    _check_pixels(path.name, image.shape[1], image.shape[0], limits)
    return image


class UploadFolder:
    """Private folder of uploads, which nobody else on the machine may read.

    Args:
        keep_seconds: seconds that a file may wait for its request; then it is deleted.

    Attributes:
        path: the folder.
    """

    def __init__(self, keep_seconds: float = 600.0) -> None:
        self.path = Path(tempfile.mkdtemp(prefix='mmdet_ext_page_'))
        self.keep_seconds = keep_seconds
        self._closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def forget(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        """Delete files of this folder, and the folders that this leaves empty; ignore others."""
        home = self.path.resolve()
        for each in paths:
            file = Path(each).resolve()
            if home not in file.parents:
                continue
            file.unlink(missing_ok=True)
            for folder in file.parents:
                if folder == home:
                    break
                try:
                    folder.rmdir()
                except OSError:  # it holds other uploads, or is gone
                    break

    def sweep(self, now: float | None = None) -> None:
        """Delete what waits longer than ``keep_seconds``; ``now`` is in seconds of the clock."""
        oldest = (time.time() if now is None else now) - self.keep_seconds
        files = [path for path in self.path.rglob('*') if path.is_file()]
        self.forget(path for path in files if path.stat().st_mtime < oldest)

    def close(self) -> None:
        """Delete the folder with all that it holds."""
        self._closed.set()
        shutil.rmtree(self.path, ignore_errors=True)

    def _watch(self) -> None:
        while not self._closed.wait(min(60.0, self.keep_seconds)):
            try:
                self.sweep()
            except OSError:  # a request deletes at the same time: the next round sees to the rest
                continue


def _header_size(path: Path) -> tuple[int, int]:
    """Return width and height of an image by its header alone."""
    with path.open('rb') as file:
        webp = _webp_size(file.read(_WEBP_HEADER))
        if webp is not None:
            return webp
        file.seek(0)
        return _pillow_size(path.name, file)


def _pillow_size(name: str, file: BinaryIO) -> tuple[int, int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            with Image.open(file, formats=_FORMATS) as opened:
                return opened.size
    except Image.DecompressionBombError as error:
        raise RefusedImageError(f'{name} has too many pixels: make it smaller') from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, struct.error) as error:
        raise RefusedImageError(f'{name} is no image: choose a file of {_KINDS}') from error


def _webp_size(head: bytes) -> tuple[int, int] | None:
    """Return width and height of a WebP file by its first 30 bytes; None for another format.

    The three forms are in RFC 9649, sections 2.5 to 2.7.
    """
    if len(head) < _WEBP_HEADER or head[:4] != b'RIFF' or head[8:12] != b'WEBP':
        return None
    if head[12:16] == b'VP8X':
        return _little(head[24:27]) + 1, _little(head[27:30]) + 1
    if head[12:16] == b'VP8L' and head[20] == 0x2F:
        bits = _little(head[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if head[12:16] == b'VP8 ' and head[23:26] == b'\x9d\x01\x2a':
        return _little(head[26:28]) & 0x3FFF, _little(head[28:30]) & 0x3FFF
    return None


def _little(raw: bytes) -> int:
    return int.from_bytes(raw, 'little')


def _check_pixels(name: str, width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        raise RefusedImageError(
            f'{name} has {width} x {height} pixels, {width * height / 1e6:.1f} million, more than '
            f'the {limits.max_pixels / 1e6:.1f} million that are accepted: make it smaller'
        )


def _megabytes(count: int) -> str:
    return f'{count / 2**20:.1f} MB'
