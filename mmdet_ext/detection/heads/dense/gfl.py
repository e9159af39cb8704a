"""Head of Generalised Focal Loss (GFL) that computes the targets of a batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import build_activation_layer
from mmdet.models.dense_heads import GFLHead as MMDetGFLHead
from torch import Tensor

from mmdet_ext.detection.heads.dense.anchor_targets import AnchorTargets
from mmdet_ext.detection.heads.dense.batch_targets import flat_levels
from mmdet_ext.detection.heads.dense.fitting import as_points
from mmdet_ext.detection.heads.dense.matched_batch import MatchedBatch
from mmdet_ext.functional.assignment.geometry import Priors
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class GFLHead(AnchorTargets, MMDetGFLHead):  # type: ignore[misc]
    """Drop-in replacement of mmdet's ``GFLHead`` that computes the targets of a batch at once.

    Options but for ``act_cfg``, weights and losses are mmdet's. Use it with our `ATSSAssigner`, or
    any other of ours. Those that use predictions get its scores, in which class and overlap are
    joined, and the boxes that its distributions stand for. Whatever the assigner, the target of a
    score is the IoU of the predicted box. With an assigner of mmdet, mmdet's code computes the
    targets; it also draws, where a sampler does (see `BatchTargets`).

    Args:
        *args: arguments of mmdet's ``GFLHead``.
        act_cfg: activation behind the convolutions; None for the ReLU of mmdet's head.
        **kwargs: keyword arguments of mmdet's ``GFLHead``.
    """

    gives_levels = True

    def __init__(self, *args: Any, act_cfg: Any = None, **kwargs: Any) -> None:
        self.act_cfg = act_cfg
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        if self.act_cfg is not None:
            for layer in (*self.cls_convs, *self.reg_convs):
                layer.activate = build_activation_layer(self.act_cfg)

    def box_targets(self, matched: MatchedBatch) -> Tensor:
        """Return the ground-truth boxes (N, 4), px, whatever ``reg_decoded_bbox`` says."""
        return matched.boxes

    def decoded(self, priors: Priors, bbox_preds: Sequence[Tensor]) -> Tensor:
        """Decode the boxes (B, P, 4), px, from the distributions of their distances."""
        flat = flat_levels(bbox_preds, 4 * (self.reg_max + 1)).float()
        points, strides = as_points(priors, self.prior_generator).as_points()
        return self.boxes_of(points.expand(len(flat), -1, -1), strides[:, :1], flat)

    def boxes_of(self, points: Tensor, strides: Tensor, logits: Tensor) -> Tensor:
        """Decode boxes (..., 4), px, from the distributions of their distances to points.

        Args:
            points: (..., 2), px.
            strides: units of the distances, (..., 1), px.
            logits: of the distributions, (..., 4 * (``reg_max`` + 1)).
        """
        sides = self.integral(logits).view(*logits.shape[:-1], 4) * strides
        boxes: Tensor = self.bbox_coder.decode(points, sides)
        return boxes
