"""Adaptive training sample selection."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from mmdet_ext.detection.assigners.base import (
    BatchAssigner,
    aligned_overlap,
    build_calculator,
    ignored_mask,
)
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.atss import Affinity, atss_match
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.boxes.overlap import box_iou
from mmdet_ext.functional.numerics.checks import check_count, check_number
from mmdet_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class ATSSAssigner(BatchAssigner):
    """Adaptive training sample selection; with ``alpha`` its cost-based form (DDOD).

    The same assignment as stock's ``ATSSAssigner`` (equal distances and equal overlaps apart,
    where either choice is right), from the overlaps of the candidates alone. Three differences:
    in a picture without boxes, ignore regions are still ignored, where stock takes them for
    background; half-precision boxes are measured in float32; and a box's only candidate can be
    its positive, where stock's deviation of one overlap is NaN and no prior positive. The rule is
    in :func:`mmdet_ext.functional.assignment.atss.atss_match`.

    Args:
        topk: candidate priors of each level.
        alpha: None for ATSS. A number a in [0, 1] takes
            ``sigmoid(score)**(1 - a) * IoU(predicted box, box)**a`` in place of the prior's IoU;
            the head must then give scores and boxes.
        iou_calculator: config of an overlap measure; None is IoU. One without an ``is_aligned``
            mode, such as ``BboxOverlaps2D_GLIP``, takes longer.
        ignore_iof_thr: a prior of which more than this share lies in an ignore region is
            ignored; negative for none.

    Raises:
        ValueError: if ``topk`` is no whole number of at least 1, ``alpha`` not in [0, 1], or
            ``ignore_iof_thr`` no number.
    """

    needs_levels = True
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
            check_number('alpha', alpha, 'None or in [0, 1]', lambda share: 0 <= share <= 1)
        check_number('ignore_iof_thr', ignore_iof_thr)
        self.topk = topk
        self.alpha = alpha
        self.ignore_iof_thr = ignore_iof_thr
        self.iou_calculator = build_calculator(iou_calculator)

    def match(self, geometry: BatchGeometry, predictions: Predictions | None = None) -> Assignment:
        """Assign the priors of all images.

        Args:
            geometry: priors as boxes.
            predictions: scores (logits) and boxes, only for ``alpha``.

        Raises:
            ValueError: if ``alpha`` is set and the predictions lack scores or boxes, or a label
                names none of the scores' classes; or if a box is not finite.
        """
        scores = None if self.alpha is None or predictions is None else predictions.scores
        geometry.check_ground_truth(None if scores is None else scores.shape[-1])
        gt_index, overlap = atss_match(
            geometry.priors,
            geometry.level_sizes,
            geometry.gt_boxes,
            geometry.gt_valid,
            topk=self.topk,
            grids=geometry.grids if geometry.gt_valid.numel() else None,
            ignore_mask=ignored_mask(geometry, self.ignore_iof_thr),
            affinity=self._affinity(geometry, predictions or Predictions()),
            prior_valid=geometry.prior_valid,
        )
        return Assignment(gt_index, overlap)

    def _affinity(self, geometry: BatchGeometry, predictions: Predictions) -> Affinity | None:
        scores, boxes, alpha = predictions.scores, predictions.boxes, self.alpha
        if alpha is None:
            if scores is not None or boxes is not None:
                warnings.warn(
                    'ATSSAssigner got scores or boxes of the head, but goes by priors alone as '
                    'alpha is None; set alpha for the cost-based form (DDOD)',
                    stacklevel=2,
                )
            return None if self.iou_calculator is None else self._prior_overlap(geometry)
        if scores is None or boxes is None:
            raise ValueError(
                f'ATSSAssigner with alpha={alpha} needs the head to give scores and boxes; this '
                'head does not. Leave alpha out, or use a head that does (DDODHead)'
            )

        def cost(candidate: Tensor, gt_boxes: Tensor) -> Tensor:
            flat = candidate.flatten(1)[..., None]  # (B, G * K, 1)
            predicted = boxes.gather(1, flat.expand(-1, -1, 4)).unflatten(1, candidate.shape[1:])
            classes = scores.shape[-1]
            label = geometry.gt_labels.clamp(0, classes - 1)  # for padding, whatever stands there
            label = label[..., None].expand_as(candidate).flatten(1)
            rows = scores.gather(1, flat.expand(-1, -1, classes))
            score = rows.gather(2, label[..., None]).view(candidate.shape).sigmoid()
            return score ** (1 - alpha) * self._overlap(predicted, gt_boxes[:, :, None]) ** alpha

        return cost

    def _prior_overlap(self, geometry: BatchGeometry) -> Affinity:
        return lambda candidate, gt_boxes: self._overlap(
            geometry.priors[candidate], gt_boxes[:, :, None]
        )

    def _overlap(self, boxes: Tensor, gt_boxes: Tensor) -> Tensor:
        if self.iou_calculator is None:
            return box_iou(boxes, gt_boxes)
        flat = gt_boxes.expand_as(boxes).reshape(-1, 4)
        aligned = aligned_overlap(self.iou_calculator, boxes.reshape(-1, 4), flat, repeated=1)
        return aligned.view(boxes.shape[:-1])
