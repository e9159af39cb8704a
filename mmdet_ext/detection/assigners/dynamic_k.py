"""Assignment by cost: SimOTA and dynamic soft label."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mmdet_ext.detection.assigners.base import BatchAssigner, build_calculator, needed_predictions
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.claims import mark_ignored
from mmdet_ext.functional.assignment.dynamic_k import PairwiseMeasure
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.assignment.simota import simota_match
from mmdet_ext.functional.assignment.soft_label import soft_label_match
from mmdet_ext.functional.numerics.checks import check_count, check_number, check_weight
from mmdet_ext.registry import TASK_UTILS


def pairwise_measure(calculator: Any) -> PairwiseMeasure | None:
    """A calculator of stock's form as a measure of all pairs; None for the plain IoU."""
    if calculator is None:
        return None

    def measure(boxes: Tensor, predicted: Tensor) -> Tensor:
        # Predictions first, as stock's assigners call it.
        overlap: Tensor = calculator(predicted, boxes)
        return overlap.mT

    return measure


def not_there(geometry: BatchGeometry) -> Tensor | None:
    """The priors (B, P) that an image does not have; None for none."""
    return None if geometry.prior_valid is None else ~geometry.prior_valid


@TASK_UTILS.register_module()
class SimOTAAssigner(BatchAssigner):
    """SimOTA, YOLOX's: each box takes the priors of least cost, as many as its overlaps sum to.

    The same assignment as stock's ``SimOTAAssigner``, without a table of priors x boxes x classes;
    half precision is computed in float32. The rule is in
    :func:`mmdet_ext.functional.assignment.simota.simota_match`.

    Args:
        center_radius: half the side of a box's centre region, in strides, at least 0.
        candidate_topk: overlaps that a box's number of priors is summed over.
        iou_weight: of the overlap in the cost, at least 0.
        cls_weight: of the class in the cost, at least 0.
        iou_calculator: config of an overlap measure; None is the IoU.

    Raises:
        ValueError: if ``candidate_topk`` is no whole number of at least 1, or another option not
            a number in its range.
    """

    unassigned_overlap = -1e5
    nothing_overlap = 0.0

    def __init__(
        self,
        center_radius: float = 2.5,
        candidate_topk: int = 10,
        iou_weight: float = 3.0,
        cls_weight: float = 1.0,
        iou_calculator: dict[str, Any] | None = None,
    ) -> None:
        check_count('candidate_topk', candidate_topk)
        check_number('center_radius', center_radius, 'at least 0', lambda radius: radius >= 0)
        check_weight('iou_weight', iou_weight)
        check_weight('cls_weight', cls_weight)
        self.center_radius = center_radius
        self.candidate_topk = candidate_topk
        self.iou_weight = iou_weight
        self.cls_weight = cls_weight
        self.iou_calculator = build_calculator(iou_calculator)

    def match(self, geometry: BatchGeometry, predictions: Predictions | None = None) -> Assignment:
        """Assign the priors of all images.

        Args:
            geometry: priors as points (x, y, stride, stride).
            predictions: scores (probabilities) and boxes.

        Raises:
            ValueError: if the predictions lack scores or boxes, scores are not in [0, 1], a box
                is not finite, or a label names none of the scores' classes.
        """
        scores, boxes = needed_predictions(self, predictions)
        geometry.check_ground_truth(num_classes=scores.shape[-1])
        gt_index, overlap = simota_match(
            geometry.priors,
            boxes,
            scores,
            geometry.gt_boxes,
            geometry.gt_labels,
            geometry.gt_valid,
            center_radius=self.center_radius,
            candidate_topk=self.candidate_topk,
            iou_weight=self.iou_weight,
            cls_weight=self.cls_weight,
            prior_valid=geometry.prior_valid,
            measure=pairwise_measure(self.iou_calculator),
        )
        return Assignment(mark_ignored(gt_index, not_there(geometry)), overlap)


@TASK_UTILS.register_module()
class DynamicSoftLabelAssigner(BatchAssigner):
    """Dynamic soft label assignment, RTMDet's: SimOTA with soft labels and a soft centre.

    The same assignment as stock's ``DynamicSoftLabelAssigner``, without a table of priors x boxes
    x classes; half precision is computed in float32. The rule is in
    :func:`mmdet_ext.functional.assignment.soft_label.soft_label_match`.

    Args:
        soft_center_radius: distance, in strides, at which the centre's cost is 1; at least 0.
        topk: overlaps that a box's number of priors is summed over.
        iou_weight: of the overlap in the cost, at least 0.
        iou_calculator: config of an overlap measure; None is the IoU.

    Raises:
        ValueError: if ``topk`` is no whole number of at least 1, or another option not a number
            in its range.
    """

    unassigned_overlap = -1e8
    nothing_overlap = 0.0

    def __init__(
        self,
        soft_center_radius: float = 3.0,
        topk: int = 13,
        iou_weight: float = 3.0,
        iou_calculator: dict[str, Any] | None = None,
    ) -> None:
        check_count('topk', topk)
        check_weight('soft_center_radius', soft_center_radius)
        check_weight('iou_weight', iou_weight)
        self.soft_center_radius = soft_center_radius
        self.topk = topk
        self.iou_weight = iou_weight
        self.iou_calculator = build_calculator(iou_calculator)

    def match(self, geometry: BatchGeometry, predictions: Predictions | None = None) -> Assignment:
        """Assign the priors of all images.

        Args:
            geometry: priors as points (x, y, stride, stride).
            predictions: scores (logits) and boxes.

        Raises:
            ValueError: if the predictions lack scores or boxes, a box is not finite, or a label
                names none of the scores' classes.
        """
        logits, boxes = needed_predictions(self, predictions)
        geometry.check_ground_truth(num_classes=logits.shape[-1])
        gt_index, overlap = soft_label_match(
            geometry.priors,
            boxes,
            logits,
            geometry.gt_boxes,
            geometry.gt_labels,
            geometry.gt_valid,
            soft_center_radius=self.soft_center_radius,
            topk=self.topk,
            iou_weight=self.iou_weight,
            gt_centers=geometry.gt_centers,
            prior_valid=geometry.prior_valid,
            measure=pairwise_measure(self.iou_calculator),
        )
        return Assignment(mark_ignored(gt_index, not_there(geometry)), overlap)
