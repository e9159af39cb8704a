"""Which anchor of which cell a box belongs to, as the YOLO detectors have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.claims import BACKGROUND, IGNORE, mark_ignored, resolve_claims
from mmdet_ext.functional.boxes.overlap import box_centers, iou_of_planes
from mmdet_ext.functional.numerics.chunks import row_chunks
from mmdet_ext.functional.numerics.precision import promote_half

#: Centres closer than this, px, are one cell's: cells are farther apart, rounding stays below.
CELL_TOLERANCE = 0.5

#: A stride or border this near to a multiple of 1/8 px is that: it takes off corners' rounding.
ROUNDING = 1e-3

#: Why priors that are cells may not look like it.
BFLOAT16_NOTE = (
    ' (in bfloat16, which rounds places from 256 px on to 2 px and more: give priors in float32)'
)

#: Neighbours of a cell that YOLOv5 considers: right, below, left, above.
NEIGHBOURS = ((1, 0), (0, 1), (-1, 0), (0, -1))


class CellGrid(NamedTuple):
    """A pyramid level as cells with the same anchors each.

    Attributes:
        start: index of the level's first prior.
        columns: cells in a row.
        rows: rows of cells.
        stride: width and height of a cell, px.
        origin: left and upper border of the first cell, px.
        sides: (A, 2) widths and heights of a cell's anchors, px. The prior of anchor a in column
            x and row y has the index start + (y * columns + x) * A + a.
    """

    start: int
    columns: int
    rows: int
    stride: tuple[float, float]
    origin: tuple[float, float]
    sides: Tensor


def find_cells(priors: Tensor, level_sizes: Sequence[int] = ()) -> list[CellGrid]:
    """Work out the cells and anchors of each level from the priors.

    Priors in a row with one centre are the anchors of a level's first cell; cells at equal steps
    to the right are its first row; and the level goes on as long as the centres are those of the
    next cell. There the next level begins, so that level sizes are needed only where that would
    leave a doubt: where a level of one cell stands where the next one's first cell does. A cell
    reaches half a stride to each side of its anchors' centre; where a level has one column or one
    row its cells count as square, where it has one cell, as beginning at 0.

    Args:
        priors: (P, 4) corners, px, level by level, the anchors of a cell running fastest, then
            x, as stock's ``YOLOAnchorGenerator`` and ``AnchorGenerator`` give them.
        level_sizes: priors of each level, summing to P; a single size says nothing, nor does ().

    Returns:
        list: the levels, in the order of the priors.

    Raises:
        ValueError: if a level's rows are not full, or its cells have different anchors, as in
            bfloat16, which has not the digits for a picture of more than some 200 px.

    >>> a, b = [2., 2., 6., 6.], [0., 0., 8., 8.]
    >>> find_cells(torch.tensor([a, b]))[0][:5]
    (0, 1, 1, (8.0, 8.0), (0.0, 0.0))
    """
    rounded = BFLOAT16_NOTE if priors.dtype == torch.bfloat16 else ''
    (priors,) = promote_half(priors)
    centers, sides = box_centers(priors), priors[:, 2:] - priors[:, :2]
    levels: list[CellGrid] = []
    start = stop = 0
    for size in level_sizes if len(level_sizes) > 1 else (priors.shape[0],):
        stop += size
        while start < stop:
            grid = _next_level(centers[:stop], sides, start)
            _check_level(grid, centers[:stop], sides, f'level {len(levels)}{rounded}')
            levels.append(grid)
            start += grid.rows * grid.columns * len(grid.sides)
    return levels


def _next_level(centers: Tensor, sides: Tensor, start: int) -> CellGrid:
    """The level that begins at the prior ``start``."""
    rest = centers[start:]
    anchors = _leading(((rest - rest[0]).abs() < CELL_TOLERANCE).all(1))
    cells = rest[::anchors]
    step = cells[1:] - cells[:-1]
    right = step[:1] * step.new_tensor([1.0, 0.0])
    in_row = ((step - right).abs() < CELL_TOLERANCE).all(1) & (step[:, 0] >= CELL_TOLERANCE)
    columns = 1 + _leading(in_row)
    x0, y0 = cells[0].tolist()
    step_x = (float(cells[columns - 1, 0]) - x0) / max(1, columns - 1)
    step_y = float(cells[columns, 1]) - y0 if len(cells) > columns else 0.0
    place = torch.arange(len(cells), device=centers.device)
    row = torch.div(place, columns, rounding_mode='floor')
    expected = torch.stack([x0 + place % columns * step_x, y0 + row * step_y], 1)
    fits = ((cells - expected).abs() < CELL_TOLERANCE).all(1)
    fits &= (row == 0) | (step_y >= CELL_TOLERANCE)
    rows = -(-_leading(fits) // columns)
    if rows == 1:
        step_y = 0.0
    stride = _rounded(step_x or step_y or 2 * x0), _rounded(step_y or step_x or 2 * y0)
    origin = _rounded(x0 - stride[0] / 2), _rounded(y0 - stride[1] / 2)
    return CellGrid(start, columns, rows, stride, origin, sides[start : start + anchors])


def _leading(mask: Tensor) -> int:
    """How many are True before the first False."""
    return int(mask.int().cumprod(0).sum())


def _rounded(value: float) -> float:
    near = round(value * 8) / 8
    return near if abs(near - value) < ROUNDING else value


def _check_level(grid: CellGrid, centers: Tensor, sides: Tensor, level: str) -> None:
    anchors = len(grid.sides)
    count = grid.rows * grid.columns * anchors
    own = centers[grid.start : grid.start + count]
    problem = ''
    if len(own) < count:
        problem = f'its last row of {grid.columns} cells is not full'
    elif min(grid.stride) <= 0:
        problem = f'its cells are {grid.stride[0]:g} x {grid.stride[1]:g} px large'
    elif bool(((own.view(-1, anchors, 2) - own[::anchors, None]).abs() >= CELL_TOLERANCE).any()):
        problem = 'the anchors of a cell have different centres'
    else:
        spread = sides[grid.start : grid.start + count].view(-1, anchors, 2) - grid.sides
        if bool((spread.abs() > 2 * CELL_TOLERANCE).any()):
            problem = 'its cells have different anchors'
    if problem:
        raise ValueError(
            f'priors do not form cells: {level}, from prior {grid.start} on, has {anchors} '
            f'anchors a cell and {grid.columns} cells a row, but {problem}. Give the anchors of '
            "all cells of a level row by row, a cell's anchors next to each other, as "
            'YOLOAnchorGenerator does'
        )


def shape_iou(sides: Tensor, others: Tensor, eps: float = 1e-6) -> Tensor:
    """IoU of boxes laid on the same centre: ``m / max(w h + w' h' - m, eps)``.

    With m the smaller width times the smaller height.

    Args:
        sides: (..., 2) width and height, px; below 0 counts as 0.
        others: (..., 2), broadcastable with ``sides``.
        eps: floor of the union's area, px**2.

    Returns:
        Tensor: (...), in [0, 1].

    >>> shape_iou(torch.tensor([4., 2.]), torch.tensor([2., 4.]))
    tensor(0.3333)
    """
    sides, others = sides.clamp(min=0), others.clamp(min=0)
    shared = torch.minimum(sides, others).prod(-1)
    return shared / (sides.prod(-1) + others.prod(-1) - shared).clamp(min=eps)


def shape_ratio(sides: Tensor, others: Tensor) -> Tensor:
    """How many times one is as wide as the other, or as high, whichever is more.

    ``max(w / w', w' / w, h / h', h' / h)``.

    Args:
        sides: (..., 2) width and height, px; below 0 counts as 0.
        others: (..., 2), broadcastable with ``sides``, above 0.

    Returns:
        Tensor: (...), at least 1; infinite where a side is 0.

    >>> shape_ratio(torch.tensor([4., 2.]), torch.tensor([2., 2.]))
    tensor(2.)
    """
    sides = sides.clamp(min=0)
    return (torch.maximum(sides, others) / torch.minimum(sides, others)).amax(-1)


def yolo_match(
    cells: list[CellGrid],
    total: int,
    gt_boxes: Tensor,
    gt_valid: Tensor,
    iou_thr: float | None = None,
    prior_valid: Tensor | None = None,
    ignore_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Give each box the best anchor of all scales, in the cell that holds its centre.

    Of each level the cell that holds the box's centre has its anchors compared, by width and
    height alone (`shape_iou`). The best of all levels is the box's; of equal ones the first.
    With ``iou_thr`` all those above it are its too (YOLOv4). Where several boxes claim one prior
    it goes to that of the best shape, of equal ones the first; Darknet lets the last one written
    have it, which goes by the order of the boxes. A box whose centre lies outside of all cells
    has none.

    Args:
        cells: the levels, from `find_cells`.
        total: P, the number of priors.
        gt_boxes: (B, G, 4) corners, px; half precision is computed in float32.
        gt_valid: (B, G) bool, False on padding.
        iou_thr: in [0, 1]; None for the best anchor alone (YOLOv3).
        prior_valid: (B, P) bool, False for priors that are nobody's and IGNORE; None for none.
        ignore_mask: (B, P) bool, priors that are IGNORE unless a box has them; None for none.

    Returns:
        tuple: gt_index (B, P) int64, BACKGROUND (-1) and IGNORE (-2) beside the index of a box;
        overlap (B, P), the `shape_iou` with that box, 0 where there is none.

    >>> cells = find_cells(torch.tensor([[3., 3., 5., 5.], [0., 0., 8., 8.]]))
    >>> yolo_match(cells, 2, torch.tensor([[[1., 1., 6., 5.]]]), torch.tensor([[True]]))
    (tensor([[-1,  0]]), tensor([[0.0000, 0.3125]]))

    References:
        Redmon and Farhadi, YOLOv3: An Incremental Improvement, 2018, section 2.1; Bochkovskiy et
        al., YOLOv4: Optimal Speed and Accuracy of Object Detection, 2020, section 3.4, "multiple
        anchors for a single ground truth".
    """
    (gt_boxes,) = promote_half(gt_boxes)
    if gt_valid.shape[1] == 0 or total == 0:
        return _nothing(gt_boxes, gt_valid, total, prior_valid, ignore_mask)
    sides = gt_boxes[..., 2:] - gt_boxes[..., :2]
    candidate, inside = _own_cells(cells, box_centers(gt_boxes))
    fit = shape_iou(sides[:, :, None], torch.cat([grid.sides for grid in cells]))
    place = torch.arange(fit.shape[-1], device=fit.device)
    first = place.where(fit == fit.amax(-1, keepdim=True), fit.shape[-1]).amin(-1, keepdim=True)
    positive = place == first
    if iou_thr is not None:
        positive = positive | (fit > iou_thr)
    positive = positive & inside & gt_valid[..., None]
    return _resolve(candidate, fit, positive, total, prior_valid, ignore_mask)


