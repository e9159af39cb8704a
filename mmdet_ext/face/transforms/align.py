"""Alignment of faces: a similarity transform that maps five landmarks to a template."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from mmdet_ext.registry import TRANSFORMS

#: ArcFace's landmarks in an image of 112 x 112: x, y in px of the left eye, right eye, nose, left
#: and right corner of the mouth. Left and right are as in the image.
TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
_SIDE = 112


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    r"""Compute the similarity transform that moves points nearest to others, without reflection.

    Points are written as complex numbers: :math:`z` for source points and :math:`w` for target
    points. The transform :math:`w = a z + b` with the least squared error has

    .. math:: a = \sum_i \overline{(z_i - \bar z)} (w_i - \bar w) / \sum_i |z_i - \bar z|^2,
              \quad b = \bar w - a \bar z.

    :math:`|a|` is the scale, the argument of a is the angle of rotation. In the plane this is
    Umeyama's solution with a positive determinant.

    Args:
        source: points, (N, 2), N at least 2.
        target: points, (N, 2).

    Returns:
        Matrix of float64, (2, 3): ``target ~ matrix[:, :2] @ source + matrix[:, 2]``.

    Raises:
        ValueError: if shapes differ from these, a number is not finite, all source points are
            equal, or the best scale is 0.

    References:
        S. Umeyama: Least-squares estimation of transformation parameters between two point
        patterns. PAMI 1991, equations 40 to 43.

    >>> similarity_transform(np.array([[0, 0], [1, 0]]), np.array([[5, 5], [5, 7]])).tolist()
    [[0.0, -2.0, 5.0], [2.0, 0.0, 5.0]]
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if (
        source.shape != target.shape
        or source.ndim != 2
        or source.shape[1] != 2
        or (len(source) < 2)
    ):
        raise ValueError(
            'source and target must be points of one shape (N, 2), N at least 2, got '
            f'{source.shape} and {target.shape}'
        )
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise ValueError('a coordinate is not finite')
    z, w = source @ [1, 1j], target @ [1, 1j]
    z_mean, w_mean = z.mean(), w.mean()
    spread = float((np.abs(z - z_mean) ** 2).sum())
    if spread <= (1e-6 * (1 + np.abs(z).max())) ** 2:
        raise ValueError('all source points are equal')
    a = (np.conj(z - z_mean) * (w - w_mean)).sum() / spread
    if np.abs(a) ** 2 * spread <= 1e-12 * (np.abs(w - w_mean) ** 2).sum():
        raise ValueError('no turn brings the points nearer to each other: the best scale is 0')
    b = w_mean - a * z_mean
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def scaled_template(
    size: tuple[int, int], template: Sequence[Sequence[float]] = TEMPLATE
) -> np.ndarray:
    """Scale a template of 112 x 112 to another size: by the height, and centred in the width.

    The size 96 x 112 gives the template of SphereFace, 224 x 224 twice that of 112 x 112.
    InsightFace leaves a margin around the face for multiples of 128; such a template has to be
    given to `AlignFace` as it is.

    Args:
        size: width and height, px.
        template: landmarks, (5, 2), px in an image of 112 x 112.

    Returns:
        Landmarks, (5, 2), px.
    """
    width, height = size
    scale = height / _SIDE
    return (np.asarray(template, np.float64) - (_SIDE / 2, 0)) * scale + (width / 2, 0)


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
