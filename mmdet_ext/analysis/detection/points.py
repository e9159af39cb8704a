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
        needed = np.maximum(_least_count(value, curve.boxes), 1)
        return _checked(_bisect(hits, needed), hits)
    if wish == 'precision':
        fits = (curve.precision >= value) & (hits > 0)
        last = hits.shape[-1] - 1 - fits[..., ::-1].argmax(axis=-1)
        last = np.where(fits.any(axis=-1), last, -1)
    else:
        last = _bisect(curve.false, _most_false(value, curve.images) + 1) - 1
    reached = np.where(last >= 0, _take(hits, np.maximum(last, 0)), 0)
    return np.where(reached > 0, _bisect(hits, np.maximum(reached, 1)), -1)


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


def recall_at_fppi(curve: Curve, fppi: float, below: bool = False) -> np.ndarray:
    """Return the highest recall with at most so many false detections per image, a point of FROC.

    Args:
        curve: the counts.
        fppi: largest number of false detections per image.
        below: whether fewer are needed.

    Returns:
        Recall, shape (...), 0 where every threshold has more; NaN without a box.
    """
    if not curve.hits.shape[-1]:
        return np.where(curve.boxes > 0, 0.0, np.nan)
    most = _most_false(fppi, curve.images)
    if below and most / curve.images == fppi:
        most -= 1
    last = _bisect(curve.false, most + 1) - 1
    hits = np.where(last >= 0, _take(curve.hits, np.maximum(last, 0)), 0)
    return ratio(hits, np.asarray(curve.boxes))


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
    misses = [
        1 - recall_at_fppi(curve, float(fppi), below=of_crowds) for fppi in MISS_RATE_FPPI[protocol]
    ]
    with np.errstate(divide='ignore'):
        logs = np.log(np.maximum(misses, 0.0 if of_crowds else 1e-10))
    return np.asarray(np.exp(logs.mean(axis=0)))


def precision_at_recalls(curve: Curve, recalls: Sequence[float]) -> list[np.ndarray]:
    """Compute the highest precision of all thresholds with at least a recall, as COCO does.

    Args:
        curve: the counts.
        recalls: from 0 to 1, K of them.

    Returns:
        K arrays of the precision, shape (...): 0 where the recall is not reached, NaN without a
        box.
    """
    precision = np.where(curve.hits > 0, np.nan_to_num(curve.precision), 0.0)
    best = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    size = best.shape[-1]
    results = []
    for recall in recalls:
        value = np.zeros(best.shape[:-1])
        if size:
            first = _bisect(curve.hits, np.maximum(_least_count(recall, curve.boxes), 1))
            value = np.where(first < size, _take(best, np.minimum(first, size - 1)), 0.0)
        results.append(np.where(curve.boxes > 0, value, np.nan))
    return results


def _bisect(rows: np.ndarray, value: np.ndarray | int) -> np.ndarray:
    """Count the entries below a value in rows that rise, shape (..., K), K above 0."""
    low = np.zeros(rows.shape[:-1], np.int64)
    high = np.full(rows.shape[:-1], rows.shape[-1], np.int64)
    for _ in range(rows.shape[-1].bit_length() + 1):
        middle = (low + high) // 2
        below = (_take(rows, np.minimum(middle, rows.shape[-1] - 1)) < value) & (low < high)
        low = np.where(below, middle + 1, low)
        high = np.where(below, high, middle)
    return low


def _take(rows: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Take one entry of each row of the last dimension."""
    return np.take_along_axis(rows, np.asarray(place)[..., None], axis=-1)[..., 0]


def _checked(place: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return places, -1 for those beyond the last."""
    return np.where(place < rows.shape[-1], place, -1)


def _least_count(share: float, whole: np.ndarray) -> np.ndarray:
    """Return the smallest counts whose quotient with ``whole`` is at least ``share``."""
    whole = np.maximum(whole, 1)
    count = np.ceil(share * whole).astype(np.int64)
    count = np.where((count - 1) / whole >= share, count - 1, count)
    return np.where(count / whole < share, count + 1, count)


def _most_false(fppi: float, images: int) -> int:
    """Return the largest count of false detections whose quotient with images is at most fppi."""
    if not math.isfinite(fppi):
        return int(np.iinfo(np.int64).max) - 1
    count = math.floor(fppi * images)
    if (count + 1) / images <= fppi:
        return count + 1
    return count if count / images <= fppi else count - 1
