"""Recall of proposals: the share of boxes that the best proposals of an image cover."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def overlaps(first: Floats, second: Floats, pixels: bool = False) -> NDArray[np.float32]:
    """Compute the IoU of all pairs of boxes.

    Args:
        first: corners (N, 4) in pixels.
        second: corners (M, 4).
        pixels: count a box from its first to its last pixel: its width is right - left + 1, as in
            VOC's development kit.

    Returns:
        IoUs (N, M), in float32 as mmdet computes them.
    """
    one, other = first.astype(np.float32)[:, None], second.astype(np.float32)[None]
    extra = np.float32(pixels)
    low, high = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    shared = np.clip(high - low + extra, 0, None).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2] + extra).prod(-1) for boxes in (one, other)]
    union = np.maximum(areas[0] + areas[1] - shared, np.float32(1e-6))
    return (shared / union).astype(np.float32)


def proposal_recalls(
    truth: Sequence[Floats],
    proposals: Sequence[Floats],
    numbers: Sequence[int],
    iou_thrs: Sequence[float],
    pixels: bool = False,
) -> NDArray[np.float64]:
    """Compute the recall of the best proposals of each image.

    Boxes and proposals of an image are paired one to one, the pair of the highest IoU first.

    Args:
        truth: for each image, corners (G, 4) of its boxes in pixels.
        proposals: for each image, corners (P, 4), the best first.
        numbers: numbers of proposals per image.
        iou_thrs: thresholds of the IoU.
        pixels: see `overlaps`.

    Returns:
        Shares (numbers, thresholds) of the boxes whose pair reaches the threshold; NaN without
        boxes.

    Raises:
        ValueError: if there are not as many images of both.
    """
    best = [
        [_paired(overlaps(boxes, found[:number], pixels)) for number in numbers]
        for boxes, found in zip(truth, proposals, strict=True)
    ]
    recalls = np.full((len(numbers), len(iou_thrs)), np.nan)
    for row in range(len(numbers)):
        ious = np.concatenate([np.zeros(0), *(each[row] for each in best)])
        for column, threshold in enumerate(iou_thrs):
            if ious.size:
                # Stock compares in float32.
                recalls[row, column] = (ious.astype(np.float32) >= threshold).mean()
    return recalls


def _paired(ious: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the IoU (G,) of each box with its own proposal, 0 for a box without one."""
    found = np.zeros(len(ious), np.float32)
    left = ious.copy()
    for _ in range(min(left.shape)):
        box, proposal = divmod(int(left.argmax()), left.shape[1])
        if left[box, proposal] <= 0:
            break
        found[box] = left[box, proposal]
        left[box, :] = left[:, proposal] = -1
    return found
