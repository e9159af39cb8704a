"""Heads with the targets of a batch at once, against stock's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.models.dense_heads import atss_head
from mmdet.registry import MODELS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_ext.catalog.synthetic import random_boxes
from mmdet_ext.detection.assigners import BatchAssigner
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from tests._helpers.configs import CONFIGS, shrink

HEIGHT, WIDTH = 96, 128
STRIDES = (8, 16, 32)
CLASSES = 4
CHANNELS = 8

ANCHORS = dict(
    type='AnchorGenerator',
    ratios=[1.0],
    octave_base_scale=3,
    scales_per_octave=1,
    strides=list(STRIDES),
)
DELTAS = dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2])
FOCAL = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25)
QUALITY = dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0)
CENTERNESS = dict(type='CrossEntropyLoss', use_sigmoid=True)
NORM = dict(type='GN', num_groups=2)
USUAL = dict(stacked_convs=1, feat_channels=CHANNELS)
TRAIN = dict(allowed_border=-1, pos_weight=-1, debug=False)

#: What a head is built from, {scope} standing for its assigner's.
HEADS: dict[str, dict[str, Any]] = {
    'ATSSHead': dict(
        **USUAL,
        anchor_generator=ANCHORS,
        bbox_coder=DELTAS,
        norm_cfg=NORM,
        loss_cls=FOCAL,
        loss_bbox=dict(type='GIoULoss'),
        loss_centerness=CENTERNESS,
        train_cfg=dict(**TRAIN, assigner=dict(type='{scope}.ATSSAssigner', topk=9)),
    ),
    'GFLHead': dict(
        **USUAL,
        anchor_generator=ANCHORS,
        norm_cfg=NORM,
        loss_cls=QUALITY,
        loss_bbox=dict(type='GIoULoss'),
        reg_max=8,
        train_cfg=dict(**TRAIN, assigner=dict(type='{scope}.ATSSAssigner', topk=9)),
    ),
    'FCOSHead': dict(
        **USUAL, strides=STRIDES, norm_cfg=NORM, regress_ranges=((-1, 24), (24, 48), (48, 1e8))
    ),
    'RetinaHead': dict(
        **USUAL,
        anchor_generator={**ANCHORS, 'ratios': [0.5, 1.0, 2.0]},
        bbox_coder=DELTAS,
        loss_cls=FOCAL,
        loss_bbox=dict(type='L1Loss'),
        train_cfg=dict(
            **TRAIN,
            sampler=dict(type='PseudoSampler'),
            assigner=dict(
                type='{scope}.MaxIoUAssigner',
                pos_iou_thr=0.5,
                neg_iou_thr=0.4,
                min_pos_iou=0,
                ignore_iof_thr=0.5,
            ),
        ),
    ),
    'YOLOXHead': dict(
        **USUAL,
        strides=STRIDES,
        train_cfg=dict(assigner=dict(type='{scope}.SimOTAAssigner', center_radius=2.5)),
    ),
    'TOODHead': dict(
        **{**USUAL, 'stacked_convs': 2},
        anchor_generator=ANCHORS,
        bbox_coder=DELTAS,
        norm_cfg=NORM,
        initial_loss_cls={**FOCAL, 'activated': True},
        loss_cls={**QUALITY, 'activated': True},
        loss_bbox=dict(type='GIoULoss'),
        train_cfg=dict(
            **TRAIN,
            initial_epoch=4,
            alpha=1,
            beta=6,
            initial_assigner=dict(type='{scope}.ATSSAssigner', topk=9),
            assigner=dict(type='{scope}.TaskAlignedAssigner', topk=13),
        ),
    ),
    'RTMDetHead': dict(
        **USUAL,
        norm_cfg=dict(type='BN'),
        loss_cls=QUALITY,
        loss_bbox=dict(type='GIoULoss'),
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=STRIDES),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        train_cfg=dict(**TRAIN, assigner=dict(type='{scope}.DynamicSoftLabelAssigner', topk=13)),
    ),
}
HEADS['RTMDetSepBNHead'] = {**HEADS['RTMDetHead'], 'with_objectness': False, 'exp_on_reg': True}

#: Heads, and the phase of the one that has two.
PHASES = [(name, 5) for name in HEADS] + [('TOODHead', 3)]


def build(name: str, scope: str, assigners: str | None = None, **options: Any) -> nn.Module:
    """A small head with weights that do not depend on the scope; options within options merge."""
    config = _scoped(HEADS[name], assigners or scope)
    for key, value in options.items():
        old = config.get(key)
        config[key] = {**old, **value} if isinstance(old, dict) and key == 'train_cfg' else value
    torch.manual_seed(0)
    head = MODELS.build(
        ConfigDict(type=f'{scope}.{name}', num_classes=CLASSES, in_channels=CHANNELS, **config)
    )
    head.init_weights()
    with torch.no_grad():
        for weight in head.parameters():
            weight += 0.05 * torch.randn(weight.shape)
    return head.train()


def _scoped(node: Any, scope: str) -> Any:
    if isinstance(node, dict):
        return {key: _scoped(value, scope) for key, value in node.items()}
    return node.format(scope=scope) if isinstance(node, str) else node


class Batch:
    """Feature maps, boxes and sizes of pictures."""

    def __init__(
        self, counts: tuple[int, ...], mixed: bool = False, ignored: bool = False, seed: int = 3
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.features = [
            torch.randn(
                len(counts),
                CHANNELS,
                HEIGHT // stride,
                WIDTH // stride,
                generator=generator,
                requires_grad=True,
            )
            for stride in STRIDES
        ]
        self.metas, self.gts, self.ignored = [], [], []
        for picture, count in enumerate(counts):
            # The first is the largest, after which the batch is padded.
            cut = picture * mixed * 12
            height, width = HEIGHT - cut, WIDTH - 2 * cut
            self.metas.append(
                dict(img_shape=(height - 3 * mixed, width - 5 * mixed), pad_shape=(height, width))
            )
            self.gts.append(
                InstanceData(
                    bboxes=random_boxes(generator, count, width, height, 8, 70),
                    labels=torch.randint(CLASSES, (count,), generator=generator),
                )
            )
            # Stock does not ignore anything in pictures without boxes.
            regions = 2 if ignored and count else 0
            self.ignored.append(
                InstanceData(bboxes=random_boxes(generator, regions, width, height, 30, 80))
            )

    def losses(self, head: nn.Module) -> dict[str, Any]:
        return head.loss_by_feat(
            *head(self.features), self.gts, self.metas, batch_gt_instances_ignore=self.ignored
        )


def outcome(head: nn.Module, batch: Batch) -> tuple[dict[str, Any], list[Tensor | None]]:
    """Losses, and the gradients of their sum by the features and all weights."""
    losses = batch.losses(head)
    total = sum(
        part.sum()
        for loss in losses.values()
        for part in (loss if isinstance(loss, list) else [loss])
    )
    weights = list(head.parameters())
    gradients = torch.autograd.grad(total, [*batch.features, *weights], allow_unused=True)
    return losses, list(gradients)


def assert_as_stock(ours: nn.Module, stock: nn.Module, batch: Batch) -> dict[str, Any]:
    """Equal losses and gradients; gives the losses."""
    losses, gradients = outcome(ours, batch)
    stock_losses, stock_gradients = outcome(stock, batch)
    torch.testing.assert_close(losses, stock_losses, rtol=1e-5, atol=1e-6)
    scale = max(float(g.abs().max()) for g in stock_gradients if g is not None)
    for one, other in zip(gradients, stock_gradients, strict=True):
        assert (one is None) == (other is None)
        if other is not None:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * max(scale, 1.0))
    return losses


def value(losses: dict[str, Any], name: str) -> float:
    loss = losses[name]
    return float(sum(loss) if isinstance(loss, list) else loss)


@pytest.fixture(autouse=True)
def epoch() -> Iterator[Callable[[int], None]]:
    hub = MessageHub.get_current_instance()
    hub.update_info('epoch', 5)
    yield lambda number: hub.update_info('epoch', number)
    hub.update_info('epoch', 0)


def spied(assigner: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pictures of each call of ``match``; a call a picture fails."""
    calls: list[int] = []
    match = assigner.match

    def count(geometry: BatchGeometry, *args: Any, **kwargs: Any) -> Assignment:
        calls.append(geometry.gt_valid.shape[0])
        return match(geometry, *args, **kwargs)

    def refuse(*args: Any, **kwargs: Any) -> None:
        pytest.fail('assign was called for one picture')

    monkeypatch.setattr(assigner, 'match', count)
    monkeypatch.setattr(assigner, 'assign', refuse)
    return calls


