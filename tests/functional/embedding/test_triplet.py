"""Triplet loss: by hand, against a slow reference, and the memory that it keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.embedding.triplet import triplet_loss
from tests._helpers.face.feature_losses import (
    batch,
    each_distance,
    each_margin,
    each_mining,
    slow_triplet,
)


@each_mining
@each_distance
@each_margin
@pytest.mark.parametrize('normalize', [False, True])
def test_triplet_loss_equals_the_slow_reference(
    mining: Any, distance: Any, normalize: bool, soft_margin: bool
) -> None:
    for seed, margin in enumerate((0, 0.3, 1, 4.0)):
        x, y = batch(seed, samples=14, identities=5)
        result = triplet_loss(x, y, margin, mining, distance, normalize, soft_margin)
        expected = slow_triplet(x, y, margin, mining, distance, normalize, soft_margin)
        assert [part.item() for part in result] == pytest.approx(expected, rel=1e-10)
        assert sum(expected[1:]) > 50


@each_mining
@each_margin
def test_equal_distances_match_the_slow_reference(mining: Any, soft_margin: bool) -> None:
    """Whole numbers give equal distances, negatives at p and at p + margin, and duplicates."""
    for seed in range(40):
        x, y = batch(seed, samples=9, dim=1, identities=3)
        x = (3 * x).round()
        result = triplet_loss(x, y, seed % 3, mining, soft_margin=soft_margin)
        expected = slow_triplet(x, y, seed % 3, mining, 'euclidean', False, soft_margin)
        assert [part.item() for part in result] == pytest.approx(expected, rel=1e-12)


def test_semi_hard_matches_values_by_hand() -> None:
    y = torch.tensor([0, 0, 1, 2])
    # The anchors at 0 and at 1 both have their positive at distance 1.
    for places, expected in {
        # Anchor 0: 1.2 is the nearest farther negative. Anchor 1: no negative is farther.
        (0.5, 1.2): ((1 - 1.2 + 0.3) + (1 - 0.5 + 0.3)) / 2,
        # Both negatives lie beyond the margin for both anchors, or at its edge.
        (5.0, 2.4): 0.0,
        # No negative is farther for either anchor, so that the farthest counts.
        (0.5, 0.9): ((1 - 0.9 + 0.3) + (1 - 0.5 + 0.3)) / 2,
    }.items():
        x = torch.tensor([[0.0], [1.0], *([place] for place in places)])
        assert triplet_loss(x, y, mining='semi_hard').loss.item() == pytest.approx(expected)


@each_mining
@each_distance
@each_margin
def test_triplet_gradient_matches_finite_differences(
    mining: Any, distance: Any, soft_margin: bool
) -> None:
    x, y = batch(8, samples=9, identities=3)
    x.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a: triplet_loss(a, y, 0.5, mining, distance, soft_margin=soft_margin).loss, x
    )


def test_soft_triplets_in_chunks_equal_triplets_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = batch(9, samples=40)
    whole = triplet_loss(x, y, mining='batch_all', soft_margin=True).loss
    monkeypatch.setattr('mmdet_ext.functional.embedding.triplet.CHUNK_ELEMENTS', 200)
    parts = triplet_loss(x, y, mining='batch_all', soft_margin=True).loss
    torch.testing.assert_close(parts, whole, rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    'options',
    [
        {'mining': 'batch_hard'},
        {'mining': 'semi_hard'},
        {'mining': 'batch_all'},
        {'mining': 'batch_all', 'soft_margin': True},
    ],
    ids=str,
)
def test_no_table_of_triplets_is_kept(options: dict[str, Any]) -> None:
    samples = 512
    x = torch.randn(samples, 16, requires_grad=True)
    y = torch.arange(samples) % 128
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = triplet_loss(x, y, **options)
    assert max(kept) <= 8 * samples**2  # one table of N x N in double precision
    result.loss.backward()
    assert x.grad is not None and x.grad.isfinite().all()
    assert sum(int(part) for part in result[1:]) == samples * 3 * (samples - 4)
