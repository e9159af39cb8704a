"""Distances, centre losses and contrastive loss: by hand, and against slow references."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.embedding.distances import (
    center_loss,
    center_shift,
    class_mean_center_loss,
    contrastive_loss,
    pairwise_distance,
    shifted_centers,
)
from tests._helpers.face.feature_losses import (
    batch,
    each_distance,
    slow_contrastive,
    slow_distance,
)


@each_distance
@pytest.mark.parametrize('normalize', [False, True])
def test_distances_equal_the_slow_reference(distance: Any, normalize: bool) -> None:
    x, _ = batch(0)
    expected = [[slow_distance(a, b, distance, normalize) for b in x.tolist()] for a in x.tolist()]
    table = pairwise_distance(x, distance, normalize)
    torch.testing.assert_close(
        table, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12
    )
    assert table.diagonal().tolist() == [0.0] * len(x)
    assert table.equal(table.T)


def test_near_samples_far_from_the_origin_keep_their_digits() -> None:
    # The form |a|^2 + |b|^2 - 2ab gives 0 or 8 in float32 here.
    x = torch.full((2, 4), 4096.0)
    x[1] += 0.5
    assert pairwise_distance(x)[0, 1].item() == 1.0


def test_distances_in_chunks_equal_distances_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = batch(1)
    x.requires_grad_()
    whole = pairwise_distance(x)
    (gradient,) = torch.autograd.grad(whole.square().sum(), x)
    monkeypatch.setattr('mmdet_ext.functional.embedding.distances.CHUNK_ELEMENTS', 5 * x.numel())
    parts = pairwise_distance(x)
    assert parts.equal(whole)
    (in_parts,) = torch.autograd.grad(parts.square().sum(), x)
    torch.testing.assert_close(in_parts, gradient, rtol=1e-13, atol=1e-13)


def test_cosine_distance_of_zero_and_short_features() -> None:
    x = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0], [-3.0, -4.0], [6e-8, 0.0]])
    x.requires_grad_()
    table = pairwise_distance(x, 'cosine')
    torch.testing.assert_close(table[0, :4], torch.tensor([0.0, 0.0, 0.5, 0.5]))
    torch.testing.assert_close(table[2, :4], torch.tensor([0.5, 0.5, 0.0, 2.0]))
    (gradient,) = torch.autograd.grad(table.mean(), x)
    assert gradient.half().isfinite().all()


def test_center_losses_match_the_formulas() -> None:
    x, y = batch(2)
    centers = torch.randn(4, 5, dtype=torch.float64)
    squares = [
        sum((a - b) ** 2 for a, b in zip(row, centers[label].tolist(), strict=True))
        for row, label in zip(x.tolist(), y.tolist(), strict=True)
    ]
    torch.testing.assert_close(center_loss(x, y, centers), torch.tensor(squares).double() / 2)
    share = [math.sqrt(s) / y.tolist().count(k) for s, k in zip(squares, y.tolist(), strict=True)]
    torch.testing.assert_close(class_mean_center_loss(x, y, centers), torch.tensor(share).double())


@pytest.mark.parametrize('loss', [center_loss, class_mean_center_loss])
def test_center_gradients_match_finite_differences(loss: Callable[..., Tensor]) -> None:
    x, y = batch(3)
    centers = torch.randn(4, 5, dtype=torch.float64)
    x.requires_grad_(), centers.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, c: loss(a, y, c), (x, centers))
    if loss is center_loss:
        (gradient,) = torch.autograd.grad(loss(x, y, centers).sum(), x)
        torch.testing.assert_close(gradient, (x - centers[y]).detach(), rtol=0, atol=0)


@pytest.mark.parametrize('loss', [center_loss, class_mean_center_loss])
def test_loss_and_gradient_are_zero_at_the_center(loss: Callable[..., Tensor]) -> None:
    centers = torch.tensor([[1.0, 2.0]], requires_grad=True)
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0]], requires_grad=True)
    value = loss(x, torch.tensor([0, 0]), centers)
    value.sum().backward()
    assert value.tolist() == [0.0, 0.0]
    assert x.grad is not None and x.grad.abs().max() == 0
    assert centers.grad is not None and centers.grad.abs().max() == 0


def test_center_update_matches_the_formula() -> None:
    x, y = batch(4, identities=3)
    y[y == 1] = 4
    centers = torch.randn(6, 5, dtype=torch.float64)
    expected = centers.tolist()
    for j in range(6):
        members = [row for row, label in zip(x.tolist(), y.tolist(), strict=True) if label == j]
        for k in range(5):
            delta = sum(centers[j, k].item() - row[k] for row in members) / (1 + len(members))
            expected[j][k] -= 0.3 * delta
    classes = torch.arange(6)
    moved = shifted_centers(centers, *center_shift(x, y, centers, classes), alpha=0.3)
    torch.testing.assert_close(moved, torch.tensor(expected).double())
    assert moved[1].equal(centers[1])  # without a sample
    # The sums of two parts add up to those of the batch.
    parts = [center_shift(x[i::2], y[i::2], centers, y.unique()) for i in range(2)]
    shift, count = (a + b for a, b in zip(*parts, strict=True))
    some = shifted_centers(centers[y.unique()], shift, count, alpha=0.3)
    torch.testing.assert_close(some, moved[y.unique()])


@pytest.mark.parametrize('wrong', [math.inf, math.nan])
def test_features_that_are_not_finite_move_no_center(wrong: float) -> None:
    x = torch.tensor([[wrong, 1.0], [2.0, 2.0]])
    centers = torch.ones(2, 2)
    shift, count = center_shift(x, torch.tensor([0, 1]), centers, torch.arange(2))
    moved = shifted_centers(centers, shift, count, alpha=1.0)
    assert moved.tolist() == [[1.0, 1.0], [1.5, 1.5]]


@each_distance
@pytest.mark.parametrize('normalize', [False, True])
@pytest.mark.parametrize('balance', [False, True])
def test_contrastive_loss_equals_the_slow_reference(
    distance: Any, normalize: bool, balance: bool
) -> None:
    for seed, margin in enumerate((0.2, 1.0, 3.0)):
        x, y = batch(seed)
        result = contrastive_loss(x, y, margin, distance, normalize, balance)
        expected = slow_contrastive(x, y, margin, distance, normalize, balance)
        assert [part.item() for part in result] == pytest.approx(expected, rel=1e-10)
        assert result.loss > 0


@each_distance
@pytest.mark.parametrize('balance', [False, True])
def test_contrastive_gradient_matches_finite_differences(distance: Any, balance: bool) -> None:
    x, y = batch(6, samples=7)
    x.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a: contrastive_loss(a, y, 2.0, distance, balance=balance).loss, x
    )


def test_balance_gives_few_positive_pairs_their_weight() -> None:
    # There is one positive pair at distance 2, and 2 n negative pairs beyond the margin.
    for n in (1, 50):
        x = torch.tensor([[0.0], [2.0], *([[9.0]] * n)])
        y = torch.tensor([0, 0, *range(1, n + 1)])
        far = sum(range(n))  # number of negative pairs at distance 0, which cost 1/2 each
        plain = contrastive_loss(x, y).loss.item()
        balanced = contrastive_loss(x, y, balance=True).loss.item()
        assert plain == pytest.approx((2 + far / 2) / (1 + 2 * n + far), rel=1e-6)
        assert balanced == pytest.approx((2 + far / 2 / (2 * n + far)) / 2, rel=1e-6)
