"""Class competition: gradients on demand, memory, checkpointing, and refused arguments."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmdet_ext.catalog.memory import peak_bytes
from mmdet_ext.functional.embedding.competition import class_competition
from tests._helpers.face.competition import (
    Bent,
    assert_near,
    batch,
    with_gradients,
)

MIB = 2**20


@pytest.mark.parametrize('wanted', [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1)])
@pytest.mark.parametrize('normalize', [True, False])
def test_only_the_wanted_gradients_are_computed(wanted: tuple[int, ...], normalize: bool) -> None:
    x, weight, labels = batch()
    tensors: Any = [x, weight, torch.linspace(-1, 1, 11)]
    options: Any = dict(scale=8.0, chunk=4, normalize_weight=normalize)
    whole = with_gradients(class_competition, x, weight, tensors[2], labels, **options)[3:]
    leaves = [t.clone().requires_grad_(bool(w)) for t, w in zip(tensors, wanted, strict=True)]
    found = class_competition(leaves[0], leaves[1], labels, class_bias=leaves[2], **options)
    factors = torch.linspace(0.5, 1.5, len(x))
    (
        found.target * factors - found.center_norm * factors.square() + found.others * (2 - factors)
    ).sum().backward()
    for leaf, expected, w in zip(leaves, whole, wanted, strict=True):
        assert (leaf.grad is not None) == bool(w)
        if w:
            torch.testing.assert_close(leaf.grad, expected, rtol=1e-6, atol=1e-7)


def test_frozen_centres_need_no_memory_for_a_gradient() -> None:
    x, weight, labels = batch(20_000, 1, 32, 64)
    x.requires_grad_()
    assert weight.nbytes > 4 * MIB
    assert peak_bytes(lambda: run(x, weight, labels)) < 3 * MIB


def run(x: Tensor, weight: Tensor, labels: Tensor, **options: Any) -> None:
    found = class_competition(x, weight, labels, scale=64.0, **options)
    if found.others.requires_grad:
        (found.others - found.target).sum().backward()


@pytest.mark.slow
@pytest.mark.parametrize('options', [{}, {'others': Bent}, {'kind': 'sigmoid'}], ids=str)
def test_memory_does_not_grow_with_the_classes(options: dict[str, Any]) -> None:
    held = []
    for classes in (20_000, 80_000):
        x, weight, labels = batch(classes, 1, 64, 32)
        x.requires_grad_(), weight.requires_grad_()
        # Memory beyond the gradients and the length of each centre.
        own = x.nbytes + weight.nbytes + 4 * classes
        held.append(peak_bytes(lambda: run(x, weight, labels, **options)) - own)  # noqa: B023
    chunk = 4 * 2**18
    assert max(held) < (6 if 'others' in options else 4) * chunk
    assert held[1] - held[0] < 0.1 * MIB
    # One table takes 4.9 MiB at 20,000 classes and 19.5 MiB at 80,000. The plain computation holds
    # several.
    plain = peak_bytes(lambda: run(x, weight, labels, path='plain', **options)) - own
    assert plain > 10 * max(held)


def test_memory_without_gradients_is_that_of_one_chunk() -> None:
    x, weight, labels = batch(50_000, 1, 64, 32)
    weight.requires_grad_()
    with torch.no_grad():
        held = peak_bytes(lambda: run(x, weight, labels))
        assert held < 2.5 * 4 * 2**18 + 4 * 50_000
    assert weight.grad is None


@pytest.mark.parametrize('centers', [1, 2])
def test_kept_scores_take_one_table_and_serve_every_backward_pass(centers: int) -> None:
    x, weight, labels = batch(20_000, centers, 64, 32)
    options: Any = dict(scale=8.0, num_subcenters=centers, others=Bent)
    leaf = weight.clone().requires_grad_()
    held = {
        path: peak_bytes(lambda: run_twice(x, leaf, labels, path=path, **options))  # noqa: B023
        for path in ('exact', 'kept')
    }
    table = 4 * 64 * 20_000 * centers
    assert held['kept'] - held['exact'] == pytest.approx(table, rel=0.02)
    with torch.no_grad():
        frozen = [
            peak_bytes(lambda: class_competition(x, leaf, labels, path=path, **options))  # noqa: B023
            for path in ('exact', 'kept')
        ]
    assert frozen[0] == frozen[1]
    first, second = run_twice(x, leaf, labels, path='kept', **options)
    assert first.equal(second)
    torch.testing.assert_close(
        first, run_twice(x, leaf, labels, path='exact', **options)[0], rtol=1e-5, atol=1e-7
    )


def run_twice(x: Tensor, leaf: Tensor, labels: Tensor, **options: Any) -> list[Tensor]:
    found = class_competition(x, leaf, labels, **options)
    return [
        torch.autograd.grad(found.others.sum() - found.target.sum(), leaf, retain_graph=again)[0]
        for again in (True, False)
    ]


def test_two_forward_passes_before_the_backward_passes() -> None:
    x, weight, labels = batch()
    other, _, other_labels = batch(seed=5)
    leaf = weight.clone().requires_grad_()
    first = class_competition(x, leaf, labels, scale=8.0, others=Bent, chunk=4)
    second = class_competition(other, leaf, other_labels, scale=8.0, others=Bent, chunk=4)
    (first.others.sum() + second.others.sum()).backward()
    apart: list[Any] = []
    for features, y in ((x, labels), (other, other_labels)):
        alone = weight.clone().requires_grad_()
        class_competition(features, alone, y, scale=8.0, others=Bent).others.sum().backward()
        apart.append(alone.grad)
    torch.testing.assert_close(leaf.grad, apart[0] + apart[1], rtol=1e-5, atol=1e-6)


def test_centres_changed_before_the_backward_pass_are_refused() -> None:
    x, weight, labels = batch()
    weight.requires_grad_()
    found = class_competition(x, weight, labels)
    with torch.no_grad():
        weight += 1
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        found.others.sum().backward()


@pytest.mark.parametrize('reentrant', [False, True])
def test_checkpointing_gives_the_same_gradients(reentrant: bool) -> None:
    from torch.utils.checkpoint import checkpoint

    x, weight, labels = batch()
    grads = []
    for run in (
        lambda form, *args: form(*args),
        lambda form, *args: checkpoint(form, *args, use_reentrant=reentrant),
    ):
        leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
        target, _, others = run(
            lambda *args: tuple(class_competition(*args, scale=8.0, chunk=4)), *leaves, labels
        )
        (others - target).sum().backward()
        grads.append([leaf.grad for leaf in leaves])
    assert all(one.equal(other) and one.any() for one, other in zip(*grads, strict=True))


def test_features_and_centres_that_are_not_contiguous() -> None:
    x, weight, labels = batch()
    expected = with_gradients(class_competition, x, weight, None, labels)
    wide = torch.stack([x.t(), x.t()], 2)[..., 0].t()
    assert not wide.is_contiguous()
    found = with_gradients(
        class_competition, wide, weight.t().contiguous().t(), None, labels, chunk=4
    )
    assert_near(found, expected, 1e-6)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            dict(labels=torch.tensor([0, 11])),
            'labels must be from 0 to 10 .*from 0 to 11.*num_classes',
        ),
        (dict(labels=torch.tensor([-1, 3])), 'values from -1 to 3'),
        (
            dict(labels=torch.zeros(3, dtype=torch.long)),
            r'labels must be integers, one per feature: .2,',
        ),
        (dict(labels=torch.zeros(2)), 'labels must be integers.*torch.float32'),
        (dict(features=torch.zeros(2, 5)), r'with one D, got .2, 5. and .11, 6.'),
        (dict(features=torch.zeros(2, 6, 1)), 'features must be'),
        (dict(num_subcenters=2), 'num_subcenters is 2: .*divide the 11 rows'),
        (dict(num_subcenters=0), 'num_subcenters is 0'),
        (dict(class_bias=torch.zeros(10)), r'class_bias must be \(11,\), got \(10,\)'),
        (dict(kind='hinge'), "kind must be .*'softmax', 'sigmoid'.*'hinge'"),
        (dict(path='fast'), "path must be .*'fast'"),
        (dict(chunk=0), 'chunk must be at least 1, got 0'),
    ],
)
def test_arguments_that_do_not_fit_are_named(change: dict[str, Any], message: str) -> None:
    x, weight, _ = batch(samples=2)
    arguments: Any = dict(features=x, weight=weight, labels=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=message):
        class_competition(**{**arguments, **change})
