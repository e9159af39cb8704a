"""Margin head in half precision: gradients of short features are finite."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_ext.catalog.cases import cases_of
from mmdet_ext.face.heads import MarginHead
from tests._helpers.face.margin_heads import PATHS, samples, total

CHANNELS = 8
HALVES = (torch.float16, torch.bfloat16)
NECKS = ('none', 'fc', 'fc-bn', 'bn-fc-bn')
AUX = (
    {'type': 'CenterLoss'},
    {'type': 'TripletLoss', 'distance': 'cosine'},
    {'type': 'ContrastiveLoss', 'distance': 'cosine'},
)


def make_head(case: Any, classes: int = 7, seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    margin = {'type': case.name, **case.options} if case else {'type': 'ArcFace'}
    # The catalog's margins per class are for seven classes.
    classes = 7 if isinstance(margin.get('m'), (list, dict)) else classes
    return MarginHead(classes, CHANNELS, margin, **options)


def loss_of(head: MarginHead, x: Tensor) -> Tensor:
    labels = torch.arange(len(x)) // 2 % head.num_classes
    return total(head.loss((x,), samples(labels)))


def short_features(head: MarginHead, samples: int) -> list[Tensor]:
    """Return zero features, tiny ones at random, along and against centres, and one zero row."""
    generator = torch.Generator().manual_seed(samples)
    x = torch.randn(samples, CHANNELS, generator=generator)
    own = F.normalize(head.weight.detach()[torch.arange(samples) // 2 % len(head.weight)])
    mixed = x.clone()
    mixed[0] = 0
    return [0 * x, 1e-7 * x, 1e-6 * own, -1e-6 * own, 0.01 * own + 0.01 * x, mixed]


def assert_finite(head: MarginHead, x: Tensor, what: Any) -> None:
    tensors = {'features': x, **dict(head.named_parameters())}
    for name, tensor in tensors.items():
        assert tensor.grad is not None and tensor.grad.isfinite().all(), (what, name)


@pytest.mark.parametrize('case', cases_of('margin'), ids=repr)
@pytest.mark.parametrize('path', PATHS)
def test_gradients_of_short_features_fit_half_precision(case: Any, path: str) -> None:
    for number, classes, scale in (
        (1, 1, 64),
        (1, 100, 64),
        (2, 7, 30),
        (4, 100, 64),
        (64, 100, 30),
        (1, 2, 1000),
    ):
        head = make_head(case, classes, scale=scale, path=path)
        for kind, short in enumerate(short_features(head, number)):
            for dtype in HALVES:
                x = short.to(dtype).requires_grad_()
                head.zero_grad()
                loss_of(head, x).backward()
                assert_finite(head, x, (number, classes, scale, kind, dtype))


@pytest.mark.parametrize('case', cases_of('margin'), ids=repr)
@pytest.mark.parametrize('neck', NECKS)
def test_gradients_of_short_features_fit_half_precision_under_autocast(
    case: Any, neck: Any
) -> None:
    """Features come from a layer under autocast, and zero features stand in front of a neck."""
    for number, scale in ((2, 64), (4, 30), (4, 64), (64, 64)):
        head = make_head(case, 100, neck=neck, scale=scale, aux_losses=AUX)
        for part in head.neck or ():
            if getattr(part, 'bias', None) is not None:
                nn.init.zeros_(part.bias)
        layer = nn.Linear(CHANNELS, CHANNELS, bias=False)
        for dtype in HALVES:
            # A batch norm multiplies gradients by 300 where its batch is constant. This overflows a
            # float16 layer in front of it, so that only the mixed batch is tested there.
            first = 0 if 'bn' not in neck else 5
            for kind, short in enumerate(short_features(head, number)[first:]):
                x = short.clone().requires_grad_()
                head.zero_grad(), layer.zero_grad()
                with torch.autocast('cpu', dtype=dtype):
                    loss_of(head, layer(x)).backward()
                assert layer.weight.grad is not None and layer.weight.grad.isfinite().all()
                assert_finite(head, x, (number, scale, kind, dtype))
            x = torch.zeros(number, CHANNELS, requires_grad=True)
            head.zero_grad()
            with torch.autocast('cpu', dtype=dtype):
                loss_of(head, x).backward()
            assert_finite(head, x, (number, scale, dtype))


@pytest.mark.parametrize('path', PATHS)
def test_gradient_is_exact_down_to_the_shortest_length(path: str) -> None:
    """The shortest length in float16 is scale / 1024. Shorter features get its gradient."""
    x = F.normalize(torch.randn(12, CHANNELS, generator=torch.Generator().manual_seed(0)))
    x *= torch.logspace(-6, 2, 12, base=2)[:, None]
    half = x.half()
    grads = []
    for dtype in (torch.float16, torch.float32):
        leaf = half.clone().to(dtype).requires_grad_()
        head = make_head(None, scale=64.0, path=path)
        loss_of(head, leaf).backward()
        assert leaf.grad is not None and head.weight.grad is not None
        grads.append((leaf.grad.float(), head.weight.grad))
    (found, found_weight), (exact, weight) = grads
    length = half.float().norm(dim=1, keepdim=True)
    ordinary = length.squeeze(1) >= 0.0625
    assert 9 <= ordinary.sum() < 12
    assert found_weight.equal(weight)
    assert found[ordinary].equal(exact[ordinary].half().float())
    shorter = exact * length / 0.0625
    torch.testing.assert_close(found[~ordinary], shorter[~ordinary], rtol=2e-3, atol=1e-3)


def test_loss_scaler_sees_an_overflow() -> None:
    """The gradient is bounded, not clamped, so that a loss scale that is too large shows."""
    head = make_head(None)
    for factor, finite in ((1.0, True), (2.0**4, True), (2.0**16, False)):
        x = torch.zeros(1, CHANNELS, dtype=torch.float16, requires_grad=True)
        (factor * loss_of(head, x)).backward()
        assert x.grad is not None and bool(x.grad.isfinite().all()) == finite


def test_zero_centres_in_half_precision_have_finite_gradients() -> None:
    for path in PATHS:
        head = make_head(None, path=path).half()
        nn.init.zeros_(head.weight)
        x = torch.randn(1, CHANNELS).half().requires_grad_()
        loss_of(head, x).backward()
        assert_finite(head, x, path)
        assert head.weight.grad.any()


def test_neck_keeps_full_precision_under_autocast() -> None:
    x = torch.randn(6, CHANNELS)
    for neck in NECKS[1:]:
        head = make_head(None, neck=neck)
        expected = head.pre_logits(x)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            assert head.pre_logits(x).equal(expected)
            # Features in half precision are accepted too.
            found = head.pre_logits(x.bfloat16())
        assert found.equal(head.pre_logits(x.bfloat16().float()))
    head = make_head(None, neck='fc').half()
    assert head.pre_logits(x).dtype == torch.float16
