"""Assigners with overlap measures that give all pairs, whatever the arguments."""

from __future__ import annotations

import pytest
import torch
from mmdet.models.task_modules.assigners import BboxOverlaps2D
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.catalog.memory import peak_bytes
from mmdet_ext.catalog.scenes import scene
from mmdet_ext.catalog.synthetic import anchors_as_priors, pyramid_anchors, random_boxes
from mmdet_ext.detection.assigners import ATSSAssigner, MaxIoUAssigner
from mmdet_ext.functional.assignment.geometry import BatchGeometry
from tests._helpers.assigners import with_area


class AllPairs(BboxOverlaps2D):
    """Measure whose call has no option for aligned pairs."""

    def __call__(self, bboxes1: Tensor, bboxes2: Tensor, mode: str = 'iou') -> Tensor:
        return super().__call__(bboxes1, bboxes2, mode)


GLIP = {'type': 'mmdet.BboxOverlaps2D_GLIP'}
ANCHORS, SIZES = pyramid_anchors()
WITH_CALCULATOR = {
    'ATSS': ('ATSSAssigner', {'topk': 9}),
    'ATSS by scores': ('ATSSAssigner', {'topk': 9, 'alpha': 0.8}),
    'Faster R-CNN': (
        'MaxIoUAssigner',
        {'pos_iou_thr': 0.5, 'neg_iou_thr': 0.5, 'min_pos_iou': 0.5, 'match_low_quality': False},
    ),
    'RetinaNet': ('MaxIoUAssigner', {'pos_iou_thr': 0.5, 'neg_iou_thr': 0.4, 'min_pos_iou': 0}),
    'SSD': (
        'MaxIoUAssigner',
        {'pos_iou_thr': 0.5, 'neg_iou_thr': 0.5, 'min_pos_iou': 0.0, 'gt_max_assign_all': False},
    ),
}


@pytest.mark.parametrize('name', WITH_CALCULATOR)
def test_a_calculator_of_all_pairs_gives_the_assignment_of_mmdet(name: str) -> None:
    kind, options = WITH_CALCULATOR[name]
    ours, theirs = (
        TASK_UTILS.build({'type': f'{scope}.{kind}', 'iou_calculator': GLIP, **options})
        for scope in ('mmdet_ext', 'mmdet')
    )
    generator = torch.Generator().manual_seed(0)
    positives = 0
    for case in range(1, 60):
        boxes, labels = scene(case, most=30)
        # Not on whole pixels, so that no two priors are equally far and no box is repeated.
        boxes = boxes.float() + 0.3 * torch.rand(len(boxes), 4, generator=generator)
        boxes, labels = with_area(boxes, labels)
        pred = InstanceData(priors=ANCHORS)
        if 'alpha' in options:
            pred.scores = torch.randn(len(ANCHORS), 7, generator=generator)
            pred.bboxes = ANCHORS + 3 * torch.randn(len(ANCHORS), 4, generator=generator)
        levels = [SIZES] * (kind == 'ATSSAssigner')
        one, other = (
            assigner.assign(pred, *levels, InstanceData(bboxes=boxes, labels=labels))
            for assigner in (ours, theirs)
        )
        assert torch.equal(one.gt_inds, other.gt_inds), case
        torch.testing.assert_close(one.max_overlaps, other.max_overlaps, rtol=1e-6, atol=0)
        positives += int((one.gt_inds > 0).sum())
    assert positives > 300


def test_a_calculator_without_the_keyword_is_the_iou() -> None:
    for assigner, plain in (
        (ATSSAssigner(9), ATSSAssigner(9)),
        (MaxIoUAssigner(0.5, 0.4), MaxIoUAssigner(0.5, 0.4)),
    ):
        assigner.iou_calculator = AllPairs()
        boxes, labels = scene(28, most=30)
        pair = [boxes, boxes[:9]], [labels, labels[:9]]
        geometry = BatchGeometry.from_lists(anchors_as_priors(ANCHORS, SIZES), *pair)
        result = assigner.match(geometry)
        assert result.positive_mask.any(1).all()
        assert torch.equal(result.gt_index, plain.match(geometry).gt_index)


@pytest.mark.slow
@pytest.mark.parametrize('kind', [ATSSAssigner, MaxIoUAssigner])
def test_a_calculator_of_all_pairs_takes_bounded_memory(kind: type) -> None:
    priors, sizes = pyramid_anchors(1344, 800)
    boxes = random_boxes(torch.Generator().manual_seed(0), 200, 1344, 800, 12, 400)
    labels = torch.zeros(200, dtype=torch.int64)
    geometry = BatchGeometry.from_lists(anchors_as_priors(priors, sizes), [boxes], [labels])
    options = {'topk': 9} if kind is ATSSAssigner else {'pos_iou_thr': 0.5, 'neg_iou_thr': 0.4}
    assigner = kind(**options, iou_calculator=GLIP)
    assert peak_bytes(lambda: assigner.match(geometry)) < 2**25  # all pairs alone are as much
