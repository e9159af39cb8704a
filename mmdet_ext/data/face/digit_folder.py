"""Folder of handwritten digits, laid out as a folder of faces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

_SIDE = 56


def write_digit_folder(
    samples: Iterable[tuple[str, np.ndarray[Any, Any]]], root: Path
) -> Counter[str]:
    """Write images of digits, enlarged to 56 x 56, into one folder per digit.

    Args:
        samples: the digit and the image, (H, W, 3), uint8, of each sample.
        root: target folder.

    Returns:
        Number of images per digit.
    """
    written: Counter[str] = Counter()
    for index, (digit, image) in enumerate(samples):
        folder = root / digit
        folder.mkdir(parents=True, exist_ok=True)
        image = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f'{index:04d}.png'), image)
        written[digit] += 1
    return written
