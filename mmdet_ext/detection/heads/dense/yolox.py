"""YOLOX's head, with the targets of a batch made at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import YOLOXHead as StockYOLOXHead
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.functional import one_hot

from mmdet_ext.detection.heads.dense.batch_targets import (
    BatchTargets,
    MatchedBatch,
    PictureTargets,
    batch_geometry,
    have_tensors,
    pictures,
)
from mmdet_ext.functional.assignment.geometry import Predictions
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class YOLOXHead(BatchTargets, StockYOLOXHead):  # type: ignore[misc]
    """Stock's ``YOLOXHead``, with the targets of all pictures of a batch made at once.

    Options, weights and losses are stock's. Give it our `SimOTAAssigner`; with another assigner or
    sampler it goes stock's way (see `BatchTargets`).
    """

    def loss_by_feat(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Stock's, on targets that are made at once."""
        losses: dict[str, Tensor]
        with self.targets_ready(*args, **kwargs):
            losses = super().loss_by_feat(*args, **kwargs)
        return losses

    def batch_targets(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        objectnesses: Sequence[Tensor],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict[str, Any]],
        batch_gt_instances_ignore: Sequence[InstanceData | None] | None = None,
    ) -> Iterable[PictureTargets] | None:
        """``positives, classes, objectness, boxes, L1 targets, count`` of each picture.

        Args:
            cls_scores: (B, C, H, W) logits of each level.
            bbox_preds: (B, 4, H, W), encoded, of each level.
            objectnesses: (B, 1, H, W) logits of each level.
            batch_gt_instances: boxes and labels of each picture.
            batch_img_metas: of each picture.
            batch_gt_instances_ignore: regions to ignore of each picture.
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
        # Boxes are decoded from the cells' corners, but assigned by their middles.
        middles = [
            torch.cat([level[:, :2] + level[:, 2:] * 0.5, level[:, 2:]], dim=1) for level in levels
        ]
        objectness = _flatten(objectnesses)
        scores = _flatten(cls_scores).sigmoid() * objectness.sigmoid()
        boxes = self._bbox_decode(corners, _flatten(bbox_preds))
        predictions = Predictions(scores.sqrt_(), boxes)
        geometry = batch_geometry(middles, batch_gt_instances, batch_gt_instances_ignore)
        matched = MatchedBatch(geometry, self.assigner.match(geometry, predictions))
        return self._picture_targets(matched, corners, objectness)

    def _picture_targets(
        self, matched: MatchedBatch, corners: Tensor, objectness: Tensor
    ) -> Iterable[PictureTargets]:
        positive = matched.assignment.positive_mask
        overlap = matched.assignment.overlap[matched.place]
        classes = one_hot(matched.labels, self.num_classes) * overlap[:, None]
        boxes = matched.geometry.gt_boxes[matched.place[0], matched.box_index]
        offsets = corners.new_zeros((len(boxes), 4))
        if self.use_l1:
            offsets = self._get_l1_target(offsets, boxes, corners[matched.place[1]])
        return pictures(
            positive,
            classes.split(matched.counts),
            positive[..., None].to(objectness.dtype),
            boxes.split(matched.counts),
            offsets.split(matched.counts),
            matched.counts,
        )


def _flatten(maps: Sequence[Tensor]) -> Tensor:
    """Levels (B, D, H, W) as (B, P, D)."""
    return torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1)
