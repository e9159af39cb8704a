"""Small files of face records, for tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mmdet_ext.data.face.records import write_face_records, write_records


def jpeg(value: int = 0, side: int = 8) -> bytes:
    """Encode noise as a JPEG; the value selects the noise."""
    noise = np.random.default_rng(value).integers(0, 255, (side, side, 3), dtype=np.uint8)
    return cv2.imencode('.jpg', noise)[1].tobytes()


def faces(folder: Path, counts: tuple[int, ...] = (3, 1, 2)) -> Path:
    """Write a file in InsightFace's layout, with small JPEGs that all differ."""
    write_face_records(
        [[jpeg(10 * label + k) for k in range(count)] for label, count in enumerate(counts)],
        folder / 'train.rec',
        (8, 8),
    )
    return folder / 'train.rec'


def records(folder: Path, payloads: list[bytes]) -> Path:
    """Write payloads as records."""
    write_records(payloads, folder / 'a.rec')
    return folder / 'a.rec'
