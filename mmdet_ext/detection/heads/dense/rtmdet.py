"""Heads of RTMDet that compute the targets of a batch at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmdet.models.dense_heads import RTMDetHead as MMDetRTMDetHead
from mmdet.models.dense_heads import RTMDetSepBNHead as MMDetRTMDetSepBNHead
from torch import Tensor

from mmdet_ext.detection.heads.dense.batch_targets import BatchTargets, ImageTargets, per_image
from mmdet_ext.detection.heads.dense.fitting import uses_predicted_boxes
from mmdet_ext.functional.assignment.geometry import Predictions
from mmdet_ext.registry import MODELS


class RTMDetTargets(BatchTargets):
    """Mixin for RTMDet's heads, whose targets hold boxes, px, and the IoU of prediction and box."""

    gives_points = True
    uses_mask_centers = True

    def batch_targets(
        self, cls_scores: Tensor, bbox_preds: Tensor, *args: Any, **kwargs: Any
    ) -> Iterable[ImageTargets] | None:
        """Compute ``priors, labels, their weights, boxes, IoU, Sampled`` of each image.

        Args:
            cls_scores: logits (B, P, C).
            bbox_preds: predicted boxes (B, P, 4), corners, px.
            *args: further arguments of mmdet's ``get_targets``.
            **kwargs: further keyword arguments of mmdet's ``get_targets``.
        """
        predictions = Predictions(boxes=bbox_preds.detach(), logits=cls_scores.detach())
        matched = self.match_anchors(self.assigner, *args, predictions=predictions, **kwargs)
        if matched is None:
            return None
        # The target of a score is the IoU of the predicted box, which rules by priors do not give.
        overlap = matched.assignment.overlap[matched.place]
        if not uses_predicted_boxes(self.assigner):
            overlap = matched.overlap_of(bbox_preds.detach())
        return per_image(
            matched.priors_per_image(),
            *matched.label_targets(self.num_classes, self.train_cfg['pos_weight']),
            matched.spread(matched.boxes),
            matched.spread(overlap.float()),
            matched.sampled(),
        )


@MODELS.register_module()
class RTMDetHead(RTMDetTargets, MMDetRTMDetHead):  # type: ignore[misc]
    """Drop-in replacement of mmdet's ``RTMDetHead`` that computes the targets of a batch at once.

    Options, weights and losses are mmdet's. Use it with our `DynamicSoftLabelAssigner`, or any
    other of ours for points. With an assigner of mmdet, or a sampler that draws, mmdet's code
    computes the targets (see `BatchTargets`).
    """


@MODELS.register_module()
class RTMDetSepBNHead(RTMDetTargets, MMDetRTMDetSepBNHead):  # type: ignore[misc]
    """Drop-in replacement of mmdet's ``RTMDetSepBNHead``, with targets as in `RTMDetHead`."""
