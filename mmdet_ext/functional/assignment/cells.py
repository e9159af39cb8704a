"""Pyramid levels as grids of cells with several anchors each, as the YOLO detectors have them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.geometry import Priors
from mmdet_ext.functional.boxes.overlap import box_centers
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = [
    'CellGrid',
    'LeadingGrid',
    'count_leading',
    'find_cells',
    'leading_grid',
    'neighbour_cells',
    'own_cells',
]

#: Centres that differ by less than this, px, are the same. Cells are larger, rounding is smaller.
CELL_TOLERANCE = 0.5

#: A stride or border within this of a multiple of 1/8 px is set to it, against rounding.
ROUNDING = 1e-3

#: Reason why priors of this dtype may not look like cells.
BFLOAT16_NOTE = (
    ' (in bfloat16, which rounds places from 256 px on to 2 px and more: give priors in float32)'
)


class CellGrid(NamedTuple):
    """A pyramid level as cells with the same anchors each.

    The prior of anchor a in column x and row y has the index
    ``start + (y * columns + x) * A + a``.

    Attributes:
        start: index of the level's first prior.
        columns: number of cells in a row.
        rows: number of rows.
        stride: width and height of a cell, px.
        origin: left and upper border of the first cell, px.
        sides: (A, 2) widths and heights of the anchors, px.
    """

    start: int
    columns: int
    rows: int
    stride: tuple[float, float]
    origin: tuple[float, float]
    sides: Tensor


class LeadingGrid(NamedTuple):
    """The largest grid that a list of centres begins with.

    Attributes:
        columns: number of centres in the first row.
        rows: number of rows, the last of which may lack centres.
        step: distances along x and y, px; 0 where there is a single column or row.
    """

    columns: int
    rows: int
    step: tuple[float, float]


def find_cells(priors: Priors) -> list[CellGrid]:
    """Work out the grid of cells of each level.

    A cell reaches half a stride to each side of its anchors' centre. Where a level has a single
    column or a single row, its cells count as square; where it has a single cell, the cell begins
    at 0.

    Args:
        priors: corners with ``anchors_per_cell``, level by level, row by row, the anchors of a
            cell next to each other, as mmdet's ``YOLOAnchorGenerator`` and ``AnchorGenerator``
            give them.

    Returns:
        list: the levels that have priors, in their order.

    Raises:
        ValueError: if the cells of a level form no full grid of equal steps, or have different
            anchors. In bfloat16, places beyond some 200 px are rounded too coarsely for a grid.

    >>> priors = Priors(corners=torch.tensor([[2., 2., 6., 6.], [0., 0., 8., 8.]]),
    ...                 anchors_per_cell=(2,))
    >>> find_cells(priors)[0][:5]
    (0, 1, 1, (8.0, 8.0), (0.0, 0.0))
    """
    if priors.anchors_per_cell is None or len(priors.anchors_per_cell) != len(priors.sizes):
        raise ValueError(
            'priors must give anchors_per_cell, a number for each level, got '
            f'{priors.anchors_per_cell} for the level sizes {list(priors.sizes)}'
        )
    corners = priors.as_corners()
    note = BFLOAT16_NOTE if corners.dtype == torch.bfloat16 else ''
    (corners,) = promote_half(corners)
    levels: list[CellGrid] = []
    start = 0
    for size, anchors in zip(priors.sizes, priors.anchors_per_cell, strict=True):
        if size > 0:
            own = corners[start : start + size]
            levels.append(_level_cells(own, start, anchors, f'level {len(levels)}{note}'))
        start += size
    return levels


def leading_grid(centers: Tensor) -> LeadingGrid:
    """Find the grid that a list of centres begins with.

    Centres at equal steps to the right of the first are its first row. It goes on as long as each
    next centre is that of the next cell.

    Args:
        centers: (N, 2) px, N at least 1.
    """
    step = centers[1:] - centers[:-1]
    right = step[:1] * step.new_tensor([1.0, 0.0])
    in_row = ((step - right).abs() < CELL_TOLERANCE).all(1) & (step[:, 0] >= CELL_TOLERANCE)
    columns = 1 + count_leading(in_row)
    x0, y0 = centers[0].tolist()
    step_x = (float(centers[columns - 1, 0]) - x0) / max(1, columns - 1)
    step_y = float(centers[columns, 1]) - y0 if len(centers) > columns else 0.0
    place = torch.arange(len(centers), device=centers.device)
    row = torch.div(place, columns, rounding_mode='floor')
    expected = torch.stack([x0 + place % columns * step_x, y0 + row * step_y], 1)
    fits = ((centers - expected).abs() < CELL_TOLERANCE).all(1)
    fits &= (row == 0) | (step_y >= CELL_TOLERANCE)
    rows = -(-count_leading(fits) // columns)
    return LeadingGrid(columns, rows, (step_x, 0.0 if rows == 1 else step_y))


def count_leading(mask: Tensor) -> int:
    """Count the True values before the first False of a mask (N,)."""
    return int(mask.int().cumprod(0).sum())


def own_cells(cells: list[CellGrid], centers: Tensor) -> tuple[Tensor, Tensor]:
    """Find the priors of the cells that hold centres, in every level.

    Args:
        cells: the levels, from `find_cells`.
        centers: (B, G, 2) px.

    Returns:
        tuple: indices (B, G, K) of the K anchors of all levels, and (B, G, K) bool, False where
        the centre lies outside of the level's cells.
    """
    candidates, masks = [], []
    for grid in cells:
        place, inside = _grid_places(grid, centers)
        # A centre far outside, or NaN, must not overflow the integers.
        candidate = _priors_of(grid, place.where(inside[..., None], 0.0).floor().long())
        candidates.append(candidate)
        masks.append(inside[..., None].expand_as(candidate))
    return torch.cat(candidates, -1), torch.cat(masks, -1)


def neighbour_cells(
    cells: list[CellGrid], centers: Tensor, shift: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Find the priors of the cells next to those that hold centres, in one direction.

    Args:
        cells: the levels, from `find_cells`.
        centers: (B, G, 2) px.
        shift: columns to the right and rows down, one of them 0, the other 1 or -1.

    Returns:
        tuple: indices (B, G, K), and (B, G, K) bool, True where the neighbour exists and the
        centre lies in the half of its own cell next to it.
    """
    candidates, masks = [], []
    for grid in cells:
        place, inside = _grid_places(grid, centers)
        place = place.where(inside[..., None], 0.0)
        cell = place.floor()
        step = centers.new_tensor(shift)
        axis = 0 if shift[0] else 1
        beyond = ((place - cell - 0.5) * step)[..., axis] > 0
        to_border = place[..., axis]
        if shift[axis] > 0:
            to_border = (grid.columns, grid.rows)[axis] - to_border
        candidate = _priors_of(grid, (cell + step).long())
        candidates.append(candidate)
        masks.append((beyond & (to_border > 1))[..., None].expand_as(candidate))
    return torch.cat(candidates, -1), torch.cat(masks, -1)


