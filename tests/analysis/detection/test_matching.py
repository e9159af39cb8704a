"""Matching of detections, row for row against pycocotools."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mmdet_ext.analysis.detection import matching
from mmdet_ext.analysis.detection.columns import Detections, GroundTruth
from mmdet_ext.analysis.detection.matching import match_detections, overlapping_pairs
from tests._helpers.results.detections import coco_eval, made_set

THRESHOLDS = (0.3, 0.5, 0.75, 1.0)

MADE = {
    'crowds': dict(seed=1),
    'ties': dict(seed=2, ties=True),
    'ties of one class': dict(seed=3, ties=True, classes=1, boxes=20, side=60),
    'many classes': dict(seed=4, classes=40, boxes=15),
    'no crowd': dict(seed=5, crowds=0.0),
    'crowds alone': dict(seed=6, crowds=1.0),
    'dense': dict(seed=7, images=3, classes=1, boxes=60, found_per_box=4.0),
    'few detections': dict(seed=8, images=40, boxes=1, found_per_box=0.5),
}


@pytest.mark.parametrize('options', MADE.values(), ids=MADE)
def test_matches_are_those_of_pycocotools(options: dict[str, float]) -> None:
    data, found = made_set(**options)  # type: ignore[arg-type]
    matches = match_detections(data.truth, found, THRESHOLDS)
    assert (matches.truth_index >= 0).any()
    seen = 0
    for entry in filter(None, coco_eval(data, found, THRESHOLDS).evalImgs):
        rows = np.array(entry['dtIds'], int) - 1
        boxes = np.array(entry['gtIds'], int) - 1
        # Ids are rows counted from 1, and 0 stands for no match.
        np.testing.assert_array_equal(matches.truth_index[:, rows] + 1, entry['dtMatches'])
        np.testing.assert_array_equal(matches.ignored[:, rows], entry['dtIgnore'])
        np.testing.assert_array_equal(matches.found_index[:, boxes] + 1, entry['gtMatches'])
        seen += len(rows)
    assert seen == len(found)


@pytest.mark.parametrize('at_once', [1, 7, 1000])
def test_matches_do_not_depend_on_how_many_pairs_are_measured_at_once(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, found = made_set(9, ties=True)
    whole = match_detections(data.truth, found, THRESHOLDS)
    monkeypatch.setattr(matching, 'PAIRS_AT_ONCE', at_once)
    parts = match_detections(data.truth, found, THRESHOLDS)
    np.testing.assert_array_equal(whole.truth_index, parts.truth_index)
    np.testing.assert_array_equal(whole.ignored, parts.ignored)


def one_image(*boxes: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(len(boxes), np.int64), np.array(boxes, float).reshape(-1, 4)


def truth_of(*boxes: tuple[float, float, float, float], crowd: bool = False) -> GroundTruth:
    zeros, array = one_image(*boxes)
    return GroundTruth(zeros, zeros, array, array[:, 2] * array[:, 3], np.full(len(zeros), crowd))


def found_of(*boxes: tuple[float, float, float, float]) -> Detections:
    zeros, array = one_image(*boxes)
    return Detections(zeros, zeros, array, np.linspace(0.9, 0.1, len(zeros)))


def test_of_two_detections_on_a_box_the_one_with_the_higher_score_has_it() -> None:
    matches = match_detections(truth_of((0, 0, 10, 10)), found_of((0, 0, 9, 10), (0, 0, 10, 10)))
    assert matches.truth_index.tolist() == [[0, -1]]
    assert matches.hit.tolist() == [[True, False]]


def test_any_number_of_detections_on_a_crowd_is_ignored() -> None:
    truth = truth_of((0, 0, 100, 100), crowd=True)
    matches = match_detections(truth, found_of((0, 0, 5, 5), (50, 50, 5, 5), (98, 0, 10, 10)))
    assert matches.ignored.tolist() == [[True, True, False]]
    assert not matches.hit.any()


def test_a_box_that_counts_comes_before_an_ignored_one_that_overlaps_more() -> None:
    truth = truth_of((0, 0, 10, 10), (0, 0, 10, 8))
    ignore = np.array([True, False])
    matches = match_detections(truth, found_of((0, 0, 10, 10)), (0.5, 0.9), ignore)
    assert matches.truth_index.tolist() == [[1], [0]]
    assert matches.ignored.tolist() == [[False], [True]]


def test_pairs_of_all_classes_are_those_of_one_class() -> None:
    data, found = made_set(11)
    one = dataclasses.replace(data.truth, label=np.zeros_like(data.truth.label))
    of_one = dataclasses.replace(found, label=np.zeros_like(found.label))
    every = overlapping_pairs(data.truth, found, 0.1, same_class=False)
    same = overlapping_pairs(one, of_one, 0.1)
    for left, right in zip(every, same, strict=True):
        np.testing.assert_array_equal(left, right)


def test_nothing_matches_nothing() -> None:
    empty = match_detections(truth_of(), found_of((0, 0, 1, 1)), (0.5, 0.7))
    assert empty.truth_index.tolist() == [[-1], [-1]] and empty.found_index.shape == (2, 0)
    assert match_detections(truth_of((0, 0, 1, 1)), found_of()).found_index.tolist() == [[-1]]


@pytest.mark.parametrize('wrong', [(), (0.0,), (0.5, 1.2), (float('nan'),)])
def test_a_threshold_out_of_range_is_refused(wrong: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match='iou_thresholds must be numbers above 0, at most 1, got'):
        match_detections(truth_of((0, 0, 1, 1)), found_of(), wrong)
