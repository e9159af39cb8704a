"""Grids of cells, worked out from the corners of anchors."""

from __future__ import annotations

import pytest
import torch

from mmdet_ext.catalog.scenes import YOLO_SIDES, cells_as_priors, yolo_anchors
from mmdet_ext.catalog.synthetic import pyramid_anchors
from mmdet_ext.functional.assignment.cells import find_cells
from mmdet_ext.functional.assignment.geometry import Priors

PRIORS, SIZES = yolo_anchors(320, 256)


@pytest.mark.parametrize(('width', 'height'), [(320, 256), (32, 256), (320, 32), (32, 32)])
def test_cells_are_those_of_the_anchors(width: int, height: int) -> None:
    priors, sizes = yolo_anchors(width, height)
    cells = find_cells(cells_as_priors(priors, sizes))
    assert [grid.start for grid in cells] == [sum(sizes[:n]) for n in range(3)]
    for grid, (stride, sides) in zip(cells, YOLO_SIDES.items(), strict=True):
        assert (grid.columns, grid.rows) == (width // stride, height // stride)
        assert grid.stride == (stride, stride)
        assert grid.origin == (0, 0)
        assert torch.equal(grid.sides, torch.tensor(sides).float())


def test_cells_reach_half_a_stride_to_each_side_of_their_anchors() -> None:
    # The centres stand at the corners of mmdet's cells.
    priors, sizes = pyramid_anchors(320, 256)
    cells = find_cells(Priors(corners=priors, level_sizes=tuple(sizes), anchors_per_cell=(1,) * 5))
    assert [grid.columns * grid.rows for grid in cells] == sizes
    assert [grid.origin[0] for grid in cells] == [-4, -8, -16, -32, -64]


def test_a_stride_need_not_be_whole_nor_the_same_along_both_axes() -> None:
    x, y = torch.meshgrid(torch.arange(6) * 5.3 + 2, torch.arange(4) * 9.0, indexing='xy')
    center = torch.stack([x, y], -1).view(-1, 2)
    corners = torch.cat([center - 10.3, center + 10.3], 1)
    (grid,) = find_cells(Priors(corners=corners, anchors_per_cell=(1,)))
    assert (grid.columns, grid.rows, grid.stride[1], grid.origin[1]) == (6, 4, 9, -4.5)
    assert grid.stride[0] == pytest.approx(5.3, abs=1e-4)


def test_no_priors_form_no_cells() -> None:
    assert find_cells(Priors(corners=torch.empty(0, 4), anchors_per_cell=(3,))) == []


def test_priors_that_are_no_cells_are_named() -> None:
    short = [*SIZES[:2], SIZES[2] - 1]
    with pytest.raises(ValueError, match='level 2, from prior 1200 .* last row of 40 cells'):
        find_cells(cells_as_priors(PRIORS[:-1], short))
    wrong = PRIORS.clone()
    wrong[7, 2:] += 9
    wrong[7, :2] -= 9
    message = 'level 0, .* 3 anchors per cell .* different anchors'
    with pytest.raises(ValueError, match=message):
        find_cells(cells_as_priors(wrong, SIZES))
    moved = PRIORS.clone()
    moved[601:] += 3
    with pytest.raises(ValueError, match='other than equal steps|different centres'):
        find_cells(cells_as_priors(moved, SIZES))
    with pytest.raises(ValueError, match='its cells are 0 x 0 px large'):
        find_cells(Priors(corners=torch.tensor([[-4.0, -4.0, 4.0, 4.0]]), anchors_per_cell=(1,)))
    with pytest.raises(ValueError, match='must give anchors_per_cell, a number for each level'):
        find_cells(Priors(corners=PRIORS, level_sizes=tuple(SIZES)))
