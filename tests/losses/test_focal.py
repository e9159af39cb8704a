"""Registered focal loss compared with mmdet's, and its weights from counts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

SHAPES = pytest.mark.parametrize('shape', [(10, 5), (3, 5, 40, 40)], ids=str)


def build(scope: str = 'mmdet_ext', **options: object) -> nn.Module:
    return MODELS.build({'type': f'{scope}.FocalLoss', **options})


def check_equal(options: dict[str, Any], pred: Tensor, *args: Any, **kwargs: Any) -> None:
    """Compare value and gradient with mmdet's."""
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
def test_labels_of_dense_heads_equal_mmdet(gamma: float, activated: bool, reduction: str) -> None:
    options = {'activated': activated, 'gamma': gamma, 'alpha': 0.4, 'loss_weight': 2.0}
    pred, label = logits(10, 5), torch.arange(10) % 6
    if activated:
        pred = pred.sigmoid()
    weights = (
        None,
        torch.linspace(0, 1, 10),  # per row
        torch.linspace(0, 1, 50).reshape(10, 5),
        torch.linspace(0, 1, 50),  # per element, flat
    )
    for weight in weights:
        check_equal(options, pred, label, weight, reduction_override=reduction)
        if reduction != 'sum':
            check_equal(options, pred, label, weight, avg_factor=3, reduction_override=reduction)


@SHAPES
@pytest.mark.parametrize('activated', [False, True])
def test_targets_of_elements_equal_mmdet(shape: tuple[int, ...], activated: bool) -> None:
    pred = logits(*shape).clamp(-6, 6)
    target = torch.arange(pred.numel()).reshape(shape) % 3 == 0
    check_equal(
        {'activated': activated},
        pred.sigmoid() if activated else pred,
        target.long(),
        avg_factor=7.0,
    )


def test_zero_weights_cost_nothing() -> None:
    pred, label = logits(10, 5), torch.arange(10) % 6
    for use_sigmoid in (True, False):
        loss = build(use_sigmoid=use_sigmoid)
        assert loss(pred, label.clamp(max=4), torch.zeros(10)).item() == 0
    assert build()(pred, label, torch.zeros(50)).item() == 0


def test_a_single_column_takes_one_weight_per_row() -> None:
    pred, label, weight = logits(4, 1), torch.tensor([0, 1, 1, -1]), torch.rand(4)
    each = build()(pred, label, weight, reduction_override='none')
    plain = build()(pred, label, reduction_override='none')
    torch.testing.assert_close(each, plain * weight[:, None])


def test_softmax_has_one_weight_per_row_and_the_background_last() -> None:
    loss = build(use_sigmoid=False)
    pred, label, weight = logits(6, 4), torch.tensor([0, 1, 2, 3, 3, -1]), torch.rand(6)
    p = pred.softmax(1)[torch.arange(6), label.clamp(min=0)]
    alpha = torch.tensor([0.25, 0.25, 0.25, 0.75, 0.75, 0.0])
    expected = -alpha * (1 - p) ** 2 * p.log()
    torch.testing.assert_close(loss(pred, label, reduction_override='none'), expected)
    torch.testing.assert_close(loss(pred, label, weight, 2.0), (expected * weight).sum() / 2)


def test_counts_give_the_list_of_weights(tmp_path: Path) -> None:
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
    """Count one number per column for sigmoid and softmax; ignored labels do not count."""
    loss = build(use_sigmoid=use_sigmoid, alpha={'type': 'inverse_log', 'counts': 'batch'})
    pred = logits(9, 3)
    for labels, counts in (([0, 0, 0, 1, 1, 2, -1, -1, 0], [4, 2, 1]), ([2] * 9, [0, 0, 9])):
        label = torch.tensor(labels)
        listed = build(use_sigmoid=use_sigmoid, alpha={'type': 'inverse_log', 'counts': counts})
        torch.testing.assert_close(loss(pred, label), listed(pred, label))
    assert torch.isfinite(loss(pred, torch.full((9,), -1)))


