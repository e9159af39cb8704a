"""Assignment of anchors by shape, in the cells around a box's centre: YOLOv3, YOLOv4 and YOLOv5.

1. Work out the cells of each pyramid level (`find_cells`).
2. A box's candidates are the anchors of the cell that holds its centre, in every level; in YOLOv5
   also those of the next cells in the directions to which the centre is nearest.
3. Compare box and anchors by width and height alone. YOLOv3 takes the best anchor of all levels,
   YOLOv4 also those above a threshold, YOLOv5 all whose sides differ by less than a factor.
4. A prior that several boxes claim goes to the box of the most similar shape.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.assignment import Assignment, assign_nothing
from mmdet_ext.functional.assignment.cells import find_cells, neighbour_cells, own_cells
from mmdet_ext.functional.assignment.claims import resolve_claims
from mmdet_ext.functional.assignment.geometry import BatchGeometry
from mmdet_ext.functional.boxes.overlap import box_centers, concentric_iou, iou_of_planes
from mmdet_ext.functional.numerics.chunks import row_chunks
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['overlapping_mask', 'side_ratio', 'yolo_match', 'yolov5_match']

#: Neighbours of a cell that YOLOv5 considers: right, below, left, above.
NEIGHBOURS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def yolo_match(
    geometry: BatchGeometry,
    iou_thr: float | None = None,
    ignore_mask: Tensor | None = None,
) -> Assignment:
    """Assign to each box the anchor of the best shape, in the cell that holds its centre.

    In each level, the anchors of the cell that holds the box's centre are compared with the box by
    `concentric_iou`. The best of all levels is the box's; of equal ones the first. With
    ``iou_thr`` it also takes all anchors above this value (YOLOv4). A prior that several boxes
    claim goes to the box of the best shape, of equal ones the first; in Darknet the box that is
    written last has it, so that the result depends on the order of the boxes. A box whose centre
    lies outside of all cells gets none.

    Args:
        geometry: priors as corners with ``anchors_per_cell``; half precision of the boxes is
            computed in float32.
        iou_thr: in [0, 1]; None for the best anchor alone (YOLOv3).
        ignore_mask: (B, P) bool, priors that are ignored unless a box has them; None for none.

    Returns:
        Assignment: ``overlap`` is the `concentric_iou` of prior and box.

    Raises:
        ValueError: if the priors do not form cells.

    >>> from mmdet_ext.functional.assignment.geometry import Priors
    >>> priors = Priors(corners=torch.tensor([[3., 3., 5., 5.], [0., 0., 8., 8.]]),
    ...                 anchors_per_cell=(2,))
    >>> box, label = torch.tensor([[1., 1., 6., 5.]]), torch.tensor([0])
    >>> result = yolo_match(BatchGeometry.from_lists(priors, [box], [label]))
    >>> result.gt_index, result.overlap
    (tensor([[-1,  0]]), tensor([[0.0000, 0.3125]]))

    References:
        Redmon and Farhadi, YOLOv3: An Incremental Improvement, 2018, section 2.1; Bochkovskiy et
        al., YOLOv4: Optimal Speed and Accuracy of Object Detection, 2020, section 3.4, "multiple
        anchors for a single ground truth".
    """
    # 1. Cells.
    cells = find_cells(geometry.priors)
    (gt_boxes,) = promote_half(geometry.gt_boxes)
    if geometry.gt_valid.shape[1] == 0 or not cells:
        return assign_nothing(geometry, gt_boxes, ignore_mask)

    # 2. The cells of the centres.
    candidate, inside = own_cells(cells, box_centers(gt_boxes))

    # 3. The best shape, and those above the threshold.
    sides = gt_boxes[..., 2:] - gt_boxes[..., :2]
    fit = concentric_iou(sides[:, :, None], torch.cat([grid.sides for grid in cells]))
    place = torch.arange(fit.shape[-1], device=fit.device)
    first = place.where(fit == fit.amax(-1, keepdim=True), fit.shape[-1]).amin(-1, keepdim=True)
    positive = place == first
    if iou_thr is not None:
        positive = positive | (fit > iou_thr)

    # 4. One box per prior.
    positive = positive & inside & geometry.gt_valid[..., None]
    return _resolve(geometry, candidate, fit, positive, ignore_mask)


def yolov5_match(geometry: BatchGeometry, ratio_thr: float = 4.0) -> Assignment:
    r"""Assign to each box all anchors of similar shape, in its cell and the two nearest cells.

    An anchor is of similar shape if

    .. math::
        \max(w / w_a, w_a / w, h / h_a, h_a / h) < r

    with :math:`w, h` the box's sides, :math:`w_a, h_a` the anchor's, and r the ``ratio_thr``. In
    each level that has such an anchor, the box takes it in the cell that holds its centre, in the
    cell to the left if the centre lies in the left half of its cell, to the right if in the right
    half, and in the cell above or below by the same rule. There is no such neighbour for a centre
    on the very middle, and none beyond the border.

    In YOLOv5's own code every triple of box, anchor and cell is a target of its own: one prior may
    learn several boxes at once, while its objectness is that of the one written last. Here a prior
    has one box: that of the smallest `side_ratio`, of equal ones the first.

    Args:
        geometry: priors as corners with ``anchors_per_cell``; half precision of the boxes is
            computed in float32.
        ratio_thr: above 1.

    Returns:
        Assignment: ``overlap`` is the inverse of the `side_ratio` of prior and box.

    Raises:
        ValueError: if the priors do not form cells.

    >>> from mmdet_ext.functional.assignment.geometry import Priors
    >>> priors = Priors(corners=torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.]]),
    ...                 anchors_per_cell=(1,))
    >>> box, label = torch.tensor([[4., 2., 8., 6.]]), torch.tensor([0])
    >>> result = yolov5_match(BatchGeometry.from_lists(priors, [box], [label]))
    >>> result.gt_index, result.overlap
    (tensor([[0, 0]]), tensor([[0.5000, 0.5000]]))

    The centre (6, 4) lies in the right half of the first cell.

    References:
        Jocher, YOLOv5, https://github.com/ultralytics/yolov5, utils/loss.py, build_targets.
    """
    # 1. Cells.
    cells = find_cells(geometry.priors)
    (gt_boxes,) = promote_half(geometry.gt_boxes)
    if geometry.gt_valid.shape[1] == 0 or not cells:
        return assign_nothing(geometry, gt_boxes)

    # 2. The cells of the centres, and the nearest neighbours.
    centers = box_centers(gt_boxes)
    own, inside = own_cells(cells, centers)
    candidates, near = [own], [inside]
    for shift in NEIGHBOURS:
        candidate, is_near = neighbour_cells(cells, centers, shift)
        candidates.append(candidate)
        near.append(inside & is_near)

    # 3. Similar shapes.
    sides = gt_boxes[..., 2:] - gt_boxes[..., :2]
    ratio = side_ratio(sides[:, :, None], torch.cat([grid.sides for grid in cells]))
    similar = (ratio < ratio_thr) & geometry.gt_valid[..., None]

    # 4. One box per prior.
    candidate = torch.cat(candidates, -1)
    fit = (1 / ratio).repeat(1, 1, len(candidates))
    return _resolve(geometry, candidate, fit, torch.cat([similar & part for part in near], -1))


def _resolve(
    geometry: BatchGeometry,
    candidate: Tensor,
    fit: Tensor,
    positive: Tensor,
    ignore_mask: Tensor | None = None,
) -> Assignment:
    """Settle claims (B, G, K) of the ``positive`` candidates; absent priors get no box."""
    if geometry.prior_valid is not None:
        there = geometry.prior_valid.gather(1, candidate.flatten(1)).view_as(candidate)
        positive = positive & there
    unused = geometry.unused_priors(ignore_mask)
    return Assignment(*resolve_claims(candidate, fit, positive, len(geometry.priors), unused))


def side_ratio(sides: Tensor, others: Tensor) -> Tensor:
    """Compute the larger of the ratios of two boxes' widths and heights.

    That is ``max(w / w', w' / w, h / h', h' / h)``, with w, h the ``sides`` and w', h' the
    ``others``.

    Args:
        sides: (..., 2) width and height, px; below 0 counts as 0.
        others: (..., 2), broadcastable with ``sides``, above 0.

    Returns:
        Tensor: (...), at least 1; infinite where a side is 0.

    >>> side_ratio(torch.tensor([4., 2.]), torch.tensor([2., 2.]))
    tensor(2.)
    """
    sides = sides.clamp(min=0)
    return (torch.maximum(sides, others) / torch.minimum(sides, others)).amax(-1)


def overlapping_mask(boxes: Tensor, geometry: BatchGeometry, threshold: float) -> Tensor:
    """Find the boxes whose IoU with any ground-truth box of their image is above ``threshold``.

    Args:
        boxes: (P, 4) corners shared by the images, or (B, P, 4), px; half precision is computed
            in float32.
        geometry: the ground truth.
        threshold: in [0, 1].

    Returns:
        Tensor: (B, P) bool.

    >>> from mmdet_ext.functional.assignment.geometry import Priors
    >>> boxes = torch.tensor([[0., 0., 2., 2.], [4., 4., 6., 6.]])
    >>> truth = [torch.tensor([[0., 0., 2., 3.]])]
    >>> geometry = BatchGeometry.from_lists(Priors(corners=boxes), truth, [torch.tensor([0])])
    >>> overlapping_mask(boxes, geometry, 0.5)
    tensor([[ True, False]])
    """
    boxes, gt_boxes = promote_half(boxes, geometry.gt_boxes)
    images, count = geometry.gt_valid.shape
    boxes = boxes.expand(images, -1, -1)
    low, high = boxes[..., :2], boxes[..., 2:]
    area = (high - low).clamp(min=0).prod(-1, keepdim=True)
    planes = torch.cat([boxes, area], -1)
    sides = gt_boxes[:, None].unbind(-1)
    mask = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    for start, stop in row_chunks(boxes.shape[1], images * count):
        overlap = iou_of_planes(planes[:, start:stop, None].unbind(-1), sides)
        mask[:, start:stop] = ((overlap > threshold) & geometry.gt_valid[:, None]).any(-1)
    return mask
