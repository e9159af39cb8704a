"""Templates of landmarks in an aligned face, and the similarity transform that leads to them.

NumPy alone, so that programs without torch align as the transform `AlignFace` does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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
    InsightFace's differs for multiples of 128: see `insightface_template`.

    Args:
        size: width and height, px.
        template: landmarks, (5, 2), px in an image of 112 x 112.

    Returns:
        Landmarks, (5, 2), px.
    """
    width, height = size
    scale = height / _SIDE
    return (np.asarray(template, np.float64) - (_SIDE / 2, 0)) * scale + (width / 2, 0)


def insightface_template(size: int, template: Sequence[Sequence[float]] = TEMPLATE) -> np.ndarray:
    r"""Scale a template of 112 x 112 as InsightFace's ``norm_crop`` does.

    For multiples of 112 it is :math:`t\,s/112`, as `scaled_template`. For multiples of 128,
    :math:`r = s/128` and :math:`(x, y) = (r\,x_t + 8 r, r\,y_t)`: the face has the size that it
    has at 112, with 8 px more at the left and at the right, and 16 px more below.

    Args:
        size: side of the square image, px; a multiple of 112 or of 128.
        template: landmarks, (5, 2), px in an image of 112 x 112.

    Returns:
        Landmarks, (5, 2), px.

    Raises:
        ValueError: if ``size`` is no such multiple: ``norm_crop`` has no rule for it.

    References:
        InsightFace, ``insightface/utils/face_align.py``, ``estimate_norm``.

    >>> insightface_template(128)[0].round(4).tolist()
    [46.2946, 51.6963]
    """
    points = np.asarray(template, np.float64)
    if size > 0 and size % _SIDE == 0:
        return points * (size / _SIDE)
    if size > 0 and size % 128 == 0:
        ratio = size / 128
        return points * ratio + (8 * ratio, 0)
    raise ValueError(
        f'size must be a multiple of 112 or of 128 px, got {size}: norm_crop has no rule'
    )
