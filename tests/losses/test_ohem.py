"""OHEMLoss around our losses and mmdet's, as heads call it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmdet.models.dense_heads import SSDHead as StockSSDHead
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_ext.catalog.loss_cases.mining import hard_samples, mined_binary, mined_samples

SCOPES = pytest.mark.parametrize('scope', ['mmdet', 'mmdet_ext'])


def ohem(
    inner: str = 'mmdet_ext.CrossEntropyLoss',
    sigmoid: bool = False,
    inner_options: dict[str, Any] | None = None,
    **options: Any,
) -> nn.Module:
    return MODELS.build(
        dict(
            type='mmdet_ext.OHEMLoss',
            loss=dict(type=inner, use_sigmoid=sigmoid, **(inner_options or {})),
            use_sigmoid=sigmoid,
            **options,
        )
    )


def samples(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    pred, label = mined_samples(torch.Generator().manual_seed(seed), count)
    rare = torch.arange(count) % 12 == 0
    return pred.requires_grad_(), label.where(rare, 4)


def mmdet_ssd_loss(pred: Tensor, label: Tensor, weight: Tensor, avg_factor: float) -> Tensor:
    """Compute the classification loss that mmdet's SSDHead implements."""
    head = SimpleNamespace(
        num_classes=4, train_cfg=dict(neg_pos_ratio=3, smoothl1_beta=1.0), reg_decoded_bbox=False
    )
    boxes = torch.zeros(len(pred), 4)
    value, _ = StockSSDHead.loss_by_feat_single(
        head, pred, boxes, boxes, label, weight, boxes, boxes, avg_factor
    )
    return value[0]


@SCOPES
def test_equals_mmdets_ssd_loss_in_value_and_gradient(scope: str) -> None:
    loss = ohem(f'{scope}.CrossEntropyLoss')
    for seed, count in ((0, 200), (1, 13), (2, 5)):
        pred, label = samples(count, seed)
        if seed == 2:
            label[:] = 4  # without a positive nothing is kept
        weight = torch.rand(count, generator=torch.Generator().manual_seed(seed)) + 0.1
        weight[(label == 4) & (torch.arange(count) % 5 == 0)] = 0
        results = []
        for value in (
            loss(pred, label, weight, avg_factor=7.0),
            mmdet_ssd_loss(pred, label, weight, 7.0),
        ):
            results.append((value, *torch.autograd.grad(value, pred)))
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
        assert (results[0][0] > 0) == (seed != 2)


