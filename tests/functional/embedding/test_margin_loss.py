"""Losses of a margin classifier, against cross entropy over whole tables of scores."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from mmdet_ext.functional.embedding.margin_loss import (
    margin_softmax_loss,
    unified_cross_entropy_loss,
)


def scores(seed: int = 0, samples: int = 40, classes: int = 12, spread: float = 20.0):
    generator = torch.Generator().manual_seed(seed)
    table = spread * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    return table, torch.randint(classes, (samples,), generator=generator)


def parts(table, labels):
    """Return the scores of the own classes, (N,), and of the others, (N, C - 1)."""
    own = F.one_hot(labels, table.shape[1]).bool()
    return table[own], table[~own].view(len(table), -1)


@pytest.mark.parametrize('spread', [0.1, 5.0, 60.0])
def test_margin_softmax_is_cross_entropy(spread: float) -> None:
    table, labels = scores(spread=spread)
    table.requires_grad_()
    expected = F.cross_entropy(table, labels, reduction='none')
    target, rest = parts(table, labels)
    loss = margin_softmax_loss(target, rest.logsumexp(1))
    assert loss.dtype == torch.float64
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=3e-9)
    single = margin_softmax_loss(target.float(), rest.logsumexp(1).float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=1e-6, atol=2e-5)
    (slope,) = torch.autograd.grad(loss.sum(), table, retain_graph=True)
    (expected_slope,) = torch.autograd.grad(expected.sum(), table)
    torch.testing.assert_close(slope, expected_slope, rtol=1e-8, atol=3e-9)


@pytest.mark.parametrize('weight', [0.0, 0.25, 1.0])
def test_unified_cross_entropy_is_the_sum_of_one_binary_loss_per_class(weight: float) -> None:
    table, labels = scores()
    target, rest = parts(table, labels)
    truth = F.one_hot(labels, table.shape[1]).double()
    each = F.binary_cross_entropy_with_logits(
        table, truth, weight=truth + weight * (1 - truth), reduction='none'
    )
    loss = unified_cross_entropy_loss(target, F.softplus(rest).sum(1), weight)
    torch.testing.assert_close(loss.double(), each.sum(1), rtol=1e-6, atol=1e-6)


def test_negative_weight_is_one_by_default() -> None:
    target, others = torch.tensor([-3.0]), torch.tensor([2.5])
    assert unified_cross_entropy_loss(target, others).item() == pytest.approx(
        math.log1p(math.exp(3)) + 2.5
    )


@pytest.mark.parametrize('target', [-1e30, -300.0, 0.0, 300.0, 1e30])
@pytest.mark.parametrize('others', [torch.finfo(torch.float32).min / 2, -300.0, 300.0, 1e30])
def test_loss_and_gradient_of_extreme_scores_are_finite(target: float, others: float) -> None:
    for form in (margin_softmax_loss, unified_cross_entropy_loss):
        t: Any = torch.tensor([target], requires_grad=True)
        o: Any = torch.tensor([others], requires_grad=True)
        loss = form(t, o)
        loss.backward()
        assert loss.isfinite() and t.grad.isfinite() and o.grad.isfinite()
        assert -1 <= t.grad.item() <= 0 <= o.grad.item() <= 1
    assert margin_softmax_loss(torch.tensor(1e3), torch.tensor(-1e3)) == 0
    assert margin_softmax_loss(torch.tensor(-1e3), torch.tensor(1e3)) == 2e3


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    t, o = torch.tensor([3.0, -2.0], dtype=dtype), torch.tensor([1.0, 5.0], dtype=dtype)
    assert margin_softmax_loss(t, o).equal(margin_softmax_loss(t.float(), o.float()))
    assert unified_cross_entropy_loss(t, o).equal(unified_cross_entropy_loss(t.float(), o.float()))
