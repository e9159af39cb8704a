"""Meaning of the raw tensors of mmdet's call, as inferred at the boundary."""

from __future__ import annotations

import pytest
import torch

from mmdet_ext.catalog.scenes import pyramid_points, yolo_anchors
from mmdet_ext.catalog.synthetic import pyramid_anchors
from mmdet_ext.detection.host import read_priors
from mmdet_ext.functional.assignment.cells import find_cells


def test_rows_are_read_as_points_or_as_corners() -> None:
    rows, sizes = pyramid_points()
    points = read_priors(rows, 'points', sizes)
    assert points.corners is None and points.level_sizes == tuple(sizes)
    assert torch.equal(points.rows, rows)
    corners = read_priors(rows, 'corners', sizes)
    assert corners.points is None and torch.equal(corners.as_corners(), rows)
    with pytest.raises(ValueError, match=r'priors must have shape \(7, 4\), got \(7, 2\)'):
        read_priors(rows[:7, :2], 'points', ())


@pytest.mark.parametrize('form', ['points', 'corners'])
def test_a_single_size_leaves_the_levels_unknown(form: str) -> None:
    rows, _ = pyramid_points()
    assert read_priors(rows, form, [len(rows)]).level_sizes == ()
    assert read_priors(rows, form, ()).level_sizes == ()


@pytest.mark.parametrize(('width', 'height'), [(320, 256), (32, 256), (320, 32), (32, 32)])
def test_levels_and_anchors_per_cell_are_inferred_from_corners(width: int, height: int) -> None:
    rows, sizes = yolo_anchors(width, height)
    for given in ((), sizes, (len(rows),)):
        priors = read_priors(rows, 'cells', given)
        assert priors.level_sizes == tuple(sizes)
        assert priors.anchors_per_cell == (3, 3, 3)
    anchors, anchor_sizes = pyramid_anchors(width, height)
    priors = read_priors(anchors, 'cells', anchor_sizes)
    assert priors.level_sizes == tuple(anchor_sizes)
    assert priors.anchors_per_cell == (1,) * 5
    assert read_priors(rows[:0], 'cells', ()).level_sizes == ()


def test_corners_that_end_within_a_row_are_named() -> None:
    rows, _ = yolo_anchors()
    with pytest.raises(ValueError, match='level 2, from prior 1200 .* last row of 40 cells'):
        find_cells(read_priors(rows[:-1], 'cells', ()))
