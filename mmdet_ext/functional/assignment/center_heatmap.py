"""Objects as peaks of heatmaps, as CornerNet and CenterNet have them."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.claims import BACKGROUND, IGNORE, resolve_claims
from mmdet_ext.functional.assignment.grids import find_grid
from mmdet_ext.functional.numerics.chunks import row_chunks
from mmdet_ext.functional.numerics.precision import promote_half

#: Which of several boxes has a cell: the one of smallest area, or the last in the order.
Shared = Literal['smallest', 'last']

#: Tables of integers that drawing holds for each place that it draws.
TABLES_A_PLACE = 8


class HeatmapGrid(NamedTuple):
    """The cells of a heatmap.

    Attributes:
        columns: W.
        rows: H.
        stride: (2,) width and height of a cell, px.
        first: (2,) the first cell's column and row, counted in strides from the picture's corner.
    """

    columns: int
    rows: int
    stride: Tensor
    first: Tensor


def heatmap_grid(points: Tensor) -> HeatmapGrid:
    """The cells that points (x, y, stride, stride) stand for, in row-major order.

    A point stands for the cell that it lies in, the cells being counted from the picture's corner.

    Args:
        points: (P, 4), px.

    Raises:
        ValueError: if they are no full grid of one stride.

    >>> heatmap_grid(torch.tensor([[2., 2., 4., 4.], [6., 2., 4., 4.]]))[:2]
    (2, 1)
    """
    grid = find_grid(points[:, :2])
    if grid is None or not bool(((points[:, 2:] == points[:1, 2:]) & (points[:, 2:] > 0)).all()):
        raise ValueError(
            'priors must be the points (x, y, stride, stride) of one level, in row-major order; '
            f"got {points.shape[0]} that are not. Give the points of the heatmap's level, as "
            'MlvlPointGenerator does with_stride=True'
        )
    stride = points[0, 2:]
    return HeatmapGrid(grid.xs.numel(), grid.ys.numel(), stride, (points[0, :2] / stride).floor())


def center_cells(grid: HeatmapGrid, gt_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Column and row of the cells that hold boxes' centres, and whether there are such.

    Args:
        grid: from `heatmap_grid`.
        gt_boxes: (..., 4) corners, px, of at least float32.

    Returns:
        tuple: (..., 2) int64, 0 where there is none; (...) bool.
    """
    center = (gt_boxes[..., :2] + gt_boxes[..., 2:]) / 2
    cell = (center / grid.stride).floor() - grid.first
    inside = ((cell >= 0) & (cell < cell.new_tensor([grid.columns, grid.rows]))).all(-1)
    return cell.where(inside[..., None], 0.0).long(), inside


def gaussian_radius(sides: Tensor, min_overlap: float) -> Tensor:
    r"""How far a box's corners may move, so that the IoU stays at least ``min_overlap``.

    The smallest of three radii:

    .. math::
        r_1 &= \tfrac{1}{2}\left(s - \sqrt{s^2 - 4 w h \tfrac{1 - o}{1 + o}}\right) \\
        r_2 &= \tfrac{1}{4}\left(s - \sqrt{s^2 - 4 w h (1 - o)}\right) \\
        r_3 &= \tfrac{1}{4 o}\left(-o s + \sqrt{o^2 s^2 + 4 o w h (1 - o)}\right)

    with :math:`w, h` the ``sides``, :math:`s = w + h` and :math:`o` the ``min_overlap``:
    :math:`r_1` for one corner inwards and one outwards, :math:`r_2` for both inwards, :math:`r_3`
    for both outwards. As in stock; the code of CornerNet's authors first took the larger roots of
    the first two equations and left out the leading coefficients.

    Args:
        sides: (..., 2) width and height, in cells; below 0 counts as 0. Half precision is
            computed in float32.
        min_overlap: above 0, below 1.

    Returns:
        Tensor: (...), in cells, at least 0.

    >>> gaussian_radius(torch.tensor([10., 10.]), 0.3)
    tensor(2.2614)

    There :math:`r_2` is the smallest: (20 - 120**0.5) / 4.

    References:
        Law and Deng, CornerNet: Detecting Objects as Paired Keypoints, 2018, section 3.2.
    """
    (sides,) = promote_half(sides)
    width, height = sides.clamp(min=0).unbind(-1)
    total, area = width + height, width * height
    c1 = area * (1 - min_overlap) / (1 + min_overlap)
    c2 = (1 - min_overlap) * area
    c3 = (min_overlap - 1) * area
    b2, b3 = 2 * total, -2 * min_overlap * total
    a3 = 4 * min_overlap
    one_each = (total - (total**2 - 4 * c1).clamp(min=0).sqrt()) / 2
    inwards = (b2 - (b2**2 - 16 * c2).clamp(min=0).sqrt()) / 8
    outwards = (b3 + (b3**2 - 4 * a3 * c3).clamp(min=0).sqrt()) / (2 * a3)
    return torch.minimum(torch.minimum(one_each, inwards), outwards).clamp(min=0)


