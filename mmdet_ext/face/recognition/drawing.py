"""Boxes, names and similarities on an image."""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Sequence

import cv2
import numpy as np

from mmdet_ext.face.gallery.results import UNKNOWN
from mmdet_ext.face.recognition.results import Recognition

_GREY = (170, 170, 170)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_recognitions(image: np.ndarray, recognitions: Sequence[Recognition]) -> np.ndarray:
    """Return a copy of an image with boxes, landmarks, names and similarities.

    A person has the same colour in every image; unknown people are grey. Text and lines grow with
    the image. Letters that OpenCV's font lacks are drawn as question marks.

    Args:
        image: (H, W, 3), uint8, BGR.
        recognitions: of the image.
    """
    drawn = image.copy()
    scale = max(0.4, min(image.shape[:2]) / 800)
    thick = max(1, round(2 * scale))
    for face in recognitions:
        colour = _colour(face.name)
        x1, y1, x2, y2 = (int(value) for value in np.rint(np.clip(face.box, -1e6, 1e6)))
        cv2.rectangle(drawn, (x1, y1), (x2, y2), colour, thick)
        for x, y in () if face.landmarks is None else np.clip(face.landmarks, -1e6, 1e6):
            cv2.circle(drawn, (round(x), round(y)), thick, colour, -1)
        _label(drawn, _text(face), (x1, y1), colour, scale)
    return drawn


def _text(face: Recognition) -> str:
    text = face.name if face.similarity is None else f'{face.name} {face.similarity:.2f}'
    return ''.join(letter if ' ' <= letter <= '~' else '?' for letter in text)


def _label(
    image: np.ndarray,
    text: str,
    corner: tuple[int, int],
    colour: tuple[int, int, int],
    scale: float,
) -> None:
    """Write a text above a corner, or below it at the upper border of the image."""
    thick = max(1, round(1.5 * scale))
    (width, height), below = cv2.getTextSize(text, _FONT, scale, thick)
    left = max(0, min(corner[0], image.shape[1] - width))
    bottom = corner[1] if corner[1] >= height + below else corner[1] + height + below
    cv2.rectangle(image, (left, bottom - height - below), (left + width, bottom), colour, -1)
    cv2.putText(image, text, (left, bottom - below + 1), _FONT, scale, (0, 0, 0), thick)


def _colour(name: str) -> tuple[int, int, int]:
    """Return the colour, BGR, of a person: grey for unknown ones, else a hue of the name."""
    if name == UNKNOWN:
        return _GREY
    red, green, blue = colorsys.hsv_to_rgb(zlib.crc32(name.encode()) / 2**32, 0.6, 1.0)
    return round(blue * 255), round(green * 255), round(red * 255)
