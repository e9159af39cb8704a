"""SimOTA, the assignment of YOLOX.

1. Points in no box and in no box's centre region take no part.
2. The cost of a point for a box: cross entropy of its class scores with the box's label, minus
   the logarithm of the overlap of its predicted box, plus a large constant for points that do not
   lie in both the box and its centre region.
3. Each box takes its cheapest points, as many as its largest overlaps sum to, and disputed points
   go to the box of least cost (`dynamic_k_match`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.assignment import Assignment, assign_nothing
from mmdet_ext.functional.assignment.claims import border_distance
from mmdet_ext.functional.assignment.dynamic_k import (
    OVERLAP_EPS,
    PairCosts,
    PairwiseMeasure,
    dynamic_k_match,
    label_rows,
    priors_near_boxes,
    rows_of,
    without_padding,
)
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.boxes.overlap import box_centers
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['SimOTACosts', 'simota_match']

#: Added to the cost of a point outside of the box or its centre region.
OUTSIDE_COST = 1e5

#: The logarithm of a probability counts as at least minus this.
LOG_CLAMP = 100.0


def simota_match(
    geometry: BatchGeometry,
    predictions: Predictions,
    center_radius: float = 2.5,
    candidate_topk: int = 10,
    iou_weight: float = 3.0,
    cls_weight: float = 1.0,
    measure: PairwiseMeasure | None = None,
) -> Assignment:
    r"""Assign points by SimOTA: each box takes the cheapest, as many as its overlaps sum to.

    .. math::
        c = w_c \, BCE(s, y) - w_i \ln(IoU + 10^{-7}) + 10^5 [\text{outside}]

    with :math:`s` the point's probabilities and :math:`y` the box's label (one-hot over all
    classes), :math:`w_c, w_i` = ``cls_weight, iou_weight``, and "outside" for points that do not
    lie in both the box and the square of ``center_radius`` strides about its centre. Points that
    lie in neither, for all boxes, take no part. A box takes
    :math:`k = \max(1, \lfloor \sum IoU \rfloor)` points, with the sum over its ``candidate_topk``
    largest overlaps. A point that several boxes take goes to that of the least cost of all boxes.

    The cross entropy is computed as a sum over all classes, once per point, and a difference for
    the label. So no table has priors, boxes and classes.

    Args:
        geometry: priors as points; half precision is computed in float32.
        predictions: boxes, and class scores in [0, 1].
        center_radius: half the side of the centre region, in strides.
        candidate_topk: number of overlaps whose sum is k.
        iou_weight: weight of the overlap.
        cls_weight: weight of the class.
        measure: used in place of the IoU.

    Returns:
        Assignment: ``overlap`` is that of the predicted box with its ground truth.

    Raises:
        ValueError: if a score is below 0 or above 1.

    References:
        Ge et al., YOLOX: Exceeding YOLO Series in 2021, 2021, section 2.1, "SimOTA".
    """
    pred_boxes, scores, gt_boxes, _ = promote_half(
        predictions.as_boxes(),
        predictions.as_probabilities(),
        geometry.gt_boxes,
        geometry.priors.as_points()[0],
    )
    gt_boxes = without_padding(gt_boxes, geometry.gt_valid)

    # 1. Points near a box.
    def nearness(boxes: Tensor, x: Tensor, y: Tensor, stride: Tensor) -> Tensor:
        region = _center_region_distance(boxes, x, y, stride, center_radius)
        return torch.maximum(border_distance(boxes, x, y), region)

    priors = priors_near_boxes(geometry, gt_boxes, pred_boxes, nearness)
    if priors is None:
        return assign_nothing(geometry, pred_boxes)

    # 2. Costs.
    labels, row = label_rows(geometry.gt_labels, scores.shape[-1])
    chosen = scores[:, priors.index]
    _check_probabilities(chosen)
    missed = torch.log1p(-chosen).clamp_(min=-LOG_CLAMP)
    # Cost of a positive answer for the label's class, minus that of a negative answer.
    label_cost = missed[..., labels] - chosen[..., labels].log().clamp_(min=-LOG_CLAMP)
    class_cost = (label_cost - missed.sum(-1, keepdim=True)).mT.contiguous()
    costs = SimOTACosts(
        priors, gt_boxes, row, [class_cost], measure, cls_weight, iou_weight, center_radius
    )

    # 3. As many points as the overlaps sum to.
    return dynamic_k_match(costs, geometry, candidate_topk)


def _check_probabilities(scores: Tensor) -> None:
    """Raise ValueError unless all scores are in [0, 1]; scores with a NaN pass."""
    low, high = torch.stack(scores.aminmax()).tolist()
    if low < 0 or high > 1:
        raise ValueError(
            f'scores (pred_instances.scores) must be probabilities in [0, 1], got {low:g} to '
            f'{high:g}. Give the sigmoid of the logits, as YOLOXHead does'
        )


@dataclass(eq=False)
class SimOTACosts(PairCosts):
    """Costs of `simota_match`; its only label table is the class cost.

    Attributes:
        cls_weight: weight of the class cost.
        iou_weight: weight of the overlap cost.
        center_radius: half the side of the centre region, in strides.
    """

    cls_weight: float
    iou_weight: float
    center_radius: float

    def cost(self, part: slice, overlap: Tensor) -> Tensor:
        """Compute the costs (B, g, N) of a part of the boxes."""
        cost = (overlap + OVERLAP_EPS).log_().mul_(-self.iou_weight)
        cost.add_(rows_of(self.label_tables[0], self.row[:, part]), alpha=self.cls_weight)
        boxes, (x, y, stride) = self.boxes[:, part], self.priors.points
        within = border_distance(boxes, x, y)
        region = _center_region_distance(boxes, x, y, stride, self.center_radius)
        torch.minimum(within, region, out=within)
        # 1 outside, where the distance is not above 0. The sign is faster than a mask.
        outside = within.neg_().sign_().add_(1).clamp_(max=1)
        return cost.add_(outside, alpha=OUTSIDE_COST)


def _center_region_distance(
    boxes: Tensor, x: Tensor, y: Tensor, stride: Tensor, radius: float
) -> Tensor:
    """Compute the `border_distance` of points in the squares about the boxes' centres.

    Args:
        boxes: (B, g, 4) corners, px.
        x: (1 or B, 1, N) px.
        y: as ``x``.
        stride: as ``x``.
        radius: half the side of the square, in strides.

    Returns:
        Tensor: (B, g, N) px, negative outside.
    """
    center = box_centers(boxes)[..., None]
    reach = radius * stride
    gap: Tensor | None = None
    for axis, place in enumerate((x, y)):
        middle = center[:, :, axis]
        low = (middle - reach).neg_().add_(place)
        high = (middle + reach).sub_(place)
        near = torch.minimum(low, high, out=low)
        gap = near if gap is None else torch.minimum(gap, near, out=gap)
    assert gap is not None
    return gap
