"""Assigners of the YOLO detectors."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from mmdet_ext.detection.assigners.base import BatchAssigner, Prediction, with_area
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.assignment.yolo import overlapping_mask, yolo_match, yolov5_match
from mmdet_ext.functional.numerics.checks import check_number, check_one_of
from mmdet_ext.registry import TASK_UTILS


@TASK_UTILS.register_module()
class YOLOv3Assigner(BatchAssigner):
    """Assigner of each box to the anchor of the best shape, in the cell that holds its centre.

    The best anchor of all levels, by width and height, gets the box. Other priors are background,
    except those whose predicted box already overlaps some box: they are ignored. mmdet's
    ``GridAssigner`` differs in three ways: it uses the overlap with anchors at their places, it
    ignores by that overlap too, and it lets a box take a prior of another box's cell. The rule is
    in :func:`mmdet_ext.functional.assignment.yolo.yolo_match`.

    Priors are anchors as corners, level by level, several per cell, as mmdet's
    ``YOLOAnchorGenerator`` gives them. In mmdet's call, the anchors per cell (and the levels, where
    there is no ``num_level_priors``) are inferred from the corners
    (:func:`mmdet_ext.detection.host.infer_cells`).

    Args:
        ignore_iou_thr: a prior without a box is ignored if it overlaps any box by more than this
            IoU; at least 0, and 1 for none.
        ignore_by: 'prediction' for the overlap of the box that the head predicts for the prior, as
            in YOLOv3; 'prior' for that of the prior itself, as in mmdet's ``GridAssigner``.

    Raises:
        ValueError: if an option is out of its range.
    """

    prior_form = 'cells'

    #: `concentric_iou` above which a box also takes other anchors; None for the best alone.
    iou_thr: float | None = None

    def __init__(
        self,
        ignore_iou_thr: float = 0.5,
        ignore_by: Literal['prediction', 'prior'] = 'prediction',
    ) -> None:
        check_number('ignore_iou_thr', ignore_iou_thr, least=0, most=1)
        check_one_of('ignore_by', ignore_by, ('prediction', 'prior'))
        self.ignore_iou_thr = ignore_iou_thr
        self.ignore_by = ignore_by

    @property
    def predictions_used(self) -> tuple[Prediction, ...]:  # type: ignore[override]
        """The predicted boxes where these decide what is ignored."""
        return ('boxes',) if self.ignore_by == 'prediction' else ()

    def match(self, geometry: BatchGeometry, predictions: Predictions | None = None) -> Assignment:
        """Assign the priors of all images.

        Args:
            geometry: priors as corners, with ``anchors_per_cell``.
            predictions: boxes, unless ``ignore_by='prior'``.

        Returns:
            Assignment: ``overlap`` is the IoU of a prior and its box laid on one centre.

        Raises:
            ValueError: if the predictions lack boxes, the priors do not form cells, or a box is
                not finite.
        """
        geometry = with_area(geometry)
        ignore_mask = self._ignore_mask(geometry, predictions or Predictions())
        return yolo_match(geometry, iou_thr=self.iou_thr, ignore_mask=ignore_mask)

    def _ignore_mask(self, geometry: BatchGeometry, predictions: Predictions) -> Tensor | None:
        by_prediction = self.ignore_by == 'prediction'
        boxes = predictions.boxes if by_prediction else geometry.priors.as_corners()
        if boxes is None:
            raise ValueError(
                f'{type(self).__name__} goes by what the head predicts, to ignore priors whose '
                'predicted boxes overlap, but got no boxes. Let the head give '
                "pred_instances.bboxes (Predictions.boxes), or set ignore_by='prior' to go by the "
                'priors themselves, as GridAssigner does'
            )
        if self.ignore_iou_thr >= 1 or geometry.gt_valid.numel() == 0:
            return None
        return overlapping_mask(boxes, geometry, self.ignore_iou_thr)


@TASK_UTILS.register_module()
class YOLOv4Assigner(YOLOv3Assigner):
    """Assigner as `YOLOv3Assigner`, where a box also takes other anchors of similar shape.

    A prior that several boxes claim goes to the box of the best shape, so that a box may lose its
    best anchor to another.

    Args:
        iou_thr: a box also takes the anchors of its cells whose IoU with it, laid on one centre, is
            above this; in [0, 1]. The authors' configuration has 0.213.
        ignore_iou_thr: a prior without a box is ignored if it overlaps any box by more than this
            IoU; at least 0, and 1 for none.
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
        check_number('iou_thr', iou_thr, least=0, most=1)
        self.iou_thr = iou_thr


@TASK_UTILS.register_module()
class YOLOv5Assigner(BatchAssigner):
    """Assigner of each box to all anchors of similar shape, in its cell and the two nearest cells.

    All other priors are background. The rule, and how it differs from YOLOv5's own code where
    boxes share a prior, is in :func:`mmdet_ext.functional.assignment.yolo.yolov5_match`.

    Priors are anchors as corners, level by level, several per cell, as for `YOLOv3Assigner`.

    Args:
        ratio_thr: a box takes an anchor if neither side of the one is this many times that of the
            other, or more; above 1.

    Raises:
        ValueError: if ``ratio_thr`` is not above 1.
    """

    prior_form = 'cells'
    predictions_used = ()

    def __init__(self, ratio_thr: float = 4.0) -> None:
        check_number('ratio_thr', ratio_thr, above=1)
        self.ratio_thr = ratio_thr

    def match(self, geometry: BatchGeometry, predictions: Predictions | None = None) -> Assignment:
        """Assign the priors of all images.

        Args:
            geometry: priors as corners, with ``anchors_per_cell``.
            predictions: not used.

        Returns:
            Assignment: ``overlap`` is the ratio of the smaller to the larger side, of prior and
            box, in width or height, whichever is smaller.

        Raises:
            ValueError: if the priors do not form cells, or a box is not finite.
        """
        geometry = with_area(geometry)
        return yolov5_match(geometry, self.ratio_thr)
