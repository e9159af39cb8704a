"""Dynamic soft label assignment, RTMDet's."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

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


def soft_label_match(
    points: Tensor,
    pred_boxes: Tensor,
    logits: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_valid: Tensor,
    soft_center_radius: float = 3.0,
    topk: int = 13,
    iou_weight: float = 3.0,
    gt_centers: Tensor | None = None,
    prior_valid: Tensor | None = None,
    measure: PairwiseMeasure | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Dynamic soft label assignment, RTMDet's: SimOTA with soft labels and a soft centre.

    .. math::
        c = \sum_j |q_j - \sigma_j|^2 BCE(\sigma_j, q_j) - w \ln(IoU + 10^{-7}) + 10^{d - r}

    with :math:`\sigma` the sigmoid of a prior's ``logits``, :math:`q` the IoU of its predicted box
    in the label's class and 0 elsewhere, :math:`w` = ``iou_weight``, :math:`d` the distance of
    point and box centre in strides, and :math:`r` = ``soft_center_radius``. Points in no box take
    no part. How many priors a box takes, and who takes one that several want, is as in
    :func:`mmdet_ext.functional.assignment.simota.simota_match`.

    Args:
        points: (P, 4): x, y, stride, stride, px, shared by the images.
        pred_boxes: (B, P, 4) corners, px; half precision is computed in float32.
        logits: (B, P, C).
        gt_boxes: (B, G, 4) corners, px.
        gt_labels: (B, G) int64, in [0, C).
        gt_valid: (B, G) bool, False on padding.
        soft_center_radius: strides.
        topk: overlaps that k is summed over.
        iou_weight: factor.
        gt_centers: (B, G, 2), px, where they are not the boxes' middles.
        prior_valid: (B, P) bool, priors that take part; None is all.
        measure: used in place of the IoU.

    Returns:
        tuple: gt_index (B, P) int64 and overlap (B, P), as that.

    References:
        Lyu et al., RTMDet: An Empirical Study of Designing Real-Time Object Detectors, 2022,
        section 3.3, equations 1 to 4.
    """
    points, pred_boxes, logits, gt_boxes = promote_half(points, pred_boxes, logits, gt_boxes)
    gt_boxes = without_padding(gt_boxes, gt_valid)

    def nearness(part: slice, x: Tensor, y: Tensor, stride: Tensor) -> Tensor:
        return inside(gt_boxes[:, part], x, y)

    used = used_priors(points, gt_boxes, gt_valid, prior_valid, nearness)
    if used is None:
        return nothing_matched(pred_boxes)
    index, beyond = used
    # Labels of padding may be anything; `gt_labels` of boxes are within.
    label_rows, row = gt_labels.clamp(0, logits.shape[-1] - 1).unique(return_inverse=True)
    chosen = logits[:, index]
    as_no = softplus(chosen).mul_(chosen.sigmoid().square_())
    costs = SoftLabelCosts(
        *geometry_planes(points[index], pred_boxes[:, index]), gt_boxes, row, beyond, measure
    )
    own = chosen[..., label_rows].mT.contiguous()
    rest = as_no.sum(-1, keepdim=True) - as_no[..., label_rows]
    costs.label_tables = [own, softplus(own), own.sigmoid(), rest.mT.contiguous()]
    costs.centers = box_centers(gt_boxes) if gt_centers is None else gt_centers
    costs.radius, costs.iou_weight = soft_center_radius, iou_weight
    return dynamic_k_match(costs, gt_valid, topk, index, len(points))


class SoftLabelCosts(PairCosts):
    """Costs of `soft_label_match`.

    Attributes:
        label_tables: of each label, (B, rows, N): logit, softplus, sigmoid, cost of the others.
        centers: of the boxes, (B, G, 2), px.
        radius: strides.
        iou_weight: factor.
    """

    label_tables: list[Tensor]
    centers: Tensor
    radius: float
    iou_weight: float

    def cost(self, part: slice, overlap: Tensor) -> Tensor:
        """As PairCosts."""
        row = self.row[:, part]
        logit, entropy, sigmoid, rest = (rows_of(table, row) for table in self.label_tables)
        # Of the label: |q - sigmoid|^2 (softplus(x) - q x).
        cost = entropy.sub_(logit.mul_(overlap)).mul_(sigmoid.sub_(overlap).square_()).add_(rest)
        cost.add_(torch.add(overlap, OVERLAP_EPS, out=logit).log_(), alpha=-self.iou_weight)
        (x, y, stride), center = self.points, self.centers[:, part, :, None]
        distance = torch.sub(x, center[:, :, 0], out=logit).square_()
        distance.add_(torch.sub(y, center[:, :, 1], out=sigmoid).square_()).sqrt_().div_(stride)
        return cost.add_(distance.sub_(self.radius).mul_(math.log(10.0)).exp_())

    def class_tables(self) -> list[Tensor]:
        """As PairCosts."""
        return self.label_tables

    def with_class_tables(self, tables: list[Tensor]) -> PairCosts:
        """As PairCosts."""
        other = SoftLabelCosts(
            self.points, self.planes, self.boxes, self.row, self.beyond, self.measure
        )
        other.label_tables, other.centers = tables, self.centers
        other.radius, other.iou_weight = self.radius, self.iou_weight
        return other
