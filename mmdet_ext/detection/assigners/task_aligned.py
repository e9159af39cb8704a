"""Assigners by task-aligned learning."""

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
from mmdet_ext.functional.assignment.task_aligned import task_aligned_match
from mmdet_ext.functional.numerics.checks import OptionError, check_count, check_number
from mmdet_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class TaskAlignedAssigner(BatchAssigner):
    """Assigner of TOOD: each box takes the priors of best score and overlap together.

    The assignment equals that of mmdet's ``TaskAlignedAssigner``, without tables of all pairs;
    half precision is computed in float32. The rule is in
    :func:`mmdet_ext.functional.assignment.task_aligned.task_aligned_match`.

    Args:
        topk: candidates per box.
        iou_calculator: config of an overlap measure; None for the IoU.

    Raises:
        OptionError: if ``topk`` is not a whole number of at least 1.
    """

    uses_centers = True
    predictions_used = ('scores', 'boxes')
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
            geometry: priors, whose centres count.
            predictions: class scores and boxes.
            alpha: exponent of the score, at least 0.
            beta: exponent of the overlap, at least 0.

        Returns:
            Assignment: ``metric`` is the alignment.

        Raises:
            ValueError: if the predictions lack scores or boxes, an exponent is out of its range,
                a box is not finite, or a label is not among the scores' classes.
        """
        given = needed_predictions(self, predictions)
        geometry = with_area(geometry, given.num_classes)
        return task_aligned_match(
            geometry,
            given,
            topk=self.topk,
            alpha=alpha,
            beta=beta,
            measure=pairwise_measure(self.iou_calculator),
        )


@TASK_UTILS.register_module()
class OneToOneTaskAlignedAssigner(TaskAlignedAssigner):
    """Task-aligned assigner with one prior per box, for heads without suppression of duplicates.

    It is `TaskAlignedAssigner` with ``topk=1``: each box takes the prior of best alignment, if
    its centre lies in the box.

    Args:
        alpha: exponent of the score where the head passes none, at least 0.
        beta: exponent of the overlap where the head passes none, at least 0.
        iou_calculator: config of an overlap measure; None for the IoU.

    Raises:
        ValueError: if an exponent is not a finite number of at least 0.

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
        check_number('alpha', alpha, least=0, finite=True)
        check_number('beta', beta, least=0, finite=True)
        self.alpha = alpha
        self.beta = beta

    def match(
        self,
        geometry: BatchGeometry,
        predictions: Predictions | None = None,
        alpha: float | None = None,
        beta: float | None = None,
    ) -> Assignment:
        """Assign as `TaskAlignedAssigner` does, by this assigner's exponents where none are given.

        Args:
            geometry: priors, whose centres count.
            predictions: class scores and boxes.
            alpha: exponent of the score; None for the option.
            beta: exponent of the overlap; None for the option.
        """
        return super().match(
            geometry,
            predictions,
            self.alpha if alpha is None else alpha,
            self.beta if beta is None else beta,
        )
