"""Registered losses for classes of unequal frequency, as heads call them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.models.losses import FocalLoss as StockFocalLoss
from mmdet.registry import MODELS
from torch import Tensor, nn

from mmdet_ext.catalog.loss_cases.long_tail import CLASSES, COUNTS, logits_and_labels
from mmdet_ext.functional.classification.equalized_focal import (
    equalized_focal_loss,
    focal_gradient_sums,
    gradient_ratio,
)
from tests._helpers.two_ranks import run_on_two_ranks


def build(name: str, **options: Any) -> nn.Module:
    return MODELS.build({'type': f'mmdet_ext.{name}', **options})


def accumulating(**options: Any) -> nn.Module:
    return build('EqualizedFocalLoss', accumulate=True, num_classes=CLASSES, **options)


def labelled(columns: int, count: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    return logits_and_labels(columns)[0](torch.Generator().manual_seed(seed), count)


def test_counts_from_a_file_equal_those_of_a_list(tmp_path: Path) -> None:
    path = tmp_path / 'counts.json'
    path.write_text(json.dumps({'counts': COUNTS}), encoding='utf-8')
    pred, label = labelled(CLASSES + 1)
    for name in ('LogitAdjustedLoss', 'BalancedSoftmaxLoss'):
        by_list, by_file = (build(name, counts=c)(pred, label) for c in (COUNTS, str(path)))
        assert by_list == by_file and by_list > 0.1
    with pytest.raises(FileNotFoundError, match='nothing.json'):
        build('LogitAdjustedLoss', counts=str(tmp_path / 'nothing.json'))


def test_balanced_softmax_is_logit_adjustment_with_tau_1_only() -> None:
    pred, label = labelled(CLASSES + 1)
    balanced = build('BalancedSoftmaxLoss', counts=COUNTS)(pred, label)
    assert balanced == build('LogitAdjustedLoss', counts=COUNTS)(pred, label)
    assert balanced != build('LogitAdjustedLoss', counts=COUNTS, tau=0.9)(pred, label)


def test_weight_and_avg_factor_of_heads() -> None:
    """Use label weights (N,) for losses (N,) of softmax and (N, C) of sigmoid."""
    weight = torch.linspace(0, 1, 60)
    for columns, use_sigmoid in ((CLASSES + 1, False), (CLASSES, True)):
        pred, label = labelled(columns)
        loss = build('LogitAdjustedLoss', counts=COUNTS, use_sigmoid=use_sigmoid, loss_weight=2.0)
        each = loss(pred, label, reduction_override='none').reshape(60, -1).sum(-1)
        value = loss(pred, label, weight, avg_factor=7)
        assert value.item() == pytest.approx((each * weight).sum().item() / 7, rel=1e-5)


def test_a_two_stage_head_learns_with_softmax() -> None:
    head = MODELS.build(
        dict(
            type='mmdet.Shared2FCBBoxHead',
            in_channels=4,
            fc_out_channels=8,
            roi_feat_size=2,
            num_classes=CLASSES,
            loss_cls=dict(type='mmdet_ext.LogitAdjustedLoss', use_sigmoid=False, counts=COUNTS),
            loss_bbox=dict(type='mmdet_ext.BalancedL1Loss'),
        )
    )
    assert head.fc_cls.out_features == CLASSES + 1
    score, delta = head(torch.randn(6, 4, 2, 2, generator=torch.Generator().manual_seed(0)))
    label = torch.arange(6)  # each class, and the background
    rois = torch.tensor([[0.0, 0, 0, 9, 9]]).repeat(6, 1)
    losses = head.loss(score, delta, rois, label, torch.ones(6), torch.ones(6, 4), torch.ones(6, 4))
    added = [math.log(max(n, 3) / 1000) for n in COUNTS] + [0.0]
    expected = nn.functional.cross_entropy(score + torch.tensor(added), label)
    assert losses['loss_cls'].item() == pytest.approx(expected.item(), rel=1e-5)
    (losses['loss_cls'] + losses['loss_bbox']).backward()
    assert head.fc_cls.weight.grad.abs().max() > 0 and head.fc_reg.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    'options',
    [
        dict(type='mmdet_ext.LogitAdjustedLoss', use_sigmoid=True, counts=COUNTS),
        dict(type='mmdet_ext.EqualizedFocalLoss', use_sigmoid=True),
        dict(
            type='mmdet_ext.EqualizedFocalLoss',
            use_sigmoid=True,
            accumulate=True,
            num_classes=CLASSES,
        ),
    ],
    ids=['logit adjusted', 'equalized', 'accumulating'],
)
def test_a_dense_head_learns_with_sigmoid(options: dict[str, Any]) -> None:
    from mmengine.structures import InstanceData

    head = MODELS.build(
        dict(
            type='mmdet.RetinaHead',
            num_classes=CLASSES,
            in_channels=4,
            feat_channels=4,
            stacked_convs=1,
            loss_cls=options,
            loss_bbox=dict(type='mmdet_ext.SmoothL1Loss', beta=0.11),
            train_cfg=dict(
                assigner=dict(
                    type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0
                ),
                sampler=dict(type='PseudoSampler'),
                allowed_border=-1,
                pos_weight=-1,
                debug=False,
            ),
        )
    )
    assert head.cls_out_channels == CLASSES
    maps = [torch.randn(1, 4, 64 // s, 64 // s) for s in (8, 16, 32, 64, 128)[:4]]
    maps.append(torch.randn(1, 4, 1, 1))
    truth = InstanceData(bboxes=torch.tensor([[4.0, 4.0, 40.0, 40.0]]), labels=torch.tensor([2]))
    meta = dict(img_shape=(64, 64), pad_shape=(64, 64), scale_factor=1.0)
    losses = head.loss_by_feat(*head(maps), [truth], [meta])
    total = sum(losses['loss_cls']) + sum(losses['loss_bbox'])
    total.backward()
    assert math.isfinite(total.item()) and sum(losses['loss_cls']).item() > 0
    assert head.retina_cls.weight.grad.abs().max() > 0


def test_options_of_the_softmax_losses_are_checked() -> None:
    for name, options, message in (
        ('LogitAdjustedLoss', {'counts': [1, -1]}, 'got -1 for class 1'),
        ('LogitAdjustedLoss', {'counts': COUNTS, 'tau': -1.0}, 'tau must be a number from 0'),
        ('BalancedSoftmaxLoss', {'counts': COUNTS, 'use_sigmoid': True}, 'must be False, got True'),
    ):
        with pytest.raises(ValueError, match=message):
            build(name, **options)


def test_own_gradients_give_the_ratio_and_are_constants() -> None:
    pred, label = labelled(CLASSES)
    pred = pred.double().requires_grad_()
    loss = build('EqualizedFocalLoss', reduction='none')
    each = loss(pred, label)
    # The ratio by autograd, through the plain focal loss.
    plain = equalized_focal_loss(pred, label, [1.0] * CLASSES)
    slope = torch.autograd.grad(plain.sum(), pred)[0]
    ratio = (-slope.clamp(max=0).sum(0) / slope.clamp(min=0).sum(0)).clamp(max=1)
    assert ratio.min() < 0.9  # else it would be the plain focal loss
    expected = equalized_focal_loss(pred, label, ratio)
    torch.testing.assert_close(each, expected, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(e.sum(), pred)[0] for e in (each, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_reductions_with_own_gradients() -> None:
    pred, label = labelled(CLASSES)
    loss = build('EqualizedFocalLoss', loss_weight=2.0)
    each = loss(pred, label, reduction_override='none')
    assert loss(pred, label).item() == pytest.approx(each.mean().item(), rel=1e-5)
    value = loss(pred, label, avg_factor=9)
    assert value.item() == pytest.approx(each.sum().item() / 9, rel=1e-5)
    value = loss(pred, label, reduction_override='sum')
    assert value.item() == pytest.approx(each.sum().item(), rel=1e-5)


@pytest.mark.parametrize('dense', [False, True])
def test_elements_of_weight_0_do_not_count_in_the_ratio(dense: bool) -> None:
    """Use the marks of heads: ignored and padded elements have weight 0 and are background."""
    pred, label = labelled(CLASSES)
    target = nn.functional.one_hot(label, CLASSES + 1)[:, :CLASSES] if dense else label
    weight = (torch.arange(60) % 3 > 0).float()
    loss = build('EqualizedFocalLoss', reduction='sum')
    alone = loss(pred[weight > 0], target[weight > 0])
    for form in (weight, weight[:, None], weight[:, None].expand(60, CLASSES)):
        assert loss(pred, target, form).item() == pytest.approx(alone.item(), rel=1e-5)
    assert loss(pred, target).item() != pytest.approx(alone.item(), rel=0.1)


def test_sums_grow_only_in_training_and_give_the_ratio_of_the_next_call() -> None:
    loss = accumulating()
    plain = StockFocalLoss()
    sums = torch.zeros(2, CLASSES)
    for seed in range(3):
        pred, label = labelled(CLASSES, seed=seed)
        ratio = gradient_ratio(*sums)
        expected = equalized_focal_loss(pred, label, ratio).mean()
        if seed == 0:
            torch.testing.assert_close(expected, plain(pred, label))
        else:
            assert expected.item() != pytest.approx(plain(pred, label).item(), rel=0.01)
        # Evaluation uses the sums without a change.
        torch.testing.assert_close(loss.eval()(pred, label), expected)
        torch.testing.assert_close(loss.train()(pred, label), expected)
        sums += torch.stack(focal_gradient_sums(pred, label, ratio))
        kept = torch.stack([loss.positive_gradient, loss.negative_gradient])
        torch.testing.assert_close(kept, sums)


def test_sums_continue_from_a_checkpoint() -> None:
    first, second = accumulating(), accumulating()
    first(*labelled(CLASSES))
    assert set(first.state_dict()) == {'positive_gradient', 'negative_gradient'}
    second.load_state_dict(first.state_dict())
    batch = labelled(CLASSES, seed=1)
    assert first(*batch) == second(*batch) != accumulating()(*batch)
    # Without accumulation there is no state.
    for options in ({}, {'gradient_ratio': [1.0] * CLASSES}):
        assert not build('EqualizedFocalLoss', **options).state_dict()


def test_a_call_without_gradients_leaves_the_sums() -> None:
    loss = accumulating()
    pred, label = labelled(CLASSES)
    loss(pred, label)
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    for batch in (
        (pred[:0], label[:0]),
        (pred, torch.full_like(label, -1)),
        (pred, label, torch.zeros(60)),
    ):
        assert loss(*batch).item() == 0
    torch.testing.assert_close(loss.state_dict(), before, rtol=0, atol=0)


WORKER = """
import sys
import torch
import torch.distributed as dist
from mmdet_ext.losses.long_tail import EqualizedFocalLoss
from mmdet_ext.catalog.loss_cases.long_tail import CLASSES, logits_and_labels

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
loss = EqualizedFocalLoss(accumulate=True, num_classes=CLASSES)
for seed in range(2):
    pred, label = logits_and_labels(CLASSES)[0](torch.Generator().manual_seed(seed), 60)
    loss(pred[rank::2], label[rank::2])
