"""Head of YOLOv3 that gives its assigner the predicted boxes of a whole batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import YOLOV3Head as MMDetYOLOV3Head
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
from mmdet_ext.detection.host import batch_geometry, have_tensors
from mmdet_ext.functional.assignment.claims import BACKGROUND
from mmdet_ext.functional.assignment.geometry import Predictions
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class YOLOV3Head(TargetsInLoss, MMDetYOLOV3Head):  # type: ignore[misc]
    """Drop-in replacement of mmdet's ``YOLOV3Head`` that gives its assigner the predicted boxes.

    Options, weights and losses are mmdet's. With our `YOLOv3Assigner` a prior is ignored if the
    box predicted for it overlaps a ground truth, as in the paper. mmdet's head compares anchors
    alone. Our `YOLOv4Assigner` and `YOLOv5Assigner` work too, and all others of ours; but the head
    predicts centres within a prior's own cell, so that a prior of another cell than that of a
    box's centre learns the nearest point of its cell. With an assigner of mmdet, or a sampler that
    draws, mmdet's code computes the targets (see `BatchTargets`).
    """

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
        used = self.assigner.predictions_used
        predictions = Predictions(
            boxes=self._decoded(pred_maps, priors, strides),
            probabilities=self._scores(pred_maps) if used is None or 'scores' in used else None,
        )
        matched = self.match(self.assigner, geometry, predictions)
        background = matched.assignment.gt_index == BACKGROUND
        return per_image(self._target_maps(matched, strides), background.to(torch.uint8))

    def _decoded(self, pred_maps: Sequence[Tensor], priors: Tensor, strides: Tensor) -> Tensor:
        """Decode the predicted boxes (B, P, 4), px."""
        flat = flat_levels(pred_maps, self.num_attrib)[..., :4].float()
        flat = torch.cat([flat[..., :2].sigmoid(), flat[..., 2:]], -1)
        boxes: Tensor = self.bbox_coder.decode(priors, flat, strides[:, None])
        return boxes

    def _scores(self, pred_maps: Sequence[Tensor]) -> Tensor:
        """Return the probabilities (B, P, C) of a class and an object together."""
        scores = flat_levels(pred_maps, self.num_attrib)[..., 4:].float().sigmoid()
        return scores[..., 1:] * scores[..., :1]

    def _target_maps(self, matched: MatchedBatch, strides: Tensor) -> Tensor:
        """Compute the targets (B, P, 5 + C): offsets, confidence and one-hot classes."""
        encoded = self.bbox_coder.encode(matched.priors, matched.boxes, strides[matched.place[1]])
        classes = one_hot(matched.labels, self.num_classes).to(encoded.dtype)
        if self.one_hot_smoother != 0:
            classes = classes * (1 - self.one_hot_smoother)
            classes = classes + self.one_hot_smoother / self.num_classes
        confidence = encoded.new_ones((len(encoded), 1))
        return matched.spread(torch.cat([encoded, confidence, classes], 1))