def test_batch_counts_elements_and_not_background() -> None:
    loss = build(alpha={'type': 'inverse_frequency', 'counts': 'batch'})
    pred, label = logits(7, 3), torch.tensor([0, 0, 1, 2, 3, 3, 3])
    elements = torch.nn.functional.one_hot(label, 4)[:, :3].float()
    listed = build(alpha={'type': 'inverse_frequency', 'counts': [2, 1, 1]})
    torch.testing.assert_close(loss(pred, label), listed(pred, label))
    torch.testing.assert_close(loss(pred, elements), listed(pred, label))


@pytest.mark.parametrize('use_sigmoid', [True, False])
@pytest.mark.parametrize('kind', ['rows', 'elements', 'flat'])
def test_batch_counts_no_rows_of_weight_0(use_sigmoid: bool, kind: str) -> None:
    """Use the marks of anchor heads: ignored anchors have the background's label and weight 0."""
    if not use_sigmoid and kind != 'rows':
        pytest.skip('the softmax form has one weight per row')
    loss = build(use_sigmoid=use_sigmoid, alpha={'type': 'inverse_frequency', 'counts': 'batch'})
    pred, label = logits(104, 3), torch.full((104,), 3 if use_sigmoid else 2)
    label[:4] = torch.tensor([0, 1, 2, 2])
    label[4:50] = 1  # of a class, and ignored too
    weight = (torch.arange(104) < 4).float()
    if kind != 'rows':
        weight = weight[:, None].repeat(1, 3)
    given = weight.flatten() if kind == 'flat' else weight
    alone = loss(pred[:4], label[:4], reduction_override='none')
    among = loss(pred, label, given, reduction_override='none')
    torch.testing.assert_close(among[:4], alone)
    assert not among[4:].any()
    torch.testing.assert_close(loss(pred, label, given, avg_factor=4.0), alone.sum() / 4)


def test_batch_counts_no_elements_of_weight_0() -> None:
    loss = build(alpha={'type': 'inverse_frequency', 'counts': 'batch'})
    pred, label = logits(6, 3), torch.tensor([0, 1, 2, 2, 1, 1])
    table = torch.nn.functional.one_hot(label, 3).float()
    weight = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    among = loss(pred, table, weight, reduction_override='none')
    torch.testing.assert_close(among[:4], loss(pred[:4], table[:4], reduction_override='none'))


def test_batch_counts_need_classes() -> None:
    loss = build(alpha={'type': 'inverse_log', 'counts': 'batch'})
    with pytest.raises(ValueError, match=r"counts='batch'.*dimension 1 of pred, which \(4,\)"):
        loss(torch.zeros(4), torch.ones(4))


@pytest.mark.parametrize('number', [np.float32(0.25), np.array(0.25), torch.tensor(0.25)])
def test_alpha_may_be_any_kind_of_number(number: object) -> None:
    assert build(alpha=number).alpha == 0.25
    with pytest.raises(ValueError, match='alpha must be at most 1, got 1.5'):
        build(alpha=number + 1.25)


def test_alpha_and_counts_may_be_arrays() -> None:
    assert build(alpha=np.array([0.5, 2.0], np.float32)).alpha == [0.5, 2.0]
    listed = build(alpha={'type': 'inverse_log', 'counts': [8, 2]}).alpha
    for counts in (np.array([8, 2]), torch.tensor([8.0, 2.0])):
        assert build(alpha={'type': 'inverse_log', 'counts': counts}).alpha == listed


def test_classes_that_all_weigh_0_cost_nothing() -> None:
    pred = logits(4, 2).requires_grad_()
    loss = build(alpha=[0.0, 0.0])(pred, torch.tensor([0, 1, 2, 0]))
    loss.backward()
    assert loss.item() == 0 and not pred.grad.any()


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
        (
            {'alpha': {'type': 'inverse_log', 'counts': 'batch', 'offset': 0.5}},
            'offset must be above 1, got 0.5',
        ),
        (
            {'alpha': {'type': 'effective_number', 'counts': 'batch', 'beta': 1.0}},
            'beta must be from 0 to below 1, got 1.0',
        ),
    ],
)
def test_wrong_options_are_reported(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)
