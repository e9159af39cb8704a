"""Edges of all losses on features: order, precision, small batches, extremes, errors."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from mmdet_ext.functional.embedding.distances import (
    center_loss,
    center_shift,
    class_mean_center_loss,
    contrastive_loss,
)
from mmdet_ext.functional.embedding.triplet import triplet_loss
from tests._helpers.face.feature_losses import (
    DISTANCES,
    MININGS,
    batch,
)
from tests._helpers.tolerances import assert_equal_but_rounding

Loss = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


def centers_at(features: Tensor, labels: Tensor) -> Tensor:
    """Return centres for 8 labels: the first feature, a far one and zeros."""
    centers = torch.zeros(8, features.shape[1], dtype=torch.float32)
    centers[0] = features[0].detach().float() if len(features) else 0
    centers[1] = 100
    return centers


def all_losses() -> dict[str, Loss]:
    losses: dict[str, Loss] = {
        'center': lambda x, y: (center_loss(x, y, centers_at(x, y)).sum() / max(1, len(x)),),
        'class mean': lambda x, y: (class_mean_center_loss(x, y, centers_at(x, y)).sum(),),
    }
    for distance in DISTANCES:
        for normalize in (False, True):
            name = distance + ' normalized' * normalize
            for balance in (False, True):
                losses[f'contrastive {name} {balance}'] = (
                    lambda x, y, d=distance, n=normalize, b=balance: (  # type: ignore[misc]
                        contrastive_loss(x, y, 1.0, d, n, b)
                    )
                )
            for mining, soft in itertools.product(MININGS, (False, True)):
                losses[f'triplet {name} {mining} {soft}'] = (
                    lambda x, y, d=distance, n=normalize, m=mining, s=soft: (  # type: ignore[misc]
                        triplet_loss(x, y, 0.3, m, d, n, s)
                    )
                )
    return losses


LOSSES = all_losses()
each_loss = pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)


@pytest.mark.parametrize('name', [name for name in LOSSES if name not in ('center', 'class mean')])
def test_order_of_samples_and_values_of_labels_do_not_matter(name: str) -> None:
    x, y = batch(10)
    expected = LOSSES[name](x, y)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    for result, wanted in zip(LOSSES[name](x[order], y[order]), expected, strict=True):
        torch.testing.assert_close(result, wanted, rtol=1e-12, atol=1e-12)
    for result, wanted in zip(
        LOSSES[name](x, torch.tensor([7, -3, 90000, 0])[y]), expected, strict=True
    ):
        assert result.equal(wanted)


@pytest.mark.parametrize('loss', [center_loss, class_mean_center_loss])
def test_order_of_samples_and_of_centers_does_not_matter(loss: Callable[..., Tensor]) -> None:
    x, y = batch(10)
    centers = torch.randn(4, 5, dtype=torch.float64)
    order, names = torch.randperm(len(x)), torch.tensor([2, 0, 3, 1])
    moved = loss(x[order], names[y[order]], centers[names.argsort()])
    assert_equal_but_rounding(moved, loss(x, y, centers)[order])


@each_loss
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(loss: Loss, dtype: torch.dtype) -> None:
    x, y = batch(11)
    half = x.to(dtype)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        result = loss(half, y)[0]
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, loss(half.float(), y)[0], rtol=0, atol=0)
    torch.testing.assert_close(result.double(), loss(half.double(), y)[0], rtol=1e-5, atol=1e-6)


@each_loss
@pytest.mark.parametrize('labels', [[], [3], [2, 2, 2], [0, 1, 2]], ids=str)
def test_batches_without_triplets_or_pairs_keep_the_graph(loss: Loss, labels: list[int]) -> None:
    x = torch.randn(len(labels), 4, requires_grad=True)
    result = loss(x, torch.tensor(labels, dtype=torch.long))
    result[0].backward()
    assert x.grad is not None and x.grad.isfinite().all()
    if len(result) == 4 and hasattr(result, 'easy') or len(labels) == 0:
        assert [part.item() for part in result] == [0] * len(result)
        assert not x.grad.any()


@each_loss
def test_equal_features_have_a_finite_gradient(loss: Loss) -> None:
    for value in (0.0, 1.0, 1000.0):
        x = torch.full((6, 4), value, requires_grad=True)
        result = loss(x, torch.tensor([0, 0, 1, 1, 2, 2]))
        result[0].backward()
        assert result[0].isfinite() and x.grad is not None and x.grad.isfinite().all()
        if hasattr(result, 'hard'):
            assert result[0].item() in (pytest.approx(0.3), pytest.approx(math.log(2)))
            assert result[-1].item() == 6 * 4  # every triplet is hard


def fuzz_features(rng: random.Random, samples: int, dim: int) -> Tensor:
    """Return features with extremes, zeros, near-duplicates and short rows, in any precision."""
    x = torch.randn(samples, dim) * rng.choice([0.0, 1e-30, 1e-8, 1e-3, 1.0, 50.0, 1e4])
    if rng.random() < 0.5:
        x += rng.choice([1.0, 100.0, 1e4])
    for row in range(samples):
        what = rng.random()
        if what < 0.1:
            x[row] = 0
        elif what < 0.3:
            x[row] = x[rng.randrange(samples)] * rng.choice([1, 1, -1, 1 + 1e-6, 1e-7])
        elif what < 0.35:
            x[row, 0] = rng.choice([65504.0, -65504.0, 6e-8])
    return x.to(rng.choice([torch.float32, torch.float16, torch.bfloat16]))


@pytest.mark.slow
@pytest.mark.parametrize('cases', [20_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_value_and_gradient_are_finite(cases: int) -> None:
    rng = random.Random(cases)
    torch.manual_seed(cases)
    names = sorted(LOSSES)
    for case in range(cases):
        if case % 5 == 0:
            samples, dim = rng.randint(0, 7), rng.randint(1, 6)
            x = fuzz_features(rng, samples, dim)
            y = torch.tensor([rng.randint(0, rng.randint(0, 6)) for _ in range(samples)]).long()
        name = names[case % len(names)]
        leaf = x.detach().requires_grad_()
        leaf.grad = None
        # Squares of large distances overflow float16. Their gradient is tested in float32.
        if not any(part in name for part in ('triplet euclidean', 'cosine', 'normalized')):
            leaf = x.detach().float().requires_grad_()
        value = LOSSES[name](leaf, y)[0]
        value.backward()
        assert value.isfinite() and value >= -1e-6, (name, x, y)
        assert leaf.grad is not None and leaf.grad.isfinite().all(), (name, x, y)


@pytest.mark.parametrize(
    'name',
    [
        'center',
        'class mean',
        'contrastive euclidean True',
        'triplet euclidean batch_hard False',
        'triplet cosine semi_hard True',
        'triplet euclidean batch_all False',
    ],
)
def test_compiles_in_one_graph(name: str) -> None:
    x, y = batch(12)
    x = x.float()
    compiled = torch.compile(LOSSES[name], fullgraph=True, backend='aot_eager')
    eager, graph = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected, result = LOSSES[name](eager, y), compiled(graph, y)
    for part, other in zip(result, expected, strict=True):
        torch.testing.assert_close(part, other)
    result[0].backward(), expected[0].backward()
    torch.testing.assert_close(graph.grad, eager.grad)


def test_results_stay_on_the_device_of_the_inputs() -> None:
    with FakeTensorMode():
        x = torch.rand(8, 4, device='cuda')
        y = torch.full((8,), 1, device='cuda')
        centers = torch.rand(3, 4, device='cuda')
        results = [
            center_loss(x, y, centers),
            class_mean_center_loss(x, y, centers),
            *center_shift(x, y, centers, torch.arange(3, device='cuda')),
            *contrastive_loss(x, y),
            *(part for mining in MININGS for part in triplet_loss(x, y, mining=mining)),  # type: ignore[arg-type]
        ]
        assert {result.device.type for result in results} == {'cuda'}


@pytest.mark.parametrize(
    ('features', 'labels', 'error', 'message'),
    [
        (
            torch.zeros(2, 3, dtype=torch.long),
            torch.zeros(2).long(),
            TypeError,
            'features must be floating point, got torch.int64',
        ),
        (torch.zeros(2, 3), torch.zeros(2), TypeError, 'labels must be integers.*float32.*long'),
        (torch.zeros(2, 3), torch.zeros(2).bool(), TypeError, 'labels must be integers.*bool'),
        (torch.zeros(2, 3), [0, 1], TypeError, 'labels must be a tensor, got list'),
        (torch.zeros(2, 3), torch.zeros(3).long(), ValueError, r'\(N, D\).*\(2, 3\) and \(3,\)'),
        (torch.zeros(2, 3, 1), torch.zeros(2).long(), ValueError, r'\(2, 3, 1\) and \(2,\)'),
        (torch.zeros(2, 3), torch.zeros(2, 1).long(), ValueError, r'\(2, 3\) and \(2, 1\)'),
        (torch.zeros(2, 3), torch.zeros(2, device='meta').long(), ValueError, 'on cpu.*on meta'),
    ],
)
def test_wrong_batches_are_named(features: Any, labels: Any, error: Any, message: str) -> None:
    for loss in (triplet_loss, contrastive_loss):
        with pytest.raises(error, match=message):
            loss(features, labels)
    with pytest.raises(error, match=message):
        center_loss(features, labels, torch.zeros(1, 3))


@pytest.mark.parametrize('label', [-1, 4])
def test_labels_out_of_range_are_named(label: int) -> None:
    y = torch.tensor([0, label, label])
    with pytest.raises(ValueError, match=rf'0 to 3 for num_classes=4, got {label} \(2 of 3'):
        center_loss(torch.zeros(3, 2), y, torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r'one D.*\(3, 2\) and \(4, 5\).*in_channels'):
        class_mean_center_loss(torch.zeros(3, 2), y.clamp(0, 3), torch.zeros(4, 5))


@pytest.mark.parametrize(
    ('loss', 'options', 'message'),
    [
        (triplet_loss, {'margin': -0.1}, 'margin must be above 0 and finite, got -0.1'),
        (triplet_loss, {'margin': math.nan}, 'margin must be above 0'),
        (triplet_loss, {'mining': 'hard'}, "mining must be one of .*'batch_hard'.*got 'hard'"),
        (triplet_loss, {'distance': 'l2'}, "distance must be one of .*'euclidean'.*got 'l2'"),
        (contrastive_loss, {'margin': 0}, 'margin must be above 0 and finite, got 0'),
        (contrastive_loss, {'distance': 'l2'}, 'distance must be one of'),
    ],
)
def test_wrong_options_are_named(loss: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss(torch.zeros(2, 2), torch.zeros(2).long(), **options)