torch.save(loss.state_dict(), f'{folder}/{rank}.pth')
dist.destroy_process_group()
"""


@pytest.mark.subprocess
def test_two_processes_with_half_the_batch_have_the_sums_of_one_process(tmp_path: Path) -> None:
    run_on_two_ranks(WORKER, tmp_path)
    alone = accumulating()
    for seed in range(2):
        alone(*labelled(CLASSES, seed=seed))
    for rank in range(2):
        state = torch.load(tmp_path / f'{rank}.pth', weights_only=True)
        torch.testing.assert_close(state, dict(alone.state_dict()))
        assert state['positive_gradient'].min() > 0


def test_options_of_equalized_focal_loss_are_checked() -> None:
    for options, message in (
        ({'use_sigmoid': False}, 'use_sigmoid must be True, got False'),
        ({'accumulate': True}, 'accumulate needs num_classes, from 1, got None'),
        (
            {'accumulate': True, 'num_classes': 1, 'gradient_ratio': [1.0]},
            'accumulate excludes gradient_ratio',
        ),
        ({'gradient_ratio': [0.5, 1.5]}, 'numbers from 0 to 1, got 1.5'),
        ({'gamma': 0}, 'gamma must be a number above 0'),
    ):
        with pytest.raises(ValueError, match=message):
            build('EqualizedFocalLoss', **options)
    with pytest.raises(ValueError, match='num_classes is 5, but there are logits of 4 classes'):
        accumulating()(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))
