"""Embeddings, data samples and pairs, for tests of the face metrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmdet_ext.face.metrics import FaceVerificationMetric
from mmdet_ext.functional.scoring.similarity import pair_similarities, unit_embeddings


def faces(count: int = 60, identities: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Make embeddings around one centre per identity, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % identities
    centres = torch.randn(identities, 24, generator=generator)
    return centres[labels] + torch.randn(count, 24, generator=generator), labels


def samples(embeddings: Tensor, labels: Tensor, **more: Any) -> list[dict[str, Any]]:
    """Make one data sample per embedding; ``more`` holds further values per sample."""
    return [
        {
            'sample_idx': k,
            'gt_label': label[None],
            'embedding': row,
            **{name: values[k] for name, values in more.items()},
        }
        for k, (row, label) in enumerate(zip(embeddings, labels, strict=True))
    ]


def evaluated(metric: FaceVerificationMetric, data: list[dict[str, Any]]) -> dict[str, float]:
    """Evaluate data samples in batches of 7."""
    for start in range(0, len(data), 7):
        metric.process(None, data[start : start + 7])
    found: dict[str, float] = metric.evaluate(len(data))
    return found


def brute_force(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """List the index, similarity and kind of every pair."""
    index = torch.combinations(torch.arange(len(embeddings)))
    same = labels[index[:, 0]] == labels[index[:, 1]]
    return index, pair_similarities(unit_embeddings(embeddings), index), same


def with_pairs(metric: FaceVerificationMetric, fold: bool = True, seed: int = 1) -> Any:
    """Give the metric 200 pairs of the 60 images, half genuine, in 5 folds."""
    embeddings, labels = faces()
    index, similarities, same = brute_force(embeddings, labels)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.cat(
        [
            kind.nonzero().squeeze(1)[torch.randperm(int(kind.sum()), generator=generator)[:100]]
            for kind in (same, ~same)
        ]
    )
    chosen = chosen[torch.randperm(200, generator=generator)]
    folds = torch.randint(5, (200,), generator=generator)
    pairs = {'index': index[chosen].numpy(), 'same': same[chosen].numpy()}
    if fold:
        pairs['fold'] = folds.numpy()
    metric.dataset_meta = {'pairs': pairs}
    return similarities[chosen], same[chosen], folds
