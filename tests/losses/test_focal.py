"""The registered focal loss against stock's, and its weights from counts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

SHAPES = pytest.mark.parametrize('shape', [(10, 5), (3, 5, 40, 40)], ids=str)


def build(scope: str = 'mmdet_ext', **options: object) -> nn.Module:
    return MODELS.build({'type': f'{scope}.FocalLoss', **options})


def check_equal(options: dict[str, Any], pred: Tensor, *args: Any, **kwargs: Any) -> None:
    """Value and gradient are stock's."""
    results = []
    for scope in ('mmdet_ext', 'mmdet'):
        leaf = pred.clone().requires_grad_()
        value = build(scope, **options)(leaf, *args, **kwargs)
        value.sum().backward()
        results.append((value.detach(), leaf.grad))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)


def logits(*shape: int) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
@pytest.mark.parametrize('activated', [False, True])
@pytest.mark.parametrize('gamma', [2.0, 0.7])
def test_labels_as_dense_heads_pass_them(gamma: float, activated: bool, reduction: str) -> None:
    options = {'activated': activated, 'gamma': gamma, 'alpha': 0.4, 'loss_weight': 2.0}
    pred, label = logits(10, 5), torch.arange(10) % 6
    if activated:
        pred = pred.sigmoid()
    weights = (
        None,
        torch.linspace(0, 1, 10),  # a weight a row
        torch.linspace(0, 1, 50).reshape(10, 5),
        torch.linspace(0, 1, 50),  # flat, a weight an element
    )
    for weight in weights:
        check_equal(options, pred, label, weight, reduction_override=reduction)
        if reduction != 'sum':
            check_equal(options, pred, label, weight, avg_factor=3, reduction_override=reduction)


@SHAPES
@pytest.mark.parametrize('activated', [False, True])
def test_targets_of_the_shape_of_the_predictions(shape: tuple[int, ...], activated: bool) -> None:
    pred = logits(*shape).clamp(-6, 6)
    target = torch.arange(pred.numel()).reshape(shape) % 3 == 0
    check_equal(
        {'activated': activated}, pred.sigmoid() if activated else pred, target.long(),
        avg_factor=7.0,
    )  # fmt: skip


def test_zero_weights_cost_nothing() -> None:
    pred, label = logits(10, 5), torch.arange(10) % 6
    for use_sigmoid in (True, False):
        loss = build(use_sigmoid=use_sigmoid)
        assert loss(pred, label.clamp(max=4), torch.zeros(10)).item() == 0
    assert build()(pred, label, torch.zeros(50)).item() == 0


def test_a_single_column_takes_a_weight_a_row() -> None:
    pred, label, weight = logits(4, 1), torch.tensor([0, 1, 1, -1]), torch.rand(4)
    each = build()(pred, label, weight, reduction_override='none')
    plain = build()(pred, label, reduction_override='none')
    torch.testing.assert_close(each, plain * weight[:, None])


def test_softmax_head_has_a_weight_a_row_and_the_background_last() -> None:
    loss = build(use_sigmoid=False)
    pred, label, weight = logits(6, 4), torch.tensor([0, 1, 2, 3, 3, -1]), torch.rand(6)
    p = pred.softmax(1)[torch.arange(6), label.clamp(min=0)]
    alpha = torch.tensor([0.25, 0.25, 0.25, 0.75, 0.75, 0.0])
    expected = -alpha * (1 - p) ** 2 * p.log()
    torch.testing.assert_close(loss(pred, label, reduction_override='none'), expected)
    torch.testing.assert_close(loss(pred, label, weight, 2.0), (expected * weight).sum() / 2)


def test_counts_make_the_list(tmp_path: Path) -> None:
    path = tmp_path / 'counts.json'
    path.write_text(json.dumps({'classes': ['a', 'b', 'c'], 'counts': [8, 2, 0]}))
    expected = [1 / math.log(1.1 + share) for share in (0.8, 0.2, 0.0)]
    pred, label = logits(8, 3), torch.arange(8) % 4
    for counts in ([8, 2, 0], str(path)):
        loss = build(alpha={'type': 'inverse_log', 'counts': counts})
        assert loss.alpha == pytest.approx(expected)
        assert torch.equal(loss(pred, label), build(alpha=loss.alpha)(pred, label))


@pytest.mark.parametrize('use_sigmoid', [True, False])
def test_batch_counts_the_labels_of_the_call(use_sigmoid: bool) -> None:
    """In the sigmoid form, and the softmax form, one count a column; ignored ones in none."""
    loss = build(use_sigmoid=use_sigmoid, alpha={'type': 'inverse_log', 'counts': 'batch'})
    pred = logits(9, 3)
    for labels, counts in (([0, 0, 0, 1, 1, 2, -1, -1, 0], [4, 2, 1]), ([2] * 9, [0, 0, 9])):
        label = torch.tensor(labels)
        listed = build(use_sigmoid=use_sigmoid, alpha={'type': 'inverse_log', 'counts': counts})
        torch.testing.assert_close(loss(pred, label), listed(pred, label))
    assert torch.isfinite(loss(pred, torch.full((9,), -1)))


def test_batch_counts_elements_and_passes_over_background() -> None:
    loss = build(alpha={'type': 'inverse_frequency', 'counts': 'batch'})
    pred, label = logits(7, 3), torch.tensor([0, 0, 1, 2, 3, 3, 3])
    elements = torch.nn.functional.one_hot(label, 4)[:, :3].float()
    listed = build(alpha={'type': 'inverse_frequency', 'counts': [2, 1, 1]})
    torch.testing.assert_close(loss(pred, label), listed(pred, label))
    torch.testing.assert_close(loss(pred, elements), listed(pred, label))


def test_batch_weights_are_finite_and_compile() -> None:
    loss = build(use_sigmoid=False, alpha={'type': 'effective_number', 'counts': 'batch'})
    pred, label = logits(6, 3).requires_grad_(), torch.tensor([0, 1, 1, 2, -1, 2])
    compiled = torch.compile(loss.elementwise, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(pred, label), loss.elementwise(pred, label))
    loss(pred[:0], label[:0]).backward()
    assert not pred.grad.any()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'gamma': -1}, 'gamma must be from 0, got -1'),
        ({'alpha': 1.5}, 'alpha must be at most 1, got 1.5'),
        ({'alpha': [0.5, -0.5]}, 'alpha must be numbers from 0, got -0.5 for class 1'),
        ({'alpha': {'type': 'log', 'counts': 'batch'}}, "'type' must be one of .*, got 'log'"),
        ({'alpha': {'type': 'inverse_log'}}, "'counts' is missing"),
        (
            {'alpha': {'type': 'inverse_log', 'counts': 'batch', 'beta': 0.5}},
            "'inverse_log' has no option 'beta'",
        ),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)
