"""Points as priors: by pyramid level, and matched as FCOS does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.claims import BACKGROUND, IGNORE
from mmdet_ext.functional.numerics.chunks import row_chunks
from mmdet_ext.functional.numerics.precision import promote_half

#: From which to which longest distance to a side a level's points take boxes, px.
RegressRanges = Sequence[tuple[float, float]]


def point_levels(points: Tensor, level_sizes: Sequence[int], count: int) -> Tensor:
    """Pyramid level of each point, by the level sizes where they tell, else by the strides.

    Args:
        points: (P, 4), x, y, and the strides along x and along y, px.
        level_sizes: points of each level, summing to P. A single size where ``count`` is more
            says nothing; then each distinct stride is a level, the smallest first.
        count: levels expected.

    Returns:
        Tensor: (P,) int64, in [0, count).

    Raises:
        ValueError: if there are other than ``count`` levels.

    >>> point_levels(torch.tensor([[4., 4., 8., 8.], [8., 8., 16., 16.]]), [2], 2)
    tensor([0, 1])
    """
    if len(level_sizes) == count:
        sizes = torch.tensor(list(level_sizes), device=points.device)
        levels = torch.arange(count, device=points.device)
        return levels.repeat_interleave(sizes, output_size=points.shape[0])
    if len(level_sizes) > 1:
        raise ValueError(
            f'{count} levels are expected, but level_sizes has {len(level_sizes)}: '
            f'{list(level_sizes)}. Give one entry of the option for each level of the head'
        )
    level: Tensor
    strides, level = points[:, 2].unique(return_inverse=True)
    if points.shape[0] and len(strides) != count:
        raise ValueError(
            f'{count} levels are expected, but the points (x, y, stride, stride) have '
            f'{len(strides)} distinct strides: {strides.tolist()[:8]}. Give one entry of the '
            'option for each level of the head, or give num_level_priors'
        )
    return level


def fcos_match(
    points: Tensor,
    levels: Tensor,
    gt_boxes: Tensor,
    gt_valid: Tensor,
    regress_ranges: RegressRanges,
    center_radius: float | None = None,
    prior_valid: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Give each point to the smallest box around it that is of its level's size.

    With l, t, r, b the distances from a point to a box's sides, the point can be the box's if

    .. math::
        \min(l, t, r, b) > 0 \quad\text{and}\quad m_i \le \max(l, t, r, b) \le M_i

    with :math:`(m_i, M_i)` the entry of ``regress_ranges`` for the point's level. With
    ``center_radius`` r it must also lie closer than r strides to the box's centre, along both
    axes. Of several boxes the one of smallest area has it, of equal areas the first.

    Args:
        points: (P, 4), x, y, and the strides along x and along y, px, shared by the images.
        levels: (P,) int64, index into ``regress_ranges``.
        gt_boxes: (B, G, 4) corners, px; half precision is computed in float32.
        gt_valid: (B, G) bool, False on padding.
        regress_ranges: (from, to) a level, px, both included.
        center_radius: strides; None to take the whole box.
        prior_valid: (B, P) bool, False for points that are nobody's and IGNORE; None for none.

    Returns:
        tuple: gt_index (B, P) int64, BACKGROUND (-1) and IGNORE (-2) beside the index of a box;
        overlap (B, P), the point's `centerness` in its box, 0 where there is none.

    >>> points = torch.tensor([[4., 4., 8., 8.], [12., 4., 8., 8.]])
    >>> boxes = torch.tensor([[[0., 0., 8., 8.], [0., 0., 20., 12.]]])
    >>> levels = torch.tensor([0, 0])
    >>> fcos_match(points, levels, boxes, torch.tensor([[True, True]]), [(-1, 64)])
    (tensor([[0, 1]]), tensor([[1.0000, 0.5774]]))

    The first point lies in both boxes and goes to the smaller one; the second is 12 px and 8 px
    from the sides of the larger, and 4 px and 8 px: the root of 8 / 12 * 4 / 8.

    References:
        Tian et al., FCOS: Fully Convolutional One-Stage Object Detection, 2019, sections 3.1 and
        3.2; centre sampling as in its authors' later version, FCOS: A Simple and Strong
        Anchor-free Object Detector, 2020, section 3.1.
    """
    points, gt_boxes = promote_half(points, gt_boxes)
    images, boxes = gt_valid.shape
    total = points.shape[0]
    # Smallest first, so that of the boxes that can have a point the first has it.
    side = gt_boxes[..., 2:] - gt_boxes[..., :2]
    order = (side[..., 0] * side[..., 1]).argsort(dim=1, stable=True)
    sorted_boxes = gt_boxes.gather(1, order[..., None].expand(-1, -1, 4))
    sorted_valid = gt_valid.gather(1, order)
    ranges = gt_boxes.new_tensor([list(pair) for pair in regress_ranges])[levels]

    rank = torch.full((images, total), boxes, device=gt_boxes.device)
    for start, stop in row_chunks(boxes, images * total):
        can = _can_have(points, sorted_boxes[:, start:stop], ranges, center_radius)
        can &= sorted_valid[:, start:stop, None]
        place = torch.arange(start, stop, device=rank.device)[:, None]
        rank = torch.minimum(rank, place.where(can, boxes).amin(1))

    claimed = rank < boxes
    if prior_valid is not None:
        claimed = claimed & prior_valid
    if boxes == 0:
        gt_index = torch.full_like(rank, BACKGROUND)
        overlap = gt_boxes.new_zeros((images, total))
    else:
        gt_index = order.gather(1, rank.clamp(max=boxes - 1)).where(claimed, BACKGROUND)
        own = gt_boxes.gather(1, gt_index.clamp(min=0)[..., None].expand(-1, -1, 4))
        overlap = centerness(points, own).where(claimed, 0.0)
    if prior_valid is not None:
        gt_index = gt_index.masked_fill(~prior_valid, IGNORE)
    return gt_index, overlap


