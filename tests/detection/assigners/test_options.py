"""Options that assigners and overlap measures refuse, by name, and accept."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest
import torch
from mmdet.models.task_modules.assigners import MaxIoUAssigner as MMDetMaxIoUAssigner
from mmdet.models.task_modules.assigners import TaskAlignedAssigner as MMDetTaskAlignedAssigner
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.scenes import scene
from mmdet_ext.catalog.synthetic import pyramid_anchors
from mmdet_ext.detection.assigners import (
    ATSSAssigner,
    CenterNetAssigner,
    DynamicSoftLabelAssigner,
    FCOSAssigner,
    MaxIoUAssigner,
    NWDCalculator,
    OneToOneTaskAlignedAssigner,
    RFLAAssigner,
    SimOTAAssigner,
    TaskAlignedAssigner,
    YOLOv3Assigner,
    YOLOv4Assigner,
    YOLOv5Assigner,
)
from tests._helpers.assigners import build, random_batch

ANCHORS, _ = pyramid_anchors()

REFUSED: list[tuple[type, dict[str, Any], str]] = [
    *(
        (ATSSAssigner, {'topk': value}, 'topk must be a whole number of at least 1, got')
        for value in ('9', 2.5, None, True, math.nan)
    ),
    (ATSSAssigner, {'topk': -3}, 'topk must be at least 1, got -3'),
    (ATSSAssigner, {'topk': 9, 'alpha': 'x'}, r"alpha must be None or in \[0, 1\], got 'x'"),
    (ATSSAssigner, {'topk': 9, 'ignore_iof_thr': None}, 'ignore_iof_thr must be a number'),
    (
        ATSSAssigner,
        {'topk': 9, 'iou_calculator': 'BboxOverlaps2D'},
        "iou_calculator must be None or a config, .* got 'BboxOverlaps2D'",
    ),
    *(
        (MaxIoUAssigner, {'pos_iou_thr': value, 'neg_iou_thr': 0.4}, 'pos_iou_thr must be a number')
        for value in ('a', None, math.nan, (0.4, 0.5))
    ),
    *(
        (
            MaxIoUAssigner,
            {'pos_iou_thr': 0.5, 'neg_iou_thr': value},
            r'neg_iou_thr must be a number or \(from, below\)',
        )
        for value in (None, 'ab', ('a', 'b'), math.nan, (0.1, math.nan), (0.1,), (0.4, 0.1), {})
    ),
    *(
        (
            MaxIoUAssigner,
            {'pos_iou_thr': 0.5, 'neg_iou_thr': 0.4, name: 'x'},
            f"{name} must be a number, got 'x'",
        )
        for name in ('min_pos_iou', 'ignore_iof_thr')
    ),
    *(
        (SimOTAAssigner, {'candidate_topk': value}, 'candidate_topk must be a whole number')
        for value in (2.5, 'a')
    ),
    *(
        (SimOTAAssigner, {'center_radius': value}, 'center_radius must be at least 0, got')
        for value in (-1, 'a', math.nan)
    ),
    (SimOTAAssigner, {'iou_weight': None}, 'iou_weight must be at least 0 and finite, got None'),
    (SimOTAAssigner, {'cls_weight': math.nan}, 'cls_weight must be at least 0 and finite, got nan'),
    (DynamicSoftLabelAssigner, {'topk': 2.5}, 'topk must be a whole number'),
    (DynamicSoftLabelAssigner, {'soft_center_radius': 'a'}, 'soft_center_radius must be at least'),
    (DynamicSoftLabelAssigner, {'iou_weight': -1}, 'iou_weight must be at least 0'),
    *(
        (TaskAlignedAssigner, {'topk': value}, 'topk must be a whole number')
        for value in (2.5, 'a')
    ),
    *(
        (OneToOneTaskAlignedAssigner, {name: value}, f'{name} must be at least 0 and finite, got')
        for name in ('alpha', 'beta')
        for value in (-2.0, 'a', None, math.inf)
    ),
    *(
        (FCOSAssigner, {'regress_ranges': value}, 'regress_ranges must be pairs')
        for value in ([5], (), None, [('a', 'b')], [(-1, math.nan)], ['ab'], 7)
    ),
    (FCOSAssigner, {'center_sample_radius': 'a'}, "center_sample_radius must be above 0, got 'a'"),
    *(
        (YOLOv3Assigner, {'ignore_iou_thr': value}, r'ignore_iou_thr must be in \[0, 1\], got')
        for value in ('a', None)
    ),
    *(
        (YOLOv4Assigner, {'iou_thr': value}, r'iou_thr must be in \[0, 1\], got')
        for value in (None, math.nan)
    ),
    (YOLOv5Assigner, {'ratio_thr': '4'}, "ratio_thr must be above 1, got '4'"),
    (CenterNetAssigner, {'min_overlap': 'a'}, "min_overlap must be above 0 and below 1, got 'a'"),
    *(
        (RFLAAssigner, {name: 1.5}, f'{name} must be a whole number')
        for name in ('topk', 'topk_decayed')
    ),
    *(
        (RFLAAssigner, {'receptive_fields': value}, 'receptive_fields must be above 0, got 0.5 and')
        for value in ((), 5, ['a'], (5, math.nan))
    ),
    (RFLAAssigner, {'fraction': 'x'}, "fraction and receptive_fields .* got 'x'"),
    (RFLAAssigner, {'decay': 'x'}, "decay must be above 0 and at most 1, got 'x'"),
    (RFLAAssigner, {'ignore_thr': 'x'}, r"ignore_thr must be None or in \[0, 1\], got 'x'"),
    (RFLAAssigner, {'ignore_iof_thr': None}, 'ignore_iof_thr must be a number, got None'),
    *(
        (NWDCalculator, {'constant': value}, 'constant must be a finite number, got')
        for value in ('a', None, math.inf)
    ),
]


@pytest.mark.parametrize(
    ('kind', 'options', 'message'), REFUSED, ids=lambda part: getattr(part, '__name__', str(part))
)
def test_options_out_of_range_are_named(kind: type, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**options)


def test_options_that_mmdet_asserts_may_be_caught_as_assertions() -> None:
    for cls in (TaskAlignedAssigner, MMDetTaskAlignedAssigner):
        with pytest.raises(AssertionError):
            cls(topk=0)
    with pytest.raises(AssertionError, match='topk must be a whole number'):
        TaskAlignedAssigner(topk=0.5)


def test_options_may_be_numbers_of_numpy() -> None:
    case = Case('assigner', 'ATSSAssigner', {'topk': 4})
    geometry = random_batch(case, (6, 3))
    other = ATSSAssigner(topk=numpy.int64(4), ignore_iof_thr=numpy.float32(-1))
    assert torch.equal(other.match(geometry).gt_index, build(case).match(geometry).gt_index)


@pytest.mark.parametrize(('ours', 'as_if'), [(1, 1.0), ([0.1, 0.3], (0.1, 0.3))])
def test_whole_thresholds_and_lists_are_as_floats_and_tuples(ours: Any, as_if: Any) -> None:
    boxes, labels = scene(8, most=30)
    pred, gt = InstanceData(priors=ANCHORS), InstanceData(bboxes=boxes.float(), labels=labels)

    def background(cls: type, threshold: Any) -> Tensor:
        found = cls(pos_iou_thr=0.5, neg_iou_thr=threshold, match_low_quality=False)
        return found.assign(pred, gt).gt_inds == 0

    assert torch.equal(background(MaxIoUAssigner, ours), background(MaxIoUAssigner, as_if))
    assert torch.equal(background(MaxIoUAssigner, ours), background(MMDetMaxIoUAssigner, as_if))
    assert background(MaxIoUAssigner, ours).any()
    assert not background(MMDetMaxIoUAssigner, ours).any()
