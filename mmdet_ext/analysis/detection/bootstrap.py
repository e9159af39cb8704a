"""Bootstrap over images: how far a figure would move with other images of the same kind."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

#: Largest number of cells of a table of resamples by detections.
CELLS_AT_ONCE = 1 << 22


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


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Yield parts of the rows of a table, each of at most `CELLS_AT_ONCE` cells, or of one row."""
    step = max(1, CELLS_AT_ONCE // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


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
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
