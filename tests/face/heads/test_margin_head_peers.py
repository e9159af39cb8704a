"""Margin head beside mmpretrain's ArcFaceClsHead, and inside mmpretrain's ImageClassifier."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope
from torch import Tensor
from torch.nn import functional as F

from mmdet_ext.face.heads import MarginHead

pytest.importorskip('mmpretrain')

from mmpretrain.engine.hooks import SetAdaptiveMarginsHook  # noqa: E402
from mmpretrain.models.heads import ArcFaceClsHead  # noqa: E402
from mmpretrain.structures import DataSample  # noqa: E402

CLASSES, CHANNELS = 12, 8


def samples(labels: Tensor) -> list[Any]:
    return [DataSample().set_gt_label(label.view(1)) for label in labels]


def pair(
    margin: dict[str, Any],
    path: Any = 'exact',
    centers: int = 1,
    scale: float = 64.0,
    **options: Any,
) -> tuple[Any, Any]:
    """Return our head and mmpretrain's with the same centres."""
    torch.manual_seed(0)
    stock = ArcFaceClsHead(
        CLASSES, CHANNELS, centers, scale, loss=dict(type='mmpretrain.CrossEntropyLoss'), **options
    )
    ours = MarginHead(CLASSES, CHANNELS, dict(type='ArcFace', **margin), scale, centers, path=path)
    ours.weight.data.copy_(stock.norm_product.weight)
    return ours, stock


