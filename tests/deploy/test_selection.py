"""Choice among decoded priors, on numbers written down by hand."""

from __future__ import annotations

import numpy as np

from mmdet_ext.deploy.metadata import SelectionInfo
from mmdet_ext.deploy.selection import Priors, select


def test_the_best_candidates_of_each_level_are_taken_and_of_equal_scores_the_first() -> None:
    boxes = np.array([[20 * i, 0, 20 * i + 10, 10] for i in range(6)], np.float32)
    scores = np.array([[0.5], [0.75], [0.5], [0.25], [0.125], [0.25]], np.float32)
    levels = np.array([0, 0, 0, 1, 1, 1])
    info = SelectionInfo(nms_pre=2, nms=None)
    found = select(Priors(boxes, scores, levels=levels), (100, 200), (1.0, 1.0), info)
    assert found.scores.tolist() == [0.75, 0.5, 0.25, 0.25]
    assert found.boxes[:, 0].tolist() == [20, 0, 60, 100]


def test_a_factor_of_exactly_the_least_counts() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    scores, factors = np.full((2, 1), 0.5, np.float32), np.array([0.25, 0.125], np.float32)
    info = SelectionInfo(factor_thr=0.25, nms=None)
    found = select(Priors(boxes, scores, factors), (100, 100), (1.0, 1.0), info)
    assert found.scores.tolist() == [0.125]
