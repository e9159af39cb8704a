"""Average precision as COCO defines it, of a data set and of resamples of its images."""

from __future__ import annotations

import numpy as np

from mmdet_ext.analysis.detection.bootstrap import blocks, drawn_sums, running_counts
from mmdet_ext.analysis.detection.ranking import Ranking

#: The recalls at which COCO reads the precision.
RECALLS = np.linspace(0.0, 1.0, 101)


def average_precision(ranking: Ranking) -> float:
    """Compute COCO's average precision of a class at one threshold of the IoU.

    AP is the mean over 101 recalls r of the highest precision of all detections from the first
    one with a recall of at least r on, 0 where r is not reached.

    Args:
        ranking: detections of the class.

    Returns:
        AP, equal to that of pycocotools; NaN without a box.
    """
    boxes = int(ranking.boxes.sum())
    hits = np.cumsum(ranking.hit)[ranking.hit]
    every = np.flatnonzero(ranking.hit) + 1
    return average_precision_of_counts(hits, every, boxes)


def average_precision_of_counts(
    hits: np.ndarray, every: np.ndarray, boxes: int, recalls: np.ndarray = RECALLS
) -> float:
    """Compute the average precision from the counts at each hit.

    Args:
        hits: number of hits up to each hit: 1, 2, ..., shape (H,).
        every: number of detections up to each hit, shape (H,).
        boxes: number of ground-truth boxes.
        recalls: the recalls at which the precision is read.

    Returns:
        AP; NaN without a box.
    """
    if not boxes:
        return float('nan')
    if not len(hits):
        return 0.0
    # pycocotools' divisor has this addend.
    precision = hits / (every + np.spacing(1))
    best = np.maximum.accumulate(precision[::-1])[::-1]
    first = np.searchsorted(hits / boxes, recalls, side='left')
    reached = first < len(hits)
    # The order of the sum is that of a mean over the row of 101.
    values = np.where(reached, best[np.minimum(first, len(hits) - 1)], 0.0)
    return float(values.mean())


def resampled_average_precision(ranking: Ranking, weights: np.ndarray) -> np.ndarray:
    """Compute the average precision in resamples of the images.

    A detection of an image that came w times counts w times. There is no loop over detections.

    Args:
        ranking: detections of the class, N rows.
        weights: how often each resample has each image, shape (R, I).

    Returns:
        AP per resample, shape (R,); NaN where no box was drawn.
    """
    boxes = drawn_sums(weights, ranking.boxes)
    result = np.zeros(len(weights))
    of_hits = np.flatnonzero(ranking.hit)
    if len(of_hits):
        for rows in blocks(len(weights), len(of_hits)):
            every = running_counts(weights[rows], ranking.image, of_hits)
            images = ranking.image[of_hits]
            hits = running_counts(weights[rows], images, np.arange(len(images)))
            result[rows] = _of_rows(hits, every, boxes[rows])
    return np.where(boxes > 0, result, np.nan)


def _of_rows(hits: np.ndarray, every: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Compute the average precision of rows of counts, shape (R, H), at each hit."""
    precision = hits / (every + np.spacing(1))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    divisor = np.maximum(boxes, 1)[:, None]
    needed = np.ceil(RECALLS * divisor)
    needed -= (needed - 1) / divisor >= RECALLS
    needed += needed / divisor < RECALLS
    # One search for all rows: each is shifted above the one before.
    shift = (int(divisor.max()) + 2) * np.arange(len(hits))[:, None]
    flat = (np.minimum(hits, divisor) + shift).ravel()
    size = hits.shape[1]
    first = np.searchsorted(flat, (needed + shift).ravel(), side='left').reshape(needed.shape)
    first -= size * np.arange(len(hits))[:, None]
    reached = first < size
    values = np.where(reached, np.take_along_axis(best, np.minimum(first, size - 1), axis=1), 0.0)
    return np.asarray(values.mean(axis=1))
