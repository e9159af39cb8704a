"""Embedder, detector and images without a network: a face is a square of one colour."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from mmdet_ext.face.recognition import DetectedFace

RED, GREEN, BLUE = (0, 0, 220), (0, 220, 0), (220, 0, 0)
Square = tuple[int, int, int, tuple[int, int, int]]


class Colours:
    """Embedder whose embedding is the mean colour, and which notes the sizes of its calls."""

    recogniser = 'mean colour'
    size = (16, 16)

    def __init__(self) -> None:
        self.calls: list[int] = []

    def embed_crops(self, crops: Sequence[np.ndarray], /) -> np.ndarray:
        """Return the mean colour of each crop."""
        self.calls.append(len(crops))
        return np.array([crop.reshape(-1, 3).mean(0) + 1 for crop in crops])


def scene(*squares: Square, size: tuple[int, int] = (80, 120)) -> np.ndarray:
    """Return a black image with squares: left, top, side and colour of each."""
    image = np.zeros((*size, 3), np.uint8)
    for left, top, side, colour in squares:
        image[top : top + side, left : left + side] = colour
    return image


def find_squares(image: np.ndarray) -> list[DetectedFace]:
    """Find the squares, from the left; a score is the brightness over 255."""
    mask = (image.max(2) > 0).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask)
    faces = []
    for left, top, width, height, _ in stats[1:].tolist():
        part = image[top : top + height, left : left + width]
        faces.append(DetectedFace((left, top, left + width, top + height), float(part.max()) / 255))
    return sorted(faces, key=lambda face: face.box[0])
