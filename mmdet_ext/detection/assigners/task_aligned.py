"""Task-aligned assignment."""

from __future__ import annotations

from typing import Any

from mmdet_ext.detection.assigners.base import BatchAssigner, build_calculator, needed_predictions
from mmdet_ext.detection.assigners.dynamic_k import pairwise_measure
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.assignment.task_aligned import task_aligned_match
from mmdet_ext.functional.numerics.checks import OptionError, check_count, check_weight
from mmdet_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class TaskAlignedAssigner(BatchAssigner):
    """Task-aligned assignment, TOOD's: priors by their score and overlap together.

    The same assignment as stock's ``TaskAlignedAssigner``, without its tables of all pairs; half
    precision is computed in float32. The rule is in
    :func:`mmdet_ext.functional.assignment.task_aligned.task_aligned_match`.

    Args:
        topk: candidates a box.
        iou_calculator: config of an overlap measure; None is the IoU.

    Raises:
        OptionError: if ``topk`` is no whole number of at least 1.
    """

    unassigned_overlap = -1e8
    own_arguments = ('alpha', 'beta')

    def __init__(self, topk: int, iou_calculator: dict[str, Any] | None = None) -> None:
        check_count('topk', topk, OptionError)
        self.topk = topk
        self.iou_calculator = build_calculator(iou_calculator)

    def match(
        self,
        geometry: BatchGeometry,
        predictions: Predictions | None = None,
        alpha: float = 1,
        beta: float = 6,
    ) -> Assignment:
        """Assign the priors of all images.

        Args:
            geometry: priors as corners; their centres count.
            predictions: scores (probabilities) and boxes.
            alpha: exponent of the score, at least 0.
            beta: exponent of the overlap, at least 0.

        Returns:
            Assignment: whose metric is the alignment.

        Raises:
            ValueError: if the predictions lack scores or boxes, an exponent is out of its range,
                a box is not finite, or a label names none of the scores' classes.
        """
        scores, boxes = needed_predictions(self, predictions)
        geometry.check_ground_truth(num_classes=scores.shape[-1])
        return Assignment(
            *task_aligned_match(
                geometry.priors,
                boxes,
                scores,
                geometry.gt_boxes,
                geometry.gt_labels,
                geometry.gt_valid,
                topk=self.topk,
                alpha=alpha,
                beta=beta,
                prior_valid=geometry.prior_valid,
                measure=pairwise_measure(self.iou_calculator),
            )
        )


@TASK_UTILS.register_module()
class OneToOneTaskAlignedAssigner(TaskAlignedAssigner):
    """Task-aligned assignment of one prior a box, for heads that need no suppression.

    The top 1 of `TaskAlignedAssigner`: the prior of best alignment, if its centre lies in the box.

    Args:
        alpha: exponent of the score, where the head passes none; at least 0.
        beta: exponent of the overlap, likewise.
        iou_calculator: config of an overlap measure; None is the IoU.

    Raises:
        ValueError: if an exponent is no finite number of at least 0.

    References:
        Wang et al., YOLOv10: Real-Time End-to-End Object Detection, 2024, section 3.1, "Dual label
        assignments".
    """

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 6.0,
        iou_calculator: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(topk=1, iou_calculator=iou_calculator)
        check_weight('alpha', alpha)
        check_weight('beta', beta)
        self.alpha = alpha
        self.beta = beta

    def match(
        self,
        geometry: BatchGeometry,
        predictions: Predictions | None = None,
        alpha: float | None = None,
        beta: float | None = None,
    ) -> Assignment:
        """As `TaskAlignedAssigner`, with this one's exponents where none are given."""
        return super().match(
            geometry,
            predictions,
            self.alpha if alpha is None else alpha,
            self.beta if beta is None else beta,
        )
