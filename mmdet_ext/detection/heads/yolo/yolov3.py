"""Head of YOLOv3 that gives its assigner the predicted boxes of a whole batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.functional import one_hot

from mmdet_ext.detection.heads.dense.batch_targets import (
    ImageTargets,
    TargetsInLoss,
    flat_levels,
    per_image,
)
from mmdet_ext.detection.heads.dense.matched_batch import MatchedBatch
from mmdet_ext.detection.heads.yolo.yolov3_losses import YOLOv3Losses
from mmdet_ext.detection.host import batch_geometry, have_tensors
from mmdet_ext.functional.assignment.claims import BACKGROUND
from mmdet_ext.functional.assignment.geometry import Predictions
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class YOLOV3Head(TargetsInLoss, YOLOv3Losses):  # type: ignore[misc]
    """Drop-in replacement of mmdet's ``YOLOV3Head`` with the parts of the loss as options.

    The head gives its assigner the predicted boxes of a whole batch. With our `YOLOv3Assigner` a
    prior is ignored if the box predicted for it overlaps a ground truth, as in the paper. mmdet's
    head compares anchors alone. Our `YOLOv4Assigner`, whose boxes take several anchors, and
    `YOLOv5Assigner` work too, and all others of ours; but the head predicts centres within a
    prior's own cell (see ``scale_x_y``), so that a prior of another cell than that of a box's
    centre learns the nearest point of its range. With an assigner of mmdet, or a sampler that
    draws, mmdet's code computes the targets (see `BatchTargets`).

    By default the losses are mmdet's. The terms of the loss and their formulae are in
    :mod:`mmdet_ext.functional.yolo.terms`. What a loss compares follows from its type: a loss with
    ``use_sigmoid=True`` takes logits, as in mmdet. A loss of values, such as ``MSELoss``, takes
    their sigmoids, except as ``loss_wh``; mmdet's head gives it the logits, which it then pulls
    towards 0 and 1. ``loss_cls`` may be a softmax loss, such as
    ``CrossEntropyLoss(use_sigmoid=False)``; it is called with rows of priors and their labels, and
    the head predicts by the softmax too.

    Args:
        *args: arguments of mmdet's ``YOLOV3Head``.
        loss_bbox: config of an overlap loss of the decoded boxes, such as CIoU in YOLOv4, in place
            of ``loss_xy`` and ``loss_wh``. It is called with the boxes of a level's positives, so
            that a mean is over them. None for none.
        size_weight: whether the terms of a box's place and size have the weight 2 - w h, with w
            and h the shares of the image's width and height.
        lambda_noobj: weight of the background in ``loss_conf``, from 0.
        scale_x_y: scale of the range of a predicted centre about the middle of its cell, at least
            1 (the cell itself): one number, or one per level in the order of ``featmap_strides``.
            The authors of YOLOv4 have 1.05, 1.1 and 1.2 for the strides 32, 16 and 8. Other values
            than 1 need mmdet's ``YOLOBBoxCoder``.
        **kwargs: keyword arguments of mmdet's ``YOLOV3Head``. ``one_hot_smoother`` is the label
            smoothing.

    Raises:
        ValueError: if an option is out of its range, or levels, anchors and strides do not fit; it
            is an AssertionError too where mmdet's head asserts.
    """

    def responsible_flags(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        """Return mmdet's flags of the cells that hold a centre; none where targets are ready.

        Args:
            *args: arguments of mmdet's ``responsible_flags``.
            **kwargs: keyword arguments of mmdet's ``responsible_flags``.
        """
        return [] if self._ready is not None else super().responsible_flags(*args, **kwargs)

    def batch_targets(
        self,
        pred_maps: Sequence[Tensor],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict[str, Any]],
        batch_gt_instances_ignore: Sequence[InstanceData | None] | None = None,
    ) -> Iterable[ImageTargets] | None:
        """Compute ``targets (P, 5 + C), background (P,)`` of each image.

        Args:
            pred_maps: raw predictions (B, A (5 + C), H, W) per level, for A anchors per cell.
            batch_gt_instances: boxes and labels per image.
            batch_img_metas: meta information per image.
            batch_gt_instances_ignore: ignore regions per image.
        """
        if not (self.takes_batches(self.assigner) and have_tensors(batch_gt_instances)):
            return None
        levels = self.prior_generator.grid_priors(
            [pred_map.shape[-2:] for pred_map in pred_maps], device=pred_maps[0].device
        )
        priors = torch.cat(levels)
        strides = torch.cat(
            [
                priors.new_full((len(level),), stride)
                for level, stride in zip(levels, self.featmap_strides, strict=True)
            ]
        )
        geometry = batch_geometry(
            self.batch_priors(levels), batch_gt_instances, batch_gt_instances_ignore
        )
        geometry.check_ground_truth(self.num_classes)
        rows = flat_levels(pred_maps, self.num_attrib).float()
        used = self.assigner.predictions_used
        scored = used is None or 'scores' in used
        predictions = Predictions(
            boxes=self._boxes(priors, rows[..., :4], strides[:, None]),
            probabilities=self._scores(rows) if scored else None,
        )
        matched = self.match(self.assigner, geometry, predictions)
        background = matched.assignment.gt_index == BACKGROUND
        return per_image(self._target_maps(matched, strides), background.to(torch.uint8))

    def _scores(self, rows: Tensor) -> Tensor:
        """Return the probabilities (B, P, C) of a class and an object together."""
        return self._class_scores(rows[..., 5:]) * rows[..., 4:5].sigmoid()

    def _target_maps(self, matched: MatchedBatch, strides: Tensor) -> Tensor:
        """Compute the targets (B, P, 5 + C): offsets, confidence and one-hot classes."""
        encoded = self.bbox_coder.encode(matched.priors, matched.boxes, strides[matched.place[1]])
        classes = one_hot(matched.labels, self.num_classes).to(encoded.dtype)
        if self.one_hot_smoother != 0:
            classes = classes * (1 - self.one_hot_smoother)
            classes = classes + self.one_hot_smoother / self.num_classes
        confidence = encoded.new_ones((len(encoded), 1))
        return matched.spread(torch.cat([encoded, confidence, classes], 1))
