"""File suffixes of images: one list for all readers.

Standard library only, so that a command-line tool can look through a folder at once.
"""

from __future__ import annotations

import os

#: Suffixes of the formats that OpenCV and Pillow read, in small letters; a name may have them in
#: any case. Whether an installed OpenCV reads AVIF, WebP and JPEG 2000 depends on its build.
IMAGE_SUFFIXES = tuple(
    '.jpg .jpeg .png .bmp .webp .pgm .ppm .pbm .pnm .tif .tiff .gif .jpe .jfif .dib .avif .apng '
    '.mpo .jp2 .j2k .j2c .jpc .jpf .jpx .sr .ras'.split()
)

#: Suffixes of images that OpenCV does not read. A reader names such files as images of a format
#: that is not read, instead of as files of another kind.
UNREAD_SUFFIXES = tuple(
    '.heic .heif .hif .jxl .jxr .wdp .tga .psd .svg .ico .pcx .dds .qoi .eps .xcf .exr .hdr .pfm '
    '.dng .raw .cr2 .cr3 .nef .arw .orf .rw2 .raf'.split()
)


def has_image_suffix(name: str | os.PathLike[str]) -> bool:
    """Return whether a file has the suffix of an image that can be read, in any case.

    >>> has_image_suffix('s1/A.JPG'), has_image_suffix('a.jpg.txt'), has_image_suffix('a.heic')
    (True, False, False)
    """
    return _suffix(name) in IMAGE_SUFFIXES


def has_unread_suffix(name: str | os.PathLike[str]) -> bool:
    """Return whether a file has the suffix of an image of a format that is not read, in any case.

    >>> has_unread_suffix('a.HEIC'), has_unread_suffix('notes.txt')
    (True, False)
    """
    return _suffix(name) in UNREAD_SUFFIXES


def _suffix(name: str | os.PathLike[str]) -> str:
    """Return the suffix of a name in small letters."""
    return os.path.splitext(name)[1].lower()
