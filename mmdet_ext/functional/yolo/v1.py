r"""YOLOv1: a grid of cells, each with K boxes and one set of classes.

1. The cell that holds the centre of a ground-truth box owns it (`owned_boxes`).
2. Of the K boxes of that cell, the one that overlaps the ground truth best is responsible
   (`responsible_box`).
3. Squared errors of five kinds are summed over the cells (`yolov1_loss`).

A cell predicts, for each of its boxes, the centre (x, y) as a part of the cell, the square roots of
width and height as parts of the image, and a confidence; then C numbers for the classes. All are
plain numbers, without a sigmoid. The root r of a side stands for the side r**2, whatever the sign
of r. No root of a prediction is taken, so that slopes are bounded where a side is 0.

References:
    Redmon et al., You Only Look Once: Unified, Real-Time Object Detection, 2016, section 2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mmdet_ext.functional.boxes.overlap import box_centers, box_iou
from mmdet_ext.functional.numerics.checks import check_number, check_that
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = [
    'YOLOV1Cells',
    'YOLOV1Losses',
    'decode_yolov1',
    'owned_boxes',
    'responsible_box',
    'split_yolov1',
    'yolov1_loss',
]

#: Smallest union to divide by where boxes are measured in parts of the image.
SMALLEST_UNION = 1e-12


class YOLOV1Cells(NamedTuple):
    """Predictions of the cells of a batch; R rows and S columns, K boxes in each cell.

    Attributes:
        boxes: (B, R, S, K, 4), the centre (x, y) from the cell's left upper corner, in cells, and
            the square roots of width and height, in parts of the image.
        confidence: (B, R, S, K), the expected IoU of each box with an object.
        classes: (B, R, S, C), the probability of each class, given an object.
    """

    boxes: Tensor
    confidence: Tensor
    classes: Tensor


class YOLOV1Losses(NamedTuple):
    """Terms of the loss, summed over the cells of each image: (B,) each."""

    center: Tensor
    size: Tensor
    object: Tensor
    no_object: Tensor
    classes: Tensor


def split_yolov1(table: Tensor, boxes_per_cell: int = 2) -> YOLOV1Cells:
    """Split the numbers of each cell: x, y, two roots and the confidence of each box, then classes.

    Args:
        table: (B, R, S, 5 K + C).
        boxes_per_cell: K.

    Returns:
        YOLOV1Cells: views of the table.

    Raises:
        ValueError: if there are fewer than 5 K + 1 numbers per cell.

    >>> cells = split_yolov1(torch.zeros(1, 7, 7, 30))
    >>> [tuple(part.shape) for part in cells]
    [(1, 7, 7, 2, 4), (1, 7, 7, 2), (1, 7, 7, 20)]
    """
    numbers, of_boxes = table.shape[-1], 5 * boxes_per_cell
    check_that(
        numbers > of_boxes,
        'table',
        tuple(table.shape),
        f'(B, R, S, D) with D above {of_boxes} = 5 x {boxes_per_cell} boxes',
    )
    rows = table[..., :of_boxes].unflatten(-1, (boxes_per_cell, 5))
    return YOLOV1Cells(rows[..., :4], rows[..., 4], table[..., of_boxes:])


def decode_yolov1(boxes: Tensor) -> Tensor:
    """Compute the corners of predicted boxes, in parts of the image.

    The centre is ``((column + x) / S, (row + y) / R)``, the sides are the squares of their roots.

    Args:
        boxes: (B, R, S, K, 4), as `YOLOV1Cells` has them; half precision is computed in float32.

    Returns:
        Tensor: (B, R, S, K, 4) corners; 0 is the left or upper border of the image, 1 the other.

    >>> decode_yolov1(torch.tensor([0.5, 0.5, 0.5, -1.]).view(1, 1, 1, 1, 4)).flatten()
    tensor([0.3750, 0.0000, 0.6250, 1.0000])
    """
    (boxes,) = promote_half(boxes)
    rows, columns = boxes.shape[1:3]
    y, x = torch.meshgrid(
        torch.arange(rows, device=boxes.device),
        torch.arange(columns, device=boxes.device),
        indexing='ij',
    )
    corner = torch.stack([x, y], -1)[:, :, None]
    center = (boxes[..., :2] + corner) / boxes.new_tensor([columns, rows])
    half = boxes[..., 2:].square() / 2
    return torch.cat([center - half, center + half], -1)


def owned_boxes(gt_boxes: Tensor, gt_valid: Tensor, grid: tuple[int, int]) -> Tensor:
    """Find the ground-truth box of each cell.

    A cell owns the box whose centre it holds. Of several it owns the first, as in the authors'
    code; the others are not learned. A box without area, or with its centre outside of the image,
    has no cell.

    Args:
        gt_boxes: (B, G, 4) corners, in parts of the image.
        gt_valid: (B, G) bool, False on padding.
        grid: number of rows R and of columns S.

    Returns:
        Tensor: (B, R, S) int64, index of the box, -1 for none.

    >>> box = torch.tensor([[[0., 0., 0.4, 0.4], [0.1, 0.1, 0.3, 0.3], [0.6, 0., 1., 0.8]]])
    >>> owned_boxes(box, torch.tensor([[True, True, True]]), (2, 2))
    tensor([[[ 0,  2],
             [-1, -1]]])
    """
    rows, columns = grid
    images, count = gt_valid.shape
    (gt_boxes,) = promote_half(gt_boxes)
    place = box_centers(gt_boxes) * gt_boxes.new_tensor([columns, rows])
    inside = ((place >= 0) & (place < place.new_tensor([columns, rows]))).all(-1)
    has_area = (gt_boxes[..., 2:] > gt_boxes[..., :2]).all(-1)
    column, row = place.where(inside[..., None], 0).floor().long().unbind(-1)
    # Boxes without a cell are sent to one more cell, which is dropped.
    cell = (row * columns + column).where(inside & has_area & gt_valid, rows * columns)
    index = torch.arange(count, device=cell.device).expand(images, -1)
    owner = cell.new_full((images, rows * columns + 1), count)
    owner = owner.scatter_reduce(1, cell, index, 'amin')[:, :-1]
    return owner.where(owner < count, -1).view(images, rows, columns)


def responsible_box(boxes: Tensor, own_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Find the box of each cell that overlaps the cell's ground truth best.

    Of equal ones it is the first. Where none overlaps, it is the one whose centre and sides are
    nearest, by the sum of the four squares, as in the authors' code.

    Args:
        boxes: (B, R, S, K, 4) predicted corners, in parts of the image.
        own_boxes: (B, R, S, 4) corners of the ground truth of each cell.

    Returns:
        tuple: (B, R, S, K) bool, True for one box of each cell, also of cells without ground
        truth; and the IoU (B, R, S, K) of each box.

    >>> boxes = torch.tensor([[0., 0., 1., 1.], [0., 0., .5, 1.]]).view(1, 1, 1, 2, 4)
    >>> responsible_box(boxes, torch.tensor([0., 0., .25, 1.]).view(1, 1, 1, 4))
    (tensor([[[[False,  True]]]]), tensor([[[[0.2500, 0.5000]]]]))
    """
    boxes, own_boxes = promote_half(boxes, own_boxes)
    target = own_boxes[..., None, :]
    overlap = box_iou(boxes, target, eps=SMALLEST_UNION)
    apart = (overlap == 0).all(-1, keepdim=True)
    gap = _center_and_sides(boxes) - _center_and_sides(target)
    rank = torch.where(apart, -gap.square().sum(-1), overlap)
    place = torch.arange(rank.shape[-1], device=rank.device)
    best = rank == rank.amax(-1, keepdim=True)
    first = place.where(best, rank.shape[-1]).amin(-1, keepdim=True)
    return place == first, overlap