def yolov5_match(
    cells: list[CellGrid],
    total: int,
    gt_boxes: Tensor,
    gt_valid: Tensor,
    ratio_thr: float = 4.0,
    prior_valid: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Give each box all anchors of about its shape, in its cell and the two nearest cells.

    An anchor is of its shape if

    .. math::
        \max(w / w_a, w_a / w, h / h_a, h_a / h) < r

    with :math:`w, h` the box's sides, :math:`w_a, h_a` the anchor's and r the ``ratio_thr``. In
    each level that has one, the cell that holds the box's centre is the box's, with the
    neighbour to the left if the centre lies in the cell's left half, to the right if in its
    right half, and likewise above or below. On the very middle there is no neighbour, nor beyond
    the border.

    YOLOv5's own code makes every triple of box, anchor and cell a target of its own, so that one
    prior may learn several boxes at once, while its objectness is that of the last one written.
    Here a prior has one box: that of the smallest `shape_ratio`, of equal ones the first.

    Args:
        cells: the levels, from `find_cells`.
        total: P, the number of priors.
        gt_boxes: (B, G, 4) corners, px; half precision is computed in float32.
        gt_valid: (B, G) bool, False on padding.
        ratio_thr: above 1.
        prior_valid: (B, P) bool, False for priors that are nobody's and IGNORE; None for none.

    Returns:
        tuple: gt_index (B, P) int64, BACKGROUND (-1) and IGNORE (-2) beside the index of a box;
        overlap (B, P), the inverse of the `shape_ratio` with that box, 0 where there is none.

    >>> cells = find_cells(torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.]]))
    >>> yolov5_match(cells, 2, torch.tensor([[[4., 2., 8., 6.]]]), torch.tensor([[True]]))
    (tensor([[0, 0]]), tensor([[0.5000, 0.5000]]))

    The centre (6, 4) lies in the right half of the first cell.

    References:
        Jocher, YOLOv5, https://github.com/ultralytics/yolov5, utils/loss.py, build_targets.
    """
    (gt_boxes,) = promote_half(gt_boxes)
    if gt_valid.shape[1] == 0 or total == 0:
        return _nothing(gt_boxes, gt_valid, total, prior_valid, None)
    sides = gt_boxes[..., 2:] - gt_boxes[..., :2]
    ratio = shape_ratio(sides[:, :, None], torch.cat([grid.sides for grid in cells]))
    wanted = (ratio < ratio_thr) & gt_valid[..., None]
    own, inside = _own_cells(cells, box_centers(gt_boxes))
    candidates, positives = [own], [wanted & inside]
    for shift in NEIGHBOURS:
        candidate, near = _neighbour_cells(cells, box_centers(gt_boxes), shift)
        candidates.append(candidate)
        positives.append(wanted & inside & near)
    return _resolve(
        torch.cat(candidates, -1),
        (1 / ratio).repeat(1, 1, len(candidates)),
        torch.cat(positives, -1),
        total,
        prior_valid,
        None,
    )


def overlapping_mask(boxes: Tensor, gt_boxes: Tensor, gt_valid: Tensor, threshold: float) -> Tensor:
    """Boxes whose IoU with any box of their image is above ``threshold``.

    Args:
        boxes: (P, 4) corners shared by the images, or (B, P, 4), px.
        gt_boxes: (B, G, 4) corners, px; half precision is computed in float32.
        gt_valid: (B, G) bool, False on padding.
        threshold: IoU, in [0, 1].

    Returns:
        Tensor: (B, P) bool.

    >>> overlapping_mask(torch.tensor([[0., 0., 2., 2.], [4., 4., 6., 6.]]),
    ...                  torch.tensor([[[0., 0., 2., 3.]]]), torch.tensor([[True]]), 0.5)
    tensor([[ True, False]])
    """
    boxes, gt_boxes = promote_half(boxes, gt_boxes)
    images, count = gt_valid.shape
    boxes = boxes.expand(images, -1, -1)
    low, high = boxes[..., :2], boxes[..., 2:]
    area = (high - low).clamp(min=0).prod(-1, keepdim=True)
    planes = torch.cat([boxes, area], -1)
    sides = gt_boxes[:, None].unbind(-1)
    mask = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    for start, stop in row_chunks(boxes.shape[1], images * count):
        overlap = iou_of_planes(planes[:, start:stop, None].unbind(-1), sides)
        mask[:, start:stop] = ((overlap > threshold) & gt_valid[:, None]).any(-1)
    return mask


def _grid_places(grid: CellGrid, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Centres (B, G, 2) in cells of a level, counted from its border, and those inside it."""
    stride, origin = centers.new_tensor(grid.stride), centers.new_tensor(grid.origin)
    place = (centers - origin) / stride
    extent = centers.new_tensor([grid.columns, grid.rows])
    return place, ((place >= 0) & (place < extent)).all(-1)


