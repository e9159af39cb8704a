"""Images as the network was trained on: read, resized, padded and normalised."""

from __future__ import annotations

import warnings
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mmdet_ext.data.suffixes import IMAGE_SUFFIXES, has_image_suffix
from mmdet_ext.deploy.errors import ImageError
from mmdet_ext.deploy.metadata import InputInfo

INTERPOLATIONS = {
    'nearest': cv2.INTER_NEAREST,
    'linear': cv2.INTER_LINEAR,
    'cubic': cv2.INTER_CUBIC,
    'area': cv2.INTER_AREA,
    'lanczos4': cv2.INTER_LANCZOS4,
}

#: A path, or pixels (H, W, 3) uint8, BGR.
Image = str | PathLike[str] | np.ndarray


class Prepared(NamedTuple):
    """Image in the form of the network.

    Attributes:
        pixels: (3, H, W) float32.
        size: height and width, px, of the part of ``pixels`` that boxes are clipped to.
        factors: width and height of the resized image over those of the image.
        original: height and width of the image, px.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    factors: tuple[float, float]
    original: tuple[int, int]


def image_files(paths: list[Path]) -> list[Path]:
    """List files, and of each folder the images in it, in the order of their names.

    Raises:
        ImageError: if a path does not exist, or a folder has no images.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ImageError(f'{path}: there is no such file or folder')
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(each for each in path.iterdir() if has_image_suffix(each))
        if not inside:
            raise ImageError(f'{path}: the folder has no images ({", ".join(IMAGE_SUFFIXES)})')
        found += inside
    return found


def read_image(image: Image) -> np.ndarray:
    """Read an image as mmdet's loader does: 8 bits, BGR, turned as its EXIF data say.

    Grey files get three equal channels; of 16 bits the upper 8 are kept, with a warning.

    Args:
        image: path; or pixels (H, W, 3) uint8, BGR, which are returned as they are.

    Raises:
        ImageError: if the file is absent or no image, or the pixels have another form.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ImageError(
                f'an image has shape {image.shape} and type {image.dtype}, but must be '
                '(height, width, 3) of uint8, BGR. Grey: cv2.cvtColor(image, '
                'cv2.COLOR_GRAY2BGR); 16 bits: (image // 257).astype(numpy.uint8)'
            )
        return image
    path = Path(image)
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise ImageError(f'{path}: cannot be read ({error.strerror})') from error
    try:
        found = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except cv2.error:  # such as an image of more pixels than OpenCV decodes
        found = None
    if found is None:
        what = 'is empty' if not content.size else 'is no image that OpenCV can decode'
        raise ImageError(f'{path}: the file {what}')
    if _is_deep(content):
        warnings.warn(
            f'{path} has 16 bits per channel, of which the upper 8 are used, as in training. An '
            'image of 12 bits is nearly black so: scale it to 8 bits first',
            stacklevel=2,
        )
    return found


def _is_deep(content: np.ndarray) -> bool:
    """Return whether a file of an image has 16 bits per channel."""
    start = content[:26].tobytes()
    if start.startswith(b'\x89PNG'):
        return start[24:25] == b'\x10'
    if not start.startswith((b'II*\0', b'MM\0*')):  # TIFF; other formats have 8 bits
        return False
    whole = cv2.imdecode(content, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
    return whole is not None and whole.dtype != np.uint8


def prepare(image: np.ndarray, info: InputInfo, name: str = 'the image') -> Prepared:
    """Resize, pad and normalise an image.

    Args:
        image: (H, W, 3) uint8, BGR.
        info: of the model file.
        name: of the image, for errors.

    Raises:
        ImageError: if a side of the resized image would be 0 px.
    """
    height, width = image.shape[:2]
    resized = _resize(image, info, name)
    size = resized.shape[:2]
    factors = size[1] / width, size[0] / height
    target = info.size or padded_size(size, info.divisor)
    if info.pad_first is not None:
        resized = _pad(resized, target, info.pad_first)
        size = resized.shape[:2]
    pixels = resized[..., ::-1] if info.to_rgb else resized
    mean, std = np.array(info.mean, np.float32), np.array(info.std, np.float32)
    normalised = (pixels.astype(np.float32) - mean) / std
    whole = np.full((3, *target), info.pad_value, np.float32)
    whole[:, : size[0], : size[1]] = normalised.transpose(2, 0, 1)
    return Prepared(whole, (int(size[0]), int(size[1])), factors, (height, width))


def padded_size(size: tuple[int, int], divisor: int) -> tuple[int, int]:
    """Return the least multiples of ``divisor`` that hold a size.

    >>> padded_size((150, 200), 32)
    (160, 224)
    """
    height, width = (-(-side // divisor) * divisor for side in size)
    return height, width


def stack(prepared: list[Prepared], info: InputInfo) -> np.ndarray:
    """Stack images to (B, 3, H, W), padded at the right and below to the largest of them."""
    height = max(each.pixels.shape[1] for each in prepared)
    width = max(each.pixels.shape[2] for each in prepared)
    batch = np.full((len(prepared), 3, height, width), info.pad_value, np.float32)
    for row, each in zip(batch, prepared, strict=True):
        row[:, : each.pixels.shape[1], : each.pixels.shape[2]] = each.pixels
    return batch


def _resize(image: np.ndarray, info: InputInfo, name: str) -> np.ndarray:
    """Resize as mmcv's ``imresize`` or ``imrescale``, and further down to the input if need be."""
    height, width = image.shape[:2]
    if info.keep_ratio:
        long, short = max(info.scale), min(info.scale)
        factor = min(long / max(height, width), short / min(height, width))
        if info.size is not None:  # such as an upright image in a lying input
            factor = min(factor, info.size[1] / width, info.size[0] / height)
        wanted = int(width * factor + 0.5), int(height * factor + 0.5)
    else:
        wanted = info.scale
    if min(wanted) < 1:
        raise ImageError(
            f'{name} is {height} x {width} px (height x width): resized with its ratio to fit '
            f'{info.scale[0]} x {info.scale[1]}, a side would be 0 px. Cut it into parts'
        )
    if info.warp:
        matrix = np.diag([wanted[0] / width, wanted[1] / height, 1.0])
        return cv2.warpPerspective(image, matrix, wanted)
    return cv2.resize(image, wanted, interpolation=INTERPOLATIONS[info.interpolation])


def _pad(image: np.ndarray, target: tuple[int, int], value: tuple[float, ...]) -> np.ndarray:
    whole = np.empty((*target, 3), np.uint8)
    whole[:] = np.array(value, np.float32).astype(np.uint8)
    whole[: image.shape[0], : image.shape[1]] = image
    return whole
