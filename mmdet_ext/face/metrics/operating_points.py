"""Figures of verification from counted similarities, shared by the metrics of pairs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mmdet_ext.face.metrics.embedding_metric import EmbeddingMetric, plain, rate_name
from mmdet_ext.face.metrics.verification_files import histogram
from mmdet_ext.functional.scoring.grid_protocol import grid_verification
from mmdet_ext.functional.scoring.similarity import GRID
from mmdet_ext.functional.scoring.verification import (
    ScoreCounts,
    equal_error_rate,
    roc_auc,
    roc_curve,
    tar_at_far,
)

DEFAULT_FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
ROC_POINTS = 2000


def rate_figures(
    metric: EmbeddingMetric, counts: ScoreCounts, fars: Sequence[float] | None
) -> dict[str, float]:
    """Compute AUC, EER, TAR with its threshold at each FAR, and the counts of both kinds of pairs.

    Args:
        metric: logs the default rates that the pairs cannot show.
        counts: with pairs of both kinds.
        fars: rates that the user asked for; None for `DEFAULT_FARS`.

    Raises:
        ValueError: if a kind of pairs is absent, or the pairs cannot show a rate asked for.
    """
    genuine, impostors = counts.totals()
    eer, eer_threshold = equal_error_rate(counts)
    figures = {'auc': roc_auc(counts), 'eer': eer, 'eer_threshold': eer_threshold}
    for point in tar_at_far(counts, metric.supported(fars, DEFAULT_FARS, impostors, 'FAR')):
        figures[f'tar@far={rate_name(point.bound)}'] = point.tar
        figures[f'threshold@far={rate_name(point.bound)}'] = point.threshold
    return figures | {'genuine_pairs': float(genuine), 'impostor_pairs': float(impostors)}


def grid_figures(similarities: Tensor, same: Tensor, folds: int) -> dict[str, float]:
    """Compute the figures of InsightFace's protocol, by the names under which they are reported."""
    found = grid_verification(similarities, same, folds)
    return {
        'insightface_accuracy': found.accuracy,
        'insightface_accuracy_std': found.accuracy_std,
        'insightface_tar': found.tar,
        'insightface_tar_std': found.tar_std,
        'insightface_far': found.far,
    }


def warn_of_ties(metric: EmbeddingMetric, counts: ScoreCounts) -> None:
    """Warn if most pairs have the same similarity."""
    pairs = counts.genuine + counts.impostors
    place = int(pairs.argmax())
    most, total = int(pairs[place]), int(pairs.sum())
    if most > 1 and 2 * most > total:
        metric.say(
            f'{most:,} of {total:,} pairs have the same similarity, {counts.scores[place]:.7f} '
            f'(steps of {1 / GRID:.1g} are distinguished): most embeddings are alike, and the '
            'results say little',
            logging.WARNING,
        )


def curve_for_json(counts: ScoreCounts) -> dict[str, Any]:
    """Return the ROC with its thresholds, and the histogram of the similarities, for json."""
    curve = roc_curve(counts, ROC_POINTS)
    edges, genuine, impostors = histogram(counts)
    return {
        'roc': {
            'thresholds': [plain(value) for value in curve.thresholds.tolist()],
            'far': curve.far.tolist(),
            'tar': curve.tar.tolist(),
            'all_points': len(counts.scores) + 1,
        },
        'histogram': {'edges': edges, 'genuine': genuine, 'impostors': impostors},
    }