def assigner_of(head: nn.Module, number: int) -> Any:
    late = type(head).__name__ == 'TOODHead' and number >= head.initial_epoch
    return head.alignment_assigner if late else head.assigner


BATCHES = {
    'four pictures': dict(counts=(5, 1, 9, 3)),
    'one picture': dict(counts=(6,)),
    'some without boxes': dict(counts=(0, 4, 0)),
    'all without boxes': dict(counts=(0, 0)),
    'mixed sizes': dict(counts=(5, 4, 0, 6), mixed=True),
    'ignored regions': dict(counts=(5, 3, 0), ignored=True),
    'ignored regions in mixed sizes': dict(counts=(5, 3, 0, 4), mixed=True, ignored=True),
}


@pytest.mark.parametrize('options', BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize(('name', 'number'), PHASES, ids=lambda part: str(part))
def test_losses_and_gradients_are_stocks_by_one_match(
    name: str,
    number: int,
    options: dict[str, Any],
    epoch: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    epoch(number)
    ours, stock, batch = build(name, 'mmdet_ext'), build(name, 'mmdet'), Batch(**options)
    calls = spied(assigner_of(ours, number), monkeypatch)
    losses = assert_as_stock(ours, stock, batch)
    assert calls == [len(batch.gts)] and ours._ready is None
    # Only where there are boxes are there boxes to learn.
    assert (value(losses, 'loss_bbox') > 0) == any(len(gt) for gt in batch.gts)
    assert value(losses, 'loss_cls' if 'loss_obj' not in losses else 'loss_obj') > 0


class OneByOne(BatchAssigner):
    """A stock assigner asked for one picture after the other, on the priors that each has."""

    def __init__(self, stock: Any, with_levels: bool) -> None:
        self.stock = stock
        self.with_levels = with_levels

    def match(
        self, geometry: BatchGeometry, predictions: Predictions | None = None, **own: Any
    ) -> Assignment:
        shape = (geometry.gt_valid.shape[0], geometry.priors.shape[0])
        index = torch.full(shape, -2)
        overlap, metric = torch.zeros(shape), torch.zeros(shape)
        for picture, real in enumerate(geometry.gt_valid):
            valid = torch.ones(shape[1], dtype=torch.bool)
            if geometry.prior_valid is not None:
                valid = geometry.prior_valid[picture]
            pred = InstanceData(priors=geometry.priors[valid])
            if predictions is not None:
                pred.scores = predictions.scores[picture][valid]
                pred.bboxes = predictions.boxes[picture][valid]
            levels = [int(part.sum()) for part in valid.split(geometry.level_sizes)]
            regions = None
            if geometry.ignore_boxes is not None:
                regions = InstanceData(
                    bboxes=geometry.ignore_boxes[picture][geometry.ignore_valid[picture]]
                )
            gts = InstanceData(
                bboxes=geometry.gt_boxes[picture][real], labels=geometry.gt_labels[picture][real]
            )
            found = self.stock.assign(
                pred, *([levels] if self.with_levels else []), gts, regions, **own
            )
            index[picture, valid] = found.gt_inds - 1
            overlap[picture, valid] = found.max_overlaps
            metric[picture, valid] = getattr(found, 'assign_metrics', metric[picture, valid])
        positive = index >= 0
        return Assignment(index, overlap * positive, metric * positive)


def by_stocks_rule(name: str, **options: Any) -> nn.Module:
    """Our head, matching by stock's assigner: the targets are then all that differs."""
    head = build(name, 'mmdet_ext', 'mmdet', **options)
    for attribute in ('assigner', 'alignment_assigner'):
        if name != 'FCOSHead' and hasattr(head, attribute):
            with_levels = head.gives_levels and attribute == 'assigner'
            setattr(head, attribute, OneByOne(getattr(head, attribute), with_levels))
    return head


#: Options that change targets.
VARIANTS: list[tuple[str, int, dict[str, Any]]] = [
    *((name, number, {}) for name, number in PHASES),
    ('ATSSHead', 5, dict(train_cfg=dict(pos_weight=3.0, allowed_border=0))),
    ('GFLHead', 5, dict(train_cfg=dict(pos_weight=0.5, allowed_border=4))),
    ('FCOSHead', 5, dict(norm_on_bbox=True, center_sampling=True, centerness_on_reg=True)),
    ('FCOSHead', 5, dict(center_sampling=True, center_sample_radius=0.7)),
    ('RetinaHead', 5, dict(reg_decoded_bbox=True, loss_bbox=dict(type='GIoULoss'))),
    ('RetinaHead', 5, dict(train_cfg=dict(pos_weight=2.0, allowed_border=0))),
    ('RetinaHead', 5, dict(loss_cls=dict(type='CrossEntropyLoss'))),
    ('TOODHead', 5, dict(anchor_type='anchor_based', train_cfg=dict(allowed_border=0))),
    ('TOODHead', 3, dict(train_cfg=dict(pos_weight=2.0, allowed_border=0))),
    ('RTMDetHead', 5, dict(train_cfg=dict(pos_weight=2.0, allowed_border=0))),
]


@pytest.mark.parametrize('options', BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize(('name', 'number', 'variant'), VARIANTS, ids=str)
def test_on_the_same_matches_the_losses_are_stocks(
    name: str,
    number: int,
    variant: dict[str, Any],
    options: dict[str, Any],
    epoch: Callable[[int], None],
) -> None:
    epoch(number)
    ours, stock = by_stocks_rule(name, **variant), build(name, 'mmdet', **variant)
    assert_as_stock(ours, stock, Batch(**options))


@pytest.mark.parametrize('options', BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize(
    ('name', 'number'),
    [case for case in PHASES if case[0] not in ('FCOSHead', 'YOLOXHead')],
    ids=lambda part: str(part),
)
def test_targets_are_stocks_bit_by_bit(
    name: str,
    number: int,
    options: dict[str, Any],
    epoch: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    epoch(number)
    batch, found = Batch(**options), []
    for head in (by_stocks_rule(name), build(name, 'mmdet')):
        get_targets = head.get_targets

        def keep(*args: Any, get: Any = get_targets, **kwargs: Any) -> Any:
            found.append(get(*args, **kwargs))
            return found[-1]

        monkeypatch.setattr(head, 'get_targets', keep)
        batch.losses(head)
    ours, stock = found
    if name.startswith('RTMDet'):  # the last are sampling results
        ours, stock = (
            (*targets[:-1], [sampled.avg_factor for sampled in targets[-1]]) for targets in found
        )
    torch.testing.assert_close(ours, stock, rtol=0, atol=0)
    assert any((labels < CLASSES).any() for labels in ours[name != 'RetinaHead']) == any(
        len(gt) for gt in batch.gts
    )


@pytest.mark.parametrize('label', [0, CLASSES - 1, CLASSES])
@pytest.mark.parametrize('name', HEADS)
def test_first_and_last_label_and_the_backgrounds(name: str, label: int) -> None:
    ours, stock, batch = build(name, 'mmdet_ext'), build(name, 'mmdet'), Batch((5, 0, 3))
    for gt in batch.gts:
        gt.labels.fill_(label)
    # The background's label has no score to go by, and is a box's all the same elsewhere.
    if label == CLASSES and name.startswith(('YOLOX', 'TOOD', 'RTMDet')):
        with pytest.raises((IndexError, RuntimeError)):
            outcome(stock, batch)
        return
    losses = assert_as_stock(ours, stock, batch)
    assert (value(losses, 'loss_bbox') > 0) == (label < CLASSES or name == 'RetinaHead')


@pytest.mark.parametrize('name', ['RTMDetHead', 'RTMDetSepBNHead'])
def test_rtmdet_goes_by_the_centers_of_masks(name: str) -> None:
    batch = Batch((5, 0, 3))
    without = value(outcome(build(name, 'mmdet_ext'), batch)[0], 'loss_bbox')
    for gt in batch.gts:
        # A pixel near a corner of each box.
        place = (gt.bboxes[:, :2] + 3).long()
        gt.masks = torch.zeros(len(gt), HEIGHT, WIDTH)
        gt.masks[range(len(gt)), place[:, 1].clamp(0, HEIGHT - 1), place[:, 0].clamp(0)] = 1
    ours, stock = build(name, 'mmdet_ext'), build(name, 'mmdet')
    losses = assert_as_stock(ours, stock, batch)
    assert value(losses, 'loss_bbox') != without


def test_of_two_phases_each_goes_its_own_way(epoch: Callable[[int], None]) -> None:
    batch = Batch((4, 3))
    late = build('TOODHead', 'mmdet_ext', 'mmdet')
    late.alignment_assigner = OneByOne(late.alignment_assigner, with_levels=False)
    early = build('TOODHead', 'mmdet_ext', 'mmdet')
    early.assigner = OneByOne(early.assigner, with_levels=True)
    for number in (3, 4):
        epoch(number)
        for head in (early, late):
            assert_as_stock(head, build('TOODHead', 'mmdet'), batch)


@pytest.mark.parametrize(
    ('name', 'number'),
    [case for case in PHASES if case[0] != 'FCOSHead'],
    ids=lambda part: str(part),
)
def test_with_stocks_assigner_stocks_own_way(
    name: str, number: int, epoch: Callable[[int], None]
) -> None:
    epoch(number)
    ours, stock = build(name, 'mmdet_ext', 'mmdet'), build(name, 'mmdet')
    assigner, pictures = assigner_of(ours, number), []
    assign = assigner.assign
    assigner.assign = lambda *args, **kwargs: (pictures.append(1), assign(*args, **kwargs))[1]
    assert_as_stock(ours, stock, Batch((5, 3, 0), mixed=True))
    assert len(pictures) == (2 if name == 'YOLOXHead' else 3)  # YOLOX's passes over empty ones


@pytest.mark.parametrize('batches', [False, True])
def test_another_sampler_is_stocks_way(batches: bool) -> None:
    sampler = dict(type='RandomSampler', num=16, pos_fraction=0.5, add_gt_as_proposals=False)
    options = dict(
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True), train_cfg=dict(sampler=sampler)
    )
    heads = [build('RetinaHead', scope, 'mmdet', **options) for scope in ('mmdet_ext', 'mmdet')]
    if batches:
        for head in heads:
            one_by_one = OneByOne(head.assigner, with_levels=False)
            one_by_one.assign = head.assigner.assign  # type: ignore[method-assign]
            head.assigner = one_by_one
    batch = Batch((5, 2))
    drawn = []
    for head in heads:
        torch.manual_seed(7)
        drawn.append(outcome(head, batch))
    torch.testing.assert_close(*drawn, rtol=0, atol=0)
    torch.manual_seed(8)
    other, _ = outcome(heads[0], batch)
    assert value(other, 'loss_cls') != value(drawn[0][0], 'loss_cls')


def test_boxes_that_are_no_tensors_and_asked_for_samples_are_stocks_way() -> None:
    ours, stock = by_stocks_rule('RetinaHead'), build('RetinaHead', 'mmdet')
    ours.assigner.assign = stock.assigner.assign
    batch = Batch((5, 2))
    sizes = [level.shape[2:] for level in batch.features]
    anchors = ours.get_anchors(sizes, batch.metas, 'cpu')
    ours_targets, stock_targets = (
        head.get_targets(*anchors, batch.gts, batch.metas, return_sampling_results=True)
        for head in (ours, stock)
    )
    for one, other in zip(ours_targets[-1], stock_targets[-1], strict=True):
        assert torch.equal(one.pos_inds, other.pos_inds)
        assert torch.equal(one.pos_gt_bboxes, other.pos_gt_bboxes)
    for gt in batch.gts:
        gt.bboxes = HorizontalBoxes(gt.bboxes)
    assert_as_stock(ours, stock, batch)


@pytest.mark.parametrize('where', ['in the assigner', 'in stock'])
def test_nothing_stays_behind_after_an_error(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, stock = by_stocks_rule('ATSSHead'), build('ATSSHead', 'mmdet')

    def once(func: Any, *args: Any, **kwargs: Any) -> None:
        if where == 'in stock':
            func(*(arg[0] for arg in args), **kwargs)
        raise RuntimeError('as if out of memory')

    with monkeypatch.context() as patch:
        if where == 'in stock':
            batch = Batch((4, 2, 3))
            sizes = [level.shape[2:] for level in batch.features]
            anchors = ours.get_anchors(sizes, batch.metas, 'cpu')
            patch.setattr(atss_head, 'multi_apply', once)
            with pytest.raises(RuntimeError, match='as if out of memory'):
                ours.get_targets(*anchors, batch.gts, batch.metas)
        else:
            patch.setattr(ours.assigner, 'match', once)
            with pytest.raises(RuntimeError, match='as if out of memory'):
                Batch((4, 2, 3)).losses(ours)
    assert ours._ready is None
    assert_as_stock(ours, stock, Batch((1, 5)))


def test_anchors_of_a_picture_may_be_its_own() -> None:
    ours, stock = by_stocks_rule('ATSSHead'), build('ATSSHead', 'mmdet')
    ours.assigner.assign = stock.assigner.assign
    batch = Batch((5, 2), mixed=True)
    sizes = [level.shape[2:] for level in batch.features]
    calls = []
    match = ours.assigner.match
    ours.assigner.match = lambda *args: (calls.append(1), match(*args))[1]
    for shift, shared in ((0.0, True), (1.5, False)):
        found = []
        for head in (ours, stock):
            (first, second), flags = head.get_anchors(sizes, batch.metas, 'cpu')
            second = [level + shift for level in second]
            found.append(head.get_targets([first, second], flags, batch.gts, batch.metas))
        torch.testing.assert_close(*found, rtol=0, atol=0)
        assert bool(calls) == shared
        calls.clear()


@pytest.mark.parametrize('name', ['ATSSHead', 'RetinaHead', 'RTMDetHead'])
def test_a_picture_without_any_anchor_is_named(name: str) -> None:
    head = by_stocks_rule(name, train_cfg=dict(allowed_border=0))
    batch = Batch((2, 1))
    batch.metas[1]['img_shape'] = (5, 7) if name != 'RTMDetHead' else (0, 0)
    with pytest.raises(ValueError, match='no valid anchor inside the image boundary') as caught:
        batch.losses(head)
    assert str(tuple(batch.metas[1]['img_shape'])) in str(caught.value)


@pytest.mark.parametrize('name', ['RetinaHead', 'RTMDetHead', 'YOLOXHead', 'TOODHead'])
def test_an_assigner_by_levels_is_refused_where_stock_gives_none(name: str) -> None:
    head = build(
        name,
        'mmdet_ext',
        'mmdet',
        train_cfg=dict(assigner=dict(type='mmdet_ext.ATSSAssigner', topk=9)),
    )
    error = 'got 5 values' if name == 'TOODHead' else 'calls it without num_level_priors'
    with pytest.raises(TypeError, match=f'ATSSAssigner.*{error}'):
        Batch((2, 1)).losses(head)


def test_tood_asks_for_an_alignment() -> None:
    head = by_stocks_rule('TOODHead')
    match = head.alignment_assigner.match

    def without_metric(*args: Any, **kwargs: Any) -> Assignment:
        found = match(*args, **kwargs)
        return Assignment(found.gt_index, found.overlap)

    head.alignment_assigner.match = without_metric
    with pytest.raises(ValueError, match='gives an alignment, such as TaskAlignedAssigner'):
        Batch((2, 1)).losses(head)


@pytest.mark.parametrize('assigners', ['mmdet', 'mmdet_ext'])
@pytest.mark.parametrize('counts', [(5, 0, 3), (0, 0)], ids=str)
def test_yolox_in_its_last_epochs_has_an_l1_loss(counts: tuple[int, ...], assigners: str) -> None:
    ours = by_stocks_rule('YOLOXHead') if assigners == 'mmdet' else build('YOLOXHead', 'mmdet_ext')
    stock = build('YOLOXHead', 'mmdet')
    ours.use_l1 = stock.use_l1 = True
    losses = assert_as_stock(ours, stock, Batch(counts))
    assert (value(losses, 'loss_l1') > 0) == any(counts)


@pytest.mark.parametrize('name', HEADS)
def test_weights_and_options_are_stocks(name: str) -> None:
    ours, stock = build(name, 'mmdet_ext', 'mmdet'), build(name, 'mmdet')
    assert isinstance(ours, type(stock))
    assert list(ours.state_dict()) == list(stock.state_dict())
    torch.testing.assert_close(dict(ours.state_dict()), dict(stock.state_dict()))
    with pytest.raises(TypeError, match="no option 'feat_channel'; did you mean 'feat_channels'"):
        build(name, 'mmdet_ext', 'mmdet', feat_channel=3)


@pytest.mark.parametrize('name', HEADS)
def test_builds_for_inference(name: str) -> None:
    ours, stock = (build(name, scope, 'mmdet') for scope in ('mmdet_ext', 'mmdet'))
    config = {key: part for key, part in HEADS[name].items() if key != 'train_cfg'}
    bare = MODELS.build(
        ConfigDict(type=f'mmdet_ext.{name}', num_classes=CLASSES, in_channels=CHANNELS, **config)
    )
    bare.load_state_dict(ours.state_dict())
    features = Batch((1,)).features
    torch.testing.assert_close(bare.eval()(features), stock.eval()(features), rtol=0, atol=0)


def test_two_iterations_with_the_stock_runner(shapes_root: Path, tmp_path: Path) -> None:
    config = CONFIGS / 'detection' / 'atss' / 'atss_r18_fpn_demo_shapes.py'
    trained = {}
    for scope in ('mmdet', 'mmdet_ext'):
        cfg = shrink(config, shapes_root, work_dir=str(tmp_path / scope))
        cfg.randomness = dict(seed=0)
        cfg.model.bbox_head.type = f'{scope}.ATSSHead'
        cfg.model.train_cfg.assigner.type = f'{scope}.ATSSAssigner'
        runner = Runner.from_cfg(cfg)
        runner.train()
        assert type(runner.model.bbox_head).__module__.startswith(f'{scope}.')
        trained[scope] = runner.model.state_dict()
    torch.testing.assert_close(trained['mmdet_ext'], trained['mmdet'], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    'rule',
    [
        dict(type='MaxIoUAssigner', pos_iou_thr=0.2, neg_iou_thr=0.2, min_pos_iou=0),
        dict(type='RFLAAssigner', receptive_fields=[16, 32, 64]),
    ],
)
def test_atss_head_learns_by_rules_that_look_beyond_the_box(rule: dict[str, Any]) -> None:
    """Stock's own head ends there with a bare assertion: its centerness is no number outside."""
    counts = (9, 5, 0)
    rule = {**rule, 'type': f'mmdet_ext.{rule["type"]}'}
    stock = build('ATSSHead', 'mmdet', train_cfg=dict(assigner=rule))
    with pytest.raises(AssertionError):
        Batch(counts).losses(stock)
    ours = build('ATSSHead', 'mmdet_ext', train_cfg=dict(assigner=rule))
    batch = Batch(counts)
    losses, gradients = outcome(ours, batch)
    assert value(losses, 'loss_centerness') > 0
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)
    outside = ours.centerness_target(
        torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 8.0]]),
        torch.tensor([[5.0, 5.0, 50.0, 50.0], [0.0, 0.0, 8.0, 8.0]]),
    )
    assert outside.tolist() == [0.0, 1.0]


def test_fcos_options_set_after_construction_count_as_in_stock() -> None:
    ours, stock = build('FCOSHead', 'mmdet_ext'), build('FCOSHead', 'mmdet')
    batch = Batch((5, 3))
    first = assert_as_stock(ours, stock, batch)
    for options in (
        dict(center_sampling=True, center_sample_radius=0.5),
        dict(center_sample_radius=1.1),
        dict(regress_ranges=((-1, 12), (12, 30), (30, 1e8))),
    ):
        for head in (ours, stock):
            vars(head).update(options)
        losses = assert_as_stock(ours, stock, batch)
        assert value(losses, 'loss_cls') != value(first, 'loss_cls'), options
        first = losses
