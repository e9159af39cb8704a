"""Images in every form that a caller has, as (H, W, 3), uint8, BGR."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import cv2
import numpy as np

from mmdet_ext.deploy.errors import ImageError
from mmdet_ext.deploy.images import Image, read_image


def as_list(images: Image | Sequence[Image]) -> list[Image]:
    """List images; a single path or array is a list of one."""
    if isinstance(images, (str, PathLike)) or (
        isinstance(images, np.ndarray) and images.ndim in (2, 3)
    ):
        return [images]
    if not isinstance(images, (Sequence, np.ndarray)):
        raise ImageError(
            f'images must be a list of paths or of arrays, got {type(images).__name__}'
        )
    return list(images)


def image_name(image: Any, place: int) -> str:
    """Return the path of an image, or its place in the list."""
    return str(image) if isinstance(image, (str, PathLike)) else f'image {place}'


def read_any(image: Any, name: str) -> np.ndarray:
    """Read an image.

    Grey images get three equal channels, and transparency is ignored, in files and in arrays. Files
    of 16 bits keep their upper 8, with a warning.

    Args:
        image: path; or pixels of uint8: (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA.
        name: of the image, for errors.

    Returns:
        ndarray: (H, W, 3), uint8, BGR.

    Raises:
        ImageError: if it has another form, or cannot be read; with its name.
    """
    if isinstance(image, (str, PathLike)):
        return read_image(image)
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f'{name}: an image is a path or an array of uint8, got {type(image).__name__}'
        )
    if image.dtype == np.uint8 and image.size:
        if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
            return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_GRAY2BGR)
        if image.ndim == 3 and image.shape[2] == 4:
            return np.ascontiguousarray(image[..., :3])
    try:
        return np.ascontiguousarray(read_image(image))
    except ImageError as error:
        raise ImageError(f'{name}: {error}') from error
