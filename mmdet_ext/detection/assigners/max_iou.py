"""Assignment by the largest overlap."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from mmdet.models.task_modules.assigners.max_iou_assigner import perm_repeat_bboxes
from mmdet.registry import TASK_UTILS as MMDET_TASK_UTILS
from torch import Tensor

from mmdet_ext.detection.assigners.base import (
    BatchAssigner,
    aligned_overlap,
    build_calculator,
    ignored_mask,
)
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.assignment.max_iou import max_iou_match
from mmdet_ext.functional.numerics.checks import check_number, is_number, is_pair
from mmdet_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class MaxIoUAssigner(BatchAssigner):
    """Each prior to the box that it overlaps most; RPN, Faster R-CNN, RetinaNet and SSD use it.

    The same assignment as stock's ``MaxIoUAssigner``, from the pairs that can overlap alone. Three
    differences: in a picture without boxes, ignore regions are still ignored, where stock takes
    them for background; half-precision boxes are measured in float32; and ``neg_iou_thr`` may
    be whole (1) or a list, with which stock finds no background. The rule is in
    :func:`mmdet_ext.functional.assignment.max_iou.max_iou_match`.

    Args:
        pos_iou_thr: overlap from which on a prior is positive.
        neg_iou_thr: overlap below which it is background; or (from, below).
        min_pos_iou: least overlap at which a box takes its best prior whatever ``pos_iou_thr``.
        gt_max_assign_all: whether a box takes all priors of its best overlap, or the first.
        ignore_iof_thr: a prior of which more than this share lies in an ignore region is ignored;
            negative for none.
        ignore_wrt_candidates: whether that share is of the prior, or of the region.
        match_low_quality: whether boxes take their best priors so.
        gpu_assign_thr: accepted as stock has it, and needless: memory has a bound.
        iou_calculator: config of an overlap measure; None is IoU. One without an ``is_aligned``
            mode, such as ``BboxOverlaps2D_GLIP``, takes longer.
        perm_repeat_gt_cfg: as stock has it: options for moving boxes that are repeated.

    Raises:
        ValueError: for thresholds that are no numbers, or (from, below) in the wrong order.
    """

    def __init__(
        self,
        pos_iou_thr: float,
        neg_iou_thr: float | tuple[float, float],
        min_pos_iou: float = 0.0,
        gt_max_assign_all: bool = True,
        ignore_iof_thr: float = -1,
        ignore_wrt_candidates: bool = True,
        match_low_quality: bool = True,
        gpu_assign_thr: float = -1,
        iou_calculator: dict[str, Any] | None = None,
        perm_repeat_gt_cfg: dict[str, Any] | None = None,
    ) -> None:
        for name, threshold in (
            ('pos_iou_thr', pos_iou_thr),
            ('min_pos_iou', min_pos_iou),
            ('ignore_iof_thr', ignore_iof_thr),
        ):
            check_number(name, threshold)
        if is_pair(neg_iou_thr) and neg_iou_thr[0] <= neg_iou_thr[1]:
            neg_iou_thr = (neg_iou_thr[0], neg_iou_thr[1])
        elif not is_number(neg_iou_thr):
            raise ValueError(
                'neg_iou_thr must be a number or (from, below) with from <= below, got '
                f'{neg_iou_thr!r}'
            )
        self.pos_iou_thr = pos_iou_thr
        self.neg_iou_thr = neg_iou_thr
        self.min_pos_iou = min_pos_iou
        self.gt_max_assign_all = gt_max_assign_all
        self.ignore_iof_thr = ignore_iof_thr
        self.ignore_wrt_candidates = ignore_wrt_candidates
        self.match_low_quality = match_low_quality
        self.gpu_assign_thr = gpu_assign_thr
        self.iou_calculator = build_calculator(iou_calculator)
        self.perm_repeat_gt_cfg = perm_repeat_gt_cfg

    def match(self, geometry: BatchGeometry, predictions: Predictions | None = None) -> Assignment:
        """Assign the priors of all images; predictions do not count.

        Args:
            geometry: priors as corners.
            predictions: not looked at.

        Raises:
            ValueError: if a box is not finite.
        """
        geometry.check_ground_truth()
        if self.perm_repeat_gt_cfg is not None and len(geometry.priors):
            geometry = self._without_repeats(geometry)
        ignored = ignored_mask(geometry, self.ignore_iof_thr, self.ignore_wrt_candidates)
        if geometry.prior_valid is not None:
            absent = ~geometry.prior_valid
            ignored = absent if ignored is None else ignored | absent
        gt_index, overlap = max_iou_match(
            geometry.priors,
            geometry.gt_boxes,
            geometry.gt_valid,
            pos_iou_thr=self.pos_iou_thr,
            neg_iou_thr=self.neg_iou_thr,
            min_pos_iou=self.min_pos_iou,
            gt_max_assign_all=self.gt_max_assign_all,
            match_low_quality=self.match_low_quality,
            ignore_mask=ignored,
            measure=None if self.iou_calculator is None else self._measure,
        )
        return Assignment(gt_index, overlap)

    def _measure(self, boxes: Tensor, priors: Tensor) -> Tensor:
        return aligned_overlap(self.iou_calculator, boxes, priors, repeated=0)

    def _without_repeats(self, geometry: BatchGeometry) -> BatchGeometry:
        calculator = self.iou_calculator or MMDET_TASK_UTILS.build(dict(type='BboxOverlaps2D'))
        boxes = [
            perm_repeat_bboxes(each, calculator, self.perm_repeat_gt_cfg)
            for each in geometry.gt_boxes
        ]
        return replace(geometry, gt_boxes=torch.stack(boxes))
