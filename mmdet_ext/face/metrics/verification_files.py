"""Hardest pairs and histogram, as the verification metric writes them to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmdet_ext.face.metrics.embedding_metric import Collected
from mmdet_ext.functional.scoring.all_pairs import ExtremePairs
from mmdet_ext.functional.scoring.verification import ScoreCounts
from mmdet_ext.plots.face import FacePair

BINS = 200


def extreme_pairs(
    similarities: Tensor, index: Tensor, chosen: Tensor, count: int, *, most: bool
) -> ExtremePairs:
    """Return the most or least similar of the chosen pairs, ties in the order of the list."""
    values = similarities[chosen]
    order = values.argsort(descending=most, stable=True)[:count]
    return ExtremePairs(index[chosen][order], values[order])


def histogram(counts: ScoreCounts) -> tuple[list[float], list[int], list[int]]:
    """Count the pairs of each kind in BINS bins over [-1, 1], and return edges and counts."""
    place = ((counts.scores.double() + 1) * (BINS / 2)).long().clamp_(max=BINS - 1)
    genuine, impostors = (
        torch.zeros(BINS, dtype=torch.int64).index_add_(0, place, kind).tolist()
        for kind in (counts.genuine, counts.impostors)
    )
    return torch.linspace(-1, 1, BINS + 1, dtype=torch.float64).tolist(), genuine, impostors


def json_pairs(images: Collected, extreme: ExtremePairs) -> list[dict[str, Any]]:
    """Describe pairs for json."""
    return [
        {
            'sample_idx': images.sample_idx[[one, two]].tolist(),
            'gt_label': images.labels[[one, two]].tolist(),
            'similarity': round(value, 12),
            'img_path': [images.paths[one], images.paths[two]],
        }
        for (one, two), value in zip(
            extreme.pairs.tolist(), extreme.similarity.tolist(), strict=True
        )
    ]


def sheet_pairs(images: Collected, extreme: ExtremePairs) -> list[FacePair]:
    """Describe pairs for the sheet; images are named by folder and file."""
    drawn = []
    for (one, two), value in zip(extreme.pairs.tolist(), extreme.similarity.tolist(), strict=True):
        paths = images.paths[one], images.paths[two]
        names = [str(Path(*Path(path).parts[-2:])) if path else '' for path in paths]
        drawn.append(FacePair(paths, value, (names[0], names[1])))
    return drawn
