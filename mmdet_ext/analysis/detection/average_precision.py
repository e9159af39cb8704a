"""Average precision as COCO defines it, of a data set and of resamples of its images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from mmdet_ext.analysis.detection.bootstrap import blocks, drawn_sums
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

    A detection of an image that came w times counts w times. The resamples lie beside each other
    in memory, so that a step of a running sum or maximum is one operation on all of them. The
    detections are counted once for all thresholds, less those that one of them ignores.

    Args:
        rankings: detections of one class at T thresholds of the IoU.
        weights: how often each resample has each image, shape (R, I); in Fortran's order it is not
            copied.

    Returns:
        AP per threshold and resample, shape (T, R); NaN where no box was drawn.

    Raises:
        ValueError: if the rankings have different detections.
    """
    sizes = {len(ranking) + ranking.ignored for ranking in rankings}
    if len(sizes) > 1:
        raise ValueError(f'rankings must have the same detections, got {sorted(sizes)} of them')
    result = np.zeros((len(rankings), len(weights)))
    if not len(rankings):
        return result
    drawn = np.ascontiguousarray(weights.T)
    places = [_places(ranking) for ranking in rankings]
    image = np.zeros(sizes.pop(), np.int64)
    for ranking, own in zip(rankings, places, strict=True):
        image[own] = ranking.image
    of_hits = [own[ranking.hit] for ranking, own in zip(rankings, places, strict=True)]
    union = np.unique(np.concatenate(of_hits))
    boxes = drawn_sums(weights, rankings[0].boxes)
    reached, first = _recalls_reached(boxes)
    for columns in blocks(len(weights), len(union)):
        table = drawn[:, columns]
        every = _counts_at(table, image, union)
        for t, ranking in enumerate(rankings):
            if not len(of_hits[t]):
                continue
            hits = _running_counts(table, image[of_hits[t]])
            seen = every[np.searchsorted(union, of_hits[t])]
            if ranking.ignored:
                seen -= _ignored_before(table, image, places[t], of_hits[t])
            known = np.minimum(hits, boxes[columns]) + first[columns]
            result[t, columns] = _of_columns(hits, seen, reached[known])
    result[:, boxes == 0] = np.nan
    return result


def _places(ranking: Ranking) -> np.ndarray:
    """Return the place of each detection among those of the class, ignored ones included."""
    return np.arange(len(ranking)) if ranking.place is None else ranking.place


def _ignored_before(
    table: np.ndarray, image: np.ndarray, kept: np.ndarray, places: np.ndarray
) -> np.ndarray:
    """Count the ignored detections before places of the class, shape (P, R)."""
    ignored = np.setdiff1d(np.arange(len(image)), kept, assume_unique=True)
    counts = np.zeros((len(ignored) + 1, table.shape[1]), np.int32)
    counts[1:] = _running_counts(table, image[ignored])
    return counts[np.searchsorted(ignored, places)]


def _counts_at(table: np.ndarray, image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Count the detections up to rising places, themselves included.

    Args:
        table: how often each image is in each resample, shape (I, R).
        image: image of each detection, shape (N,).
        places: shape (P,).

    Returns:
        Counts, shape (P, R).
    """
    counts = np.empty((len(places), table.shape[1]), np.int32)
    start = 0
    for row, stop in enumerate((places + 1).tolist()):
        np.add.reduce(table[image[start:stop]], axis=0, dtype=np.int32, out=counts[row])
        start = stop
    return _summed(counts)


def _running_counts(table: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Count the detections up to each of them, shape (N, R)."""
    return _summed(table[image].astype(np.int32))


def _summed(counts: np.ndarray) -> np.ndarray:
    """Sum up the rows in place; NumPy's own sum goes through each column alone."""
    for before, row in itertools.pairwise(counts):
        row += before
    return counts


def _recalls_reached(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many of the recalls so many hits reach, for every number of boxes that occurs.

    Args:
        boxes: boxes of each resample, shape (R,).

    Returns:
        The numbers of recalls for 0, 1, ... hits of each number of boxes, one after the other, and
        where those of each resample begin, shape (R,).
    """
    values, which = np.unique(boxes, return_inverse=True)
    parts = [
        np.searchsorted(RECALLS, np.arange(size + 1) / max(size, 1), side='right')
        for size in values.tolist()
    ]
    begin = np.cumsum([0, *(len(part) for part in parts[:-1])])
    return np.concatenate(parts).astype(np.int8), begin[which]


def _of_columns(hits: np.ndarray, every: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """Compute the average precision of columns of counts at each hit.

    A hit has the highest precision from it on for the recalls that it reaches and the one before
    does not.

    Args:
        hits: number of hits, shape (H, R).
        every: number of detections, shape (H, R).
        reached: number of recalls that are reached, shape (H, R).
    """
    best = hits / (every + np.spacing(1))
    for after, row in itertools.pairwise(best[::-1]):
        np.maximum(row, after, out=row)
    best *= np.diff(reached, axis=0, prepend=np.int8(0))
    return np.asarray(best.sum(axis=0) / len(RECALLS))
