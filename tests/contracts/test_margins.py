"""Contract of every registered margin under the head."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmdet_ext.catalog.cases import cases_of
from mmdet_ext.catalog.face_cases import CHANNELS, CLASSES, feature_batch
from mmdet_ext.functional.embedding.competition import class_competition
from mmdet_ext.registry import MARGINS, MODELS
from tests._helpers.options import assert_misspelt_options_are_named
from tests._helpers.same import assert_same

HALF = pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
PATHS = ('plain', 'exact')


def over(rows: Sequence[Any]) -> Any:
    return pytest.mark.parametrize('case', rows, ids=repr)


each_margin = over(cases_of('margin'))


def head_of(case: Any, path: str = 'auto', seed: int = 0, **options: Any) -> Any:
    """Return a head with the margin, and centres of lengths other than 1."""
    torch.manual_seed(seed)
    head = MODELS.build(
        {
            'type': 'mmdet_ext.MarginHead',
            'num_classes': CLASSES,
            'in_channels': CHANNELS,
            'margin': {'type': case.name, **case.options},
            'scale': 16.0,
            'path': path,
            **options,
        }
    )
    nn.init.normal_(head.weight, std=0.5)
    return head


def losses_of(head: Any, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
    return head.loss((features,), [BaseDataElement(gt_label=label.view(1)) for label in labels])


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack([value for key, value in losses.items() if 'loss' in key]).sum()


def gradients(
    head: Any, features: Tensor, labels: Tensor, context: Any = None
) -> tuple[Tensor, ...]:
    """Return the total loss, and its gradients for features and parameters, in a context."""
    leaf = features.clone().requires_grad_()
    with context or nullcontext():
        value = total(losses_of(head, leaf, labels))
    wanted = [leaf, *head.parameters()]
    return (value.detach(), *torch.autograd.grad(value, wanted))


def train(head: Any, steps: int, lr: float = 0.05) -> list[dict[str, float]]:
    """Train on one batch, and return the values of each step."""
    optimiser = torch.optim.SGD(head.parameters(), lr)
    features, labels = feature_batch()
    given = []
    for _ in range(steps):
        losses = losses_of(head, features, labels)
        optimiser.zero_grad()
        total(losses).backward()
        optimiser.step()
        given.append({key: value.item() for key, value in losses.items()})
    return given


@each_margin
def test_margin_builds_by_bare_and_by_scoped_name(case: Any) -> None:
    features, labels = feature_batch()
    bare = head_of(case)
    margin = {'type': f'mmdet_ext.{case.name}', **case.options}
    scoped = head_of(case, margin=margin)
    assert type(bare.margin) is type(scoped.margin) is MARGINS.get(case.name)
    # The config is not changed, so that it can build a second head.
    assert margin == {'type': f'mmdet_ext.{case.name}', **case.options}
    for one, other in zip(*(gradients(h, features, labels) for h in (bare, scoped)), strict=True):
        assert torch.equal(one, other)


@each_margin
def test_margin_refuses_a_misspelt_option(case: Any) -> None:
    assert_misspelt_options_are_named(
        lambda **wrong: head_of(case, margin={'type': case.name, **case.options, **wrong}),
        MARGINS.get(case.name),
    )


@each_margin
@pytest.mark.parametrize('centers', [1, 3])
def test_plain_and_exact_computation_train_alike(
    case: Any, centers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seven classes are one chunk by default. Here they are four, the last of a single class.
    monkeypatch.setattr(
        'mmdet_ext.face.heads.centers.class_competition',
        lambda *args, **options: class_competition(*args, **options, chunk=2),
    )
    plain, exact = (head_of(case, path, num_subcenters=centers) for path in PATHS)
    for one, other in zip(train(plain, 4), train(exact, 4), strict=True):
        assert one.keys() == other.keys() and np.isfinite(list(one.values())).all()
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5)
    assert_close(plain.state_dict(), exact.state_dict())
    features, labels = feature_batch(1)
    for one, other in zip(
        gradients(plain, features, labels), gradients(exact, features, labels), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-5)


@each_margin
def test_training_draws_samples_to_their_centres(case: Any) -> None:
    given = train(head_of(case), 40)
    assert given[-1]['own_cosine'] > given[0]['own_cosine'] + 0.05
    assert given[0]['loss'] > 0


@each_margin
@pytest.mark.parametrize('path', PATHS)
def test_one_sample_keeps_the_graph(case: Any, path: str) -> None:
    features, labels = feature_batch()
    value, *found = gradients(head_of(case, path), features[:1], labels[:1])
    assert torch.isfinite(value) and value > 0
    assert all(torch.isfinite(part).all() for part in found)
    assert found[0].any() and found[1].any()


@each_margin
@pytest.mark.parametrize('path', PATHS)
def test_loss_of_a_batch_is_the_mean_over_its_samples(case: Any, path: str) -> None:
    """In evaluation mode, running statistics do not change."""
    head = head_of(case, path).eval()
    features, labels = feature_batch()
    together = losses_of(head, features, labels)
    alone = [losses_of(head, features[i : i + 1], labels[i : i + 1]) for i in range(len(labels))]
    for key, value in together.items():
        mean = torch.stack([each[key] for each in alone]).mean()
        torch.testing.assert_close(value, mean, rtol=1e-5, atol=1e-5)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(3))
    moved = losses_of(head, features[order], labels[order])
    for key, value in together.items():
        torch.testing.assert_close(moved[key], value, rtol=1e-5, atol=1e-5)


@each_margin
@pytest.mark.parametrize('path', PATHS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_extreme_features_and_centres_give_finite_numbers(
    case: Any, path: str, dtype: torch.dtype
) -> None:
    """Features lie on a centre, opposite to it, are zero, tiny and huge, and a centre is zero."""
    head = head_of(case, path)
    with torch.no_grad():
        head.weight[1] = 0
    rows = [
        head.weight[2],
        -head.weight[2],
        torch.zeros(CHANNELS),
        1e-7 * head.weight[2],
        1e3 * head.weight[3],
        torch.eye(CHANNELS)[0],
        torch.full((CHANNELS,), 6e4),
    ]
    features = torch.stack(rows).detach().repeat(3, 1).to(dtype)
    labels = torch.tensor([2, 3, 1]).repeat_interleave(len(rows))
    value, *found = gradients(head, features, labels)
    assert value.dtype == torch.float32 and torch.isfinite(value)
    assert all(torch.isfinite(part).all() for part in found)


@each_margin
@pytest.mark.parametrize('path', PATHS)
@HALF
def test_half_precision_features_give_the_loss_of_their_values(
    case: Any, path: str, dtype: torch.dtype
) -> None:
    features, labels = feature_batch()
    rounded = features.to(dtype)
    half, whole = (
        gradients(head_of(case, path), part, labels) for part in (rounded, rounded.float())
    )
    assert half[0].dtype == torch.float32 and half[1].dtype == dtype
    torch.testing.assert_close(half[0], whole[0], rtol=1e-6, atol=1e-6)
    # Gradients of several terms are added up in the precision of the features.
    eps = torch.finfo(dtype).eps
    scale = whole[1].abs().max().item()
    torch.testing.assert_close(half[1].float(), whole[1], rtol=2 * eps, atol=2 * eps * scale)
    for one, other in zip(half[2:], whole[2:], strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other)


@each_margin
def test_autocast_changes_nothing_behind_the_embedding(case: Any) -> None:
    features, labels = feature_batch()
    for path in PATHS:
        plain = gradients(head_of(case, path), features, labels)
        cast = gradients(
            head_of(case, path), features, labels, torch.autocast('cpu', torch.bfloat16)
        )
        for one, other in zip(plain, cast, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@each_margin
def test_copies_and_checkpoints_train_as_the_head_itself(case: Any) -> None:
    head = head_of(case)
    train(head, 3)
    other = head_of(case, seed=1)
    assert other.load_state_dict(head.state_dict()) == ([], [])
    copies = [copy.deepcopy(head), pickle.loads(pickle.dumps(head)), other]
    expected = train(head, 3)
    for one in copies:
        assert train(one, 3) == expected
        assert_same(dict(head.state_dict()), dict(one.state_dict()))


@each_margin
def test_evaluation_changes_no_state(case: Any) -> None:
    head = head_of(case)
    features, labels = feature_batch()
    before = copy.deepcopy(head.state_dict())
    head.eval()
    losses_of(head, features, labels)
    head.predict((features,))
    assert_same(dict(before), dict(head.state_dict()))


@each_margin
def test_embedding_and_scores_have_no_margin(case: Any) -> None:
    head = head_of(case).eval()
    features, labels = feature_batch()
    written = [sample.embedding for sample in head.predict((features,))]
    assert torch.equal(torch.stack(written), features)
    # The highest score of a centre is that of its own class, unless lengths or biases decide.
    with torch.no_grad():
        scores = head((head.weight,)) if head.margin.normalize_weight else None
    if scores is not None:
        assert torch.equal(scores.argmax(1), torch.arange(CLASSES))
