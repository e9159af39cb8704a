"""Average precision as COCO defines it, of a data set and of resamples of its images."""

from __future__ import annotations

from collections.abc import Sequence

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


def resampled_average_precisions(rankings: Sequence[Ranking], weights: np.ndarray) -> np.ndarray:
    """Compute the average precision in resamples of the images.

    A detection of an image that came w times counts w times. There is no loop over detections.

    Args:
        rankings: detections of one class at T thresholds of the IoU, N rows each. Those without
            ignored detections share one count of the detections.
        weights: how often each resample has each image, shape (R, I).

    Returns:
        AP per threshold and resample, shape (T, R); NaN where no box was drawn.
    """
    result = np.zeros((len(rankings), len(weights)))
    by_length: dict[int, list[int]] = {}
    for t, ranking in enumerate(rankings):
        # Rankings of one class of equal length differ in hits alone, where none is ignored.
        by_length.setdefault(-t - 1 if ranking.ignored else len(ranking), []).append(t)
    for members in by_length.values():
        _fill(result, [(t, rankings[t]) for t in members], weights)
    for t, ranking in enumerate(rankings):
        result[t, drawn_sums(weights, ranking.boxes) == 0] = np.nan
    return result


def _fill(result: np.ndarray, members: Sequence[tuple[int, Ranking]], weights: np.ndarray) -> None:
    """Fill the rows of rankings that have the same detections."""
    places = [np.flatnonzero(ranking.hit) for _, ranking in members]
    image = members[0][1].image
    boxes = drawn_sums(weights, members[0][1].boxes)
    ends = np.cumsum([0, *(len(each) for each in places)])
    for rows in blocks(len(weights), int(ends[-1])):
        every = running_counts(weights[rows], image, np.concatenate(places))
        for (t, _), own, begin, end in zip(members, places, ends[:-1], ends[1:], strict=True):
            if len(own):
                hits = running_counts(weights[rows], image[own], np.arange(len(own)))
                result[t, rows] = _of_rows(hits, every[:, begin:end], boxes[rows])


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
