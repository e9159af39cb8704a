"""Contract of every registered loss on features and labels."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmdet_ext.catalog.cases import cases_of
from mmdet_ext.catalog.face_cases import CHANNELS, CLASSES, feature_batch
from mmdet_ext.registry import MODELS, ExtRegistry
from tests._helpers.options import assert_misspelt_options_are_named

HALF = pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)


def over(rows: Sequence[Any]) -> Any:
    return pytest.mark.parametrize('case', rows, ids=repr)


def build(nodes: ExtRegistry, case: Any, **options: Any) -> Any:
    return nodes.build({'type': f'mmdet_ext.{case.name}', **case.options, **options})


each_loss = over(cases_of('feature loss'))


def losses_of(head: Any, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
    return head.loss((features,), [BaseDataElement(gt_label=label.view(1)) for label in labels])


def loss_of(case: Any, seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    return build(MODELS, case, **options)


def value_and_gradient(
    loss: Any, features: Tensor, labels: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    leaf = features.clone().requires_grad_()
    losses = loss.losses(leaf, labels)
    losses['loss'].backward()
    return losses, leaf.grad


@each_loss
def test_batch_without_pairs_costs_zero_and_keeps_the_graph(case: Any) -> None:
    features, labels = feature_batch()
    one_identity = torch.full_like(labels, 2)
    for kind, x, y in (
        ('one identity', features, one_identity),
        ('one sample', features[:1], labels[:1]),
        ('no sample', features[:0], labels[:0]),
    ):
        losses, gradient = value_and_gradient(loss_of(case), x, y)
        order = ('one identity', 'one sample', 'no sample')
        free = order.index(kind) >= order.index(case.zero_on)
        assert torch.isfinite(losses['loss']) and torch.isfinite(gradient).all()
        assert bool(losses['loss'] == 0) is free, kind
        assert not (free and gradient.any()), kind


@each_loss
def test_only_the_loss_has_loss_in_its_key_and_a_graph(case: Any) -> None:
    features, labels = feature_batch()
    losses = loss_of(case).losses(features.requires_grad_(), labels)
    assert losses['loss'].requires_grad and losses['loss'].shape == () and losses['loss'] > 0
    others = {key: value for key, value in losses.items() if key != 'loss'}
    assert others and not any('loss' in key for key in others)
    assert all(v.is_floating_point() and not v.requires_grad for v in others.values())


@each_loss
def test_order_of_samples_changes_nothing(case: Any) -> None:
    features, labels = feature_batch()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    losses, gradient = value_and_gradient(loss_of(case), features, labels)
    moved, moved_gradient = value_and_gradient(loss_of(case), features[order], labels[order])
    for key, value in losses.items():
        torch.testing.assert_close(moved[key], value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(moved_gradient, gradient[order], rtol=1e-5, atol=1e-6)


@each_loss
def test_labels_can_be_renamed_with_their_centres(case: Any) -> None:
    features, labels = feature_batch()
    renamed = (labels * 3) % CLASSES
    one, other = loss_of(case), loss_of(case)
    if hasattr(one, 'centers'):
        with torch.no_grad():
            one.centers[labels] = other.centers[renamed]
    torch.testing.assert_close(
        one.losses(features, labels), other.losses(features, renamed), rtol=1e-5, atol=1e-6
    )


@each_loss
def test_weight_multiplies_only_the_loss(case: Any) -> None:
    features, labels = feature_batch()
    once, once_gradient = value_and_gradient(loss_of(case, loss_weight=1.0), features, labels)
    more, more_gradient = value_and_gradient(loss_of(case, loss_weight=2.5), features, labels)
    torch.testing.assert_close(more['loss'], 2.5 * once['loss'])
    torch.testing.assert_close(more_gradient, 2.5 * once_gradient)
    assert {k: v.item() for k, v in more.items() if k != 'loss'} == {
        k: v.item() for k, v in once.items() if k != 'loss'
    }
    with pytest.raises(ValueError, match='loss_weight'):
        loss_of(case, loss_weight=-1.0)


@each_loss
def test_small_step_along_the_gradient_lowers_the_loss_by_its_square(case: Any) -> None:
    # In evaluation mode centres stay. The step is too small to change the choice of pairs.
    loss, (features, labels) = loss_of(case).eval().double(), feature_batch()
    features = features.double()
    first, gradient = value_and_gradient(loss, features, labels)
    step = 1e-6
    last, _ = value_and_gradient(loss, features - step * gradient, labels)
    fall = (first['loss'] - last['loss']).item()
    assert fall == pytest.approx(step * gradient.square().sum().item(), rel=1e-3) and fall > 0


@each_loss
@HALF
def test_half_precision_features_are_computed_in_float32(case: Any, dtype: torch.dtype) -> None:
    features, labels = feature_batch()
    rounded = features.to(dtype)
    losses, gradient = value_and_gradient(loss_of(case), rounded, labels)
    whole, whole_gradient = value_and_gradient(loss_of(case), rounded.float(), labels)
    assert losses['loss'].dtype == torch.float32 and gradient.dtype == dtype
    torch.testing.assert_close(losses, whole, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, whole_gradient.to(dtype))
    with torch.autocast('cpu', dtype):
        cast = loss_of(case).losses(features, labels)
    torch.testing.assert_close(
        cast['loss'], loss_of(case).losses(features, labels)['loss'], rtol=1e-5, atol=1e-5
    )


@each_loss
@pytest.mark.parametrize('scale', [0.0, 1e-6, 1e4])
def test_equal_tiny_and_huge_features_give_finite_numbers(case: Any, scale: float) -> None:
    features, labels = feature_batch(scale=scale)
    losses, gradient = value_and_gradient(loss_of(case), features, labels)
    assert all(torch.isfinite(value) for value in losses.values())
    assert torch.isfinite(gradient).all()


@each_loss
def test_copies_and_checkpoints_keep_the_state(case: Any) -> None:
    features, labels = feature_batch()
    loss = loss_of(case)
    first = loss.losses(features, labels)['loss'].item()
    copies = [copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), loss_of(case, seed=1)]
    copies[2].load_state_dict(loss.state_dict())
    second = loss.losses(features, labels)['loss'].item()
    assert (first != second) is case.remembers
    assert [one.losses(features, labels)['loss'].item() for one in copies] == [second] * 3


@each_loss
def test_head_accepts_the_loss_with_and_without_a_margin(case: Any) -> None:
    features, labels = feature_batch()
    short = case.name.removesuffix('Loss').lower()
    expected = loss_of(case, loss_weight=0.5).losses(features, labels)
    for margin in (None, {'type': 'ArcFace'}):
        head = MODELS.build(
            {
                'type': 'mmdet_ext.MarginHead',
                'num_classes': CLASSES,
                'in_channels': CHANNELS,
                'margin': margin,
                'aux_losses': [
                    {'type': case.name, **case.options, 'loss_weight': 0.5},
                    {'type': f'mmdet_ext.{case.name}', **case.options, 'loss_weight': 1.0},
                ],
            }
        )
        if 'centers' in dict(head.aux_losses[short].named_parameters()):
            head.load_state_dict(
                {f'aux_losses.{name}.centers': loss_of(case).centers for name in head.aux_losses},
                strict=False,
            )
        losses = losses_of(head, features, labels)
        assert ('loss' in losses) is (margin is not None)
        for key, value in expected.items():
            name = f'loss_{short}' if key == 'loss' else f'{short}_{key}'
            torch.testing.assert_close(losses[name], value)
        torch.testing.assert_close(losses[f'loss_{short}_2'], 2 * expected['loss'])


@each_loss
def test_misspelt_options_and_labels_that_do_not_fit_are_named(case: Any) -> None:
    assert_misspelt_options_are_named(
        lambda **wrong: build(MODELS, case, **wrong), MODELS.get(case.name)
    )
    features, labels = feature_batch()
    with pytest.raises((TypeError, ValueError), match='label'):
        loss_of(case).losses(features, labels[:-1])
    with pytest.raises((TypeError, ValueError), match='label'):
        loss_of(case).losses(features, labels.float())
