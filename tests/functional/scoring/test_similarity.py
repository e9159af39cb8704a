"""Unit embeddings, the grid of similarities, and embeddings made ready for comparison."""

from __future__ import annotations

import math

import pytest
import torch

from mmdet_ext.functional.scoring.similarity import (
    GRID,
    NARROW,
    comparable,
    on_grid,
    pair_similarities,
    unit_embeddings,
)
from tests.functional.scoring.scores import collapsed


def test_nan_and_wrong_shapes_of_embeddings_are_refused() -> None:
    with pytest.raises(ValueError, match='2 of 3 rows hold NaN or infinite'):
        unit_embeddings(torch.tensor([[1.0, math.nan], [0.0, 1.0], [math.inf, 0.0]]))
    with pytest.raises(ValueError, match=r'\(N, D\) with D >= 1, got \(3, 0\)'):
        unit_embeddings(torch.zeros(3, 0))
    with pytest.raises(TypeError, match='torch.int64'):
        unit_embeddings(torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(IndexError, match='rows -1 to 2, but there are 3'):
        pair_similarities(torch.zeros(3, 2), torch.tensor([[0, -1], [1, 2]]))


def test_lengths_of_embeddings_do_not_matter() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[0.6, 0.8], [0.0, 0.0], [-1.0, 0.0]])
    for scale in (1e-300, 1e-42, 1.0, 1e38, 1e300):
        unit = unit_embeddings(rows * scale)
        torch.testing.assert_close(unit, expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(unit_embeddings(rows.half() * 1e4), expected, rtol=0, atol=1e-3)


def test_grid_moves_similarities_by_at_most_half_a_step_and_keeps_their_order() -> None:
    values = torch.rand(10_000, generator=torch.Generator().manual_seed(0)).sort().values * 2 - 1
    found = on_grid(values)
    assert float((found - values).abs().max()) <= 0.5 / GRID + 2**-25
    assert bool((found.diff() >= 0).all())
    assert torch.equal((found * GRID).frac(), torch.zeros_like(found))


def test_ordinary_embeddings_are_compared_by_their_unit_vectors() -> None:
    embeddings, _ = collapsed(3.0)
    ready = comparable(embeddings)
    assert ready.left is ready.right and ready.scale == 1
    assert torch.equal(ready.left, unit_embeddings(embeddings))
    # A row of zeros is far from any other, so that a set with one has not collapsed.
    close = torch.tensor([[1.0, 0.0], [1.0, 1e-3], [0.0, 0.0]])
    assert comparable(close).scale == 1 and comparable(close[:2]).scale < NARROW
    assert pair_similarities(close, torch.tensor([[0, 2]])).tolist() == [0.0]