def gaussian_heatmaps(
    cells: Tensor,
    radius: Tensor,
    labels: Tensor,
    valid: Tensor,
    num_classes: int,
    shape: tuple[int, int],
) -> Tensor:
    r"""Draw each object as a Gaussian around its cell, in its class's heatmap.

    .. math::
        Y_{c x y} = \max_g \exp\left(-\frac{(x - x_g)^2 + (y - y_g)^2}{2 \sigma_g^2}\right),
        \quad \sigma_g = \frac{2 r_g + 1}{6}

    over the objects g of class c for which :math:`|x - x_g|` and :math:`|y - y_g|` are at most
    :math:`r_g`; 0 where there is none.

    The places of all Gaussians are numbered and drawn some at a time, so that the time goes by
    the area that is drawn and the memory by the result.

    Args:
        cells: (B, G, 2) int64, column and row of the peak.
        radius: (B, G), in cells, at least 0; what is behind the point is cut off.
        labels: (B, G) int64, in [0, num_classes).
        valid: (B, G) bool, False for padding. An object whose cell lies outside is not drawn.
        num_classes: C.
        shape: H and W.

    Returns:
        Tensor: (B, C, H, W), in [0, 1]; exactly 1 in the objects' cells. float32, or float64
        with ``radius``.

    Raises:
        ValueError: if a label is not in its range.

    >>> gaussian_heatmaps(torch.tensor([[[1, 0]]]), torch.tensor([[1]]), torch.tensor([[0]]),
    ...                   torch.tensor([[True]]), 1, (1, 4))
    tensor([[[[0.1353, 1.0000, 0.1353, 0.0000]]]])

    sigma is 1/2, so that the neighbours get exp(-2).

    References:
        Zhou et al., Objects as Points, 2019, section 3.
    """
    height, width = shape
    images = valid.shape[0]
    dtype = torch.promote_types(torch.float32, radius.dtype)
    size = cells.new_tensor([width, height])
    valid = valid & ((cells >= 0) & (cells < size)).all(-1)
    heatmaps = torch.zeros(images * num_classes * height * width, dtype=dtype, device=cells.device)
    image, box = valid.nonzero(as_tuple=True)
    peak, own_radius, label = cells[image, box], radius[image, box].long(), labels[image, box]
    if bool(((label < 0) | (label >= num_classes)).any()):
        raise ValueError(
            f'labels must be in [0, {num_classes}), got {int(label.min())} to {int(label.max())}; '
            'set num_classes to the number of classes of the data'
        )
    low = (peak - own_radius[:, None]).clamp(min=0)
    extent = torch.minimum(peak + own_radius[:, None], size - 1) - low + 1
    ends = extent.prod(-1).cumsum(0)
    spread = ((2 * own_radius + 1).to(dtype) / 6).square() * 2
    plane = (image * num_classes + label) * height
    total = int(ends[-1]) if len(ends) else 0
    for start, stop in row_chunks(total, TABLES_A_PLACE):
        number = torch.arange(start, stop, device=cells.device)
        which = torch.searchsorted(ends, number, right=True)
        columns = extent[which, 0]
        # Numbers count back from the end of an object's own places.
        place = number - ends[which] + columns * extent[which, 1]
        x, y = low[which, 0] + place % columns, low[which, 1] + place // columns
        square = (x - peak[which, 0]).square() + (y - peak[which, 1]).square()
        value = (square.to(dtype) / -spread[which]).exp()
        heatmaps.scatter_reduce_(0, (plane[which] + y) * width + x, value, 'amax')
    return heatmaps.view(images, num_classes, height, width)


def center_match(
    grid: HeatmapGrid,
    gt_boxes: Tensor,
    gt_valid: Tensor,
    shared: Shared = 'smallest',
    prior_valid: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Give each box the cell that holds its centre, and nothing else.

    Args:
        grid: from `heatmap_grid`, of P cells.
        gt_boxes: (B, G, 4) corners, px; half precision is computed in float32.
        gt_valid: (B, G) bool, False on padding.
        shared: which of several boxes has a cell: the 'smallest', of equal areas the first, or
            the 'last' in the order.
        prior_valid: (B, P) bool, False for cells that are nobody's and IGNORE; None for none.

    Returns:
        tuple: gt_index (B, P) int64, BACKGROUND (-1) and IGNORE (-2) beside the index of a box;
        overlap (B, P), 1 with a box and 0 without: the heatmap's value.

    >>> grid = heatmap_grid(torch.tensor([[2., 2., 4., 4.], [6., 2., 4., 4.]]))
    >>> boxes = torch.tensor([[[3., 0., 7., 4.], [4., 0., 8., 3.]]])
    >>> center_match(grid, boxes, torch.tensor([[True, True]]))
    (tensor([[-1,  1]]), tensor([[0., 1.]]))
    """
    (gt_boxes,) = promote_half(gt_boxes)
    images, boxes = gt_valid.shape
    total = grid.columns * grid.rows
    absent = None if prior_valid is None else ~prior_valid
    if boxes == 0:
        gt_index = torch.full((images, total), BACKGROUND, device=gt_boxes.device)
        if absent is not None:
            gt_index = gt_index.masked_fill(absent, IGNORE)
        return gt_index, gt_boxes.new_zeros((images, total))
    cell, inside = center_cells(grid, gt_boxes)
    prior = cell[..., 1] * grid.columns + cell[..., 0]
    positive = inside & gt_valid
    if prior_valid is not None:
        positive &= prior_valid.gather(1, prior)
    if shared == 'smallest':
        quality = -(gt_boxes[..., 2:] - gt_boxes[..., :2]).prod(-1)
    else:
        # Exact up to 2**24 boxes.
        quality = torch.arange(boxes, device=gt_boxes.device).to(gt_boxes.dtype).expand(images, -1)
    gt_index, _ = resolve_claims(
        prior[..., None], quality[..., None], positive[..., None], total, absent
    )
    return gt_index, (gt_index >= 0).to(gt_boxes.dtype)
