"""Checks of what a detector returns."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmdet_ext.face.recognition.errors import RecognitionError
from mmdet_ext.face.recognition.results import DetectedFace


def checked_faces(found: Any, name: str) -> list[DetectedFace]:
    """Return the faces that a detector found in an image, as plain numbers.

    Args:
        found: what it returned; a face may be any sequence of box, score and landmarks.
        name: of the image, for errors.

    Raises:
        RecognitionError: if it is no list of faces, or a number is not finite.
    """
    if found is None or isinstance(found, (str, dict)):
        raise RecognitionError(
            f'{name}: the detector gave {type(found).__name__}, but must give a list of '
            'DetectedFace(box, score, landmarks)'
        )
    return [_checked(face, f'{name}, face {place}') for place, face in enumerate(found)]


def _checked(face: Any, name: str) -> DetectedFace:
    try:
        box, score, *rest = face
        corners = np.asarray(box, np.float64)
        number = float(score)
        given = rest[0] if rest else None
        landmarks = None if given is None else np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        raise RecognitionError(
            f'{name}: the detector gave {face!r}, but must give DetectedFace(box, score, '
            f'landmarks) ({error})'
        ) from error
    if corners.shape != (4,) or not np.isfinite(corners).all() or not np.isfinite(number):
        raise RecognitionError(
            f'{name}: box {corners.tolist()} with score {number} must be four finite numbers x1, '
            'y1, x2, y2 and a finite score'
        )
    if landmarks is not None and (landmarks.shape != (5, 2) or not np.isfinite(landmarks).all()):
        raise RecognitionError(
            f'{name}: landmarks of shape {landmarks.shape} must be 5 finite points x, y (eyes, '
            'nose, corners of the mouth), or None'
        )
    x1, y1, x2, y2 = corners.tolist()
    return DetectedFace((x1, y1, x2, y2), number, landmarks)
