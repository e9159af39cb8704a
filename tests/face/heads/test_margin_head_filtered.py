"""Margin heads that leave out classes too similar to a sample."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests._helpers.face.margin_heads import PATHS, build_head, samples, total

CLASSES, CHANNELS = 7, 8


def batch(seed: int, number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(number, CHANNELS, generator=generator)
    return x, torch.randint(CLASSES, (number,), generator=generator)


def slow_filtered(head: Any, x: Tensor, labels: Tensor, threshold: float) -> tuple[Tensor, float]:
    """Compute ArcFace's loss, and the mean number of classes left out, image by image."""
    losses, count = [], 0
    for vector, label in zip(x, labels.tolist(), strict=True):
        cosine = F.normalize(head.weight, dim=1) @ F.normalize(vector, dim=0)
        cosine = cosine.view(head.num_classes, -1).amax(1)
        own = (cosine[label].acos() + 0.5).cos()
        kept = [c for k, c in enumerate(cosine) if k != label and c <= threshold]
        count += head.num_classes - 1 - len(kept)
        losses.append(torch.stack([own, *kept]).mul(head.scale).log_softmax(0)[0].neg())
    return torch.stack(losses).mean(), count / len(x)


@pytest.mark.parametrize('path', PATHS)
@pytest.mark.parametrize('centers', [1, 2])
@pytest.mark.parametrize('threshold', [1e-3, 0.2, 1.0])
def test_similar_classes_are_left_out(threshold: float, centers: int, path: str) -> None:
    head = build_head(filter_threshold=threshold, num_subcenters=centers, path=path, scale=8.0)
    nn.init.normal_(head.weight, std=0.4)
    x, labels = batch(5, 12)
    leaf, other = (x.clone().requires_grad_() for _ in range(2))
    losses = head.loss((leaf,), samples(labels))
    expected, count = slow_filtered(head, other, labels, threshold)
    torch.testing.assert_close(losses['loss'], expected)
    assert losses['filtered'].item() == pytest.approx(count)
    wanted = torch.autograd.grad(expected, [other, head.weight])
    losses['loss'].backward()
    torch.testing.assert_close(leaf.grad, wanted[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.weight.grad, wanted[1], rtol=1e-4, atol=1e-5)
    assert (count == 0) == (threshold == 1)


@pytest.mark.parametrize('path', PATHS)
@pytest.mark.parametrize('name', ['CurricularFace', 'SphereFace', 'UniFace', 'SphereFaceR'])
def test_filtering_and_sampling_fit_every_kind_of_scores(name: str, path: str) -> None:
    """Classes above the threshold are left out as if they were not drawn."""
    options = dict(version='v2') if name == 'SphereFaceR' else {}
    head = build_head(
        dict(type=name, **options), filter_threshold=0.5, sample_rate=0.99, path=path, scale=8.0
    )
    x = 3 * torch.randn(1, CHANNELS)
    nn.init.normal_(head.weight)
    with torch.no_grad():
        head.weight[[2, 4]] = x + 0.1 * torch.randn(2, CHANNELS)
        cosine = F.cosine_similarity(head.weight, x)
    kept = [k for k in range(CLASSES) if k == 3 or cosine[k] <= 0.5]
    small = build_head(dict(type=name, **options), num_classes=len(kept), path=path, scale=8.0)
    small.weight.data.copy_(head.weight[kept])
    if name == 'UniFace':
        small.margin.bias.data.copy_(head.margin.bias.data)
    found = head.loss((x,), samples([3]))
    expected = small.loss((x,), samples([kept.index(3)]))
    torch.testing.assert_close(found['loss'], expected['loss'])
    assert found['filtered'] == CLASSES - len(kept) >= 2
    total(found).backward()
    total(expected).backward()
    grad = torch.zeros_like(head.weight)
    grad[kept] = small.weight.grad
    torch.testing.assert_close(head.weight_drawn.grad, grad)


@pytest.mark.parametrize('path', PATHS)
def test_without_any_other_class_loss_and_gradients_are_finite(path: str) -> None:
    head = build_head(filter_threshold=0.5, path=path)
    x = torch.ones(2, CHANNELS, requires_grad=True)
    nn.init.ones_(head.weight)
    losses = head.loss((x,), samples([0, 3]))
    losses['loss'].backward()
    assert losses['loss'] == 0 and losses['filtered'] == CLASSES - 1
    assert not x.grad.any() and not head.weight.grad.any()
