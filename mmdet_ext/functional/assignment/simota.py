"""SimOTA, YOLOX's assignment."""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.dynamic_k import (
    OVERLAP_EPS,
    PairCosts,
    PairwiseMeasure,
    dynamic_k_match,
    geometry_planes,
    inside,
    nothing_matched,
    rows_of,
    used_priors,
    without_padding,
)
from mmdet_ext.functional.boxes.overlap import box_centers
from mmdet_ext.functional.numerics.precision import promote_half

#: What SimOTA adds to the cost of a prior outside of the box or its centre region.
OUTSIDE_COST = 1e5

#: A logarithm of a probability counts as at least minus this.
LOG_CLAMP = 100.0


def simota_match(
    points: Tensor,
    pred_boxes: Tensor,
    scores: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_valid: Tensor,
    center_radius: float = 2.5,
    candidate_topk: int = 10,
    iou_weight: float = 3.0,
    cls_weight: float = 1.0,
    prior_valid: Tensor | None = None,
    measure: PairwiseMeasure | None = None,
) -> tuple[Tensor, Tensor]:
    r"""SimOTA: each box takes the priors of least cost, as many as its overlaps sum to.

    .. math::
        c = w_c \, BCE(s, y) - w_i \ln(IoU + 10^{-7}) + 10^5 [\text{outside}]

    with :math:`s` a prior's ``scores`` and :math:`y` the box's label over all classes,
    :math:`w_c, w_i` = ``cls_weight, iou_weight``, and "outside" for points not in both the box and
    the square of ``center_radius`` strides about its centre. Points in neither of any box take no
    part. A box takes :math:`k = \max(1, \lfloor \sum IoU \rfloor)` priors, summed over its
    ``candidate_topk`` largest; a prior taken by several is that of the least cost of all boxes.

    The cross entropy over the classes is a sum over all of them, once a prior, and a difference
    for the label: no table has priors, boxes and classes.

    Args:
        points: (P, 4): x, y, stride, stride, px, shared by the images.
        pred_boxes: (B, P, 4) corners, px; half precision is computed in float32.
        scores: (B, P, C) probabilities.
        gt_boxes: (B, G, 4) corners, px.
        gt_labels: (B, G) int64, in [0, C).
        gt_valid: (B, G) bool, False on padding.
        center_radius: strides.
        candidate_topk: overlaps that k is summed over.
        iou_weight: factor.
        cls_weight: factor.
        prior_valid: (B, P) bool, priors that take part; None is all.
        measure: used in place of the IoU.

    Returns:
        tuple: gt_index (B, P) int64, BACKGROUND (-1) beside the index of a box; overlap (B, P) of
        the predicted box with it, 0 where there is none.

    Raises:
        ValueError: if scores are below 0 or above 1.

    References:
        Ge et al., YOLOX: Exceeding YOLO Series in 2021, 2021, section 2.1, "SimOTA".
    """
    points, pred_boxes, scores, gt_boxes = promote_half(points, pred_boxes, scores, gt_boxes)
    gt_boxes = without_padding(gt_boxes, gt_valid)

    def nearness(part: slice, x: Tensor, y: Tensor, stride: Tensor) -> Tensor:
        boxes = gt_boxes[:, part]
        near = torch.maximum(inside(boxes, x, y), inside_center(boxes, x, y, stride, center_radius))
        return near

    used = used_priors(points, gt_boxes, gt_valid, prior_valid, nearness)
    if used is None:
        return nothing_matched(pred_boxes)
    index, beyond = used
    # Labels of padding may be anything; `gt_labels` of boxes are within.
    label_rows, row = gt_labels.clamp(0, scores.shape[-1] - 1).unique(return_inverse=True)
    chosen = scores[:, index]
    check_probabilities(chosen)
    missed = torch.log1p(-chosen).clamp_(min=-LOG_CLAMP)
    # What the label's class costs more as a yes than as a no.
    label_cost = missed[..., label_rows] - chosen[..., label_rows].log().clamp_(min=-LOG_CLAMP)
    costs = SimOTACosts(
        *geometry_planes(points[index], pred_boxes[:, index]), gt_boxes, row, beyond, measure
    )
    costs.class_cost = (label_cost - missed.sum(-1, keepdim=True)).mT.contiguous()
    costs.weights = cls_weight, iou_weight
    costs.center_radius = center_radius
    return dynamic_k_match(costs, gt_valid, candidate_topk, index, len(points))


def check_probabilities(scores: Tensor) -> None:
    """Raise ValueError unless scores are in [0, 1]; where one is NaN nothing is told."""
    low, high = torch.stack(scores.aminmax()).tolist()
    if low < 0 or high > 1:
        raise ValueError(
            f'scores (pred_instances.scores) must be probabilities in [0, 1], got {low:g} to '
            f'{high:g}. Give the sigmoid of the logits, as YOLOXHead does'
        )


class SimOTACosts(PairCosts):
    """Costs of `simota_match`.

    Attributes:
        class_cost: (B, rows, N), a row a label.
        weights: of class cost and overlap cost.
        center_radius: strides.
    """

    class_cost: Tensor
    weights: tuple[float, float]
    center_radius: float

    def cost(self, part: slice, overlap: Tensor) -> Tensor:
        """As PairCosts."""
        cls_weight, iou_weight = self.weights
        cost = (overlap + OVERLAP_EPS).log_().mul_(-iou_weight)
        cost.add_(rows_of(self.class_cost, self.row[:, part]), alpha=cls_weight)
        boxes, (x, y, stride) = self.boxes[:, part], self.points
        within = inside(boxes, x, y)
        torch.minimum(within, inside_center(boxes, x, y, stride, self.center_radius), out=within)
        # 1 outside, where the distance to the border is not above 0; no mask, which takes longer.
        outside = within.neg_().sign_().add_(1).clamp_(max=1)
        return cost.add_(outside, alpha=OUTSIDE_COST)

    def class_tables(self) -> list[Tensor]:
        """As PairCosts."""
        return [self.class_cost]

    def with_class_tables(self, tables: list[Tensor]) -> PairCosts:
        """As PairCosts."""
        other = SimOTACosts(
            self.points, self.planes, self.boxes, self.row, self.beyond, self.measure
        )
        (other.class_cost,) = tables
        other.weights, other.center_radius = self.weights, self.center_radius
        return other


def inside_center(boxes: Tensor, x: Tensor, y: Tensor, stride: Tensor, radius: float) -> Tensor:
    """How far points lie inside the squares of ``radius`` strides about the boxes' centres."""
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
