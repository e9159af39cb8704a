"""The assignments of the YOLO detectors."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from mmdet_ext.detection.assigners.base import BatchAssigner
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.assignment.yolo import (
    find_cells,
    overlapping_mask,
    yolo_match,
    yolov5_match,
)
from mmdet_ext.functional.numerics.checks import check_number, check_share
from mmdet_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class YOLOv3Assigner(BatchAssigner):
    """The anchor that is most of a box's shape, in the cell that holds its centre.

    Of the anchors of all scales, the best by width and height is responsible for the box. Other
    priors are background, but for those whose predicted box already overlaps some box: these
    are ignored. Stock's ``GridAssigner`` differs in three ways: it goes by the overlap with
    anchors at their places, it ignores by that overlap too, and it lets a box take a prior of
    another box's cell. The rule is in :func:`mmdet_ext.functional.assignment.yolo.yolo_match`.

    Priors are anchors as corners, level by level, several a cell, as stock's
    ``YOLOAnchorGenerator`` gives them. Levels, cells and anchors are worked out from them
    (:func:`mmdet_ext.functional.assignment.yolo.find_cells`), without ``num_level_priors`` too.

    Args:
        ignore_iou_thr: a prior that is no box's is ignored if it overlaps any box by more than
            this IoU; at least 0, and 1 for none.
        ignore_by: what overlaps: the 'prediction', the box that the head predicts for the prior,
            as in YOLOv3; or the 'prior' itself, as in stock's ``GridAssigner``.

    Raises:
        ValueError: if an option is out of its range.
    """

    #: Shapes above which further anchors are a box's, None for the best alone.
    iou_thr: float | None = None

    def __init__(
        self,
        ignore_iou_thr: float = 0.5,
        ignore_by: Literal['prediction', 'prior'] = 'prediction',
    ) -> None:
        check_share('ignore_iou_thr', ignore_iou_thr)
        if ignore_by not in ('prediction', 'prior'):
            raise ValueError(f"ignore_by must be 'prediction' or 'prior', got {ignore_by!r}")
        self.ignore_iou_thr = ignore_iou_thr
        self.ignore_by = ignore_by

    def match(self, geometry: BatchGeometry, predictions: Predictions | None = None) -> Assignment:
        """Assign the priors of all images.

        Args:
            geometry: priors as corners of anchors, several a cell.
            predictions: boxes, unless ``ignore_by='prior'``.

        Returns:
            Assignment: ``overlap`` is the IoU of a prior and its box laid on one centre.

        Raises:
            ValueError: if the predictions lack boxes, the priors do not form cells, or a box is
                not finite.
        """
        geometry.check_ground_truth()
        gt_index, overlap = yolo_match(
            find_cells(geometry.priors, geometry.level_sizes),
            geometry.priors.shape[0],
            geometry.gt_boxes,
            geometry.gt_valid,
            iou_thr=self.iou_thr,
            prior_valid=geometry.prior_valid,
            ignore_mask=self._ignore_mask(geometry, predictions or Predictions()),
        )
        return Assignment(gt_index, overlap)

    def _ignore_mask(self, geometry: BatchGeometry, predictions: Predictions) -> Tensor | None:
        boxes: Tensor | None = geometry.priors
        if self.ignore_by == 'prediction':
            boxes = predictions.boxes
        if boxes is None:
            raise ValueError(
                f'{type(self).__name__} goes by what the head predicts, to ignore priors whose '
                'predicted boxes overlap, but got no boxes. Let the head give '
                "pred_instances.bboxes (Predictions.boxes), or set ignore_by='prior' to go by the "
                'priors themselves, as GridAssigner does'
            )
        if self.ignore_iou_thr >= 1 or geometry.gt_valid.numel() == 0:
            return None
        return overlapping_mask(boxes, geometry.gt_boxes, geometry.gt_valid, self.ignore_iou_thr)


@TASK_UTILS.register_module()
class YOLOv4Assigner(YOLOv3Assigner):
    """As `YOLOv3Assigner`, with every anchor of about a box's shape beside the best.

    Where several boxes claim a prior it is that of the best shape, so that a box may lose its
    best anchor to another.

    Args:
        iou_thr: anchors of the box's cells whose IoU with it, laid on one centre, is above this
            are its too; in [0, 1]. 0.213 is the authors' configuration.
        ignore_iou_thr: a prior that is no box's is ignored if it overlaps any box by more than
            this IoU; at least 0, and 1 for none.
        ignore_by: 'prediction' or 'prior'.

    Raises:
        ValueError: if an option is out of its range.
    """

    def __init__(
        self,
        iou_thr: float = 0.213,
        ignore_iou_thr: float = 0.5,
        ignore_by: Literal['prediction', 'prior'] = 'prediction',
    ) -> None:
        super().__init__(ignore_iou_thr, ignore_by)
        check_share('iou_thr', iou_thr)
        self.iou_thr = iou_thr


@TASK_UTILS.register_module()
class YOLOv5Assigner(BatchAssigner):
    """Every anchor of about a box's shape, in the box's cell and the two cells next to it.

    All other priors are background. The rule, and how it differs from YOLOv5's own code where
    boxes share a prior, is in :func:`mmdet_ext.functional.assignment.yolo.yolov5_match`.

    Priors are anchors as corners, level by level, several a cell, as for `YOLOv3Assigner`.

    Args:
        ratio_thr: an anchor is the box's if neither its width nor its height is this many times
            the box's, or the other way round; above 1.

    Raises:
        ValueError: if ``ratio_thr`` is not above 1.
    """

    def __init__(self, ratio_thr: float = 4.0) -> None:
        check_number('ratio_thr', ratio_thr, 'above 1', lambda ratio: ratio > 1)
        self.ratio_thr = ratio_thr

    def match(self, geometry: BatchGeometry, predictions: Predictions | None = None) -> Assignment:
        """Assign the priors of all images.

        Args:
            geometry: priors as corners of anchors, several a cell.
            predictions: not looked at.

        Returns:
            Assignment: ``overlap`` is the smaller side over the larger, of prior and box, in
            width or height, whichever differs more.

        Raises:
            ValueError: if the priors do not form cells, or a box is not finite.
        """
        geometry.check_ground_truth()
        gt_index, overlap = yolov5_match(
            find_cells(geometry.priors, geometry.level_sizes),
            geometry.priors.shape[0],
            geometry.gt_boxes,
            geometry.gt_valid,
            ratio_thr=self.ratio_thr,
            prior_valid=geometry.prior_valid,
        )
        return Assignment(gt_index, overlap)