def yolov1_loss(
    cells: YOLOV1Cells,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_valid: Tensor,
    lambda_coord: float = 5.0,
    lambda_noobj: float = 0.5,
) -> YOLOV1Losses:
    r"""Compute the terms of YOLOv1's loss, squared errors summed over the cells of each image.

    .. math::
        L = \lambda_{c} \sum_{i, j} r_{ij} \left[ (x - \hat x)^2 + (y - \hat y)^2 \right]
        + \lambda_{c} \sum_{i, j} r_{ij} \left[ (\sqrt w - \sqrt{\hat w})^2
        + (\sqrt h - \sqrt{\hat h})^2 \right]
        + \sum_{i, j} r_{ij} (c - u)^2 + \lambda_{n} \sum_{i, j} (1 - r_{ij}) c^2
        + \sum_i o_i \sum_k (p_k - \hat p_k)^2

    with :math:`i` the cells and :math:`j` their boxes, :math:`o_i` 1 for cells that own a ground
    truth, :math:`r_{ij}` 1 for the responsible boxes of these cells, :math:`x, y, \sqrt w,
    \sqrt h` the ``boxes`` of ``cells``, :math:`c` their ``confidence`` and :math:`p_k` their
    ``classes``; a hat marks the ground truth, :math:`u` is the IoU of the predicted box with it,
    without gradient, and :math:`\lambda_c, \lambda_n` are ``lambda_coord`` and ``lambda_noobj``.

    Args:
        cells: predictions; half precision is computed in float32.
        gt_boxes: (B, G, 4) corners, in parts of the image.
        gt_labels: (B, G) in [0, C).
        gt_valid: (B, G) bool, False on padding.
        lambda_coord: weight of centres and sizes, at least 0.
        lambda_noobj: weight of the confidence of all boxes that are not responsible, at least 0.

    Returns:
        YOLOV1Losses: weighted terms (B,). Their sum is the loss of an image.

    Raises:
        ValueError: if a weight is below 0.

    Edge cases: without boxes only the term of the background is above 0. See `owned_boxes` for
    boxes that share a cell.

    >>> table = torch.tensor([.5, .5, .5, 1., .9, .0, .0, .0, .0, .4, 1., 0.]).view(1, 1, 1, 12)
    >>> box, label = torch.tensor([[[0., 0., 1., 1.]]]), torch.tensor([[1]])
    >>> losses = yolov1_loss(split_yolov1(table), box, label, torch.tensor([[True]]))
    >>> [round(float(term), 2) for term in losses]
    [0.0, 1.25, 0.42, 0.08, 2.0]

    The first box covers a quarter of the image: 5 (0.5 - 1)^2, (0.9 - 0.25)^2, 0.5 x 0.4^2 of the
    second, and (1 - 0)^2 + (0 - 1)^2.

    References:
        Redmon et al., You Only Look Once: Unified, Real-Time Object Detection, 2016, equation 3.
    """
    check_number('lambda_coord', lambda_coord, least=0, finite=True)
    check_number('lambda_noobj', lambda_noobj, least=0, finite=True)
    boxes, confidence, classes, gt_boxes = promote_half(*cells, gt_boxes)
    # 1. The ground truth of each cell; the last row stands for none.
    owner = owned_boxes(gt_boxes, gt_valid, (boxes.shape[1], boxes.shape[2]))
    own_boxes = _of_cells(gt_boxes, owner)
    labels = _of_cells(gt_labels[..., None], owner)[..., 0]
    owns = owner >= 0
    # 2. The responsible boxes.
    with torch.no_grad():
        best, overlap = responsible_box(decode_yolov1(boxes), own_boxes)
    responsible = best & owns[..., None]
    # 3. Squared errors. Those that do not count are selected away, not multiplied by 0.
    target = _targets(own_boxes)[..., None, :]
    errors = (boxes - target).square().where(responsible[..., None], 0)
    of_object = (confidence - overlap).square().where(responsible, 0)
    of_background = confidence.square().where(~responsible, 0)
    wanted = one_hot(labels, classes.shape[-1]).to(classes.dtype)
    of_classes = (classes - wanted).square().where(owns[..., None], 0)
    return YOLOV1Losses(
        center=lambda_coord * errors[..., :2].flatten(1).sum(1),
        size=lambda_coord * errors[..., 2:].flatten(1).sum(1),
        object=of_object.flatten(1).sum(1),
        no_object=lambda_noobj * of_background.flatten(1).sum(1),
        classes=of_classes.flatten(1).sum(1),
    )


def _of_cells(rows: Tensor, owner: Tensor) -> Tensor:
    """Return the rows (B, R, S, D) of the ground truth (B, G, D) that cells own, 0 for none."""
    table = torch.cat([rows, rows.new_zeros(rows.shape[0], 1, rows.shape[2])], 1)
    index = owner.where(owner >= 0, rows.shape[1]).flatten(1)
    found = table.gather(1, index[..., None].expand(-1, -1, rows.shape[2]))
    return found.view(*owner.shape, rows.shape[2])


def _center_and_sides(boxes: Tensor) -> Tensor:
    return torch.cat([box_centers(boxes), boxes[..., 2:] - boxes[..., :2]], -1)


def _targets(own_boxes: Tensor) -> Tensor:
    """Compute centre in the cell, and roots of the sides, of the ground truth of each cell."""
    rows, columns = own_boxes.shape[1:3]
    place = box_centers(own_boxes) * own_boxes.new_tensor([columns, rows])
    sides = (own_boxes[..., 2:] - own_boxes[..., :2]).clamp(min=0)
    return torch.cat([place - place.floor(), sides.sqrt()], -1)
