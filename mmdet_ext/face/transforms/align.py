"""Alignment of faces: a similarity transform that maps five landmarks to a template."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from mmdet_ext.data.face.alignment import TEMPLATE, scaled_template, similarity_transform
from mmdet_ext.registry import TRANSFORMS

__all__ = ['TEMPLATE', 'AlignFace', 'scaled_template', 'similarity_transform']


@TRANSFORMS.register_module()
class AlignFace(BaseTransform):  # type: ignore[misc]
    """Transform that crops the face so that its five landmarks come nearest to a template.

    It applies `similarity_transform` with bilinear interpolation, and fills with black outside of
    the image. It does not filter: reduce a large image before aligning it to a small size.

    Required keys: img; and landmarks or else keypoints, (5, 2) or (1, 5, 2), px: left eye, right
    eye, nose, left and right corner of the mouth. Left and right are as in the image.

    Modified keys: img, img_shape, and the landmarks, which are transformed too.

    Added keys: align_matrix, (2, 3).

    Args:
        size: width and height of the result, px; one number for both.
        template: landmarks in the result, (5, 2), px. None takes ArcFace's template, see
            `scaled_template`.

    Raises:
        ValueError: if ``size`` or ``template`` does not have this form; in use, with the name of
            the image, if the landmarks are absent, not five points, not finite, or all equal.

    References:
        J. Deng et al.: ArcFace: Additive angular margin loss for deep face recognition. CVPR 2019.
    """

    def __init__(
        self,
        size: int | Sequence[int] = (112, 112),
        template: Sequence[Sequence[float]] | None = None,
    ) -> None:
        sides = tuple(size) if isinstance(size, Iterable) else (size, size)
        if len(sides) != 2 or not all(isinstance(side, Integral) and side > 0 for side in sides):
            raise ValueError(
                'size must be a width and a height, or one number for both, whole numbers of at '
                f'least 1 px; got {size!r}'
            )
        self.size = (int(sides[0]), int(sides[1]))
        self.template = (
            scaled_template(self.size) if template is None else np.asarray(template, np.float64)
        )
        if self.template.shape != (5, 2):
            raise ValueError(f'template must be 5 points x, y, got shape {self.template.shape}')

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Align an image.

        Args:
            results: dict with the keys above.
        """
        image = results.get('img_path', 'an image without img_path')
        key = next(
            (key for key in ('landmarks', 'keypoints') if results.get(key) is not None), None
        )
        if key is None:
            raise ValueError(
                f'{image}: AlignFace needs its five landmarks under the key landmarks or '
                f'keypoints; there are {", ".join(sorted(results))}'
            )
        given = np.asarray(results[key], np.float64)
        landmarks = given[0] if given.ndim == 3 and len(given) == 1 else given
        if landmarks.shape != (5, 2):
            raise ValueError(
                f'{image}: {key} must be 5 points x, y (eyes, nose, corners of the mouth), got '
                f'shape {given.shape}'
            )
        try:
            matrix = similarity_transform(landmarks, self.template)
        except ValueError as error:
            raise ValueError(
                f'{image}: {key} {landmarks.tolist()} cannot be aligned: {error}'
            ) from error
        results['img'] = cv2.warpAffine(results['img'], matrix, self.size, flags=cv2.INTER_LINEAR)
        results['img_shape'] = results['img'].shape[:2]
        moved = landmarks @ matrix[:, :2].T + matrix[:, 2]
        results[key] = moved.reshape(given.shape).astype(np.float32)
        results['align_matrix'] = matrix
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(size={self.size}, template={self.template.tolist()})'
