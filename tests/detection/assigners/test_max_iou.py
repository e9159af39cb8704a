"""MaxIoUAssigner against mmdet's, on random images and in edge cases."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.assigners import MaxIoUAssigner as MMDetMaxIoUAssigner
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.catalog.memory import peak_bytes
from mmdet_ext.catalog.scenes import scene, yolo_anchors
from mmdet_ext.catalog.synthetic import anchors_as_priors, pyramid_anchors, random_boxes
from mmdet_ext.detection.assigners import MaxIoUAssigner
from mmdet_ext.functional.assignment.geometry import BatchGeometry
from tests._helpers.assigners import with_area
from tests._helpers.ties import crowded_scene

PRIORS, SIZES = yolo_anchors()

#: Options of mmdet's configs of RPN, Faster R-CNN's second stage, RetinaNet and SSD, and a range.
OPTIONS: dict[str, dict[str, Any]] = {
    'RPN': dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3, match_low_quality=True),
    'RoI': dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=False),
    'RetinaNet': dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
    'SSD': dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.0, gt_max_assign_all=False),
    'range': dict(pos_iou_thr=0.4, neg_iou_thr=(0.1, 0.3), min_pos_iou=0.2),
}


def call(
    assigner: object, boxes: Tensor, ignore: Tensor | None = None, priors: Tensor = PRIORS
) -> AssignResult:
    gt = InstanceData(bboxes=boxes, labels=torch.arange(len(boxes)) % 7)
    regions = None if ignore is None else InstanceData(bboxes=ignore)
    return assigner.assign(InstanceData(priors=priors), gt, regions)


def assert_same(one: AssignResult, other: AssignResult) -> None:
    assert torch.equal(one.gt_inds, other.gt_inds)
    assert torch.equal(one.labels, other.labels)
    assert torch.equal(one.max_overlaps, other.max_overlaps)


@pytest.mark.slow
@pytest.mark.parametrize('name', OPTIONS)
def test_equal_to_mmdet_on_a_thousand_images(name: str) -> None:
    """Results are equal to the last bit. Each option gets a share of the crowded images."""
    ours, theirs = MaxIoUAssigner(**OPTIONS[name]), MMDetMaxIoUAssigner(**OPTIONS[name])
    turn, assigned = list(OPTIONS).index(name), 0
    for case in range(1000):
        crowd = case // 9 % len(OPTIONS) == turn
        boxes, _ = with_area(*(crowded_scene(case) if crowd else scene(case, most=30)))
        expected = call(theirs, boxes.float())
        assert_same(call(ours, boxes), expected)
        assigned += int((expected.gt_inds > 0).sum())
    assert assigned > 15_000


@pytest.mark.parametrize('candidates', [True, False])
def test_ignore_regions_as_mmdet(candidates: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    options = dict(OPTIONS['RetinaNet'], ignore_iof_thr=0.4, ignore_wrt_candidates=candidates)
    ours, theirs = MaxIoUAssigner(**options), MMDetMaxIoUAssigner(**options)
    ignored = 0
    for _ in range(50):
        boxes, ignore = random_boxes(generator, 8), random_boxes(generator, 3)
        expected = call(theirs, boxes, ignore)
        assert_same(call(ours, boxes, ignore), expected)
        ignored += int((expected.max_overlaps == -1).sum())
    assert ignored > 1000
    everything = torch.tensor([[-600.0, -600.0, 900.0, 900.0]])
    if candidates:
        assert_same(call(ours, boxes, everything), call(theirs, boxes, everything))
        # The one difference: in an image without boxes, ignore regions count too.
        assert (call(ours, boxes[:0], everything).gt_inds == -1).all()
        assert (call(theirs, boxes[:0], everything).gt_inds == 0).all()


@pytest.mark.parametrize('every', [True, False])
def test_a_box_that_touches_nothing_as_mmdet(every: bool) -> None:
    """Without a least overlap, it takes all priors, or the first: its overlap with each is 0."""
    options = dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.0, gt_max_assign_all=every)
    boxes = torch.tensor([[50.0, 50, 90, 100], [900, 900, 950, 950], [20, 20, 60, 90]])
    for chosen in (boxes, boxes[1:2], boxes[[1, 0]], boxes[[1, 1]]):
        one = call(MaxIoUAssigner(**options), chosen)
        assert_same(one, call(MMDetMaxIoUAssigner(**options), chosen))
    assert (one.gt_inds > 0).sum() == (len(PRIORS) if every else 1)


def test_shuffled_proposals_as_mmdet() -> None:
    generator = torch.Generator().manual_seed(6)
    options = OPTIONS['RoI']
    boxes = random_boxes(generator, 40)
    proposals = torch.cat(
        [boxes + torch.randn(40, 4, generator=generator) * 5, random_boxes(generator, 1000)]
    )
    proposals = proposals[torch.randperm(len(proposals), generator=generator)]
    one = call(MaxIoUAssigner(**options), boxes, priors=proposals)
    assert_same(one, call(MMDetMaxIoUAssigner(**options), boxes, priors=proposals))
    assert (one.gt_inds > 0).sum() > 30


def test_other_measures_as_mmdet() -> None:
    generator = torch.Generator().manual_seed(7)
    options = dict(OPTIONS['RetinaNet'], pos_iou_thr=0.6, neg_iou_thr=0.5)
    calculator = dict(type='mmdet_ext.NWDCalculator', constant=30.0)
    boxes = random_boxes(generator, 12, max_side=40)
    one = call(MaxIoUAssigner(**options, iou_calculator=calculator), boxes)
    other = call(MMDetMaxIoUAssigner(**options, iou_calculator=calculator), boxes)
    assert torch.equal(one.gt_inds, other.gt_inds) and (one.gt_inds > 0).sum() > 12
    torch.testing.assert_close(one.max_overlaps, other.max_overlaps)
    plain = MaxIoUAssigner(**options, iou_calculator=dict(type='BboxOverlaps2D'))
    assert plain.iou_calculator is None


def test_repeated_boxes_are_moved_as_mmdet_moves_them() -> None:
    boxes = torch.tensor([[50.0, 50, 90, 100]]).repeat(3, 1)
    options = dict(OPTIONS['RetinaNet'], perm_repeat_gt_cfg=dict(iou_thr=0.7, perm_range=0.01))
    results = []
    for cls in (MaxIoUAssigner, MMDetMaxIoUAssigner):
        torch.manual_seed(0)
        results.append(call(cls(**options), boxes))
    assert torch.equal(results[0].gt_inds, results[1].gt_inds)
    assert len(results[0].gt_inds.unique()) > 3


@pytest.mark.slow
def test_ten_thousand_boxes_in_bounded_memory() -> None:
    priors, sizes = pyramid_anchors(1344, 800)
    boxes = random_boxes(torch.Generator().manual_seed(0), 10_000, 1344, 800, 4, 60)
    labels = torch.zeros(10_000, dtype=torch.int64)
    batch = BatchGeometry.from_lists(anchors_as_priors(priors, sizes), [boxes], [labels])
    assigner = MaxIoUAssigner(**OPTIONS['RetinaNet'])
    assert peak_bytes(lambda: assigner.match(batch)) < 2**27


def test_a_bad_range_is_named() -> None:
    with pytest.raises(ValueError, match=r'neg_iou_thr must be a number or \(from, below\)'):
        MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=(0.4, 0.1))
