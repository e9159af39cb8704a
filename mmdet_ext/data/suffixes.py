"""File suffixes of images, all in small letters.

Standard library only, so that a command-line tool can look through a folder at once.
"""

from __future__ import annotations

#: Suffixes of the formats that OpenCV reads.
IMAGE_SUFFIXES = frozenset(
    '.jpg .jpeg .jpe .jfif .png .bmp .dib .pgm .ppm .pbm .pnm .webp .tif .tiff .gif .jp2'.split()
)

#: Suffixes of the images in a Pascal VOC folder.
VOC_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')

#: Suffixes that a list of face pairs may leave out, in the order in which they are tried.
FACE_PAIR_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.pgm', '.ppm')