def _priors_of(grid: CellGrid, cell: Tensor) -> Tensor:
    """Indices (B, G, A) of the priors of cells (B, G, 2), taken to the nearest cell there is."""
    column = cell[..., 0].clamp(0, grid.columns - 1)
    row = cell[..., 1].clamp(0, grid.rows - 1)
    anchors = len(grid.sides)
    first = grid.start + (row * grid.columns + column) * anchors
    return first[..., None] + torch.arange(anchors, device=cell.device)


def _own_cells(cells: list[CellGrid], centers: Tensor) -> tuple[Tensor, Tensor]:
    """Priors (B, G, K) of the cells that hold centres, K anchors of all levels, and if they do."""
    candidates, masks = [], []
    for grid in cells:
        place, inside = _grid_places(grid, centers)
        # A centre far outside, or not a number, must not overflow the integers.
        candidate = _priors_of(grid, place.where(inside[..., None], 0.0).floor().long())
        candidates.append(candidate)
        masks.append(inside[..., None].expand_as(candidate))
    return torch.cat(candidates, -1), torch.cat(masks, -1)


def _neighbour_cells(
    cells: list[CellGrid], centers: Tensor, shift: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Priors (B, G, K) of the next cells in one direction, and if the centre is near them."""
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


def _nothing(
    gt_boxes: Tensor,
    gt_valid: Tensor,
    total: int,
    prior_valid: Tensor | None,
    ignore_mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    gt_index = torch.full((len(gt_valid), total), BACKGROUND, device=gt_boxes.device)
    gt_index = mark_ignored(gt_index, ignore_mask)
    if prior_valid is not None:
        gt_index = gt_index.masked_fill(~prior_valid, IGNORE)
    return gt_index, gt_boxes.new_zeros((len(gt_valid), total))


def _resolve(
    candidate: Tensor,
    fit: Tensor,
    positive: Tensor,
    total: int,
    prior_valid: Tensor | None,
    ignore_mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """One box a prior, from claims (B, G, K); absent priors are nobody's."""
    if prior_valid is None:
        return resolve_claims(candidate, fit, positive, total, ignore_mask)
    there = prior_valid.gather(1, candidate.flatten(1)).view_as(candidate)
    absent = ~prior_valid
    ignore_mask = absent if ignore_mask is None else ignore_mask | absent
    return resolve_claims(candidate, fit, positive & there, total, ignore_mask)
