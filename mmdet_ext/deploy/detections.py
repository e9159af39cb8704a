"""Detections of one image, and their drawing."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np


@dataclass(frozen=True)
class Detections:
    """Detections of one image, best first.

    Args:
        boxes: (N, 4) corners x1, y1, x2, y2 in px of the image.
        scores: (N,).
        labels: (N,) indices of classes.
        classes: names of all classes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> Detections:
        """Return the detections of at least a score."""
        kept = self.scores >= score
        return Detections(self.boxes[kept], self.scores[kept], self.labels[kept], self.classes)

    def to_list(self) -> list[dict[str, Any]]:
        """Return plain values, for json."""
        return [
            dict(
                label=self.classes[label],
                score=round(float(score), 6),
                box=[round(float(value), 3) for value in box],
            )
            for box, score, label in zip(self.boxes, self.scores, self.labels, strict=True)
        ]

    def draw(self, image: np.ndarray) -> np.ndarray:
        """Return a copy of an image with boxes, classes and scores.

        Args:
            image: (H, W, 3) uint8, BGR.
        """
        drawn = image.copy()
        thick = max(1, round(min(image.shape[:2]) / 300))
        # The best are drawn last, on top.
        for box, score, label in zip(
            self.boxes[::-1], self.scores[::-1], self.labels[::-1], strict=True
        ):
            colour = _colour(int(label), len(self.classes))
            x1, y1, x2, y2 = (int(value) for value in np.rint(np.clip(box, -1e6, 1e6)))
            cv2.rectangle(drawn, (x1, y1), (x2, y2), colour, thick)
            text = f'{self.classes[label]} {score:.2f}'
            (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
            top = max(y1, height + below)
            cv2.rectangle(drawn, (x1, top - height - below), (x1 + width, top), colour, -1)
            cv2.putText(
                drawn, text, (x1, top - below + 1), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1
            )
        return drawn


def _colour(label: int, classes: int) -> tuple[int, int, int]:
    """Return the colour, BGR, of a class: hues at equal distances."""
    red, green, blue = colorsys.hsv_to_rgb(label / max(1, classes), 0.6, 1.0)
    return round(blue * 255), round(green * 255), round(red * 255)
