"""Assigner by adaptive training sample selection."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from mmdet_ext.detection.assigners.base import (
    BatchAssigner,
    Prediction,
    aligned_overlap,
    build_calculator,
    with_area,
)
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.atss import (
    Affinity,
    atss_match,
    prediction_affinity,
    prior_affinity,
)
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.numerics.checks import check_count, check_number
from mmdet_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class ATSSAssigner(BatchAssigner):
    """Assigner by adaptive training sample selection; with ``alpha`` its cost-based form (DDOD).

    It computes the overlaps of the candidates alone. The rule is in
    :func:`mmdet_ext.functional.assignment.atss.atss_match`. The assignment equals that of mmdet's
    ``ATSSAssigner``, except where distances or overlaps are equal and either choice is right, and
    in three cases:

    - in an image without boxes, ignore regions still count; mmdet makes them background;
    - half-precision boxes are measured in float32;
    - a box's single candidate can be positive; in mmdet the deviation of one overlap is NaN, so
      that no prior is.

    Args:
        topk: candidates of each level.
        alpha: None for ATSS. A number a in [0, 1] uses
            ``sigmoid(score)**(1 - a) * IoU(predicted box, box)**a`` in place of the prior's IoU;
            the head must then give scores and boxes.
        iou_calculator: config of an overlap measure; None for the IoU. One without an
            ``is_aligned`` mode, such as ``BboxOverlaps2D_GLIP``, is slower.
        ignore_iof_thr: a prior of which more than this share lies in an ignore region is ignored;
            0 and below for none.

    Raises:
        ValueError: if ``topk`` is not a whole number of at least 1, ``alpha`` not in [0, 1], or
            ``ignore_iof_thr`` not a number.
    """

    needs_levels = True
    score_form = 'logits'
    unassigned_overlap = -1e8

    def __init__(
        self,
        topk: int,
        alpha: float | None = None,
        iou_calculator: dict[str, Any] | None = None,
        ignore_iof_thr: float = -1,
    ) -> None:
        check_count('topk', topk)
        if alpha is not None:
            check_number('alpha', alpha, 'None or in [0, 1]', least=0, most=1)
        check_number('ignore_iof_thr', ignore_iof_thr)
        self.topk = topk
        self.alpha = alpha
        self.ignore_iof_thr = ignore_iof_thr
        self.iou_calculator = build_calculator(iou_calculator)

    @property
    def predictions_used(self) -> tuple[Prediction, ...]:  # type: ignore[override]
        """Scores and boxes for ``alpha``."""
        return () if self.alpha is None else ('scores', 'boxes')

    def match(self, geometry: BatchGeometry, predictions: Predictions | None = None) -> Assignment:
        """Assign the priors of all images.

        Args:
            geometry: priors as corners.
            predictions: class scores and boxes, for ``alpha`` only.

        Raises:
            ValueError: if ``alpha`` is set and the predictions lack scores or boxes, or a label is
                not among the scores' classes; or if a box is not finite.
        """
        given = predictions or Predictions()
        geometry = with_area(geometry, None if self.alpha is None else given.num_classes)
        return atss_match(
            geometry,
            topk=self.topk,
            affinity=self._affinity(geometry, given),
            ignore_mask=geometry.ignored_priors(self.ignore_iof_thr),
        )

    def _affinity(self, geometry: BatchGeometry, predictions: Predictions) -> Affinity | None:
        """Return the measure of the options; None for the plain IoU of priors."""
        has_scores, has_boxes = predictions.scores is not None, predictions.boxes is not None
        measure = None if self.iou_calculator is None else self._measure
        if self.alpha is None:
            if has_scores or has_boxes:
                warnings.warn(
                    'ATSSAssigner got scores or boxes of the head, but goes by priors alone as '
                    'alpha is None; set alpha for the cost-based form (DDOD)',
                    stacklevel=2,
                )
            return None if measure is None else prior_affinity(geometry, measure)
        if not (has_scores and has_boxes):
            raise ValueError(
                f'ATSSAssigner with alpha={self.alpha} needs the head to give scores and boxes; '
                'this head does not. Leave alpha out, or use a head that does (DDODHead)'
            )
        return prediction_affinity(geometry, predictions, self.alpha, measure)

    def _measure(self, boxes: Tensor, gt_boxes: Tensor) -> Tensor:
        return aligned_overlap(self.iou_calculator, boxes, gt_boxes, repeated=1)
