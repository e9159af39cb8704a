"""Projection of embeddings onto the plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Projection:
    """Linear map from points of D numbers to the plane.

    Attributes:
        mean: subtracted first, (D,).
        axes: two directions of length 1, (2, D); a direction in which no point spreads is 0.
        share: share of the variance of the points along the axes, from 0 to 1.
    """

    mean: np.ndarray
    axes: np.ndarray
    share: float

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return the coordinates (N, 2) of points (N, D)."""
        return (np.asarray(points, np.float64) - self.mean) @ self.axes.T


def fit_projection(points: np.ndarray) -> Projection:
    """Find the two directions in which points spread most (PCA).

    The entry of largest magnitude is positive in each direction, so that similar point sets get
    views that are not mirrored.

    Args:
        points: (N, D), N at least 1, finite.

    Returns:
        Projection: onto these directions.

    Raises:
        ValueError: if the points have another shape, or are not finite.

    >>> view = fit_projection(np.array([[0., 0, 5], [-4, 0, 5], [4, 2, 5], [0, -2, 5]]))
    >>> view(np.array([[0., 0, 5], [0, 0, 9]])).round(6).tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or not points.size or not np.isfinite(points).all():
        raise ValueError(
            f'points must be (N, D), at least one and finite, got {points.shape}'
            f'{"" if np.isfinite(points).all() else " with values that are not finite"}'
        )
    mean = points.mean(0)
    _, lengths, directions = np.linalg.svd(points - mean, full_matrices=False)
    axes = np.zeros((2, points.shape[1]))
    found = directions[:2]
    largest = found[np.arange(len(found)), np.abs(found).argmax(1)]
    axes[: len(found)] = found * np.where(largest < 0, -1.0, 1.0)[:, None]
    power = lengths**2
    return Projection(mean, axes, float(power[:2].sum() / power.sum()) if power.any() else 1.0)
