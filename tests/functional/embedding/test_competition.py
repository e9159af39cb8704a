"""Class competition: both computations against slow loops in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmdet_ext.functional.embedding.competition import class_competition
from mmdet_ext.functional.numerics.directions import unit_vectors
from tests._helpers.face.competition import (
    PATHS,
    Bent,
    assert_near,
    batch,
    each_option,
    each_path,
    slow_competition,
    with_gradients,
)


class Counted:
    """Rule that adds 1 to each score, and counts its calls."""

    def __init__(self, own: Tensor) -> None:
        self.calls = 0

    def score(self, similarity: Tensor) -> Tensor:
        self.calls += 1
        return similarity + 1

    def slope(self, similarity: Tensor) -> Tensor | None:
        return None


@each_option
@pytest.mark.parametrize('biased', [False, True])
@pytest.mark.parametrize('centers', [1, 2, 3])
def test_all_computations_equal_slow_loops_in_float64(
    options: dict[str, Any], biased: bool, centers: int
) -> None:
    x, weight, labels = batch(centers=centers)
    bias = torch.linspace(-1, 1, 11) if biased else None
    expected = with_gradients(
        slow_competition,
        x.double(),
        weight.double(),
        None if bias is None else bias.double(),
        labels,
        num_subcenters=centers,
        **options,
    )
    for path in (*PATHS, 'kept'):
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
        assert all(t.dtype == torch.float32 for t in found)
        assert_near(found, expected, 1e-5)


@each_option
@pytest.mark.parametrize('centers', [1, 3])
@pytest.mark.parametrize('chunk', [1, 2, 5, 7, 10, 15, 30, 31, None])
def test_chunk_size_changes_nothing(
    options: dict[str, Any], centers: int, chunk: int | None
) -> None:
    x, weight, labels = batch(30, centers, samples=17, seed=3)
    labels[:4] = torch.tensor([0, 29, 15, 15])
    bias = torch.linspace(-2, 1, 30)
    plain, exact = (
        with_gradients(
            class_competition,
            x,
            weight,
            bias,
            labels,
            num_subcenters=centers,
            path=path,
            chunk=chunk,
            **options,
        )
        for path in PATHS
    )
    assert_near(exact, plain, 1e-5)


@pytest.mark.parametrize(
    ('samples', 'classes', 'centers'),
    [
        (1, 1, 1),
        (1, 1, 3),
        (5, 1, 1),
        (5, 1, 2),
        (1, 20, 1),
        (1, 2, 2),
        (0, 1, 1),
        (0, 20, 1),
        (0, 20, 3),
    ],
)
@each_option
def test_smallest_numbers_of_samples_and_classes(
    options: dict[str, Any], samples: int, classes: int, centers: int
) -> None:
    x, weight, labels = batch(classes, centers, samples)
    bias = torch.linspace(-2, 1, classes)
    plain, exact = (
        with_gradients(
            class_competition,
            x,
            weight,
            bias,
            labels,
            num_subcenters=centers,
            path=path,
            chunk=3,
            **options,
        )
        for path in PATHS
    )
    assert_near(exact, plain, 1e-5)
    if not samples:
        assert all(not t.any() for t in plain)
    if classes == 1:
        # Without other classes their weight is 0, and so is the loss of a softmax.
        if options.get('kind') == 'sigmoid':
            assert not plain[2].any()
        else:
            assert (plain[2] < -1e38).all() and not F.softplus(plain[2] + 1e3).any()


def test_large_scores_keep_their_logarithm() -> None:
    """Exponentials of scores of 1000 overflow float32, and the highest comes in a late chunk."""
    weight = torch.tensor([[-1000.0], [-990.0], [3.0], [1000.0], [998.0], [-5.0]])
    x = torch.tensor([[1.0], [-1.0]])
    labels = torch.tensor([2, 2])
    expected = [1000 + math.log1p(math.exp(-2)), 1000 + math.log1p(math.exp(-10))]
    for path in PATHS:
        found = with_gradients(
            class_competition, x, weight, None, labels, path=path, chunk=2, normalize_weight=False
        )
        assert found[2].tolist() == pytest.approx(expected, abs=1e-4)
        assert all(t.isfinite().all() for t in found)


@each_path
@pytest.mark.parametrize('scale', [64.0, 1e4])
def test_own_score_far_above_the_others_does_not_overflow(path: Any, scale: float) -> None:
    """The exact computation computes the share of the own class too before it removes it."""
    weight = torch.eye(6).repeat_interleave(2, 0) - 0.5
    x = unit_vectors(weight[[0, 4, 4]])[0]
    for kind in ('softmax', 'sigmoid'):
        for others in (None, Bent):
            found = with_gradients(
                class_competition,
                x,
                weight,
                torch.full((6,), -scale),
                torch.tensor([0, 2, 2]),
                path=path,
                scale=scale,
                kind=kind,
                others=others,
                num_subcenters=2,
                chunk=2,
            )
            assert all(t.isfinite().all() for t in found)


@each_path
def test_rescoring_leaves_out_the_own_class_and_uses_the_slope_of_the_rule(path: Any) -> None:
    x, weight, labels = batch()
    made: list[Counted] = []

    def others(own: Tensor) -> Counted:
        assert not own.requires_grad and own.shape == labels.shape
        made.append(Counted(own))
        return made[-1]

    plain = with_gradients(class_competition, x, weight, None, labels, path=path, chunk=3)
    found = with_gradients(
        class_competition, x, weight, None, labels, path=path, chunk=3, others=others
    )
    # 1 more in each score is 1 more in the logarithm of their sum. Slopes do not change.
    assert_near(found, (plain[0], plain[1], plain[2] + 1, *plain[3:]), 1e-5)
    # One rule per batch. Four chunks are scored, and again in the backward pass.
    assert len(made) == 1 and made[0].calls == (1 if path == 'plain' else 8)


@each_path
def test_only_the_nearest_sub_centre_has_a_gradient(path: Any) -> None:
    weight: Any = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    weight.requires_grad_()
    x = torch.tensor([[0.8, 0.6]])
    found = class_competition(x, weight, torch.tensor([0]), num_subcenters=2, path=path)
    assert found.target.tolist() == pytest.approx([0.8])
    assert found.others.tolist() == pytest.approx([-0.6])
    (found.target + found.others).sum().backward()
    # d<x, v> / dw = x - <x, v> v for centres of length 1.
    assert weight.grad.tolist() == [
        pytest.approx([0.0, 0.6]),
        [0, 0],
        [0, 0],
        pytest.approx([0.8, 0.0]),
    ]


@each_path
@pytest.mark.parametrize('centers', [2, 3])
def test_only_one_of_equal_sub_centres_has_a_gradient(path: Any, centers: int) -> None:
    """One of them gets the gradient of a class with one centre."""
    x, weight, labels = batch()
    alone = with_gradients(class_competition, x, weight, None, labels, path=path, scale=16.0)
    twins = with_gradients(
        class_competition,
        x,
        weight.repeat_interleave(centers, 0),
        None,
        labels,
        path=path,
        scale=16.0,
        num_subcenters=centers,
        chunk=4,
    )
    assert_near(twins[:4], alone[:4], 1e-5)
    assert_near((twins[4].view(11, centers, -1).sum(1),), (alone[4],), 1e-5)


@pytest.mark.parametrize('seed', range(4))
def test_both_computations_agree_on_many_shapes(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int) -> int:
        return int(torch.randint(1, high, (), generator=generator))

    for _ in range(40):
        classes, centers, samples = draw(70), draw(4), draw(20)
        x, weight, labels = batch(classes, centers, samples, draw(12) + 2, seed)
        options = dict(
            num_subcenters=centers,
            chunk=draw(90),
            scale=float(draw(64)),
            kind=('softmax', 'sigmoid')[draw(3) - 1],
            others=(None, Bent)[draw(3) - 1],
            normalize_weight=bool(draw(3) - 1),
        )
        bias = torch.randn(classes, generator=generator)
        plain, exact = (
            with_gradients(class_competition, x, weight, bias, labels, path=path, **options)
            for path in PATHS
        )
        assert_near(exact, plain, 1e-5)
