"""Class competition at the edges of floating point: lengths, precisions, autocast."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.embedding.competition import Competition, class_competition
from mmdet_ext.functional.numerics.directions import unit_vectors
from tests._helpers.face.competition import (
    PATHS,
    assert_near,
    batch,
    each_option,
    each_path,
    slow_competition,
    with_gradients,
)


@each_path
def test_zero_centres_and_features_have_finite_gradients(path: Any) -> None:
    x, weight, labels = batch()
    x[0] = 0
    weight[labels[0]] = weight[labels[1]] = weight[10] = 0
    for options in (dict(scale=64.0), dict(normalize_weight=False), dict(kind='sigmoid')):
        found = with_gradients(class_competition, x, weight, None, labels, path=path, **options)
        assert all(t.isfinite().all() for t in found)
        # A zero centre has a gradient, so that training can move it.
        assert found[4][10].any()


@pytest.mark.parametrize(
    'length', [1e-30, 1e-20, 1e-15, 1e-10, 1e-6, 1e-3, 1.0, 1e4, 1e15, 1e20, 1e30]
)
def test_length_of_a_centre_changes_only_its_own_gradient(length: float) -> None:
    x, weight, labels = batch()
    usual = with_gradients(class_competition, x, unit_vectors(weight)[0], None, labels, scale=16.0)
    for path in PATHS:
        found = with_gradients(
            class_competition,
            x,
            length * unit_vectors(weight)[0],
            None,
            labels,
            scale=16.0,
            path=path,
        )
        assert_near(found[:4], usual[:4], 2e-5)
        # The gradient scales with 1 / |w|. Centres shorter than 1e-4 get that of this length.
        assert_near((found[4] * max(length, 1e-4),), usual[4:], 2e-5)


@each_path
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(path: Any, dtype: torch.dtype) -> None:
    x, weight, labels = batch()
    x, weight = x.to(dtype), weight.to(dtype)
    bias = torch.linspace(-1, 1, 11, dtype=dtype)
    expected = with_gradients(
        class_competition, x.float(), weight.float(), bias.float(), labels, path=path, scale=64.0
    )
    for context in (torch.bfloat16, torch.float16, None):

        def form(*tensors: Tensor, **options: Any) -> Competition:
            with torch.autocast('cpu', dtype=context, enabled=context is not None):  # noqa: B023
                return class_competition(*tensors, **options)

        found = with_gradients(form, x, weight, bias, labels, path=path, scale=64.0)
        assert [t.dtype for t in found] == [torch.float32] * 3 + [dtype] * 3
        for one, other in zip(found, expected, strict=True):
            assert one.equal(other.to(one.dtype))


@each_path
@each_option
@pytest.mark.parametrize('centers', [1, 2])
def test_double_precision_is_kept(path: Any, options: dict[str, Any], centers: int) -> None:
    x, weight, labels = batch(centers=centers)
    x, weight = x.double(), weight.double()
    bias = torch.linspace(-1, 1, 11, dtype=torch.float64)
    expected = with_gradients(
        slow_competition, x, weight, bias, labels, num_subcenters=centers, **options
    )
    found = with_gradients(
        class_competition,
        x,
        weight,
        bias,
        labels,
        num_subcenters=centers,
        path=path,
        chunk=4,
        **options,
    )
    assert all(t.dtype == torch.float64 for t in found)
    assert_near(found, expected, 1e-8)
    # One input in float64 is enough. Gradients have the types of their inputs.
    for mixed in ((x.float(), weight), (x, weight.float())):
        part = with_gradients(
            class_competition, *mixed, None, labels, path=path, scale=2.0, num_subcenters=centers
        )
        assert [t.dtype for t in part] == [torch.float64] * 3 + [t.dtype for t in mixed]


def test_gradients_match_finite_differences() -> None:
    x, weight, labels = (t[:4] for t in batch(classes=4, samples=4))
    leaves = [t.double().requires_grad_() for t in (x, weight)]
    labels = torch.tensor([0, 3, 1, 1])
    for path in PATHS:
        assert torch.autograd.gradcheck(
            partial(class_competition, labels=labels, scale=2.0, path=path, chunk=3), leaves
        )


@each_path
def test_centres_of_very_different_lengths_in_one_chunk(path: Any) -> None:
    """The features are long or short too."""
    x, weight, labels = batch()
    unit = unit_vectors(weight)[0]
    lengths = torch.logspace(-30, 20, 11)[:, None]
    for size in (1e-5, 1.0, 1e5):
        usual = with_gradients(class_competition, size * x, unit, None, labels, path='plain')
        found = with_gradients(class_competition, size * x, lengths * unit, None, labels, path=path)
        assert_near(found[:4], usual[:4], 2e-5)
        assert_near((found[4] * lengths.clamp(min=1e-4),), usual[4:], 2e-5)


def test_gradient_beyond_float32_is_finite() -> None:
    weight = torch.tensor([[3e-30, 4e-30], [0.0, 1.0]])
    x = torch.tensor([[1e30, 2e30]])
    found = with_gradients(class_competition, x, weight, None, torch.tensor([0]), path='exact')
    assert all(t.isfinite().all() for t in found)


def test_backward_under_autocast_keeps_full_precision() -> None:
    x, weight, labels = batch()
    leaf = weight.clone().requires_grad_()
    expected = with_gradients(class_competition, x, weight, None, labels, scale=64.0)
    found = class_competition(x, leaf, labels, scale=64.0)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        factors = torch.linspace(0.5, 1.5, len(x))
        (found.target * factors + found.others * (2 - factors)).sum().backward()
    torch.testing.assert_close(leaf.grad, expected[4], rtol=1e-6, atol=1e-7)
