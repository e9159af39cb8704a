"""Batches of the class competition, and a slow reference that loops over samples and classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmdet_ext.functional.embedding.competition import Competition
from tests._helpers.face import margin_heads

PATHS = ('plain', 'exact')
each_path = pytest.mark.parametrize('path', PATHS)


class Bent:
    """Rule with a slope: similarities d above a threshold score d (d + 0.3) instead of d."""

    def __init__(self, own: Tensor) -> None:
        self.threshold = own[:, None] - 0.2

    def score(self, similarity: Tensor) -> Tensor:
        return torch.where(similarity > self.threshold, similarity * (similarity + 0.3), similarity)

    def slope(self, similarity: Tensor) -> Tensor | None:
        beyond = similarity > self.threshold
        return torch.where(beyond, similarity.mul_(2).add_(0.3), 1.0)


def batch(
    classes: int = 11, centers: int = 1, samples: int = 9, channels: int = 6, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return unit features, centres of other lengths, and labels that repeat."""
    generator = torch.Generator().manual_seed(seed)
    x = F.normalize(torch.randn(samples, channels, generator=generator))
    weight = 0.3 * torch.randn(classes * centers, channels, generator=generator)
    labels = torch.randint(classes, (samples,), generator=generator)
    return x, weight, labels.div(2, rounding_mode='floor')


def slow_competition(
    x: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    normalize_weight: bool = True,
    scale: float = 1.0,
    class_bias: Tensor | None = None,
    num_subcenters: int = 1,
    kind: str = 'softmax',
    others: Callable[[Tensor], Any] | None = None,
) -> Competition:
    """Compute the formulas sample by sample and class by class."""
    targets, norms, weights = [], [], []
    for i, y in enumerate(labels.tolist()):
        best: list[Tensor] = []
        lengths: list[Tensor] = []
        for j in range(len(weight) // num_subcenters):
            rows = weight[j * num_subcenters : (j + 1) * num_subcenters]
            each = [(x[i] * (row / row.norm() if normalize_weight else row)).sum() for row in rows]
            k = max(range(num_subcenters), key=lambda k: each[k].item())
            best.append(each[k])
            lengths.append(rows[k].norm())
        scores = []
        for j, d in enumerate(best):
            if j == y:
                continue
            if others is not None:
                # The formula of `Bent`.
                d = d * (d + 0.3) if d > best[y].detach() - 0.2 else d
            scores.append(scale * d + (0 if class_bias is None else class_bias[j]))
        targets.append(best[y])
        norms.append(torch.ones_like(lengths[y]) if normalize_weight else lengths[y])
        table = torch.stack(scores)
        weights.append(table.logsumexp(0) if kind == 'softmax' else F.softplus(table).sum())
    return Competition(torch.stack(targets), torch.stack(norms), torch.stack(weights))


def with_gradients(
    form: Callable[..., Competition],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    **options: Any,
) -> tuple[Tensor, ...]:
    """Return the results, and the gradients of a sum in which each result has its own weight."""
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias) if t is not None]
    if bias is not None:
        options['class_bias'] = leaves[2]
    found = form(leaves[0], leaves[1], labels, **options)
    factors = torch.linspace(0.5, 1.5, len(x), dtype=x.dtype)
    total = (
        found.target * factors - found.center_norm * factors.square() + found.others * (2 - factors)
    ).sum()
    return (*(t.detach() for t in found), *torch.autograd.grad(total, leaves))


def assert_near(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    """Assert that tensors are finite, and equal to a share of the largest entry of each."""
    assert all(one.isfinite().all() for one in found)
    margin_heads.assert_near(found, expected, tolerance)


OPTIONS: dict[str, dict[str, Any]] = {
    'cosines': dict(scale=16.0),
    'dot products': dict(normalize_weight=False),
    'scaled dot products': dict(normalize_weight=False, scale=3.0),
    'thresholds': dict(kind='sigmoid', scale=16.0),
    'rescored': dict(scale=16.0, others=Bent),
    'rescored thresholds': dict(kind='sigmoid', scale=4.0, others=Bent, normalize_weight=False),
}
each_option = pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)
