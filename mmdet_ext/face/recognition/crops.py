"""Crops of faces: aligned by five landmarks, or squares around the box."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from mmdet_ext.data.face.alignment import similarity_transform
from mmdet_ext.face.recognition.results import DetectedFace

Box = tuple[float, float, float, float]


def crop_faces(
    image: np.ndarray,
    faces: Sequence[DetectedFace],
    size: tuple[int, int],
    template: np.ndarray,
    margin: float = 0.0,
) -> list[np.ndarray]:
    """Crop the faces of an image to one size.

    A face with landmarks is moved by the similarity transform that brings them nearest to the
    template, bilinearly and without a filter, as `AlignFace` and InsightFace's ``norm_crop`` do.
    A face without landmarks, or with landmarks that determine no transform, is the square of
    `square_box`. What lies outside of the image is black.

    Args:
        image: (H, W, 3), uint8, BGR.
        faces: of the image.
        size: height and width of a crop, px.
        template: landmarks in a crop, (5, 2), px.
        margin: share of the longer side of a box that is added on each of its sides.

    Returns:
        list[ndarray]: (h, w, 3), uint8, BGR, of each face.
    """
    return [_crop(image, face, size, template, margin) for face in faces]


def square_box(box: Box, size: tuple[int, int], margin: float = 0.0) -> Box:
    r"""Widen a box to the ratio of a crop, around its centre.

    With the width w and the height h of the box, and the height H and the width W of the crop, the
    result has the height :math:`(1 + 2\,\mathrm{margin}) \max(h, w H / W)` and the ratio of the
    crop. For square crops its side is the longer side of the box, with the margin on both sides.

    >>> square_box((10, 20, 30, 60), (112, 112))
    (0.0, 20.0, 40.0, 60.0)
    """
    x1, y1, x2, y2 = box
    height, width = size
    tall = (1 + 2 * margin) * max(y2 - y1, (x2 - x1) * height / width)
    wide = tall * width / height
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2


def _crop(
    image: np.ndarray,
    face: DetectedFace,
    size: tuple[int, int],
    template: np.ndarray,
    margin: float,
) -> np.ndarray:
    if face.landmarks is not None:
        try:
            matrix = similarity_transform(face.landmarks, template)
        except ValueError:  # all points equal, or the like: the box remains
            pass
        else:
            return cv2.warpAffine(image, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR)
    return _cut(image, square_box(face.box, size, margin), size)


def _cut(image: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    """Cut a box out of an image, whole pixels, and resize it; the mean of pixels where it shrinks.

    A box that is much larger than the image costs no more memory than twice the image.
    """
    height, width = image.shape[:2]
    reach = 2.0 * max(height, width)
    x1, y1, x2, y2 = (round(min(max(float(value), -reach), reach)) for value in box)
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    whole = np.zeros((y2 - y1, x2 - x1, 3), np.uint8)
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    if left < right and top < bottom:
        whole[top - y1 : bottom - y1, left - x1 : right - x1] = image[top:bottom, left:right]
    shrinks = whole.shape[0] > size[0] or whole.shape[1] > size[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(whole, (size[1], size[0]), interpolation=method)
