"""Margin head on hard batches: values and gradients are finite."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_ext.catalog.cases import cases_of
from tests._helpers.face.margin_heads import PATHS, build_head, samples, total

# The catalog's margins per class are for seven classes.
CLASSES, CHANNELS = 7, 8

# The mean over many samples makes gradients small, so that small batches are harder.
SIZES, TRIALS = (1, 4, 96), 6
HARD = sum(SIZES)
LENGTHS = (1e-42, 1e-30, 1e-12, 1e-6, 1e-3, 1.0, 30.0, 6e4, 1e12, 1e30)


def hard_centers(rows: int, generator: torch.Generator) -> Tensor:
    """Return centres of all lengths: one zero, two opposite, two of one direction."""
    weight = F.normalize(torch.randn(rows, CHANNELS, generator=generator))
    weight *= torch.tensor([1e-30, 1e-8, 1e-3, 0.1, 1.0, 1.0, 100.0])[
        torch.randint(7, (rows, 1), generator=generator)
    ]
    weight[0] = 0
    weight[-1] = -weight[-2]
    if rows > 4:
        weight[2] = 3 * weight[3]
    return weight


def hard_batch(weight: Tensor, centers: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return features along and against centres, zero or random, of lengths from 1e-42 to 1e30."""
    labels = torch.randint(len(weight) // centers, (HARD,), generator=generator)
    length = torch.tensor(LENGTHS)[torch.randint(len(LENGTHS), (HARD, 1), generator=generator)]
    # In float64 a centre of any length has a direction.
    ray = F.normalize(weight.double()[labels * centers], dim=1, eps=1e-300).float()
    other = F.normalize(
        weight.double()[torch.randint(len(weight), (HARD,), generator=generator)], dim=1, eps=1e-300
    ).float()
    noise = F.normalize(torch.randn(HARD, CHANNELS, generator=generator))
    kinds = torch.stack(
        [
            ray,
            -ray,
            other,
            -other,
            0 * ray,
            noise,
            F.normalize(ray + 1e-4 * noise),
            F.normalize(1e-4 * noise - ray),
        ]
    )
    kind = torch.randint(len(kinds), (HARD,), generator=generator)
    return length * kinds[kind, torch.arange(HARD)], labels


def ids(case: Any) -> str:
    return '-'.join([case.name, *(f'{key}={value}' for key, value in case.options.items())])[:48]


@pytest.mark.parametrize('case', cases_of('margin'), ids=ids)
@pytest.mark.parametrize('path', PATHS)
def test_values_and_gradients_of_hard_batches_are_finite(case: Any, path: str) -> None:
    """All margins and both computations together see more than 20,000 samples."""
    generator = torch.Generator().manual_seed(1)
    halves = (torch.float32, torch.float16, torch.bfloat16)
    assert len(cases_of('margin')) * len(PATHS) * TRIALS * HARD > 20_000
    for trial in range(TRIALS):
        centers, dtype = 1 + trial % 2, halves[trial % 3]
        head = build_head(
            dict(type=case.name, **case.options),
            path=path,
            num_subcenters=centers,
            scale=(64.0, 1.0, 1000.0)[trial // 2],
            neck='fc' if trial in (2, 4) else 'none',
        )
        with torch.no_grad():
            head.weight.copy_(hard_centers(len(head.weight), generator))
            if head.neck is not None:
                # An identity layer keeps the features as hard as they are.
                nn.init.eye_(head.neck[0].weight), nn.init.zeros_(head.neck[0].bias)
        x, labels = hard_batch(head.weight.detach(), centers, generator)
        x = x.clamp(-6e4, 6e4).to(dtype) if dtype == torch.float16 else x.to(dtype)
        for leaf, own in zip(x.split(SIZES), labels.split(SIZES), strict=True):
            check_finite(head, leaf.clone().requires_grad_(), own, dtype)


def check_finite(head: Any, x: Tensor, labels: Tensor, dtype: torch.dtype) -> None:
    with torch.autocast('cpu', dtype=dtype, enabled=dtype != torch.float32):
        losses = head.loss((x,), samples(labels))
    for name, value in losses.items():
        assert value.dtype == torch.float32 and value.isfinite(), (len(x), name, value)
    head.zero_grad()
    total(losses).backward()
    for name, parameter in [('features', x), *head.named_parameters()]:
        bad = ~parameter.grad.isfinite()
        assert not bad.any(), (len(x), head.scale, dtype, name, bad.sum().item())
    assert all(buffer.isfinite().all() for buffer in head.buffers())


@pytest.mark.parametrize('name', sorted({case.name for case in cases_of('margin')}))
def test_features_near_their_centre_are_drawn_to_it(name: str) -> None:
    center = F.normalize(torch.randn(1, CHANNELS, generator=torch.Generator().manual_seed(0)))
    head = build_head(dict(type=name), num_classes=2)
    with torch.no_grad():
        head.weight.copy_(torch.cat([center, -center]))
    aside = F.normalize(torch.randn(1, CHANNELS, generator=torch.Generator().manual_seed(1)))
    aside -= (aside * center).sum() * center
    for tilt in (1e-3, 0.1):
        x = (center + tilt * aside).requires_grad_()
        value = head.loss((x,), samples([0]))['loss']
        (grad,) = torch.autograd.grad(value, x)
        across = (grad * aside).sum()
        # Dot products with two opposite centres have no slope across them.
        assert across.abs() < 1e-6 if name == 'Softmax' else across >= 0


def test_softmax_with_zero_centres_and_zero_features_equals_cross_entropy() -> None:
    for path in PATHS:
        head = build_head(dict(type='Softmax', bias=True), path=path)
        nn.init.zeros_(head.weight)
        x = torch.randn(5, CHANNELS)
        x[2] = 0
        labels = torch.tensor([0, 1, 2, 2, 6])
        for _ in range(3):
            twin = head.weight.detach().clone().requires_grad_()
            bias = head.margin.bias.detach().clone().requires_grad_()
            leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
            expected = F.cross_entropy(F.linear(other, twin, bias), labels)
            expected.backward()
            head.zero_grad()
            value = head.loss((leaf,), samples(labels))['loss']
            value.backward()
            assert value.item() == pytest.approx(expected.item(), rel=1e-6)
            for one, two in ((head.weight, twin), (head.margin.bias, bias), (leaf, other)):
                torch.testing.assert_close(one.grad, two.grad, rtol=1e-5, atol=1e-7)
            with torch.no_grad():
                head.weight -= head.weight.grad
