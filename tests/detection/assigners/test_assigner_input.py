"""What assigners refuse, by name: boxes, labels, scores and options; and what they take."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy
import pytest
import torch
from mmdet.models.task_modules import assigners as stock
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.cases import cases_of
from mmdet_ext.catalog.scenes import pyramid_points, scene, yolo_anchors
from mmdet_ext.catalog.synthetic import pyramid_anchors, random_boxes
from mmdet_ext.detection.assigners import (
    ATSSAssigner,
    BatchAssigner,
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
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from tests._helpers.memory import peak_bytes

CLASSES = 5
PRIORS = {
    'anchors': pyramid_anchors,
    'points': pyramid_points,
    'heatmap': lambda: pyramid_points(strides=(4,)),
    'cells': yolo_anchors,
}
BY_SCORES = [case for case in cases_of('assigner') if case.predicts and case.name[:4] != 'YOLO']
BY_SCORES.append(Case('assigner', 'ATSSAssigner', {'topk': 9, 'alpha': 0.8}, twin=True))


def name_of(case: Case) -> str:
    return case.name


def build(case: Case, scope: str = 'mmdet_ext') -> BatchAssigner:
    return TASK_UTILS.build({'type': f'{scope}.{case.name}', **case.options})


def batch(case: Case) -> tuple[BatchGeometry, Predictions]:
    """Two pictures, of 6 and 3 boxes, and what a head may predict for them."""
    generator = torch.Generator().manual_seed(0)
    priors, sizes = PRIORS[case.priors]()
    geometry = BatchGeometry.from_lists(
        priors,
        sizes,
        [random_boxes(generator, count) for count in (6, 3)],
        [torch.randint(CLASSES, (count,), generator=generator) for count in (6, 3)],
    )
    corners = priors
    if case.priors in ('points', 'heatmap'):
        corners = torch.cat([priors[:, :2] - priors[:, 2:], priors[:, :2] + priors[:, 2:]], 1)
    boxes = corners + 6 * torch.randn(2, len(priors), 4, generator=generator)
    scores = torch.rand(2, len(priors), CLASSES, generator=generator)
    return geometry, Predictions(scores, boxes)


def predictions_for(case: Case, predictions: Predictions) -> Predictions | None:
    return predictions if case.predicts or 'alpha' in case.options else None


@pytest.mark.parametrize('case', cases_of('assigner'), ids=name_of)
@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_a_box_that_is_not_finite_is_named(case: Case, value: float) -> None:
    geometry, found = batch(case)
    boxes = geometry.gt_boxes.clone()
    boxes[1, 2, 3] = boxes[1, 0] = value
    message = r'gt_boxes \(gt_instances.bboxes\) must be finite, got 2 .* box 0 of picture 1 '
    with pytest.raises(ValueError, match=message):
        build(case).match(replace(geometry, gt_boxes=boxes), predictions_for(case, found))


@pytest.mark.parametrize('case', [*cases_of('assigner'), BY_SCORES[-1]], ids=name_of)
@pytest.mark.parametrize(
    ('value', 'label'),
    [
        (math.nan, -7),
        (math.inf, 999),
        (-math.inf, CLASSES),
        (-1e30, 2**40),
    ],
)
def test_padding_may_hold_anything(case: Case, value: float, label: int) -> None:
    geometry, found = batch(case)
    boxes, labels = geometry.gt_boxes.clone(), geometry.gt_labels.clone()
    boxes[~geometry.gt_valid], labels[~geometry.gt_valid] = value, label
    assert (~geometry.gt_valid).sum() == 3
    plain, padded = (
        build(case).match(each, predictions_for(case, found))
        for each in (geometry, replace(geometry, gt_boxes=boxes, gt_labels=labels))
    )
    assert plain.positive_mask.any()
    assert torch.equal(plain.gt_index, padded.gt_index)
    assert torch.equal(plain.overlap, padded.overlap)
    if plain.metric is not None:
        assert torch.equal(plain.metric, padded.metric)


@pytest.mark.parametrize('case', BY_SCORES, ids=name_of)
@pytest.mark.parametrize('label', [-1, CLASSES, 1000])
def test_a_label_of_no_class_is_named(case: Case, label: int) -> None:
    geometry, found = batch(case)
    labels = geometry.gt_labels.clone()
    labels[0, 4] = label
    message = rf'in \[0, 5\).* got {label} for box 4 of picture 0 .* num_classes .* data set'
    with pytest.raises(ValueError, match=message):
        build(case).match(replace(geometry, gt_labels=labels), found)
    if case.twin is not None and label > 0:
        pred = InstanceData(priors=geometry.priors, scores=found.scores[0], bboxes=found.boxes[0])
        gt = InstanceData(bboxes=geometry.gt_boxes[0], labels=labels[0])
        levels = [list(geometry.level_sizes)] * (case.name == 'ATSSAssigner')
        with pytest.raises((RuntimeError, IndexError), match='num_classes|out of bounds'):
            build(case, 'mmdet').assign(pred, *levels, gt)


def test_labels_do_not_matter_where_scores_do_not() -> None:
    case = Case('assigner', 'ATSSAssigner', {'topk': 9})
    geometry, _ = batch(case)
    other = replace(geometry, gt_labels=geometry.gt_labels + 1000)
    assert torch.equal(build(case).match(geometry).gt_index, build(case).match(other).gt_index)


SIMOTA = Case('assigner', 'SimOTAAssigner', priors='points', predicts=True)


@pytest.mark.parametrize(
    ('change', 'extent'),
    [
        (lambda scores: 10 * scores - 5, r'-[45]\.?\d* to [45]\.?\d*'),
        (lambda scores: scores - 0.5, r'-0.\d+ to 0.\d+'),
        (lambda scores: scores + 1, r'1\.\d* to [12]\.?\d*'),
        (lambda scores: (scores * 10 - 5).half(), r'-[45]\.?\d* to [45]\.?\d*'),
    ],
)
def test_scores_of_simota_that_are_no_probabilities_are_named(
    change: Callable[[Tensor], Tensor], extent: str
) -> None:
    geometry, found = batch(SIMOTA)
    scores = change(found.scores)
    with pytest.raises(ValueError, match=rf'scores .* must be probabilities .* got {extent}'):
        build(SIMOTA).match(geometry, Predictions(scores, found.boxes))
    pred = InstanceData(priors=geometry.priors, scores=scores[0], bboxes=found.boxes[0])
    with pytest.raises(RuntimeError, match='between 0 and 1'):
        build(SIMOTA, 'mmdet').assign(
            pred, InstanceData(bboxes=geometry.gt_boxes[0], labels=geometry.gt_labels[0])
        )


def test_probabilities_of_0_and_1_and_what_is_not_a_number_do_not_stop_simota() -> None:
    geometry, found = batch(SIMOTA)
    assert (
        build(SIMOTA)
        .match(geometry, Predictions(found.scores.round(), found.boxes))
        .positive_mask.any()
    )
    for scores, boxes in (
        (found.scores * math.nan, found.boxes),
        (found.scores, found.boxes * math.nan),
    ):
        result = build(SIMOTA).match(geometry, Predictions(scores, boxes))
        assert (result.gt_index >= -1).all() and (result.gt_index < 6).all()


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
def test_options_are_named(kind: type, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**options)


def test_what_stock_asserts_may_be_caught_as_that() -> None:
    for cls in (TaskAlignedAssigner, stock.TaskAlignedAssigner):
        with pytest.raises(AssertionError):
            cls(topk=0)
    with pytest.raises(AssertionError, match='topk must be a whole number'):
        TaskAlignedAssigner(topk=0.5)


def test_exponents_of_the_call_are_named() -> None:
    case = next(case for case in cases_of('assigner') if case.name == 'TaskAlignedAssigner')
    geometry, found = batch(case)
    for name in ('alpha', 'beta'):
        with pytest.raises(ValueError, match=f'{name} must be at least 0 and finite, got -2'):
            build(case).match(geometry, found, **{name: -2})


def test_numbers_of_numpy_are_numbers() -> None:
    case = Case('assigner', 'ATSSAssigner', {'topk': 4})
    geometry, _ = batch(case)
    other = ATSSAssigner(topk=numpy.int64(4), ignore_iof_thr=numpy.float32(-1))
    assert torch.equal(other.match(geometry).gt_index, build(case).match(geometry).gt_index)


class AllPairs(stock.BboxOverlaps2D):
    """A measure whose call knows nothing of aligned pairs."""

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
def test_a_calculator_of_all_pairs_gives_stocks_assignment(name: str) -> None:
    kind, options = WITH_CALCULATOR[name]
    ours, theirs = (
        TASK_UTILS.build({'type': f'{scope}.{kind}', 'iou_calculator': GLIP, **options})
        for scope in ('mmdet_ext', 'mmdet')
    )
    generator = torch.Generator().manual_seed(0)
    positives = 0
    for case in range(1, 60):
        boxes, labels = scene(case, most=30)
        # Off whole pixels, so that no two priors are equally far; no box twice.
        boxes = boxes.float() + 0.3 * torch.rand(len(boxes), 4, generator=generator)
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
        geometry = BatchGeometry.from_lists(ANCHORS, SIZES, *pair)
        result = assigner.match(geometry)
        assert result.positive_mask.any(1).all()
        assert torch.equal(result.gt_index, plain.match(geometry).gt_index)


@pytest.mark.parametrize('kind', [ATSSAssigner, MaxIoUAssigner])
def test_a_calculator_of_all_pairs_takes_bounded_memory(kind: type) -> None:
    priors, sizes = pyramid_anchors(1344, 800)
    boxes = random_boxes(torch.Generator().manual_seed(0), 200, 1344, 800, 12, 400)
    geometry = BatchGeometry.from_lists(priors, sizes, [boxes], [torch.zeros(200).long()])
    options = {'topk': 9} if kind is ATSSAssigner else {'pos_iou_thr': 0.5, 'neg_iou_thr': 0.4}
    assigner = kind(**options, iou_calculator=GLIP)
    assert peak_bytes(lambda: assigner.match(geometry)) < 2**25  # all pairs alone are as much


def test_a_single_candidate_is_positive_and_stocks_deviation_not_a_number() -> None:
    priors, sizes = pyramid_anchors(strides=(16,))
    box = torch.tensor([[20.0, 20, 80, 80]])
    gt = InstanceData(bboxes=box, labels=torch.tensor([0]))
    one, other = (
        cls(topk=1).assign(InstanceData(priors=priors), sizes, gt)
        for cls in (ATSSAssigner, stock.ATSSAssigner)
    )
    (place,) = (one.gt_inds > 0).nonzero(as_tuple=True)
    center = (priors[place, :2] + priors[place, 2:]) / 2
    assert len(place) == 1 and (center - 50).abs().max() <= 8
    assert (other.gt_inds == 0).all()


@pytest.mark.parametrize(('ours', 'as_if'), [(1, 1.0), ([0.1, 0.3], (0.1, 0.3))])
def test_whole_thresholds_and_lists_are_as_floats_and_tuples(ours: Any, as_if: Any) -> None:
    boxes, labels = scene(8, most=30)
    pred, gt = InstanceData(priors=ANCHORS), InstanceData(bboxes=boxes.float(), labels=labels)

    def background(cls: type, threshold: Any) -> Tensor:
        found = cls(pos_iou_thr=0.5, neg_iou_thr=threshold, match_low_quality=False)
        return found.assign(pred, gt).gt_inds == 0

    assert torch.equal(background(MaxIoUAssigner, ours), background(MaxIoUAssigner, as_if))
    assert torch.equal(background(MaxIoUAssigner, ours), background(stock.MaxIoUAssigner, as_if))
    assert background(MaxIoUAssigner, ours).any()
    assert not background(stock.MaxIoUAssigner, ours).any()


@pytest.mark.parametrize('kind', [YOLOv3Assigner, YOLOv4Assigner, YOLOv5Assigner])
def test_cells_in_bfloat16_are_found_or_the_type_is_named(kind: type) -> None:
    boxes = torch.tensor([[20.0, 20, 60, 50]])
    assigner = kind() if kind is YOLOv5Assigner else kind(ignore_by='prior')

    def match(priors: Tensor, sizes: list[int]) -> Tensor:
        return assigner.match(
            BatchGeometry.from_lists(priors, sizes, [boxes], [torch.tensor([0])])
        ).gt_index

    small, small_sizes = yolo_anchors(64, 64)
    small, small_sizes = small[-192:], small_sizes[-1:]  # all of its corners are exact
    assert torch.equal(small.bfloat16().float(), small)
    assert torch.equal(match(small.bfloat16(), small_sizes), match(small, small_sizes))
    large, sizes = yolo_anchors(640, 640)
    with pytest.raises(ValueError, match='do not form cells: level 0 .* give priors in float32'):
        match(large.bfloat16(), sizes)
    assert (match(large.half(), sizes) >= 0).any()
