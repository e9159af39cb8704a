"""Margin head: necks, scores, losses, labels, memory and state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_ext.catalog.cases import cases_of
from mmdet_ext.catalog.memory import peak_bytes
from mmdet_ext.face.heads import MarginHead
from mmdet_ext.face.losses import TripletLoss
from mmdet_ext.face.margins.fixed import ArcFace
from mmdet_ext.functional.embedding.competition import class_competition
from tests._helpers.face.margin_heads import ARC, PATHS, build_head, samples, total

# The catalog's margins per class are for seven classes.
CLASSES, CHANNELS = 7, 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ('neck', 'kinds'),
    [
        ('none', []),
        ('fc', ['Linear']),
        ('fc-bn', ['Linear', 'BatchNorm1d']),
        ('bn-fc-bn', ['BatchNorm1d', 'Linear', 'BatchNorm1d']),
        ('bn-dropout-fc-bn', ['BatchNorm1d', 'Dropout', 'Linear', 'BatchNorm1d']),
    ],
)
def test_neck_has_the_layers_of_its_name(neck: str, kinds: list[str]) -> None:
    embedding = CHANNELS if neck == 'none' else 5
    head = build_head(
        neck=neck, embedding_channels=embedding, dropout=0.3 if 'dropout' in neck else 0.0
    )
    layers = list(head.neck or [])
    assert [type(layer).__name__ for layer in layers] == kinds
    assert head.weight.shape == (CLASSES, embedding)
    sizes = [layer.num_features for layer in layers if isinstance(layer, nn.BatchNorm1d)]
    assert sizes == {'fc-bn': [5], 'bn-fc-bn': [8, 5], 'bn-dropout-fc-bn': [8, 5]}.get(neck, [])
    # A bias in front of a batch norm would have no effect.
    assert [layer.bias is not None for layer in layers if isinstance(layer, nn.Linear)] == (
        [] if neck == 'none' else [neck == 'fc']
    )
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.3] * (
        'dropout' in neck
    )
    head.eval()
    x = torch.randn(4, CHANNELS)
    expected = x
    for layer in layers:
        expected = layer(expected)
    assert head.pre_logits((torch.zeros(1), x)).equal(expected)


def test_embedding_channels_alone_add_a_neck() -> None:
    assert build_head().neck is None and build_head(embedding_channels=CHANNELS).neck is not None
    assert [type(n).__name__ for n in build_head(embedding_channels=3).neck][1] == 'Linear'


def test_feature_maps_are_flattened_for_a_neck_only() -> None:
    x = torch.randn(3, 2, 2, 2)
    head = build_head(neck='fc', embedding_channels=4)
    assert head.pre_logits(x).equal(head.neck(x.flatten(1)))
    with pytest.raises(ValueError, match=r'features are \(3, 2, 2, 2\).*GlobalAveragePooling'):
        build_head().pre_logits(x)


@pytest.mark.parametrize(
    ('margin', 'expected'),
    [
        (dict(type='Softmax', bias=True), lambda x, w, b: x @ w.t() + b),
        (dict(type='LSoftmax'), lambda x, w, b: x @ w.t()),
        (dict(type='SphereFace'), lambda x, w, b: x @ F.normalize(w).t()),
        (dict(type='ArcFace'), lambda x, w, b: 30 * F.normalize(x) @ F.normalize(w).t()),
        (dict(type='UniFace'), lambda x, w, b: 30 * F.normalize(x) @ F.normalize(w).t() - b),
    ],
)
def test_scores_have_no_margin(margin: dict[str, Any], expected: Any) -> None:
    head = build_head(margin, scale=30.0)
    x = torch.randn(4, CHANNELS)
    bias = getattr(head.margin, 'bias', None)
    if bias is not None:
        nn.init.normal_(bias)
    wanted = expected(x, head.weight, bias)
    torch.testing.assert_close(head((x,)), wanted, rtol=1e-5, atol=1e-5)
    # The nearest of several centres counts, in full precision under autocast.
    many = build_head(margin, scale=30.0, num_subcenters=3)
    with torch.no_grad():
        many.weight[0::3], many.weight[1::3] = head.weight, head.weight
        many.weight[2::3] = torch.where(head.weight @ x[0] < 0, -1, 1)[:, None] * head.weight
    if bias is not None:
        many.margin.bias.data.copy_(bias)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = many((x,))
    raw = wanted if bias is None else wanted + (bias if margin['type'] == 'UniFace' else -bias)
    back = torch.zeros(()) if bias is None else wanted - raw
    flipped = torch.where(head.weight @ x[0] < 0, -1, 1) * raw
    torch.testing.assert_close(found, torch.maximum(raw, flipped) + back, rtol=1e-5, atol=1e-5)
    assert found.dtype == torch.float32
    assert head((x[:0],)).shape == many((x[:0],)).shape == (0, CLASSES)


def test_head_without_a_margin_returns_its_embedding() -> None:
    head = build_head(None, aux_losses=[dict(type='TripletLoss')])
    x = torch.randn(6, CHANNELS)
    assert head((x,)).equal(x)
    losses = head.loss((x,), samples([0, 0, 1, 1, 2, 2]))
    assert 'loss' not in losses and losses['loss_triplet'] > 0 and not hasattr(head, 'weight')


def test_losses_have_names_and_weights() -> None:
    x, labels = torch.randn(6, CHANNELS), [0, 0, 1, 1, 2, 2]
    plain = build_head().loss((x,), samples(labels))
    head = build_head(
        loss_weight=0.25,
        aux_losses=[
            dict(type='ContrastiveLoss'),
            dict(type='mmdet_ext.ContrastiveLoss', loss_weight=2.0),
            dict(type='CenterLoss', num_classes=CLASSES, in_channels=CHANNELS),
        ],
    )
    losses = head.loss((x,), samples(labels))
    assert losses['loss'].item() == pytest.approx(plain['loss'].item() / 4)
    assert losses['loss_contrastive_2'].item() == pytest.approx(
        2 * losses['loss_contrastive'].item()
    )
    assert losses['loss_center'] > 0
    assert losses['own_cosine'].item() == pytest.approx(
        F.cosine_similarity(x, head.weight[labels]).mean().item(), abs=1e-6
    )
    assert not losses['own_cosine'].requires_grad


def test_centre_loss_gets_its_sizes_from_the_head() -> None:
    head = build_head(
        embedding_channels=4,
        aux_losses=[
            dict(type='CenterLoss', alpha=0.25),
            dict(type='CenterLoss', num_classes=CLASSES),
            dict(type='mmdet_ext.CenterLoss', num_classes=CLASSES, in_channels=4),
        ],
    )
    assert [loss.centers.shape for loss in head.aux_losses.values()] == [(CLASSES, 4)] * 3
    assert [loss.alpha for loss in head.aux_losses.values()] == [0.25, 0.5, 0.5]


def test_short_forms_of_options_build_the_same_head() -> None:
    x, labels = torch.randn(6, CHANNELS), samples([0, 0, 1, 1, 2, 2])
    usual = build_head(ARC, aux_losses=[dict(type='TripletLoss')]).loss((x,), labels)
    for margin, aux in (
        ('ArcFace', dict(type='TripletLoss')),
        ('mmdet_ext.ArcFace', (dict(type=TripletLoss),)),
        (dict(type=ArcFace), [dict(type='mmdet_ext.TripletLoss')]),
    ):
        assert build_head(margin, aux_losses=aux).loss((x,), labels) == usual
    assert not build_head(aux_losses=None).aux_losses


@pytest.mark.parametrize('dtype', [torch.int32, torch.uint8, torch.int64], ids=str)
def test_labels_of_any_integer_type(dtype: torch.dtype) -> None:
    x = torch.randn(3, CHANNELS)
    for path in PATHS:
        expected = build_head(path=path).loss((x,), samples([0, 5, 6]))['loss']
        found = build_head(path=path).loss((x,), samples(torch.tensor([0, 5, 6], dtype=dtype)))
        assert found['loss'].equal(expected)


def test_empty_batch_keeps_the_graph() -> None:
    for path in PATHS:
        head = build_head(path=path, neck='fc', num_subcenters=2)
        x = torch.zeros(0, CHANNELS, requires_grad=True)
        losses = head.loss((x,), [])
        assert losses['loss'] == 0 and losses['own_cosine'] == 0
        losses['loss'].backward()
        assert all(p.grad is not None and not p.grad.any() for p in (x, *head.parameters()))
        assert head.predict((x,), []) == []


def test_computation_is_chosen_by_the_size_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def watch(*args: Any, path: Any, **options: Any) -> Any:
        seen.append(path)
        return class_competition(*args, path=path, **options)

    monkeypatch.setattr('mmdet_ext.face.heads.centers.class_competition', watch)
    for path, centers, number in (
        ('auto', 1, 64),
        ('auto', 1, 65),
        ('auto', 2, 33),
        ('plain', 1, 65),
        ('exact', 1, 1),
    ):
        head = build_head(num_classes=1024, path=path, num_subcenters=centers)
        head.loss((torch.randn(number, CHANNELS),), samples([0] * number))
    assert seen == ['plain', 'exact', 'exact', 'plain', 'exact']
    seen.clear()
    for path, number, training in (
        ('auto', CHANNELS, True),
        ('auto', CHANNELS + 1, True),
        ('auto', CHANNELS, False),
        ('exact', CHANNELS, True),
    ):
        head = build_head(num_classes=2**16, path=path, sample_rate=0.5).train(training)
        head.loss((torch.randn(number, CHANNELS),), samples([0] * number))
    assert seen == ['kept', 'exact', 'exact', 'exact']


@pytest.mark.parametrize('name', [case.name for case in cases_of('margin') if not case.options])
def test_no_margin_holds_the_table_of_scores(name: str) -> None:
    """The table of 64 x 20,000 scores takes 4.9 MiB, and mmpretrain's head holds several."""
    head = build_head(dict(type=name), num_classes=20_000, in_channels=32, path='exact')
    labels = samples(torch.arange(64))
    x = torch.randn(64, 32, requires_grad=True)

    def step() -> None:
        total(head.loss((x,), labels)).backward()

    held = peak_bytes(step)
    own = head.weight.nbytes + x.nbytes + 4 * 20_000
    assert held - own < 6 * 2**20
    head.eval()
    with torch.no_grad():
        assert peak_bytes(lambda: head.loss((x,), labels)) < 4.5 * 2**20


