"""Objects as peaks of heatmaps, as in CornerNet and CenterNet.

Assignment (`center_match`):

1. Work out the cells of the heatmap from the points.
2. A box claims the cell that holds its centre, and no other.
3. A cell that several boxes claim goes to the smallest of them, or to the last.

Heatmaps (`center_heatmaps`):

1. Work out each box's cell, as above.
2. The radius of its peak is the distance that its corners may move for a given overlap.
3. Draw a Gaussian of that radius around the cell, in the heatmap of the box's class; where several
   overlap, the largest value counts.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.assignment import Assignment, assign_nothing
from mmdet_ext.functional.assignment.claims import resolve_claims
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Priors
from mmdet_ext.functional.assignment.grids import find_grid
from mmdet_ext.functional.numerics.chunks import row_chunks
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = [
    'HeatmapGrid',
    'SharedCell',
    'center_cells',
    'center_heatmaps',
    'center_match',
    'gaussian_heatmaps',
    'gaussian_radius',
    'heatmap_grid',
]

#: Box that gets a cell which several boxes claim: the one of smallest area, or the last.
SharedCell = Literal['smallest', 'last']

#: Number of integers that drawing holds for each place that it draws.
INTEGERS_PER_PLACE = 8


class HeatmapGrid(NamedTuple):
    """The cells of a heatmap.

    Attributes:
        columns: number W of cells in a row.
        rows: number H of rows.
        stride: (2,) width and height of a cell, px.
        first: (2,) column and row of the first cell, in strides from the image's corner.
    """

    columns: int
    rows: int
    stride: Tensor
    first: Tensor


def heatmap_grid(priors: Priors) -> HeatmapGrid:
    """Work out the cells that points in row-major order stand for.

    A point stands for the cell that it lies in. Cells are counted from the image's corner.

    Args:
        priors: points of one level.

    Raises:
        ValueError: if they are no full grid of one stride.

    >>> points = torch.tensor([[2., 2.], [6., 2.]])
    >>> heatmap_grid(Priors(points=points, strides=torch.full((2, 2), 4.)))[:2]
    (2, 1)
    """
    points, strides = priors.as_points()
    grid = find_grid(points)
    if grid is None or not bool(((strides == strides[:1]) & (strides > 0)).all()):
        raise ValueError(
            'priors must be the points (x, y, stride, stride) of one level, in row-major order; '
            f"got {len(points)} that are not. Give the points of the heatmap's level, as "
            'MlvlPointGenerator does with_stride=True'
        )
    stride = strides[0]
    return HeatmapGrid(grid.xs.numel(), grid.ys.numel(), stride, (points[0] / stride).floor())


def center_cells(grid: HeatmapGrid, gt_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Find the cells that hold the boxes' centres.

    Args:
        grid: from `heatmap_grid`.
        gt_boxes: (..., 4) corners, px, of at least float32.

    Returns:
        tuple: column and row (..., 2) int64, 0 for a centre outside of the grid; (...) bool,
        True for a centre inside.
    """
    center = (gt_boxes[..., :2] + gt_boxes[..., 2:]) / 2
    cell = (center / grid.stride).floor() - grid.first
    inside = ((cell >= 0) & (cell < cell.new_tensor([grid.columns, grid.rows]))).all(-1)
    return cell.where(inside[..., None], 0.0).long(), inside


