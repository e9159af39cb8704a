"""Head of YOLOX that computes the targets of a batch at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import YOLOXHead as MMDetYOLOXHead
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.functional import one_hot

from mmdet_ext.detection.heads.dense.batch_targets import (
    ImageTargets,
    TargetsInLoss,
    per_image,
)
from mmdet_ext.detection.heads.dense.fitting import uses_predicted_boxes
from mmdet_ext.detection.heads.dense.matched_batch import MatchedBatch
from mmdet_ext.detection.host import batch_geometry, have_tensors
from mmdet_ext.functional.assignment.geometry import Predictions
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class YOLOXHead(TargetsInLoss, MMDetYOLOXHead):  # type: ignore[misc]
    """Drop-in replacement of mmdet's ``YOLOXHead`` that computes the targets of a batch at once.

    Options, weights and losses are mmdet's. Use it with our `SimOTAAssigner`, or any other of ours
    for points. Its targets have no weights: a point that an assigner ignores is background. With
    an assigner of mmdet, or a sampler that draws, mmdet's code computes the targets (see
    `BatchTargets`).
    """

    gives_points = True

    def batch_targets(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        objectnesses: Sequence[Tensor],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict[str, Any]],
        batch_gt_instances_ignore: Sequence[InstanceData | None] | None = None,
    ) -> Iterable[ImageTargets] | None:
        """Compute ``positives, classes, objectness, boxes, L1 targets, count`` of each image.

        Args:
            cls_scores: logits (B, C, H, W) per level.
            bbox_preds: encoded boxes (B, 4, H, W) per level.
            objectnesses: logits (B, 1, H, W) per level.
            batch_gt_instances: boxes and labels per image.
            batch_img_metas: meta information per image.
            batch_gt_instances_ignore: ignore regions per image.
        """
        if not (self.takes_batches(self.assigner) and have_tensors(batch_gt_instances)):
            return None
        levels = self.prior_generator.grid_priors(
            [scores.shape[2:] for scores in cls_scores],
            dtype=cls_scores[0].dtype,
            device=cls_scores[0].device,
            with_stride=True,
        )
        corners = torch.cat(levels)
        # mmdet decodes boxes from the corner of a cell, but assigns by its centre.
        middles = [
            torch.cat([level[:, :2] + level[:, 2:] * 0.5, level[:, 2:]], dim=1) for level in levels
        ]
        objectness = _flatten(objectnesses)
        scores = _flatten(cls_scores).sigmoid() * objectness.sigmoid()
        boxes = self._bbox_decode(corners, _flatten(bbox_preds))
        predictions = Predictions(boxes=boxes, probabilities=scores.sqrt_())
        geometry = batch_geometry(
            self.batch_priors(middles), batch_gt_instances, batch_gt_instances_ignore
        )
        matched = self.match(self.assigner, geometry, predictions)
        overlap = matched.assignment.overlap[matched.place]
        if not uses_predicted_boxes(self.assigner):
            overlap = matched.overlap_of(boxes.detach())
        return self._image_targets(matched, overlap, corners, objectness)

    def _image_targets(
        self, matched: MatchedBatch, overlap: Tensor, corners: Tensor, objectness: Tensor
    ) -> Iterable[ImageTargets]:
        positive = matched.assignment.positive_mask
        classes = one_hot(matched.labels, self.num_classes) * overlap[:, None]
        boxes = matched.geometry.gt_boxes[matched.place[0], matched.box_index]
        offsets = corners.new_zeros((len(boxes), 4))
        if self.use_l1:
            offsets = self._get_l1_target(offsets, boxes, corners[matched.place[1]])
        return per_image(
            positive,
            classes.split(matched.counts),
            positive[..., None].to(objectness.dtype),
            boxes.split(matched.counts),
            offsets.split(matched.counts),
            matched.counts,
        )


def _flatten(maps: Sequence[Tensor]) -> Tensor:
    """Flatten and join levels (B, D, H, W) to (B, P, D)."""
    return torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1)
