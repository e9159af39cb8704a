"""Loading of face images of any kind as what the networks take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.fileio import get

from mmdet_ext.data.images import decode_image
from mmdet_ext.registry import TRANSFORMS

#: Below this, a 16-bit image is taken for one of 12 bits in the wrong scale.
_TWELVE_BITS = 4096
_SIXTEEN_BITS = 65535


@TRANSFORMS.register_module()
class LoadFace(BaseTransform):  # type: ignore[misc]
    """Loads an image as (H, W, 3) uint8, BGR, and names the file where it cannot.

    Grey images get three equal channels; CMYK becomes BGR; of an animation the first frame
    counts; transparency is passed over; the EXIF orientation is followed. All of this is as in
    mmcv's LoadImageFromFile. Beyond that, 16-bit images are scaled by ``white`` and rounded,
    where mmcv keeps their upper byte, which leaves 12-bit ones all but black; an empty, cut or
    unknown file is an error that says so; and pixels of floating point are refused.

    Required keys: img_path.

    Added keys: img, img_shape, ori_shape.

    Args:
        white: the value of white in 16-bit images, 1 .. 65535. None takes 65535, and refuses
            images in which no value reaches 4096, which must be of fewer bits.
        backend_args: as mmcv's LoadImageFromFile.

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
        """Load an image.

        Args:
            results: with the key above.
        """
        path = results['img_path']
        try:
            content = get(path, backend_args=self.backend_args)
        except FileNotFoundError as error:
            raise FileNotFoundError(f'{path}: the image is not there') from error
        try:
            results['img'] = self._decoded(content)
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from error
        results['img_shape'] = results['ori_shape'] = results['img'].shape[:2]
        return results

    def _decoded(self, content: bytes) -> np.ndarray:
        """The image in an encoded file, (H, W, 3) uint8, BGR."""
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
