"""Identifier of the recogniser that a gallery belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from mmdet_ext.face.gallery.errors import GalleryError

_DIGITS = 32


def recogniser_id(files: Sequence[str | PathLike[str]]) -> str:
    """Compute the identifier of a recogniser from the contents of its files.

    Names and places of the files do not count, their order does.

    Args:
        files: the files that determine its embeddings: an exported model, or config and checkpoint.

    Returns:
        str: ``sha256:`` and 32 hexadecimal digits.

    Raises:
        GalleryError: if there is no file, or one cannot be read.
    """
    if not files:
        raise GalleryError('files is empty: name the files that the recogniser is made of')
    whole = hashlib.sha256()
    for file in map(Path, files):
        part = hashlib.sha256()
        try:
            with file.open('rb') as opened:
                while content := opened.read(2**20):
                    part.update(content)
        except OSError as error:
            raise GalleryError(f'{file}: cannot be read ({error.strerror})') from error
        whole.update(part.digest())
    return f'sha256:{whole.hexdigest()[:_DIGITS]}'