def test_a_batch_is_mined_image_by_image() -> None:
    pred, label = samples(4 * 50)
    label[50:100] = 4
    loss = ohem(min_negatives=2)
    whole = loss(pred.view(4, 50, 5), label.view(4, 50), reduction_override='none')
    rows = [
        loss(p, y, reduction_override='none')
        for p, y in zip(pred.view(4, 50, 5), label.view(4, 50), strict=True)
    ]
    torch.testing.assert_close(whole, torch.stack(rows))
    assert (whole[1] > 0).sum() == 2
    # A flat call names its images by image_index, in any order.
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    image = (torch.arange(200) // 50)[order]
    flat = loss(pred[order], label[order], reduction_override='none', image_index=image)
    torch.testing.assert_close(flat, whole.view(-1)[order])
    # Without image_index the call is one group.
    group = loss(pred, label, reduction_override='none')
    positives = int((label < 4).sum())
    assert (group > 0).sum() == 4 * positives


def test_divides_by_the_positives_or_by_the_avg_factor() -> None:
    pred, label = samples(100)
    loss = ohem(loss_weight=2.0)
    total = ohem()(pred, label, reduction_override='sum')
    positives = int((label < 4).sum())
    torch.testing.assert_close(loss(pred, label), 2 * total / positives)
    torch.testing.assert_close(loss(pred, label, avg_factor=10.0), 2 * total / 10)
    none = ohem(num_negatives=3)(pred, torch.full_like(label, 4))
    hardest = (
        F.cross_entropy(pred, torch.full_like(label, 4), reduction='none').topk(3).values.sum()
    )
    torch.testing.assert_close(none, hardest)
    each = loss(pred, label, reduction_override='none')
    torch.testing.assert_close(each.sum(), 2 * total)
    nothing = loss(pred, label, torch.zeros(100))
    assert nothing.item() == 0


def test_ignored_samples_are_never_kept_and_do_not_count() -> None:
    pred, label = samples(100)
    ignored = torch.rand(100, generator=torch.Generator().manual_seed(5)) < 0.3
    assert (ignored & (label < 4)).any() and (~ignored & (label < 4)).any()
    for loss in (ohem(), ohem('mmdet.CrossEntropyLoss')):
        alone = loss(pred[~ignored], label[~ignored])
        torch.testing.assert_close(loss(pred, label.masked_fill(ignored, -1)), alone)
        torch.testing.assert_close(loss(pred, label, (~ignored).float()), alone)
    # mmdet's softmax loss alone refuses the label -1.
    with pytest.raises(IndexError):
        MODELS.build(dict(type='mmdet.CrossEntropyLoss'))(
            pred, label.masked_fill(ignored, -1), reduction_override='none'
        )


@pytest.mark.parametrize(
    'inner',
    [
        'mmdet.FocalLoss',
        'mmdet_ext.FocalLoss',
        'mmdet.CrossEntropyLoss',
        'mmdet_ext.CrossEntropyLoss',
    ],
)
def test_sigmoid_losses_keep_the_rows_with_the_highest_sums(inner: str) -> None:
    pred, label = mined_binary(torch.Generator().manual_seed(0), 100)
    label = label.where(torch.arange(100) % 12 == 0, 4)
    whole = MODELS.build(dict(type=inner, use_sigmoid=True))(pred, label, reduction_override='none')
    assert whole.shape == (100, 4)
    sums = whole.sum(1).where(label == 4, -1.0)
    kept = (label < 4).index_fill(0, sums.topk(3 * int((label < 4).sum())).indices, True)
    each = ohem(inner, sigmoid=True)(pred, label, reduction_override='none')
    torch.testing.assert_close(each, whole * kept[:, None])
    reduced = ohem(inner, sigmoid=True)(pred, label, avg_factor=9.0)
    torch.testing.assert_close(reduced, each.sum() / 9)
    # A dense target and one weight per element give the same.
    dense = F.one_hot(label, 5)[:, :4].float()
    torch.testing.assert_close(
        ohem(inner, sigmoid=True)(pred, dense, reduction_override='none'), each
    )
    weight = torch.full((100, 4), 0.5)
    torch.testing.assert_close(
        ohem(inner, sigmoid=True)(pred, label, weight, avg_factor=9.0), reduced / 2
    )


def test_tuples_as_targets_are_mined_by_their_labels() -> None:
    pred, label = mined_binary(torch.Generator().manual_seed(0), 60)
    quality = torch.rand(60, generator=torch.Generator().manual_seed(1)) * (label < 4)
    stock = dict(type='mmdet.QualityFocalLoss', use_sigmoid=True)
    loss = MODELS.build(
        dict(type='mmdet_ext.OHEMLoss', loss=stock, use_sigmoid=True, num_negatives=2)
    )
    value = loss(
        pred.view(2, 30, 4), (label.view(2, 30), quality.view(2, 30)), reduction_override='sum'
    )
    expected = 0.0
    whole = MODELS.build(stock)(pred, (label, quality), reduction_override='none')
    for half, wanted in zip(whole.view(2, 30), label.view(2, 30), strict=True):
        expected += half[wanted < 4].sum() + half[wanted == 4].topk(2).values.sum()
    torch.testing.assert_close(value, expected)


def test_options_of_the_wrapped_loss_apply() -> None:
    pred, label = samples(60)
    weights = [1.0, 2.0, 3.0, 4.0, 0.5]
    plain, weighted = ohem(), ohem(inner_options=dict(class_weight=weights, loss_weight=3.0))
    one, other = (loss(pred, label, reduction_override='none') for loss in (plain, weighted))
    # All negatives have the same weight, so that the choice is the same.
    torch.testing.assert_close(other, one * 3 * torch.tensor(weights)[label])


def test_half_precision_is_computed_in_float32_also_around_mmdets_loss() -> None:
    pred, label = hard_samples(torch.Generator().manual_seed(0), 2000)
    for dtype in (torch.float16, torch.bfloat16):
        leaf = pred.to(dtype).requires_grad_()
        value = ohem('mmdet.CrossEntropyLoss')(leaf, label)
        value.backward()
        assert value.dtype == torch.float32 and torch.isfinite(leaf.grad).all()
        torch.testing.assert_close(
            value.double(),
            ohem('mmdet.CrossEntropyLoss')(leaf.detach().double(), label),
            rtol=1e-5,
            atol=1e-6,
        )


def test_compiles_in_one_graph_with_images() -> None:
    pred, label = samples(60)
    loss = ohem()
    image = torch.arange(60) % 3
    compiled = torch.compile(loss, fullgraph=True, backend='aot_eager')
    weight = torch.ones(60)
    torch.testing.assert_close(
        compiled(pred, label, weight, image_index=image),
        loss(pred, label, weight, image_index=image),
    )


def test_a_disagreement_on_sigmoid_reports_the_right_config() -> None:
    cfg = dict(type='mmdet_ext.OHEMLoss', loss=dict(type='mmdet.FocalLoss'))
    with pytest.raises(
        ValueError,
        match=r"Write dict\(type='mmdet_ext.OHEMLoss', "
        r"use_sigmoid=True, loss=dict\(type='FocalLoss', "
        r'use_sigmoid=True',
    ):
        MODELS.build(cfg)
    with pytest.raises(ValueError, match='CrossEntropyLoss has use_sigmoid=False, and OHEMLoss'):
        MODELS.build(
            dict(
                type='mmdet_ext.OHEMLoss',
                use_sigmoid=True,
                loss=dict(type='mmdet.CrossEntropyLoss'),
            )
        )


def test_losses_without_one_row_per_sample_are_refused() -> None:
    with pytest.raises(ValueError, match='SeesawLoss has columns of its own'):
        MODELS.build(
            dict(type='mmdet_ext.OHEMLoss', loss=dict(type='mmdet.SeesawLoss', num_classes=4))
        )
    loss = ohem()
    loss.loss = MODELS.build(dict(type='mmdet.L1Loss'))
    loss.loss.forward = lambda *args, **kwargs: torch.zeros(())
    with pytest.raises(ValueError, match=r'L1Loss gave a loss of shape \(\) for 20 samples'):
        loss(*samples(20))


def test_columns_activation_and_accuracy_are_those_of_the_wrapped_loss() -> None:
    inner = dict(type='mmdet.FocalCustomLoss', num_classes=4)
    loss = MODELS.build(dict(type='mmdet_ext.OHEMLoss', loss=inner, use_sigmoid=True))
    assert loss.custom_cls_channels and loss.custom_activation and loss.custom_accuracy
    assert loss.get_cls_channels(4) == 4
    pred, label = mined_binary(torch.Generator().manual_seed(0), 10)
    assert torch.equal(loss.get_activation(pred), pred.sigmoid())
    expected = MODELS.build(inner).get_accuracy(pred, label)
    assert torch.equal(loss.get_accuracy(pred, label)['acc_classes'], expected['acc_classes'])
    plain = ohem()
    assert not (plain.custom_cls_channels or plain.custom_activation or plain.custom_accuracy)


@pytest.mark.parametrize(
    ('kind', 'classes', 'sigmoid', 'inner'),
    [
        ('RetinaHead', 3, True, 'mmdet.FocalLoss'),
        ('RetinaHead', 3, True, 'mmdet_ext.FocalLoss'),
        ('AnchorHead', 3, False, 'mmdet_ext.CrossEntropyLoss'),
        ('RPNHead', 1, True, 'mmdet_ext.CrossEntropyLoss'),
    ],
)
def test_anchor_heads_mine_each_level(kind: str, classes: int, sigmoid: bool, inner: str) -> None:
    head = MODELS.build(
        ConfigDict(
            type=kind,
            num_classes=classes,
            in_channels=8,
            feat_channels=8,
            anchor_generator=dict(
                type='AnchorGenerator', scales=[2.0], ratios=[1.0], strides=[8, 16]
            ),
            loss_cls=dict(
                type='mmdet_ext.OHEMLoss',
                use_sigmoid=sigmoid,
                min_negatives=2,
                loss=dict(type=inner, use_sigmoid=sigmoid),
            ),
            train_cfg=dict(
                assigner=dict(
                    type='MaxIoUAssigner',
                    pos_iou_thr=0.5,
                    neg_iou_thr=0.4,
                    min_pos_iou=0,
                    ignore_iof_thr=-1,
                ),
                sampler=dict(type='PseudoSampler'),
                allowed_border=-1,
                pos_weight=-1,
                debug=False,
            ),
        )
    )
    columns = classes if sigmoid else classes + 1
    assert head.cls_out_channels == columns
    scores = [torch.randn(2, columns, side, side, requires_grad=True) for side in (12, 6)]
    boxes = [torch.zeros(2, 4, side, side, requires_grad=True) for side in (12, 6)]
    # One box of the size of the finer level's anchors.
    gts = [
        InstanceData(bboxes=torch.tensor([[16.0, 16.0, 32.0, 32.0]]), labels=torch.tensor([0]))
        for _ in range(2)
    ]
    metas = [dict(img_shape=(96, 96), pad_shape=(96, 96))] * 2
    targets = head.get_targets(
        *head.get_anchors([(12, 12), (6, 6)], metas, device='cpu'), gts, metas
    )
    losses = head.loss_by_feat(scores, boxes, gts, metas)
    plain = MODELS.build(dict(type=inner, use_sigmoid=sigmoid))
    parts = losses['loss_rpn_cls' if kind == 'RPNHead' else 'loss_cls']
    numbers = []
    for score, label, weight, value in zip(scores, targets[0], targets[1], parts, strict=True):
        label, weight = label.flatten(), weight.flatten()
        each = (
            plain(score.permute(0, 2, 3, 1).reshape(-1, columns), label, reduction_override='none')
            .reshape(len(label), -1)
            .sum(1)
        )
        positive, negative = label < classes, (label == classes) & (weight > 0)
        count = max(2, 3 * int(positive.sum()))
        expected = each[positive].sum() + each[negative].topk(count).values.sum()
        torch.testing.assert_close(value, expected / targets[4])
        numbers.append(int(positive.sum()))
    # The boxes of both images belong to the finer level; the other level keeps its minimum.
    assert numbers[0] >= 2 and numbers[1] == 0


def test_bad_calls_are_reported() -> None:
    pred, label = samples(20)
    with pytest.raises(ValueError, match=r'must be \(N,\) for samples \(N,\), got \(3,\)'):
        ohem()(pred, label, image_index=torch.zeros(3))
    with pytest.raises(ValueError, match=r'target of shape \(7,\) does not fit'):
        ohem()(pred, label[:7])
    with pytest.raises(ValueError, match='num_negatives=2 already says how many'):
        ohem(num_negatives=2, min_negatives=1)


def test_repr_shows_the_options() -> None:
    assert 'num_negatives=7' in repr(ohem(num_negatives=7))


def test_maps_are_refused() -> None:
    loss = MODELS.build(
        dict(type='mmdet_ext.OHEMLoss', loss=dict(type='mmdet.GaussianFocalLoss'), use_sigmoid=True)
    )
    with pytest.raises(ValueError, match=r'pred must be \(N, C\) or \(B, P, C\).*permute'):
        loss(torch.rand(2, 3, 8, 8), torch.zeros(2, 3, 8, 8))
