"""Loss of CornerNet's embeddings: the paper's formula, and mmdet's loss beside it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.pose import corner_grouping_loss
from mmdet_ext.losses.corners import CornerGroupingLoss


def batch(seed: int, dimension: int, objects: int = 4) -> tuple[Tensor, Tensor, list[Any]]:
    """Make the maps of two images, and the corners of the objects of the first."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, 2, dimension, 6, 7, generator=generator, dtype=torch.float64)
    rows = torch.randint(6, (objects, 2), generator=generator)
    columns = torch.randint(7, (objects, 2), generator=generator)
    corners = torch.stack([rows, columns], -1).tolist()
    return maps[0], maps[1], [corners, corners[:1]]


def slow_loss(one: Tensor, other: Tensor, corners: list[Any]) -> tuple[float, float]:
    """Compute the paper's equations 4 and 5 object by object."""
    ends = [(one[:, top[0], top[1]], other[:, low[0], low[1]]) for top, low in corners]
    means = [(a + b) / 2 for a, b in ends]
    pull = sum(
        float((a - mean).square().sum() + (b - mean).square().sum())
        for (a, b), mean in zip(ends, means, strict=True)
    )
    push = 0.0
    for first, mean in enumerate(means):
        for second, peer in enumerate(means):
            if first != second:
                push += max(0.0, 1 - float((mean - peer).abs().sum()))
    pairs = len(ends) * (len(ends) - 1)
    return pull / max(len(ends), 1), push / max(pairs, 1)


@pytest.mark.parametrize('dimension', [1, 2, 3])
def test_loss_is_that_of_the_paper(dimension: int) -> None:
    for seed in range(10):
        one, other, match = batch(seed, dimension)
        wanted = [slow_loss(one[image], other[image], match[image]) for image in range(2)]
        pull, push = CornerGroupingLoss(0.1, 0.3)(one, other, match)
        assert float(pull) == pytest.approx(0.1 * sum(value[0] for value in wanted))
        assert float(push) == pytest.approx(0.3 * sum(value[1] for value in wanted))


def test_stock_loss_is_equal_for_one_dimension_alone() -> None:
    losses = pytest.importorskip('mmdet.models.losses', reason='MMDetection is absent')
    stock, ours = losses.AssociativeEmbeddingLoss(), CornerGroupingLoss()
    for seed in range(20):
        one, other, match = batch(seed, 1, objects=1 + seed % 5)
        for wanted, found in zip(stock(one, other, match), ours(one, other, match), strict=True):
            assert float(found) == pytest.approx(float(wanted))
    # A single object is alone, but the host pushes its two equal dimensions apart.
    maps = torch.ones(1, 2, 1, 1)
    match = [[[[0, 0], [0, 0]]]]
    assert float(stock(maps, maps, match)[1]) == 0.25
    assert float(ours(maps, maps, match)[1]) == 0


def test_gradients_are_those_of_finite_differences() -> None:
    one, other, match = batch(3, 2)

    def total(first: Tensor, second: Tensor) -> Tensor:
        pull, push = CornerGroupingLoss()(first, second, match)
        return pull + push

    assert torch.autograd.gradcheck(total, (one.requires_grad_(), other.requires_grad_()))


def test_images_without_objects_cost_nothing_and_keep_the_graph() -> None:
    one, other, _ = batch(0, 2)
    one[0, :, 0, 0] = math.inf
    one.requires_grad_()
    for match in ([[], []], [[[[1, 1], [2, 2]]], []]):
        pull, push = CornerGroupingLoss()(one, other, match)
        assert float(push.detach()) == 0
        (pull + push).backward()
        assert one.grad is not None and one.grad.isfinite().all()
        one.grad = None


def test_wrong_arguments_are_named() -> None:
    one, other, match = batch(0, 1)
    with pytest.raises(ValueError, match='corners must be rows from 0 to 5 and columns'):
        CornerGroupingLoss()(one, other, [[[[6, 0], [1, 1]]], []])
    with pytest.raises(ValueError, match='match must have one list per image, 2, got 1'):
        CornerGroupingLoss()(one, other, match[:1])
    with pytest.raises(ValueError, match='push_weight must be at least 0'):
        CornerGroupingLoss(push_weight=-1)
    with pytest.raises(ValueError, match=r'top_left and bottom_right must be \(B, T, H, W\)'):
        CornerGroupingLoss()(one, other[:1], match)
    with pytest.raises(ValueError, match=r'corners must be \(2, G, 2, 2\)'):
        corner_grouping_loss(one, other, torch.zeros(2, 1, 2), torch.ones(2, 1))