def gradients(head: Any, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    weight = head.weight if isinstance(head, MarginHead) else head.norm_product.weight
    value = head.loss((leaf,), samples(labels))['loss']
    return (value.detach(), *torch.autograd.grad(value, [leaf, weight]))


def batch(number: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = 5 * torch.randn(number, CHANNELS, generator=generator)
    return x, torch.randint(CLASSES, (number,), generator=generator)


@pytest.mark.parametrize('path', ['plain', 'exact'])
@pytest.mark.parametrize('centers', [1, 3])
@pytest.mark.parametrize('easy', [False, True])
@pytest.mark.parametrize('margins', [0.0, 0.2, 0.5, [0.05 * k for k in range(CLASSES)]], ids=str)
def test_value_and_gradient_equal_those_of_mmpretrain(
    path: str, centers: int, easy: bool, margins: Any
) -> None:
    ours, stock = pair(
        dict(m=margins, easy_margin=easy), path, centers, margins=margins, easy_margin=easy
    )
    x, labels = batch()
    for one, other in zip(gradients(ours, x, labels), gradients(stock, x, labels), strict=True):
        assert other.isfinite().all()
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours((x,)), stock((x,)), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('sign', [1.0, -1.0])
def test_collinear_features_are_exact_where_mmpretrain_gives_nan(sign: float) -> None:
    broken = 0
    for seed in range(20):
        ours, stock = pair(dict(m=0.5), margins=0.5)
        torch.manual_seed(seed)
        ours.weight.data.normal_()
        stock.norm_product.weight.data.copy_(ours.weight.data)
        labels = torch.arange(CLASSES)
        x = sign * ours.weight.data.clone()
        assert all(t.isfinite().all() for t in gradients(ours, x, labels))
        broken += not all(t.isfinite().all() for t in gradients(stock, x, labels))
        # The own score in float64 is cos 0.5, or -1 - 0.5 sin 0.5.
        cosines = F.normalize(x.double()) @ F.normalize(ours.weight.double()).t()
        own = math.cos(0.5) if sign > 0 else -1 - 0.5 * math.sin(0.5)
        cosines.fill_diagonal_(own)
        expected = F.cross_entropy(64 * cosines, labels).item()
        # A float32 cosine next to 1 belongs to angles up to 5e-4, which changes scores by 0.02.
        assert gradients(ours, x, labels)[0].item() == pytest.approx(expected, rel=2e-2)
    assert broken == 20


def test_integer_margins_are_accepted_which_mmpretrain_refuses() -> None:
    with pytest.raises(TypeError, match="'int' object is not iterable"):
        pair({}, margins=1)
    _, stock = pair({}, margins=1.0)
    with pytest.raises((TypeError, AssertionError)):
        stock.set_margins(1)
    ours, _ = pair(dict(m=1))
    x, labels = batch()
    for one, other in zip(gradients(ours, x, labels), gradients(stock, x, labels), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    ours.margin.set_margin('m', 0)
    value = gradients(ours, x, labels)[0]
    assert value.item() == pytest.approx(F.cross_entropy(ours((x,)), labels).item(), rel=1e-5)


def adaptive(counts: list[int], **options: Any) -> Tensor:
    """Return the margins that mmpretrain's hook sets for class counts."""
    _, stock = pair({}, margins=0.5)
    runner = SimpleNamespace(
        model=SimpleNamespace(head=stock),
        train_dataloader=SimpleNamespace(
            dataset=SimpleNamespace(get_gt_labels=lambda: np.repeat(np.arange(CLASSES), counts))
        ),
    )
    SetAdaptiveMarginsHook(**options).before_train(runner)
    return stock.margins


def test_margins_from_counts_equal_those_of_mmpretrains_hook() -> None:
    counts = [1, 0, 5, 50, 500, 7, 7, 10, 100, 1000, 3, 2]
    for high, low, power in ((0.5, 0.05, -0.25), (0.4, 0.1, -0.5)):
        ours, _ = pair(dict(m=dict(counts=counts, high=high, low=low, power=power)))
        torch.testing.assert_close(
            ours.margin.m(torch.arange(CLASSES)),
            adaptive(counts, margin_max=high, margin_min=low, power=power),
            rtol=1e-5,
            atol=1e-6,
        )


@pytest.mark.filterwarnings('ignore:invalid value:RuntimeWarning')
def test_balanced_counts_give_one_margin_where_mmpretrain_gives_nan() -> None:
    counts = [10] * CLASSES
    assert adaptive(counts).isnan().all()
    ours, _ = pair(dict(m=dict(counts=counts)))
    assert ours.margin.m(torch.arange(CLASSES)).tolist() == [0.5] * CLASSES


def test_straight_through_gradient_equals_insightface() -> None:
    """InsightFace adds the margin outside autograd, so that scores have the slope of the cosine."""
    x, labels = batch()
    ours, _ = pair(dict(m=0.5, gradient='straight_through'))
    weight, leaf = ours.weight.detach().clone().requires_grad_(), x.clone().requires_grad_()
    cosines = F.linear(F.normalize(leaf), F.normalize(weight))
    with torch.no_grad():
        change = torch.zeros_like(cosines)
        row = torch.arange(len(x))
        own = cosines[row, labels]
        change[row, labels] = torch.cos(torch.acos(own) + 0.5) - own
    # The angles of these features stay below pi.
    assert (torch.acos(own) + 0.5 < math.pi).all()
    value = F.cross_entropy(64 * (cosines + change), labels)
    expected = (value.detach(), *torch.autograd.grad(value, [leaf, weight]))
    for one, other in zip(gradients(ours, x, labels), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    analytic, _ = pair(dict(m=0.5))
    assert not torch.allclose(gradients(analytic, x, labels)[2], expected[2], rtol=1e-2, atol=1e-3)


def classifier(head: dict[str, Any], scope: str = 'mmpretrain', **options: Any) -> Any:
    """Build mmpretrain's classifier with a small ResNet-18 and our head, in a scope."""
    prefix = '' if scope == 'mmpretrain' else 'mmpretrain.'
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        return ROOT.build(
            dict(
                type='mmpretrain.ImageClassifier',
                backbone=dict(type=f'{prefix}ResNet', depth=18, stem_channels=8, base_channels=8),
                neck=dict(type=f'{prefix}GlobalAveragePooling'),
                head=dict(type='mmdet_ext.MarginHead', num_classes=4, in_channels=64, **head),
                **{'data_preprocessor': dict(type='mmdet_ext.FaceDataPreprocessor'), **options},
            )
        )


def loader_batch(number: int = 4) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.randint(256, (3, 32, 32), generator=generator, dtype=torch.uint8)
        for _ in range(number)
    ]
    return dict(inputs=images, data_samples=samples(torch.arange(number) % 4))


HEAD = dict(margin=dict(type='ArcFace', m=0.3), embedding_channels=5, scale=16.0)


@pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain'])
@pytest.mark.parametrize('margin', ['AdaFace', 'mmdet_ext.AdaFace'])
def test_classifier_runs_in_all_three_modes(scope: str, margin: str) -> None:
    model = classifier({**HEAD, 'margin': dict(type=margin)}, scope)
    data = model.data_preprocessor(loader_batch(), training=True)
    losses = model(**data, mode='loss')
    assert set(losses) == {'loss', 'own_cosine'} and losses['loss'] > 0
    model.eval()
    data = model.data_preprocessor(loader_batch())
    features = model.extract_feat(data['inputs'])
    embedding = model.head.neck(features[-1])
    found = model(**data, mode='predict')
    assert torch.stack([sample.embedding for sample in found]).equal(embedding)
    assert [type(sample) for sample in found] == [DataSample] * 4
    assert [sample.to_dict()['embedding'].shape for sample in found] == [(5,)] * 4
    assert [sample.gt_label.item() for sample in found] == [0, 1, 2, 3]
    scores = model(data['inputs'], mode='tensor')
    expected = 16 * F.normalize(embedding) @ F.normalize(model.head.weight).t()
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
    assert model.extract_feat(data['inputs'], stage='pre_logits').equal(embedding)


def test_training_steps_lower_the_loss_and_log_the_rest() -> None:
    model = classifier({**HEAD, 'aux_losses': [dict(type='TripletLoss', loss_weight=0.1)]})
    optim = OptimWrapper(torch.optim.SGD(model.parameters(), 0.05))
    logs = [model.train_step(loader_batch(), optim) for _ in range(12)]
    assert logs[-1]['loss'] < logs[0]['loss'] - 1
    assert logs[-1]['own_cosine'] > logs[0]['own_cosine'] + 0.2
    # The runner minimises the sum of all losses, and of nothing else.
    step = model.data_preprocessor(loader_batch(), training=True)
    losses = model(**step, mode='loss')
    whole, logged = model.parse_losses(losses)
    assert whole.item() == pytest.approx((losses['loss'] + losses['loss_triplet']).item())
    assert {'loss', 'own_cosine', 'loss_triplet'} < set(logged)


@pytest.mark.parametrize('fusion', ['concat', 'sum'])
def test_mirror_images_are_fused_in_a_test_step(fusion: str) -> None:
    model = classifier(
        {**HEAD, 'flip_fusion': fusion},
        data_preprocessor=dict(type='mmdet_ext.FaceDataPreprocessor', flip_at_test=True),
    ).eval()
    found = torch.stack([sample.embedding for sample in model.test_step(loader_batch())])
    mirrored = loader_batch()
    mirrored['inputs'] = [image.flip(-1) for image in mirrored['inputs']]
    again = torch.stack([sample.embedding for sample in model.test_step(mirrored)])
    if fusion == 'sum':
        # An image and its mirror image have one embedding.
        assert found.shape == (4, 5)
        torch.testing.assert_close(found, again, rtol=1e-4, atol=1e-5)
    else:
        assert found.shape == (4, 10)
        torch.testing.assert_close(found, again.roll(5, 1), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[0], found[1])


def test_flip_at_test_alone_switches_mirror_fusion_on() -> None:
    model = classifier({**HEAD, 'flip_fusion': 'sum'}).eval()
    with pytest.raises(ValueError, match='wants 8 embeddings for 4 images, got 4.*flip_at_test'):
        model.test_step(loader_batch())
    flipping = dict(type='mmdet_ext.FaceDataPreprocessor', flip_at_test=True)
    found = [
        torch.stack([sample.embedding for sample in model.eval().test_step(loader_batch())])
        for model in (
            classifier(HEAD, data_preprocessor=flipping),
            classifier({**HEAD, 'flip_fusion': 'sum'}, data_preprocessor=flipping),
        )
    ]
    assert found[0].equal(found[1])


def test_preprocessor_of_mmpretrain_gives_the_same_loss_and_its_mixing_is_refused() -> None:
    plain = dict(type='ClsDataPreprocessor', mean=[127.5] * 3, std=[128.0] * 3, to_rgb=True)
    ours, stock = classifier(HEAD), classifier(HEAD, data_preprocessor=plain)
    values = []
    for model in (ours, stock):
        losses = model(**model.data_preprocessor(loader_batch(), training=True), mode='loss')
        values.append(losses['loss'].item())
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    mixing = dict(augments=dict(type='Mixup', alpha=0.8))
    model = classifier(
        HEAD, data_preprocessor={**plain, 'num_classes': 4, 'to_onehot': True}, train_cfg=mixing
    )
    with pytest.raises(ValueError, match='gt_score: a margin is for one identity.*Mixup'):
        model(**model.data_preprocessor(loader_batch(), training=True), mode='loss')


def test_labels_beyond_the_classes_name_the_image() -> None:
    model = classifier(HEAD)
    data = loader_batch()
    data['data_samples'][2].set_gt_label(4)
    data['data_samples'][2].set_field('a/b.jpg', 'img_path', field_type='metainfo')
    message = '1 of 4 labels are not from 0 to 3 .num_classes=4., the first is 4 of a/b.jpg'
    with pytest.raises(ValueError, match=message):
        model(**model.data_preprocessor(data, training=True), mode='loss')


def test_misspelt_options_are_named_in_each_scope() -> None:
    for scope in ('mmdet', 'mmpretrain'):
        with pytest.raises(KeyError, match="did you mean 'ArcFace'"):
            classifier({**HEAD, 'margin': dict(type='ArcFac')}, scope)
        with pytest.raises(TypeError, match="no option 'margins'; did you mean 'margin'"):
            classifier({'margins': dict(type='ArcFace')}, scope)