def gaussian_radius(sides: Tensor, min_overlap: float) -> Tensor:
    r"""Compute how far a box's corners may move for the IoU to stay at least ``min_overlap``.

    It is the smallest of three radii:

    .. math::
        r_1 &= \tfrac{1}{2}\left(s - \sqrt{s^2 - 4 w h \tfrac{1 - o}{1 + o}}\right) \\
        r_2 &= \tfrac{1}{4}\left(s - \sqrt{s^2 - 4 w h (1 - o)}\right) \\
        r_3 &= \tfrac{1}{4 o}\left(-o s + \sqrt{o^2 s^2 + 4 o w h (1 - o)}\right)

    with :math:`w, h` the ``sides``, :math:`s = w + h` and :math:`o` the ``min_overlap``:
    :math:`r_1` for one corner inwards and one outwards, :math:`r_2` for both inwards, :math:`r_3`
    for both outwards. This is mmdet's form. The first code of CornerNet's authors took the larger
    roots of the first two equations and left out the leading coefficients.

    Args:
        sides: (..., 2) width and height, in cells; below 0 counts as 0. Half precision is
            computed in float32.
        min_overlap: above 0, below 1.

    Returns:
        Tensor: (...), in cells, at least 0.

    >>> gaussian_radius(torch.tensor([10., 10.]), 0.3)
    tensor(2.2614)

    Here :math:`r_2` is the smallest: (20 - 120**0.5) / 4.

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
    r"""Draw each object as a Gaussian around its cell, in the heatmap of its class.

    .. math::
        Y_{c x y} = \max_g \exp\left(-\frac{(x - x_g)^2 + (y - y_g)^2}{2 \sigma_g^2}\right),
        \quad \sigma_g = \frac{2 r_g + 1}{6}

    over the objects g of class c for which :math:`|x - x_g|` and :math:`|y - y_g|` are at most
    :math:`r_g`; 0 where there is none.

    The places of all Gaussians are numbered and drawn some at a time. So the time grows with the
    area that is drawn, and the memory is little more than the result.

    Args:
        cells: (B, G, 2) int64, column and row of the peak.
        radius: (B, G), in cells, at least 0; rounded down to a whole number.
        labels: (B, G) int64, in [0, num_classes).
        valid: (B, G) bool, False on padding. An object whose cell lies outside is not drawn.
        num_classes: number C of heatmaps.
        shape: H and W.

    Returns:
        Tensor: (B, C, H, W), in [0, 1]; exactly 1 in the objects' cells. float32, or float64
        with ``radius``.

    Raises:
        ValueError: if a label is out of its range.

    >>> gaussian_heatmaps(torch.tensor([[[1, 0]]]), torch.tensor([[1]]), torch.tensor([[0]]),
    ...                   torch.tensor([[True]]), 1, (1, 4))
    tensor([[[[0.1353, 1.0000, 0.1353, 0.0000]]]])

    Here sigma is 1/2, so that the neighbours get exp(-2).

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
    for start, stop in row_chunks(total, INTEGERS_PER_PLACE):
        number = torch.arange(start, stop, device=cells.device)
        which = torch.searchsorted(ends, number, right=True)
        columns = extent[which, 0]
        # ``ends`` holds the number after the last place of each object.
        place = number - ends[which] + columns * extent[which, 1]
        x, y = low[which, 0] + place % columns, low[which, 1] + place // columns
        square = (x - peak[which, 0]).square() + (y - peak[which, 1]).square()
        value = (square.to(dtype) / -spread[which]).exp()
        heatmaps.scatter_reduce_(0, (plane[which] + y) * width + x, value, 'amax')
    return heatmaps.view(images, num_classes, height, width)


def center_match(geometry: BatchGeometry, shared: SharedCell = 'smallest') -> Assignment:
    """Assign to each box the cell that holds its centre, and no other.

    Args:
        geometry: priors as the points of one level; half precision of the boxes is computed in
            float32.
        shared: box that gets a cell which several boxes claim: the 'smallest', of equal areas the
            first, or the 'last' in their order.

    Returns:
        Assignment: ``overlap`` is 1 with a box and 0 without: the value of the heatmap.

    Raises:
        ValueError: if the priors are no full grid of one stride.

    >>> priors = Priors(points=torch.tensor([[2., 2.], [6., 2.]]), strides=torch.full((2, 2), 4.))
    >>> boxes = torch.tensor([[3., 0., 7., 4.], [4., 0., 8., 3.]])
    >>> geometry = BatchGeometry.from_lists(priors, [boxes], [torch.tensor([0, 0])])
    >>> center_match(geometry).gt_index
    tensor([[-1,  1]])
    """
    # 1. Cells.
    grid = heatmap_grid(geometry.priors)
    (gt_boxes,) = promote_half(geometry.gt_boxes)
    images, boxes, total = geometry.shape
    if boxes == 0:
        return assign_nothing(geometry, gt_boxes)

    # 2. The cell of each centre.
    cell, inside = center_cells(grid, gt_boxes)
    prior = cell[..., 1] * grid.columns + cell[..., 0]
    positive = inside & geometry.gt_valid
    if geometry.prior_valid is not None:
        positive &= geometry.prior_valid.gather(1, prior)

    # 3. One box per cell.
    if shared == 'smallest':
        quality = -(gt_boxes[..., 2:] - gt_boxes[..., :2]).prod(-1)
    else:
        # The index as a float is exact up to 2**24 boxes.
        quality = torch.arange(boxes, device=gt_boxes.device).to(gt_boxes.dtype).expand(images, -1)
    gt_index, _ = resolve_claims(
        prior[..., None],
        quality[..., None],
        positive[..., None],
        total,
        geometry.unused_priors(),
    )
    return Assignment(gt_index, (gt_index >= 0).to(gt_boxes.dtype))


def center_heatmaps(geometry: BatchGeometry, num_classes: int, min_overlap: float = 0.3) -> Tensor:
    """Draw the heatmaps that CenterNet is to predict.

    Args:
        geometry: priors as the H x W points of one level; half precision of the boxes is computed
            in float32.
        num_classes: number C of classes.
        min_overlap: see `gaussian_radius`.

    Returns:
        Tensor: (B, C, H, W), in [0, 1]; exactly 1 in the cells of the class's boxes.

    Raises:
        ValueError: if the priors are no full grid of one stride, or a label is not in [0, C).
    """
    # 1. The cell of each centre.
    grid = heatmap_grid(geometry.priors)
    (boxes,) = promote_half(geometry.gt_boxes)
    cells, inside = center_cells(grid, boxes)

    # 2. The radius of each peak.
    radius = gaussian_radius((boxes[..., 2:] - boxes[..., :2]) / grid.stride, min_overlap)

    # 3. Gaussians.
    valid, shape = geometry.gt_valid & inside, (grid.rows, grid.columns)
    return gaussian_heatmaps(cells, radius, geometry.gt_labels, valid, num_classes, shape)
