"""Batches of features, and slow references of the losses on pairs and triplets."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

DISTANCES = ['euclidean', 'squared_euclidean', 'cosine']
MININGS = ['batch_hard', 'semi_hard', 'batch_all']
each_distance = pytest.mark.parametrize('distance', DISTANCES)
each_mining = pytest.mark.parametrize('mining', MININGS)
each_margin = pytest.mark.parametrize('soft_margin', [False, True])


def batch(seed: int, samples: int = 12, dim: int = 5, identities: int = 4) -> tuple[Tensor, Tensor]:
    """Return random features (samples, dim) in float64, and labels."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(samples, dim, generator=generator, dtype=torch.float64)
    return features, torch.randint(identities, (samples,), generator=generator)


def slow_distance(a: list[float], b: list[float], distance: str, normalize: bool) -> float:
    """Compute the distance of two lists of numbers."""
    if distance == 'cosine':
        return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
    if normalize:
        a = [x / math.hypot(*a) for x in a]
        b = [x / math.hypot(*b) for x in b]
    plain = math.dist(a, b)
    return plain if distance == 'euclidean' else plain**2


def slow_contrastive(
    features: Tensor, labels: Tensor, margin: float, distance: str, normalize: bool, balance: bool
) -> tuple[float, int, int, int]:
    """Compute loss and counts by a loop over pairs."""
    x, y = features.tolist(), labels.tolist()
    pull, push, close = [], [], 0
    for i, j in itertools.combinations(range(len(x)), 2):
        d = slow_distance(x[i], x[j], distance, normalize)
        if y[i] == y[j]:
            pull.append(d**2 / 2)
        else:
            push.append(max(0, margin - d) ** 2 / 2)
            close += d < margin
    if balance:
        loss = sum(sum(part) / len(part) for part in (pull, push) if part) / 2
    else:
        loss = sum(pull + push) / max(1, len(pull + push))
    return loss, len(pull), len(push), close


def slow_triplet(
    features: Tensor,
    labels: Tensor,
    margin: float,
    mining: str,
    distance: str,
    normalize: bool,
    soft_margin: bool,
) -> tuple[float, int, int, int]:
    """Compute loss and counts by loops over anchors, positives and negatives."""
    x, y = features.tolist(), labels.tolist()
    indices = range(len(x))
    d = [[slow_distance(a, b, distance, normalize) for b in x] for a in x]

    def cost(p: float, n: float) -> float:
        return math.log1p(math.exp(p - n)) if soft_margin else max(0.0, p - n + margin)

    costs: list[float] = []
    easy = semi_hard = hard = 0
    for a in indices:
        positives = [d[a][p] for p in indices if p != a and y[p] == y[a]]
        negatives = [d[a][n] for n in indices if y[n] != y[a]]
        if not positives or not negatives:
            continue
        if mining == 'batch_hard':
            costs.append(cost(max(positives), min(negatives)))
        for p in positives:
            if mining == 'semi_hard':
                farther = [n for n in negatives if n > p]
                costs.append(cost(p, min(farther) if farther else max(negatives)))
            for n in negatives:
                hard += n <= p
                semi_hard += p < n < p + margin
                easy += p < n and n >= p + margin
                if mining == 'batch_all' and cost(p, n) > 0:
                    costs.append(cost(p, n))
    return sum(costs) / max(1, len(costs)), easy, semi_hard, hard
