"""Loading of face images of any format as (H, W, 3), uint8, BGR."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.fileio import get

from mmdet_ext.data.images import decode_image
from mmdet_ext.registry import TRANSFORMS

#: A 16-bit image whose values all lie below this is taken for a 12-bit image.
_TWELVE_BITS = 4096
_SIXTEEN_BITS = 65535


@TRANSFORMS.register_module()
class LoadFace(BaseTransform):  # type: ignore[misc]
    """Transform that loads an image as (H, W, 3), uint8, BGR, unless it is loaded already.

    An image that its data set has loaded is passed on as it is, so that one pipeline serves
    records, ``.bin`` files, folders and lists.

    As mmcv's LoadImageFromFile does, it gives grey images three equal channels, converts CMYK to
    BGR, takes the first frame of an animation, ignores transparency, and follows the EXIF
    orientation. Unlike mmcv, which keeps the upper byte of 16-bit images and so leaves 12-bit
    images nearly black, it scales them by ``white`` and rounds. It refuses empty, cut and unknown
    files and floating-point pixels, and the error names the file.

    Required keys: img, or else img_path.

    Added keys: img, img_shape, ori_shape.

    Args:
        white: value of white in 16-bit images, 1 .. 65535. None takes 65535, and refuses images
            in which no value reaches 4096, because they must be of fewer bits.
        backend_args: as in mmcv's LoadImageFromFile.

    Raises:
        ValueError: if ``white`` is out of range; in use, if the image cannot be decoded.
        OSError: in use, if the file cannot be read.
    """

    def __init__(
        self, white: int | None = None, backend_args: Mapping[str, Any] | None = None
    ) -> None:
        if white is not None and not 1 <= white <= _SIXTEEN_BITS:
            raise ValueError(f'white must be in 1 .. {_SIXTEEN_BITS} or None, got {white}')
        self.white = white
        self.backend_args = None if backend_args is None else dict(backend_args)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Load an image, or pass on the one that is loaded.

        Args:
            results: dict with the keys above.
        """
        if results.get('img') is None:
            img = self._load(results['img_path'])
            results.update(img=img, img_shape=img.shape[:2], ori_shape=img.shape[:2])
        for key in ('img_shape', 'ori_shape'):
            results.setdefault(key, results['img'].shape[:2])
        return results

    def _load(self, path: str) -> np.ndarray:
        """Read and decode a file."""
        try:
            content = get(path, backend_args=self.backend_args)
        except FileNotFoundError as error:
            raise FileNotFoundError(f'{path}: the image is not there') from error
        try:
            return self._decode(content)
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from error

    def _decode(self, content: bytes) -> np.ndarray:
        """Decode an image to (H, W, 3), uint8, BGR."""
        if not content:
            raise ValueError('the file is empty')
        try:
            image = decode_image(content, any_depth=True)
        except ValueError as error:
            raise ValueError(
                f'no image that OpenCV {cv2.__version__} can decode: cut short, or of another '
                f'kind of file ({error})'
            ) from error
        if image.dtype == np.uint8:
            return image
        if image.dtype != np.uint16:
            raise ValueError(f'its pixels are {image.dtype}; make an image of 8 bits of it')
        if self.white is None and image.max() < _TWELVE_BITS:
            raise ValueError(
                f'a 16-bit image whose largest value is {image.max()}: it would be all but '
                'black. Give the value of white, as LoadFace(white=4095)'
            )
        white = self.white or _SIXTEEN_BITS
        return np.rint(np.minimum(image, white) * (255 / white)).astype(np.uint8)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(white={self.white}, backend_args={self.backend_args})'
