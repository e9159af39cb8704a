"""Targets of a batch at once: losses, gradients and targets equal to those of mmdet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mmdet.models.dense_heads import atss_head

from tests._helpers.dense_heads import (
    BATCHES,
    CLASSES,
    HEADS,
    HEIGHT,
    PHASES,
    WIDTH,
    Batch,
    assert_as_mmdet,
    assigner_of,
    build,
    outcome,
    spied,
    value,
    with_mmdet_assigner,
)

pytestmark = pytest.mark.usefixtures('epoch')


@pytest.mark.parametrize('options', BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize(('name', 'number'), PHASES, ids=lambda part: str(part))
def test_losses_and_gradients_equal_mmdet_with_one_match_per_batch(
    name: str,
    number: int,
    options: dict[str, Any],
    epoch: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    epoch(number)
    ours, theirs, batch = build(name, 'mmdet_ext'), build(name, 'mmdet'), Batch(**options)
    calls = spied(assigner_of(ours, number), monkeypatch)
    losses = assert_as_mmdet(ours, theirs, batch)
    assert calls == [len(batch.gts)] and ours._ready is None
    # There is a box loss exactly where there is ground truth.
    assert (value(losses, 'loss_bbox') > 0) == any(len(gt) for gt in batch.gts)
    assert value(losses, 'loss_cls' if 'loss_obj' not in losses else 'loss_obj') > 0


#: Heads, epochs, and options that change targets.
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
def test_losses_of_the_same_assignment_equal_mmdet(
    name: str,
    number: int,
    variant: dict[str, Any],
    options: dict[str, Any],
    epoch: Callable[[int], None],
) -> None:
    epoch(number)
    ours, theirs = with_mmdet_assigner(name, **variant), build(name, 'mmdet', **variant)
    assert_as_mmdet(ours, theirs, Batch(**options))


@pytest.mark.parametrize('options', BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize(
    ('name', 'number'),
    [case for case in PHASES if case[0] not in ('FCOSHead', 'YOLOXHead')],
    ids=lambda part: str(part),
)
def test_targets_of_the_same_assignment_equal_mmdet_bit_by_bit(
    name: str,
    number: int,
    options: dict[str, Any],
    epoch: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    epoch(number)
    batch, found = Batch(**options), []
    for head in (with_mmdet_assigner(name), build(name, 'mmdet')):
        get_targets = head.get_targets

        def keep(*args: Any, get: Any = get_targets, **kwargs: Any) -> Any:
            found.append(get(*args, **kwargs))
            return found[-1]

        monkeypatch.setattr(head, 'get_targets', keep)
        batch.losses(head)
    ours, theirs = found
    if name.startswith('RTMDet'):  # the last part are sampling results
        ours, theirs = (
            (*targets[:-1], [sampled.avg_factor for sampled in targets[-1]]) for targets in found
        )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert any((labels < CLASSES).any() for labels in ours[name != 'RetinaHead']) == any(
        len(gt) for gt in batch.gts
    )


@pytest.mark.parametrize('label', [0, CLASSES - 1, CLASSES])
@pytest.mark.parametrize('name', HEADS)
def test_first_and_last_label_and_the_label_of_background(name: str, label: int) -> None:
    ours, theirs, batch = build(name, 'mmdet_ext'), build(name, 'mmdet'), Batch((5, 0, 3))
    for gt in batch.gts:
        gt.labels.fill_(label)
    # The label of the background has no score, which only some assigners need.
    if label == CLASSES and name.startswith(('YOLOX', 'TOOD', 'RTMDet')):
        with pytest.raises((IndexError, RuntimeError)):
            outcome(theirs, batch)
        return
    losses = assert_as_mmdet(ours, theirs, batch)
    assert (value(losses, 'loss_bbox') > 0) == (label < CLASSES or name == 'RetinaHead')


@pytest.mark.parametrize('name', ['RTMDetHead', 'RTMDetSepBNHead'])
def test_rtmdet_uses_the_centers_of_masks(name: str) -> None:
    batch = Batch((5, 0, 3))
    without = value(outcome(build(name, 'mmdet_ext'), batch)[0], 'loss_bbox')
    for gt in batch.gts:
        # A pixel near a corner of each box.
        place = (gt.bboxes[:, :2] + 3).long()
        gt.masks = torch.zeros(len(gt), HEIGHT, WIDTH)
        gt.masks[range(len(gt)), place[:, 1].clamp(0, HEIGHT - 1), place[:, 0].clamp(0)] = 1
    ours, theirs = build(name, 'mmdet_ext'), build(name, 'mmdet')
    losses = assert_as_mmdet(ours, theirs, batch)
    assert value(losses, 'loss_bbox') != without


@pytest.mark.parametrize('where', ['in the assigner', 'in mmdet'])
def test_no_targets_are_left_after_an_error(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = with_mmdet_assigner('ATSSHead'), build('ATSSHead', 'mmdet')

    def once(func: Any, *args: Any, **kwargs: Any) -> None:
        if where == 'in mmdet':
            func(*(arg[0] for arg in args), **kwargs)
        raise RuntimeError('as if out of memory')

    with monkeypatch.context() as patch:
        if where == 'in mmdet':
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
    assert_as_mmdet(ours, theirs, Batch((1, 5)))


@pytest.mark.parametrize('name', ['ATSSHead', 'RetinaHead', 'RTMDetHead'])
def test_an_image_without_any_anchor_is_named(name: str) -> None:
    head = with_mmdet_assigner(name, train_cfg=dict(allowed_border=0))
    batch = Batch((2, 1))
    batch.metas[1]['img_shape'] = (5, 7) if name != 'RTMDetHead' else (0, 0)
    with pytest.raises(ValueError, match='no valid anchor inside the image boundary') as caught:
        batch.losses(head)
    assert str(tuple(batch.metas[1]['img_shape'])) in str(caught.value)
