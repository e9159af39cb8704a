"""Boxes, labels and scores that assigners refuse, by name, and accept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.cases import cases_of
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from tests._helpers.assigners import CLASSES, build, random_batch, random_predictions

BY_SCORES = [case for case in cases_of('assigner') if case.predicts and case.name[:4] != 'YOLO']
BY_SCORES.append(Case('assigner', 'ATSSAssigner', {'topk': 9, 'alpha': 0.8}, twin=True))


def name_of(case: Case) -> str:
    return case.name


def batch(case: Case) -> tuple[BatchGeometry, Predictions]:
    """Return two images, of 6 and 3 boxes, and predictions for them."""
    geometry = random_batch(case, (6, 3))
    return geometry, random_predictions(geometry)


def predictions_for(case: Case, predictions: Predictions) -> Predictions | None:
    return predictions if case.predicts or 'alpha' in case.options else None


@pytest.mark.parametrize('case', cases_of('assigner'), ids=name_of)
@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_a_box_that_is_not_finite_is_named(case: Case, value: float) -> None:
    geometry, found = batch(case)
    boxes = geometry.gt_boxes.clone()
    boxes[1, 2, 3] = boxes[1, 0] = value
    message = r'gt_boxes \(gt_instances.bboxes\) must be finite, got 2 .* box 0 of image 1 '
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
    message = rf'in \[0, 5\).* got {label} for box 4 of image 0 .* num_classes .* data set'
    with pytest.raises(ValueError, match=message):
        build(case).match(replace(geometry, gt_labels=labels), found)
    if case.twin is not None and label > 0:
        pred = InstanceData(
            priors=geometry.priors.rows, scores=found.scores[0], bboxes=found.boxes[0]
        )
        gt = InstanceData(bboxes=geometry.gt_boxes[0], labels=labels[0])
        levels = [list(geometry.priors.sizes)] * (case.name == 'ATSSAssigner')
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
def test_simota_names_scores_that_are_no_probabilities(
    change: Callable[[Tensor], Tensor], extent: str
) -> None:
    geometry, found = batch(SIMOTA)
    scores = change(found.scores)
    with pytest.raises(ValueError, match=rf'scores .* must be probabilities .* got {extent}'):
        build(SIMOTA).match(geometry, Predictions(boxes=found.boxes, probabilities=scores))
    pred = InstanceData(priors=geometry.priors.rows, scores=scores[0], bboxes=found.boxes[0])
    with pytest.raises(RuntimeError, match='between 0 and 1'):
        build(SIMOTA, 'mmdet').assign(
            pred, InstanceData(bboxes=geometry.gt_boxes[0], labels=geometry.gt_labels[0])
        )


def test_simota_accepts_probabilities_of_0_and_1_and_nan() -> None:
    geometry, found = batch(SIMOTA)
    assert (
        build(SIMOTA)
        .match(geometry, Predictions(boxes=found.boxes, probabilities=found.scores.round()))
        .positive_mask.any()
    )
    for scores, boxes in (
        (found.scores * math.nan, found.boxes),
        (found.scores, found.boxes * math.nan),
    ):
        result = build(SIMOTA).match(geometry, Predictions(boxes=boxes, probabilities=scores))
        assert (result.gt_index >= -1).all() and (result.gt_index < 6).all()


def test_exponents_of_the_call_are_named() -> None:
    case = next(case for case in cases_of('assigner') if case.name == 'TaskAlignedAssigner')
    geometry, found = batch(case)
    for name in ('alpha', 'beta'):
        with pytest.raises(ValueError, match=f'{name} must be at least 0 and finite, got -2'):
            build(case).match(geometry, found, **{name: -2})


@pytest.mark.parametrize('case', BY_SCORES, ids=name_of)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16], ids=str)
def test_probabilities_of_0_and_1_are_scores_like_others(case: Case, dtype: torch.dtype) -> None:
    """The sigmoid of a large logit is rounded to them."""
    geometry, found = batch(case)
    rounded = found.probabilities.to(dtype)
    edge = torch.rand(rounded.shape, generator=torch.Generator().manual_seed(2))
    rounded = rounded.masked_fill(edge < 0.2, 0.0).masked_fill(edge > 0.8, 1.0)
    near = rounded.double().clamp(1e-7, 1 - 1e-7)
    at_edges, beside = (
        build(case).match(geometry, replace(found, probabilities=each, boxes=found.boxes))
        for each in (rounded, near)
    )
    assert at_edges.positive_mask.any() and at_edges.overlap.isfinite().all()
    same = at_edges.gt_index == beside.gt_index
    assert same.float().mean() > 0.99
    torch.testing.assert_close(
        at_edges.overlap[same].double(), beside.overlap[same].double(), rtol=1e-3, atol=1e-4
    )
