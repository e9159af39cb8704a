"""Measures at operating points: the threshold for a wish, FROC, miss rate, precision at recall.

All take a `Curve`, whose counts may have leading dimensions (one row per resample of the images);
results then have these dimensions. A point is the place of a threshold, -1 where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from mmdet_ext.analysis.detection.ranking import Curve, ratio

Wish = Literal['precision', 'recall', 'fppi']
Protocol = Literal['dollar', 'crowdhuman']

#: FPPI at which miss rates are averaged: nine points, evenly in log, from 0.01 to 1.
MISS_RATE_FPPI: dict[str, np.ndarray] = {
    'dollar': np.logspace(-2, 0, 9),
    # As mmdet's CrowdHumanMetric rounds them (``mr_ref='CALTECH_-2'``).
    'crowdhuman': np.array([0.01, 0.0178, 0.0316, 0.0562, 0.1, 0.1778, 0.3162, 0.5623, 1.0]),
}
FROC_FPPI = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def best_f1_point(curve: Curve) -> np.ndarray:
    """Find the threshold with the highest F1, of equal ones the highest threshold.

    Returns:
        Points, shape (...); -1 where F1 is 0 everywhere or there is no box.
    """
    f1 = curve.f1
    if not f1.shape[-1]:
        return np.full(f1.shape[:-1], -1)
    f1 = np.nan_to_num(f1, nan=0.0)
    return np.where(f1.max(axis=-1) > 0, f1.argmax(axis=-1), -1)


def wished_point(curve: Curve, wish: Wish, value: float) -> np.ndarray:
    """Find the threshold that fulfils a wish.

    - precision: at least ``value``, with the highest recall that this leaves;
    - recall: at least ``value``, with the highest threshold and so the fewest false detections;
    - fppi: at most ``value`` false detections per image, with the highest recall.

    Of thresholds with equal recall the highest is taken.

    Args:
        curve: the counts.
        wish: 'precision', 'recall' or 'fppi'.
        value: from 0 to 1; for 'fppi' 0 or more.

    Returns:
        Points, shape (...); -1 where no threshold that finds a box fulfils it.

    Raises:
        ValueError: if the wish is unknown or its value out of range.
    """
    check_wish(wish, value)
    hits = curve.hits
    if not hits.shape[-1]:
        return np.full(hits.shape[:-1], -1)
    if wish == 'recall':
        place = _below(hits, _least_counts([value], curve.boxes))[..., 0]
        return np.where(place < hits.shape[-1], place, -1)
    if wish == 'precision':
        fits = (curve.precision >= value) & (hits > 0)
        last = hits.shape[-1] - 1 - fits[..., ::-1].argmax(axis=-1)
        reached = np.where(fits.any(axis=-1), _take(hits, last[..., None])[..., 0], 0)
    else:
        reached = _hits_at_fppi(curve, [value], False)[..., 0]
    place = _below(hits, np.maximum(reached, 1)[..., None])[..., 0]
    return np.where(reached > 0, place, -1)


def check_wish(wish: str, value: float) -> None:
    """Check the name and the value of a wish.

    Raises:
        ValueError: if one of them is out of range.
    """
    if wish not in get_args(Wish):
        raise ValueError(f'wish must be one of {get_args(Wish)}, got {wish!r}')
    # NaN fails both comparisons.
    if not (value >= 0 and (wish == 'fppi' or value <= 1)):
        allowed = '0 or more' if wish == 'fppi' else 'from 0 to 1'
        raise ValueError(f'{wish} must be {allowed}, got {value!r}')


def recalls_at_fppi(curve: Curve, fppi: Sequence[float], below: bool = False) -> np.ndarray:
    """Compute the highest recall with at most so many false detections per image (FROC).

    Args:
        curve: the counts.
        fppi: largest numbers of false detections per image, L of them.
        below: whether there must be fewer.

    Returns:
        Recall, shape (..., L), 0 where every threshold has more; NaN without a box.
    """
    return ratio(_hits_at_fppi(curve, fppi, below), np.asarray(curve.boxes)[..., None])


def log_average_miss_rate(curve: Curve, protocol: Protocol = 'dollar') -> np.ndarray:
    """Compute the log-average miss rate, exp(mean(log(1 - recall))) over nine FPPI in [0.01, 1].

    Args:
        curve: the counts.
        protocol: 'dollar' takes the highest recall with at most each FPPI, and a miss rate of at
            least 1e-10. 'crowdhuman' takes the recall where each FPPI, rounded as in that
            evaluation, is reached.

    Returns:
        Miss rate, shape (...); NaN without a box.

    Raises:
        ValueError: if the protocol is unknown.

    References:
        Dollar et al., Pedestrian Detection: An Evaluation of the State of the Art, PAMI 2012,
        section 3.1; Shao et al., CrowdHuman, 2018, section 4.1.
    """
    if protocol not in MISS_RATE_FPPI:
        raise ValueError(f'miss rate must be one of {tuple(MISS_RATE_FPPI)}, got {protocol!r}')
    of_crowds = protocol == 'crowdhuman'
    recalls = recalls_at_fppi(curve, [float(each) for each in MISS_RATE_FPPI[protocol]], of_crowds)
    with np.errstate(divide='ignore'):
        logs = np.log(np.maximum(1 - recalls, 0.0 if of_crowds else 1e-10))
    return np.asarray(np.exp(logs.mean(axis=-1)))


def precisions_at_recalls(curve: Curve, recalls: Sequence[float]) -> np.ndarray:
    """Compute the highest precision of all thresholds with at least a recall, as COCO does.

    Args:
        curve: the counts.
        recalls: from 0 to 1, L of them.

    Returns:
        Precision, shape (..., L): 0 where the recall is not reached, NaN without a box.
    """
    size = curve.hits.shape[-1]
    result = np.zeros((*curve.hits.shape[:-1], len(recalls)))
    if size:
        precision = curve.hits / np.maximum(curve.hits + curve.false, 1)
        best = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
        first = _below(curve.hits, _least_counts(recalls, curve.boxes))
        result = np.where(first < size, _take(best, np.minimum(first, size - 1)), 0.0)
    return np.where(np.asarray(curve.boxes)[..., None] > 0, result, np.nan)


def _hits_at_fppi(curve: Curve, fppi: Sequence[float], below: bool) -> np.ndarray:
    """Return the most hits with at most, or below, so many false detections, shape (..., L)."""
    shape = (*curve.hits.shape[:-1], len(fppi))
    if not curve.hits.shape[-1]:
        return np.zeros(shape, np.int64)
    most = [_most_false(value, curve.images, below) for value in fppi]
    kept = _below(curve.false, np.broadcast_to(np.array(most) + 1, shape))
    return np.where(kept > 0, _take(curve.hits, np.maximum(kept - 1, 0)), 0)


def _below(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Count the entries below values in rows that rise.

    Args:
        rows: whole numbers from 0, shape (..., K), K above 0.
        values: shape (..., L).

    Returns:
        Counts, shape (..., L).
    """
    size = rows.shape[-1]
    flat = rows.reshape(-1, size)
    top = int(flat[:, -1].max(initial=0)) + 1
    # One search for all rows: each is shifted above the one before.
    shift = ((top + 1) * np.arange(len(flat)))[:, None]
    wanted = np.minimum(values.reshape(len(flat), -1), top) + shift
    place = np.searchsorted((flat + shift).ravel(), wanted.ravel(), side='left')
    counts = place.reshape(wanted.shape) - size * np.arange(len(flat))[:, None]
    return counts.reshape(values.shape)


def _take(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Take entries of the last dimension, shapes (..., K) and (..., L)."""
    return np.take_along_axis(rows, places, axis=-1)


def _least_counts(shares: Sequence[float], whole: np.ndarray) -> np.ndarray:
    """Return the smallest counts, 1 or more, that are at least the shares, shape (..., L)."""
    whole = np.maximum(whole, 1)[..., None]
    count = np.ceil(np.asarray(shares) * whole).astype(np.int64)
    count = np.where((count - 1) / whole >= shares, count - 1, count)
    return np.maximum(np.where(count / whole < shares, count + 1, count), 1)


def _most_false(fppi: float, images: int, below: bool) -> int:
    """Return the largest count of false detections with at most, or below, ``fppi`` per image."""
    if not math.isfinite(fppi):
        return int(np.iinfo(np.int32).max)
    count = math.floor(fppi * images)
    # Products are rounded; the quotients decide.
    if (count + 1) / images <= fppi:
        count += 1
    while count / images > fppi or (below and count / images == fppi):
        count -= 1
    return count
