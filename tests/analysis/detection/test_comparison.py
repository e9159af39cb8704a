"""Comparison of two results: pycocotools' values, verdicts, errors per image."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from mmdet_ext.analysis.detection.columns import Detections, TruthSet
from mmdet_ext.analysis.detection.comparison import (
    COCO_IOU,
    compare_results,
    comparison_table,
    image_changes,
)
from tests._helpers.results.detections import coco_eval, made_set

FEW = (0.5, 0.75)


def with_noise(data: TruthSet, seed: int, spread: float, falls: float = 0.0) -> Detections:
    """Detect every box, shifted by so many pixels; a share of them has no detection."""
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(~data.truth.crowd)
    rows = rows[rng.random(len(rows)) >= falls]
    box = data.truth.box[rows] + rng.normal(0, spread, (len(rows), 4))
    return Detections(data.truth.image[rows], data.truth.label[rows], box, rng.random(len(rows)))


def test_values_are_those_of_pycocotools() -> None:
    data, found = made_set(1, images=20, classes=3)
    other = dataclasses.replace(found, score=found.score[::-1].copy())
    report = compare_results(data, found, other, resamples=3)
    for side, each in (('first', found), ('second', other)):
        precision = coco_eval(data, each, COCO_IOU).eval['precision'][..., 0, 0]
        assert report['AP']['mean'][side] == pytest.approx(precision.mean(), rel=1e-5)
        for k, name in enumerate(data.classes):
            row = report['AP50']['classes'][name]
            assert row[side] == pytest.approx(precision[0, :, k].mean(), rel=1e-5)


def test_the_same_result_twice_is_noise_without_width() -> None:
    data, found = made_set(2, images=20)
    report = compare_results(data, found, found, FEW, resamples=20)
    row = report['AP']['mean']
    assert (row['difference'], row['interval'], row['verdict']) == (0.0, [0.0, 0.0], 'noise')
    assert row['share_second_better'] == 0


def test_better_boxes_are_better_and_worse_ones_are_worse() -> None:
    data, _ = made_set(3, images=60, classes=2)
    good, bad = with_noise(data, 0, 1.0), with_noise(data, 1, 6.0, falls=0.2)
    report = compare_results(data, bad, good, FEW, resamples=100)
    assert report['AP']['mean']['verdict'] == 'second is better'
    low, high = report['AP']['mean']['interval']
    assert 0 < low < report['AP']['mean']['difference'] < high
    back = compare_results(data, good, bad, FEW, resamples=100)
    assert back['AP']['mean']['verdict'] == 'first is better'
    # The same resamples serve both directions.
    assert back['AP']['mean']['interval'] == [-high, -low]


def test_equal_detectors_with_other_noise_are_called_noise_about_as_often_as_stated() -> None:
    verdicts = []
    for seed in range(30):
        data, _ = made_set(100 + seed, images=30, classes=1)
        first, second = with_noise(data, seed, 3.0), with_noise(data, 1000 + seed, 3.0)
        report = compare_results(data, first, second, (0.5,), resamples=100, confidence=0.9)
        verdicts.append(report['AP']['mean']['verdict'])
    assert verdicts.count('noise') >= 22


def test_a_class_without_boxes_takes_no_part() -> None:
    data, found = made_set(4, images=10, classes=3)
    data.truth.crowd[data.truth.label == 1] = True
    report = compare_results(data, found, found, FEW, resamples=5)
    assert list(report['AP']['classes']) == ['class 0', 'class 2']
    data.truth.crowd[:] = True
    with pytest.raises(ValueError, match='there is no ground-truth box that counts'):
        compare_results(data, found, found, FEW, resamples=5)


def test_errors_per_image_are_false_and_missing_boxes() -> None:
    data, found = made_set(5, images=8, crowds=0.0)
    nothing = dataclasses.replace(found, score=np.zeros(len(found)))
    used, errors = image_changes(data, found, nothing, score_thresholds=(0.5, 0.5))
    assert used == (0.5, 0.5)
    np.testing.assert_array_equal(errors[:, 1], np.bincount(data.truth.image, minlength=8))
    evaluation = coco_eval(data, found, (0.5,))
    for place, image_id in enumerate(data.image_ids):
        expected = 0
        for entry in filter(None, evaluation.evalImgs):
            if entry['image_id'] == image_id:
                kept = np.array(entry['dtScores']) >= 0.5
                hits = int((entry['dtMatches'][0][kept] > 0).sum())
                expected += int(kept.sum()) - hits + len(entry['gtIds']) - hits
        assert errors[place, 0] == expected


def test_without_thresholds_each_result_has_that_of_its_best_f1() -> None:
    data, found = made_set(6, images=12)
    half = dataclasses.replace(found, score=found.score / 2)
    used, errors = image_changes(data, found, half)
    assert used[1] == used[0] / 2
    np.testing.assert_array_equal(errors[:, 0], errors[:, 1])


def test_the_table_names_both_results_and_every_class() -> None:
    data, found = made_set(7, images=10)
    report = compare_results(data, found, found, FEW, resamples=5)
    text = comparison_table(report, ('a.pkl', 'b.pkl'))
    lines = text.splitlines()
    assert lines[:2] == ['first: a.pkl', 'second: b.pkl']
    assert sum(line.endswith(' noise') for line in lines) == 3 * (1 + len(data.classes))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(resamples=0), 'resamples must be 1 or more, got 0'),
        (dict(confidence=1.5), 'confidence must be above 0, below 1, got 1.5'),
        (dict(iou_thresholds=[2]), 'iou_thresholds must be numbers above 0'),
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    data, found = made_set(8, images=3)
    with pytest.raises(ValueError, match=message):
        compare_results(data, found, found, **options)
