"""Assigners by cost with a dynamic number of priors per box: SimOTA and dynamic soft label."""

from __future__ import annotations

from typing import Any

from mmdet_ext.detection.assigners.base import (
    BatchAssigner,
    build_calculator,
    needed_predictions,
    pairwise_measure,
    with_area,
)
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.assignment.simota import simota_match
from mmdet_ext.functional.assignment.soft_label import soft_label_match
from mmdet_ext.functional.numerics.checks import check_count, check_number
from mmdet_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class SimOTAAssigner(BatchAssigner):
    """Assigner of YOLOX: each box takes the cheapest points, as many as its overlaps sum to.

    The assignment equals that of mmdet's ``SimOTAAssigner``, without a table of priors x boxes x
    classes; half precision is computed in float32. The rule is in
    :func:`mmdet_ext.functional.assignment.simota.simota_match`.

    Args:
        center_radius: half the side of a box's centre region, in strides, at least 0.
        candidate_topk: number of overlaps whose sum is the number of a box's points.
        iou_weight: weight of the overlap in the cost, at least 0.
        cls_weight: weight of the class in the cost, at least 0.
        iou_calculator: config of an overlap measure; None for the IoU.

    Raises:
        ValueError: if ``candidate_topk`` is not a whole number of at least 1, or another option
            not a number in its range.
    """

    prior_form = 'points'
    predictions_used = ('scores', 'boxes')
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
        check_number('center_radius', center_radius, least=0)
        check_number('iou_weight', iou_weight, least=0, finite=True)
        check_number('cls_weight', cls_weight, least=0, finite=True)
        self.center_radius = center_radius
        self.candidate_topk = candidate_topk
        self.iou_weight = iou_weight
        self.cls_weight = cls_weight
        self.iou_calculator = build_calculator(iou_calculator)

    def match(self, geometry: BatchGeometry, predictions: Predictions | None = None) -> Assignment:
        """Assign the priors of all images.

        Args:
            geometry: priors as points.
            predictions: class scores and boxes.

        Raises:
            ValueError: if the predictions lack scores or boxes, scores are not in [0, 1], a box
                is not finite, or a label is not among the scores' classes.
        """
        given = needed_predictions(self, predictions)
        geometry = with_area(geometry, given.num_classes)
        return simota_match(
            geometry,
            given,
            center_radius=self.center_radius,
            candidate_topk=self.candidate_topk,
            iou_weight=self.iou_weight,
            cls_weight=self.cls_weight,
            measure=pairwise_measure(self.iou_calculator),
        )


@TASK_UTILS.register_module()
class DynamicSoftLabelAssigner(BatchAssigner):
    """Assigner of RTMDet: SimOTA with soft labels and a soft centre region.

    The assignment equals that of mmdet's ``DynamicSoftLabelAssigner``, without a table of priors x
    boxes x classes; half precision is computed in float32. The rule is in
    :func:`mmdet_ext.functional.assignment.soft_label.soft_label_match`. With
    ``soft_center_radius=None`` it is the rule of NanoDet-Plus, which has no cost of the centre.

    Args:
        soft_center_radius: distance at which the centre's cost is 1, in strides, at least 0; None
            for no cost of the centre.
        topk: number of overlaps whose sum is the number of a box's points.
        iou_weight: weight of the overlap in the cost, at least 0.
        iou_calculator: config of an overlap measure; None for the IoU.

    Raises:
        ValueError: if ``topk`` is not a whole number of at least 1, or another option not a number
            in its range.
    """

    prior_form = 'points'
    uses_mask_centers = True
    predictions_used = ('scores', 'boxes')
    score_form = 'logits'
    unassigned_overlap = -1e8
    nothing_overlap = 0.0

    def __init__(
        self,
        soft_center_radius: float | None = 3.0,
        topk: int = 13,
        iou_weight: float = 3.0,
        iou_calculator: dict[str, Any] | None = None,
    ) -> None:
        check_count('topk', topk)
        if soft_center_radius is not None:
            check_number('soft_center_radius', soft_center_radius, least=0, finite=True)
        check_number('iou_weight', iou_weight, least=0, finite=True)
        self.soft_center_radius = soft_center_radius
        self.topk = topk
        self.iou_weight = iou_weight
        self.iou_calculator = build_calculator(iou_calculator)

    def match(self, geometry: BatchGeometry, predictions: Predictions | None = None) -> Assignment:
        """Assign the priors of all images.

        Args:
            geometry: priors as points.
            predictions: class scores and boxes.

        Raises:
            ValueError: if the predictions lack scores or boxes, a box is not finite, or a label
                is not among the scores' classes.
        """
        given = needed_predictions(self, predictions)
        geometry = with_area(geometry, given.num_classes)
        return soft_label_match(
            geometry,
            given,
            soft_center_radius=self.soft_center_radius,
            topk=self.topk,
            iou_weight=self.iou_weight,
            measure=pairwise_measure(self.iou_calculator),
        )
