"""YOLOv3's head, with the targets of a batch made at once, and by what it predicts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import YOLOV3Head as StockYOLOV3Head
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
from mmdet_ext.functional.assignment.claims import BACKGROUND
from mmdet_ext.functional.assignment.geometry import Predictions
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class YOLOV3Head(BatchTargets, StockYOLOV3Head):  # type: ignore[misc]
    """Stock's ``YOLOV3Head``, which also tells its assigner what it predicts.

    Options, weights and losses are stock's. With our `YOLOv3Assigner` a prior is ignored by the
    box predicted for it, as in the paper, where stock's head has the anchors alone; our
    `YOLOv4Assigner` and `YOLOv5Assigner` work too. With another assigner or sampler it goes
    stock's way (see `BatchTargets`).
    """

    def loss_by_feat(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Stock's, on targets that are made at once."""
        losses: dict[str, Tensor]
        with self.targets_ready(*args, **kwargs):
            losses = super().loss_by_feat(*args, **kwargs)
        return losses

    def get_targets(self, *args: Any, **kwargs: Any) -> Any:
        """Stock's, which asks picture by picture: `loss_by_feat` has made them."""
        return StockYOLOV3Head.get_targets(self, *args, **kwargs)

    def batch_targets(
        self,
        pred_maps: Sequence[Tensor],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict[str, Any]],
        batch_gt_instances_ignore: Sequence[InstanceData | None] | None = None,
    ) -> Iterable[PictureTargets] | None:
        """``targets (P, 5 + C), background (P,)`` of each picture.

        Args:
            pred_maps: (B, A (5 + C), H, W) of each level.
            batch_gt_instances: boxes and labels of each picture.
            batch_img_metas: of each picture.
            batch_gt_instances_ignore: regions to ignore of each picture.
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
        geometry = batch_geometry(levels, batch_gt_instances, batch_gt_instances_ignore)
        predictions = Predictions(boxes=self._decoded(pred_maps, priors, strides))
        matched = MatchedBatch(geometry, self.assigner.match(geometry, predictions))
        background = matched.assignment.gt_index == BACKGROUND
        return pictures(self._target_maps(matched, strides), background.to(torch.uint8))

    def _decoded(self, pred_maps: Sequence[Tensor], priors: Tensor, strides: Tensor) -> Tensor:
        """Predicted boxes (B, P, 4), px."""
        flat = torch.cat(
            [
                each.permute(0, 2, 3, 1).reshape(len(each), -1, self.num_attrib)[..., :4]
                for each in pred_maps
            ],
            1,
        ).float()
        flat = torch.cat([flat[..., :2].sigmoid(), flat[..., 2:]], -1)
        boxes: Tensor = self.bbox_coder.decode(priors, flat, strides[:, None])
        return boxes

    def _target_maps(self, matched: MatchedBatch, strides: Tensor) -> Tensor:
        encoded = self.bbox_coder.encode(matched.priors, matched.boxes, strides[matched.place[1]])
        classes = one_hot(matched.labels, self.num_classes).to(encoded.dtype)
        if self.one_hot_smoother != 0:
            classes = classes * (1 - self.one_hot_smoother)
            classes = classes + self.one_hot_smoother / self.num_classes
        confidence = encoded.new_ones((len(encoded), 1))
        return matched.spread(torch.cat([encoded, confidence, classes], 1))
