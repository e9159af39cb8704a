"""Batches that mmdet's code assigns image by image within our heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes

from tests._helpers.dense_heads import (
    PHASES,
    Batch,
    OneByOne,
    assert_as_mmdet,
    assigner_of,
    build,
    outcome,
    value,
    with_mmdet_assigner,
)

pytestmark = pytest.mark.usefixtures('epoch')


def test_either_phase_of_tood_may_have_an_assigner_of_mmdet(epoch: Callable[[int], None]) -> None:
    batch = Batch((4, 3))
    late = build('TOODHead', 'mmdet_ext', 'mmdet')
    late.alignment_assigner = OneByOne(late.alignment_assigner, with_levels=False)
    early = build('TOODHead', 'mmdet_ext', 'mmdet')
    early.assigner = OneByOne(early.assigner, with_levels=True)
    for number in (3, 4):
        epoch(number)
        for head in (early, late):
            assert_as_mmdet(head, build('TOODHead', 'mmdet'), batch)


@pytest.mark.parametrize(
    ('name', 'number'),
    [case for case in PHASES if case[0] != 'FCOSHead'],
    ids=lambda part: str(part),
)
def test_with_an_assigner_of_mmdet_images_are_assigned_one_by_one(
    name: str, number: int, epoch: Callable[[int], None]
) -> None:
    epoch(number)
    ours, theirs = build(name, 'mmdet_ext', 'mmdet'), build(name, 'mmdet')
    assigner, images = assigner_of(ours, number), []
    assign = assigner.assign
    assigner.assign = lambda *args, **kwargs: (images.append(1), assign(*args, **kwargs))[1]
    assert_as_mmdet(ours, theirs, Batch((5, 3, 0), mixed=True))
    # YOLOX does not assign images without boxes.
    assert len(images) == (2 if name == 'YOLOXHead' else 3)


@pytest.mark.parametrize('batches', [False, True])
def test_with_a_sampler_that_draws_results_equal_mmdet(batches: bool) -> None:
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


def test_mmdet_assigns_where_sampling_results_are_asked_for_and_box_types_equal_it() -> None:
    ours, theirs = with_mmdet_assigner('RetinaHead'), build('RetinaHead', 'mmdet')
    ours.assigner.assign = theirs.assigner.assign
    batch = Batch((5, 2))
    sizes = [level.shape[2:] for level in batch.features]
    anchors = ours.get_anchors(sizes, batch.metas, 'cpu')
    ours_targets, their_targets = (
        head.get_targets(*anchors, batch.gts, batch.metas, return_sampling_results=True)
        for head in (ours, theirs)
    )
    for one, other in zip(ours_targets[-1], their_targets[-1], strict=True):
        assert torch.equal(one.pos_inds, other.pos_inds)
        assert torch.equal(one.pos_gt_bboxes, other.pos_gt_bboxes)
    for gt in batch.gts:
        gt.bboxes = HorizontalBoxes(gt.bboxes)
    assert_as_mmdet(ours, theirs, batch)


def test_mmdet_assigns_images_that_do_not_share_their_anchors() -> None:
    ours, theirs = with_mmdet_assigner('ATSSHead'), build('ATSSHead', 'mmdet')
    ours.assigner.assign = theirs.assigner.assign
    batch = Batch((5, 2), mixed=True)
    sizes = [level.shape[2:] for level in batch.features]
    calls = []
    match = ours.assigner.match
    ours.assigner.match = lambda *args: (calls.append(1), match(*args))[1]
    for shift, shared in ((0.0, True), (1.5, False)):
        found = []
        for head in (ours, theirs):
            (first, second), flags = head.get_anchors(sizes, batch.metas, 'cpu')
            second = [level + shift for level in second]
            found.append(head.get_targets([first, second], flags, batch.gts, batch.metas))
        torch.testing.assert_close(*found, rtol=0, atol=0)
        assert bool(calls) == shared
        calls.clear()


@pytest.mark.parametrize(
    ('assigner', 'error', 'message'),
    [
        (dict(type='ATSSAssigner', topk=9), TypeError, 'calls it without num_level_priors'),
        (dict(type='DynamicSoftLabelAssigner'), ValueError, 'in a dense head .* PseudoSampler'),
    ],
    ids=lambda part: str(part),
)
def test_what_mmdets_head_does_not_give_is_named_and_ours_gives_it(
    assigner: dict[str, Any], error: type[Exception], message: str
) -> None:
    """The code of mmdet gives neither levels nor predictions where a sampler draws."""
    assigner = {**assigner, 'type': f'mmdet_ext.{assigner["type"]}'}
    sampler = dict(type='RandomSampler', num=16, pos_fraction=0.5, add_gt_as_proposals=False)
    theirs, ours = (
        build(
            'RetinaHead',
            scope,
            train_cfg=dict(assigner=assigner, sampler=sampler),
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True),
        )
        for scope in ('mmdet', 'mmdet_ext')
    )
    with pytest.raises(error, match=message):
        Batch((2, 1)).losses(theirs)
    losses = Batch((2, 1)).losses(ours)
    assert value(losses, 'loss_cls') > 0 and value(losses, 'loss_bbox') > 0
