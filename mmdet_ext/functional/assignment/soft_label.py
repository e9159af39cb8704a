"""Dynamic soft label assignment, of RTMDet.

1. Points in no box take no part.
2. The cost of a point for a box: cross entropy of its class scores with a soft label (the overlap
   of its predicted box), minus the logarithm of that overlap, plus a cost that grows with the
   distance from the box's centre. NanoDet-Plus has no such last term.
3. Each box takes its cheapest points, as many as its largest overlaps sum to, and disputed points
   go to the box of least cost (`dynamic_k_match`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

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

__all__ = ['SoftLabelCosts', 'soft_label_match']


def soft_label_match(
    geometry: BatchGeometry,
    predictions: Predictions,
    soft_center_radius: float | None = 3.0,
    topk: int = 13,
    iou_weight: float = 3.0,
    measure: PairwiseMeasure | None = None,
) -> Assignment:
    r"""Assign points by dynamic soft labels: SimOTA with soft labels and a soft centre region.

    .. math::
        c = \sum_j |q_j - \sigma_j|^2 BCE(\sigma_j, q_j) - w \ln(IoU + 10^{-7}) + 10^{d - r}

    with :math:`\sigma` the sigmoid of the point's logits, :math:`q` the IoU of its predicted box
    for the label's class and 0 for the others, :math:`w` = ``iou_weight``, :math:`d` the distance
    of the point from the box's centre in strides, and :math:`r` = ``soft_center_radius``. Points
    in no box take no part. The number of points per box, and the box of a disputed point, are as
    in :func:`mmdet_ext.functional.assignment.simota.simota_match`.

    Args:
        geometry: priors as points; half precision is computed in float32. Its ``gt_centers``
            count as the boxes' centres, where given.
        predictions: boxes and class scores.
        soft_center_radius: distance at which the centre's cost is 1, in strides; None leaves
            the term of the centre out.
        topk: number of overlaps whose sum is the number of points.
        iou_weight: weight of the overlap.
        measure: used in place of the IoU.

    Returns:
        Assignment: ``overlap`` is that of the predicted box with its ground truth.

    References:
        Lyu et al., RTMDet: An Empirical Study of Designing Real-Time Object Detectors, 2022,
        section 3.3, equations 1 to 4. Without the term of the centre: RangiLyu, NanoDet-Plus,
        2021, https://github.com/RangiLyu/nanodet.
    """
    pred_boxes, logits, gt_boxes, _ = promote_half(
        predictions.as_boxes(),
        predictions.as_logits(),
        geometry.gt_boxes,
        geometry.priors.as_points()[0],
    )
    gt_boxes = without_padding(gt_boxes, geometry.gt_valid)

    # 1. Points in a box.
    def nearness(boxes: Tensor, x: Tensor, y: Tensor, stride: Tensor) -> Tensor:
        return border_distance(boxes, x, y)

    priors = priors_near_boxes(geometry, gt_boxes, pred_boxes, nearness)
    if priors is None:
        return assign_nothing(geometry, pred_boxes)

    # 2. Costs. Those of the classes other than the label's are a sum over all, minus the label's.
    labels, row = label_rows(geometry.gt_labels, logits.shape[-1])
    chosen = logits[:, priors.index]
    negative = softplus(chosen).mul_(chosen.sigmoid().square_())
    own = chosen[..., labels].mT.contiguous()
    rest = negative.sum(-1, keepdim=True) - negative[..., labels]
    tables = [own, softplus(own), own.sigmoid(), rest.mT.contiguous()]
    centers = box_centers(gt_boxes) if geometry.gt_centers is None else geometry.gt_centers
    costs = SoftLabelCosts(
        priors, gt_boxes, row, tables, measure, centers, soft_center_radius, iou_weight
    )

    # 3. As many points as the overlaps sum to.
    return dynamic_k_match(costs, geometry, topk)


@dataclass(eq=False)
class SoftLabelCosts(PairCosts):
    """Costs of `soft_label_match`.

    The label tables hold the label's logit, its softplus, its sigmoid, and the class cost of all
    other classes.

    Attributes:
        centers: (B, G, 2) centres of the boxes, px.
        radius: distance at which the centre's cost is 1, in strides; None for no such cost.
        iou_weight: weight of the overlap cost.
    """

    centers: Tensor
    radius: float | None
    iou_weight: float

    def cost(self, part: slice, overlap: Tensor) -> Tensor:
        """Compute the costs (B, g, N) of a part of the boxes."""
        row = self.row[:, part]
        logit, entropy, sigmoid, rest = (rows_of(table, row) for table in self.label_tables)
        # Of the label's class: |q - sigmoid|^2 (softplus(x) - q x).
        cost = entropy.sub_(logit.mul_(overlap)).mul_(sigmoid.sub_(overlap).square_()).add_(rest)
        cost.add_(torch.add(overlap, OVERLAP_EPS, out=logit).log_(), alpha=-self.iou_weight)
        if self.radius is None:
            return cost
        (x, y, stride), center = self.priors.points, self.centers[:, part, :, None]
        distance = torch.sub(x, center[:, :, 0], out=logit).square_()
        distance.add_(torch.sub(y, center[:, :, 1], out=sigmoid).square_()).sqrt_().div_(stride)
        return cost.add_(distance.sub_(self.radius).mul_(math.log(10.0)).exp_())
