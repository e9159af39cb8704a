"""Results of the simulation of box regression: errors per step, per anchor and per distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: A case counts as good if it ends with an IoU above this.
GOOD_OVERLAP = 0.9
#: Number of rings around the targets by which errors are averaged.
RINGS = 12


@dataclass(frozen=True)
class SimulatedLoss:
    """Result of the simulation of one loss.

    Attributes:
        name: SCOPE.NAME of the loss, options behind a colon.
        cases: Number of pairs of anchor and target.
        errors: Error summed over the cases, before the first step and after each, shape (T + 1,).
        point_errors: Final error, mean over the cases of each anchor point, shape (P,).
        good_share: Share of the cases that end with an IoU above ``GOOD_OVERLAP``.
        seconds: Processor time on one core.
    """

    name: str
    cases: int
    errors: np.ndarray
    point_errors: np.ndarray
    good_share: float
    seconds: float


def ring_edges(points: np.ndarray) -> np.ndarray:
    """Return the edges of RINGS rings of equal width around the origin, shape (RINGS + 1,).

    Args:
        points: Anchor points relative to the targets' centre, shape (P, 2); all lie in a ring.
    """
    return np.linspace(0, np.hypot(*points.T).max(), RINGS + 1)


def ring_errors(result: SimulatedLoss, points: np.ndarray) -> list[float | None]:
    """Compute the mean final error of the points in each ring.

    Args:
        result: Simulation of a loss.
        points: Anchor points relative to the targets' centre, shape (P, 2).

    Returns:
        One error per ring, None for a ring without points or without finite numbers.
    """
    ring = np.digitize(np.hypot(*points.T), ring_edges(points)[1:-1])
    means = (result.point_errors[ring == k] for k in range(RINGS))
    found = [float(errors.mean()) if len(errors) else math.nan for errors in means]
    return [value if math.isfinite(value) else None for value in found]


def simulation_table(results: Sequence[SimulatedLoss]) -> str:
    """Format a Markdown table with one line per loss."""
    lines = [
        f'| loss | total error | mean error | IoU > {GOOD_OVERLAP} | seconds of a core |',
        '| --- | ---: | ---: | ---: | ---: |',
    ]
    lines += [
        f'| `{r.name}` | {r.errors[-1]:,.0f} | {r.errors[-1] / r.cases:.4f} '
        f'| {r.good_share:.2%} | {r.seconds:.1f} |'
        for r in results
    ]
    return '\n'.join(lines)


def simulation_record(result: SimulatedLoss, points: np.ndarray) -> dict[str, Any]:
    """Return the result of one loss ready for json, with None for NaN.

    Args:
        result: Simulation of a loss.
        points: Anchor points relative to the targets' centre, shape (P, 2).
    """
    errors = [float(f'{error:.6g}') if error == error else None for error in result.errors]
    return {
        'loss': result.name,
        'mean_error': errors[-1] if errors[-1] is None else errors[-1] / result.cases,
        'good_share': result.good_share,
        'core_seconds': round(result.seconds, 1),
        'ring_errors': ring_errors(result, points),
        'total_errors': errors,
    }
