"""Assigner by the largest overlap."""

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
    with_area,
)
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.assignment.max_iou import max_iou_match
from mmdet_ext.functional.numerics.checks import check_number, is_number, is_pair
from mmdet_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class MaxIoUAssigner(BatchAssigner):
    """Assigner of each prior to the box that it overlaps most, as in RPN, RetinaNet and SSD.

    Only pairs that can overlap are measured. The rule is in
    :func:`mmdet_ext.functional.assignment.max_iou.max_iou_match`. The assignment equals that of
    mmdet's ``MaxIoUAssigner``, except in three cases:

    - in an image without boxes, ignore regions still count; mmdet makes them background;
    - half-precision boxes are measured in float32;
    - ``neg_iou_thr`` may be a whole number (1) or a list, with which mmdet finds no background.

    Args:
        pos_iou_thr: overlap from which a prior is positive.
        neg_iou_thr: overlap below which a prior is background; or (from, below).
        min_pos_iou: least overlap at which a box takes its best prior, whatever ``pos_iou_thr``.
        gt_max_assign_all: whether a box takes all priors of its best overlap, or the first.
        ignore_iof_thr: a prior of which more than this share lies in an ignore region is ignored;
            0 and below for none.
        ignore_wrt_candidates: True for the share of the prior, False for that of the region.
        match_low_quality: whether boxes take their best priors below ``pos_iou_thr``.
        gpu_assign_thr: accepted for mmdet's configs, without effect: memory is bounded.
        iou_calculator: config of an overlap measure; None for the IoU. One without an
            ``is_aligned`` mode, such as ``BboxOverlaps2D_GLIP``, is slower.
        perm_repeat_gt_cfg: mmdet's options for moving boxes that are repeated; None for none.

    Raises:
        ValueError: for thresholds that are not numbers, or (from, below) in the wrong order.
    """

    predictions_used = ()

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
        """Assign the priors of all images.

        Args:
            geometry: priors as corners.
            predictions: not used.

        Raises:
            ValueError: if a box is not finite.
        """
        geometry = with_area(geometry)
        if self.perm_repeat_gt_cfg is not None and len(geometry.priors):
            geometry = self._without_repeats(geometry)
        return max_iou_match(
            geometry,
            pos_iou_thr=self.pos_iou_thr,
            neg_iou_thr=self.neg_iou_thr,
            min_pos_iou=self.min_pos_iou,
            gt_max_assign_all=self.gt_max_assign_all,
            match_low_quality=self.match_low_quality,
            ignore_mask=geometry.ignored_priors(self.ignore_iof_thr, self.ignore_wrt_candidates),
            measure=None if self.iou_calculator is None else self._measure,
        )

    def _measure(self, boxes: Tensor, priors: Tensor) -> Tensor:
        return aligned_overlap(self.iou_calculator, boxes, priors, repeated=0)

    def _without_repeats(self, geometry: BatchGeometry) -> BatchGeometry:
        """Move repeated boxes as mmdet does."""
        calculator = self.iou_calculator or MMDET_TASK_UTILS.build(dict(type='BboxOverlaps2D'))
        boxes = [
            perm_repeat_bboxes(each, calculator, self.perm_repeat_gt_cfg)
            for each in geometry.gt_boxes
        ]
        return replace(geometry, gt_boxes=torch.stack(boxes))