@pytest.mark.parametrize('path', PATHS)
def test_gradients_with_frozen_centres_or_features(path: str) -> None:
    x = torch.randn(6, CHANNELS)
    whole = build_head(path=path)
    leaf = x.clone().requires_grad_()
    whole.loss((leaf,), samples([0, 1, 2, 3, 4, 5]))['loss'].backward()
    head = build_head(path=path)
    head.loss((x,), samples([0, 1, 2, 3, 4, 5]))['loss'].backward()
    torch.testing.assert_close(head.weight.grad, whole.weight.grad)
    frozen = build_head(path=path).requires_grad_(False)
    again = x.clone().requires_grad_()
    frozen.loss((again,), samples([0, 1, 2, 3, 4, 5]))['loss'].backward()
    torch.testing.assert_close(again.grad, leaf.grad)
    assert frozen.weight.grad is None


def test_seed_fixes_the_centres_and_checkpoints_keep_them() -> None:
    one, two, other = build_head(seed=3), build_head(seed=3), build_head(seed=4)
    assert one.weight.equal(two.weight) and not one.weight.equal(other.weight)
    assert 0.005 < build_head(num_classes=500).weight.std() < 0.015
    other.load_state_dict(one.state_dict())
    x = torch.randn(4, CHANNELS)
    assert one((x,)).equal(other((x,)))


def test_gradients_agree_under_checkpointing() -> None:
    from torch.utils.checkpoint import checkpoint

    grads = []
    for use in (False, True):
        head = build_head(path='exact', neck='fc')
        x = torch.arange(4 * CHANNELS).view(4, -1).float().sin().requires_grad_()

        def form(x: Tensor, head: MarginHead = head) -> Tensor:
            return head.loss((x,), samples([0, 1, 2, 3]))['loss']

        (checkpoint(form, x, use_reentrant=False) if use else form(x)).backward()
        grads.append([x.grad, *(p.grad for p in head.parameters())])
    assert all(one.equal(two) and one.any() for one, two in zip(*grads, strict=True))
