"""Bootstrap over images: how far a figure would move with other images of the same kind."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

#: Largest number of cells of a table of resamples by thresholds.
CELLS_AT_ONCE = 1 << 20
#: The same of a table of resamples by detections, which then stays in the cache.
CELLS_IN_CACHE = 1 << 16


def resampled_weights(images: int, resamples: int, seed: int = 0) -> np.ndarray:
    """Draw images with replacement, as many as there are, and count how often each came.

    Args:
        images: number of images, I.
        resamples: number of draws, R.
        seed: seed of the draws; the same seed gives the same resamples, for a paired comparison.

    Returns:
        Counts, shape (R, I), whose rows sum up to I.

    Raises:
        ValueError: if a number is out of range.

    References:
        Efron, Bootstrap Methods: Another Look at the Jackknife, Annals of Statistics 1979.
    """
    if images < 1 or resamples < 0:
        raise ValueError(
            f'images must be 1 or more and resamples 0 or more, got {images} and {resamples}'
        )
    rng = np.random.default_rng(seed)
    weights = np.empty((resamples, images), np.uint16)
    for rows in blocks(resamples, images):
        size = rows.stop - rows.start
        drawn = rng.integers(0, images, (size, images))
        drawn += images * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * images)
        weights[rows] = counts.reshape(size, images)
    return weights


def blocks(rows: int, columns: int, cells: int | None = None) -> Iterator[slice]:
    """Yield parts of the rows of a table, each of at most so many cells, or of one row.

    Args:
        rows: number of rows.
        columns: number of columns.
        cells: the limit; None for `CELLS_AT_ONCE`.
    """
    step = max(1, (CELLS_AT_ONCE if cells is None else cells) // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def running_counts(weights: np.ndarray, image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Count the detections up to some places of a ranking, in every resample.

    Args:
        weights: how often each resample has each image, shape (R, I).
        image: image of each detection, by decreasing score, shape (N,).
        places: detections up to which counts are wanted, themselves included, shape (P,).

    Returns:
        Counts, shape (R, P).
    """
    result = np.empty((len(weights), len(places)), np.int32)
    table: np.ndarray | None = None
    for rows in blocks(len(weights), len(image), CELLS_IN_CACHE):
        drawn = weights[rows][:, image]
        if table is None or len(table) != len(drawn):
            # New memory costs more than the sum: one table serves all blocks.
            table = np.empty(drawn.shape, np.int32)
        table[...] = drawn
        np.cumsum(table, axis=1, out=table)
        result[rows] = table[:, places]
    return result


def drawn_sums(weights: np.ndarray, per_image: np.ndarray) -> np.ndarray:
    """Sum counts per image in every resample.

    Args:
        weights: how often each resample has each image, shape (R, I).
        per_image: counts, shape (I,) or (I, K).

    Returns:
        Sums, shape (R,) or (R, K).
    """
    some = np.flatnonzero(per_image if per_image.ndim == 1 else per_image.any(axis=1))
    # Whole numbers below 2^53 are exact as floats, which BLAS multiplies fast.
    sums = weights[:, some].astype(np.float64) @ per_image[some].astype(np.float64)
    return np.asarray(np.rint(sums).astype(np.int64))


def percentiles(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the percentile interval of resampled values; NaN take no part.

    Args:
        values: one value per resample, shape (R,).
        confidence: share of the values within the interval, above 0 and below 1.

    Returns:
        Lower and upper end; NaN where there is no value.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return float('nan'), float('nan')
    # np.quantile takes a millisecond per call, of which a report has thousands.
    places = (len(values) - 1) * np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = np.interp(places, np.arange(len(values)), np.sort(values))
    return float(low), float(high)
