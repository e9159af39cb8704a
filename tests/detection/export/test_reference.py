"""Comparison of the detections of torch and of a file."""

from __future__ import annotations

import numpy as np

from mmdet_ext.deploy.detections import Detections
from mmdet_ext.detection.export.reference import compare

BOXES = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]


def found(scores: list[float], boxes: list[list[float]] = BOXES, label: int = 0) -> Detections:
    count = len(scores)
    return Detections(
        np.array(boxes[:count], np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.full(count, label, np.int64),
        ('cat', 'dog'),
    )


def test_the_order_of_equal_scores_does_not_count() -> None:
    one = found([0.5, 0.5, 0.5])
    other = found([0.5, 0.5, 0.5], BOXES[::-1])
    assert compare([one], [other], 100).equal
    assert compare([one], [other], 100).box == 0


def test_the_worst_differences_are_returned() -> None:
    moved = [[0, 0, 10, 10], [20, 0, 30.25, 10], [40, 0, 50, 10]]
    difference = compare([found([0.9, 0.8, 0.7])], [found([0.9, 0.8, 0.6995], moved)], 100)
    assert difference.box == 0.25
    np.testing.assert_allclose(difference.score, 5e-4, rtol=1e-3)
    assert not difference.equal
    assert '3 detections of torch' in difference.lines()[0]


def test_a_detection_of_one_side_is_named() -> None:
    difference = compare([found([0.9, 0.8, 0.7])], [found([0.9, 0.8])], 100)
    assert difference.lacking == ('image 0: cat 0.70000 at 40.0, 0.0, 50.0, 10.0',)
    assert not difference.equal
    other = compare([found([0.9], label=0)], [found([0.9], label=1)], 100)
    assert len(other.lacking) == len(other.added) == 1


def test_a_choice_among_equal_scores_at_the_limit_is_a_tie() -> None:
    one = found([0.9, 0.8, 0.5])
    other = found([0.9, 0.8, 0.5], [BOXES[0], BOXES[1], [60, 0, 70, 10]])
    assert compare([one], [other], 3).ties == 2
    assert compare([one], [other], 3).equal
    assert not compare([one], [other], 100).equal


def test_equal_scores_alone_and_no_detections_show_nothing() -> None:
    one, other = found([0.5]), found([0.5], [BOXES[1]])
    assert not compare([one], [other], 1).equal
    difference = compare([found([])], [found([])], 100)
    assert not difference.equal
    assert 'only 0 detections could be compared' in difference.lines()[-1]
