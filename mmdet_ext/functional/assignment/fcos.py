"""Assignment of points by location and size, as in FCOS.

1. Order the boxes of each image by area, the smallest first.
2. A point can have a box if it lies inside (with centre sampling, near the centre too) and the
   largest distance to a side is in the range of the point's pyramid level.
3. The point gets the first, and so the smallest, box that it can have.
4. The overlap is the point's centerness in its box.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.assignment import Assignment, assign_nothing
from mmdet_ext.functional.assignment.claims import BACKGROUND, mark_ignored
from mmdet_ext.functional.assignment.geometry import BatchGeometry
from mmdet_ext.functional.numerics.chunks import row_chunks
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['RegressRanges', 'centerness', 'fcos_match']

#: Smallest and largest value, px, of the largest distance to a side of the boxes that a level's
#: points take; one pair per level.
RegressRanges = Sequence[tuple[float, float]]


def fcos_match(
    geometry: BatchGeometry,
    regress_ranges: RegressRanges,
    center_radius: float | None = None,
) -> Assignment:
    r"""Assign each point to the smallest box around it that fits the size of its level.

    With l, t, r, b the distances from a point to a box's sides, the point can have the box if

    .. math::
        \min(l, t, r, b) > 0 \quad\text{and}\quad m_i \le \max(l, t, r, b) \le M_i

    with :math:`(m_i, M_i)` the entry of ``regress_ranges`` for the point's level i. With a
    ``center_radius``, it must also lie closer than that many strides to the box's centre, along
    both axes. Of several boxes the point gets that of smallest area, of equal areas the first.

    Args:
        geometry: priors as points; half precision is computed in float32.
        regress_ranges: (from, to) for each level, px, both included.
        center_radius: in strides; None for the whole box.

    Returns:
        Assignment: ``overlap`` is the point's `centerness` in its box.

    Raises:
        ValueError: if there are more or fewer levels than ``regress_ranges``.

    >>> from mmdet_ext.functional.assignment.geometry import Priors
    >>> points = Priors(points=torch.tensor([[4., 4.], [12., 4.]]), strides=torch.full((2, 2), 8.))
    >>> boxes = torch.tensor([[0., 0., 8., 8.], [0., 0., 20., 12.]])
    >>> geometry = BatchGeometry.from_lists(points, [boxes], [torch.tensor([0, 0])])
    >>> result = fcos_match(geometry, [(-1, 64)])
    >>> result.gt_index, result.overlap
    (tensor([[0, 1]]), tensor([[1.0000, 0.5774]]))

    The first point lies in both boxes and gets the smaller one. The second lies in the larger:
    12 px and 8 px from its left and right sides, 4 px and 8 px from its upper and lower ones. Its
    centerness is the root of 8 / 12 * 4 / 8.

    References:
        Tian et al., FCOS: Fully Convolutional One-Stage Object Detection, 2019, sections 3.1 and
        3.2; centre sampling as in its authors' later version, FCOS: A Simple and Strong
        Anchor-free Object Detector, 2020, section 3.1.
    """
    points, strides, gt_boxes = promote_half(*geometry.priors.as_points(), geometry.gt_boxes)
    images, boxes, total = geometry.shape
    levels = geometry.priors.level_index(len(regress_ranges))
    if boxes == 0:
        return assign_nothing(geometry, gt_boxes)

    # 1. The smallest box first.
    side = gt_boxes[..., 2:] - gt_boxes[..., :2]
    order = (side[..., 0] * side[..., 1]).argsort(dim=1, stable=True)
    sorted_boxes = gt_boxes.gather(1, order[..., None].expand(-1, -1, 4))
    sorted_valid = geometry.gt_valid.gather(1, order)

    # 2. and 3. The first box that each point can have.
    ranges = gt_boxes.new_tensor([list(pair) for pair in regress_ranges])[levels]
    reach = None if center_radius is None else strides * center_radius
    rank = torch.full((images, total), boxes, device=gt_boxes.device)
    for start, stop in row_chunks(boxes, images * total):
        can = _can_have(points, sorted_boxes[:, start:stop], ranges, reach)
        can &= sorted_valid[:, start:stop, None]
        place = torch.arange(start, stop, device=rank.device)[:, None]
        rank = torch.minimum(rank, place.where(can, boxes).amin(1))
    claimed = rank < boxes
    if geometry.prior_valid is not None:
        claimed = claimed & geometry.prior_valid
    gt_index = order.gather(1, rank.clamp(max=boxes - 1)).where(claimed, BACKGROUND)

    # 4. Centerness.
    own = gt_boxes.gather(1, gt_index.clamp(min=0)[..., None].expand(-1, -1, 4))
    overlap = centerness(points, own).where(claimed, 0.0)
    return Assignment(mark_ignored(gt_index, geometry.unused_priors()), overlap)


def centerness(points: Tensor, boxes: Tensor) -> Tensor:
    r"""Compute how central points lie in boxes.

    .. math::
        \sqrt{\frac{\min(l, r)}{\max(l, r)} \cdot \frac{\min(t, b)}{\max(t, b)}}

    with l, t, r, b the distances from a point to the sides of its box.

    Args:
        points: (..., 2) x and y, px.
        boxes: (..., 4) corners, px, broadcastable with ``points``.

    Returns:
        Tensor: (...), in [0, 1]; 0 on and outside the border.

    >>> centerness(torch.tensor([2., 5.]), torch.tensor([0., 0., 10., 10.]))
    tensor(0.5000)

    References:
        Tian et al., FCOS: Fully Convolutional One-Stage Object Detection, 2019, equation 3.
    """
    low, high = points - boxes[..., :2], boxes[..., 2:] - points
    near, far = torch.minimum(low, high), torch.maximum(low, high)
    inside = (near > 0).all(-1)
    share = near / far.where(far > 0, 1.0)
    return (share[..., 0] * share[..., 1]).where(inside, 0.0).sqrt()


def _can_have(points: Tensor, boxes: Tensor, ranges: Tensor, reach: Tensor | None) -> Tensor:
    """Find the boxes that each point can have.

    Args:
        points: (P, 2).
        boxes: (B, g, 4).
        ranges: (P, 2) smallest and largest distance.
        reach: (P, 2) largest distance from a box's centre along x and along y; None for any.

    Returns:
        Tensor: (B, g, P) bool.
    """
    x, y = points.T
    x1, y1, x2, y2 = boxes[..., None].unbind(2)
    left, right, top, bottom = x - x1, x2 - x, y - y1, y2 - y
    farthest = torch.maximum(torch.maximum(left, right), torch.maximum(top, bottom))
    can = (farthest >= ranges[:, 0]) & (farthest <= ranges[:, 1])
    if reach is not None:
        reach_x, reach_y = reach.T
        center_x, center_y = (x1 + x2) / 2, (y1 + y2) / 2
        left = x - torch.maximum(x1, center_x - reach_x)
        right = torch.minimum(x2, center_x + reach_x) - x
        top = y - torch.maximum(y1, center_y - reach_y)
        bottom = torch.minimum(y2, center_y + reach_y) - y
    nearest = torch.minimum(torch.minimum(left, right), torch.minimum(top, bottom))
    return can & (nearest > 0)