def _level_cells(corners: Tensor, start: int, anchors: int, level: str) -> CellGrid:
    """Work out the cells of a level from its corners (P_l, 4), and check that they are cells."""
    centers, sides = box_centers(corners), corners[:, 2:] - corners[:, :2]
    found = leading_grid(centers[::anchors])
    (x0, y0), (step_x, step_y) = centers[0].tolist(), found.step
    stride = _rounded(step_x or step_y or 2 * x0), _rounded(step_y or step_x or 2 * y0)
    origin = _rounded(x0 - stride[0] / 2), _rounded(y0 - stride[1] / 2)
    grid = CellGrid(start, found.columns, found.rows, stride, origin, sides[:anchors])
    problem = _problem(grid, centers, sides)
    if problem:
        raise ValueError(
            f'priors do not form cells: {level}, from prior {start} on, has {anchors} '
            f'anchors per cell and {grid.columns} cells per row, but {problem}. Give the anchors '
            "of all cells of a level row by row, a cell's anchors next to each other, as "
            'YOLOAnchorGenerator does'
        )
    return grid


def _problem(grid: CellGrid, centers: Tensor, sides: Tensor) -> str:
    """Return the reason why a level does not form the cells of ``grid``; '' where it does."""
    anchors = len(grid.sides)
    count = grid.rows * grid.columns * anchors
    if len(centers) < count:
        return f'its last row of {grid.columns} cells is not full'
    if len(centers) > count:
        return f'its cells are at other than equal steps after the first {grid.rows} rows'
    if min(grid.stride) <= 0:
        return f'its cells are {grid.stride[0]:g} x {grid.stride[1]:g} px large'
    apart = centers.view(-1, anchors, 2) - centers[::anchors, None]
    if bool((apart.abs() >= CELL_TOLERANCE).any()):
        return 'the anchors of a cell have different centres'
    if bool(((sides.view(-1, anchors, 2) - grid.sides).abs() > 2 * CELL_TOLERANCE).any()):
        return 'its cells have different anchors'
    return ''


def _rounded(value: float) -> float:
    near = round(value * 8) / 8
    return near if abs(near - value) < ROUNDING else value


def _grid_places(grid: CellGrid, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Return centres (B, G, 2) in units of cells from the grid's border, and those inside it."""
    stride, origin = centers.new_tensor(grid.stride), centers.new_tensor(grid.origin)
    place = (centers - origin) / stride
    extent = centers.new_tensor([grid.columns, grid.rows])
    return place, ((place >= 0) & (place < extent)).all(-1)


def _priors_of(grid: CellGrid, cell: Tensor) -> Tensor:
    """Return the priors (B, G, A) of cells (B, G, 2), or of the nearest cells that exist."""
    column = cell[..., 0].clamp(0, grid.columns - 1)
    row = cell[..., 1].clamp(0, grid.rows - 1)
    anchors = len(grid.sides)
    first = grid.start + (row * grid.columns + column) * anchors
    return first[..., None] + torch.arange(anchors, device=cell.device)