def centerness(points: Tensor, boxes: Tensor) -> Tensor:
    r"""How central points lie in boxes.

    .. math::
        \sqrt{\frac{\min(l, r)}{\max(l, r)} \cdot \frac{\min(t, b)}{\max(t, b)}}

    with l, t, r, b the distances from a point to the sides of its box.

    Args:
        points: (..., 2 or more), x and y leading, px.
        boxes: (..., 4) corners, px, broadcastable with ``points``.

    Returns:
        Tensor: (...), in [0, 1]; 0 on and outside the border.

    >>> centerness(torch.tensor([2., 5.]), torch.tensor([0., 0., 10., 10.]))
    tensor(0.5000)

    References:
        Tian et al., FCOS: Fully Convolutional One-Stage Object Detection, 2019, equation 3.
    """
    low, high = points[..., :2] - boxes[..., :2], boxes[..., 2:] - points[..., :2]
    near, far = torch.minimum(low, high), torch.maximum(low, high)
    inside = (near > 0).all(-1)
    share = near / far.where(far > 0, 1.0)
    return (share[..., 0] * share[..., 1]).where(inside, 0.0).sqrt()


def _can_have(points: Tensor, boxes: Tensor, ranges: Tensor, center_radius: float | None) -> Tensor:
    """Whether boxes (B, g, 4) can have points (P, 4) of ranges (P, 2), (B, g, P) bool."""
    x, y, stride_x, stride_y = points.T
    x1, y1, x2, y2 = boxes[..., None].unbind(2)
    left, right, top, bottom = x - x1, x2 - x, y - y1, y2 - y
    farthest = torch.maximum(torch.maximum(left, right), torch.maximum(top, bottom))
    can = (farthest >= ranges[:, 0]) & (farthest <= ranges[:, 1])
    if center_radius is not None:
        reach_x, reach_y = stride_x * center_radius, stride_y * center_radius
        center_x, center_y = (x1 + x2) / 2, (y1 + y2) / 2
        left = x - torch.maximum(x1, center_x - reach_x)
        right = torch.minimum(x2, center_x + reach_x) - x
        top = y - torch.maximum(y1, center_y - reach_y)
        bottom = torch.minimum(y2, center_y + reach_y) - y
    nearest = torch.minimum(torch.minimum(left, right), torch.minimum(top, bottom))
    return can & (nearest > 0)
