"""RTMDet's heads, with the targets of a batch made at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmdet.models.dense_heads import RTMDetHead as StockRTMDetHead
from mmdet.models.dense_heads import RTMDetSepBNHead as StockRTMDetSepBNHead
from torch import Tensor

from mmdet_ext.detection.heads.dense.batch_targets import BatchTargets, PictureTargets, pictures
from mmdet_ext.functional.assignment.geometry import Predictions
from mmdet_ext.registry import MODELS


class RTMDetTargets(BatchTargets):
    """Targets of RTMDet's heads: boxes, px, and the fit of prediction and box."""

    by_mask_centers = True

    def batch_targets(
        self, cls_scores: Tensor, bbox_preds: Tensor, *args: Any, **kwargs: Any
    ) -> Iterable[PictureTargets] | None:
        """``priors, labels, their weights, boxes, fit, Sampled`` of each picture.

        Args:
            cls_scores: (B, P, C) logits.
            bbox_preds: (B, P, 4) corners, px.
            *args: further arguments of stock's ``get_targets``.
            **kwargs: likewise.
        """
        predictions = Predictions(cls_scores.detach(), bbox_preds.detach())
        matched = self.match_anchors(self.assigner, *args, predictions=predictions, **kwargs)
        if matched is None:
            return None
        return pictures(
            matched.priors_of_pictures(),
            *matched.label_targets(self.num_classes, self.train_cfg['pos_weight']),
            matched.spread(matched.boxes),
            matched.spread(matched.assignment.overlap[matched.place].float()),
            matched.sampled(),
        )


@MODELS.register_module()
class RTMDetHead(RTMDetTargets, StockRTMDetHead):  # type: ignore[misc]
    """Stock's ``RTMDetHead``, with the targets of all pictures of a batch made at once.

    Options, weights and losses are stock's. Give it our `DynamicSoftLabelAssigner`; with another
    assigner or sampler it goes stock's way (see `BatchTargets`).
    """


@MODELS.register_module()
class RTMDetSepBNHead(RTMDetTargets, StockRTMDetSepBNHead):  # type: ignore[misc]
    """Stock's ``RTMDetSepBNHead``, as `RTMDetHead` is of its namesake."""
