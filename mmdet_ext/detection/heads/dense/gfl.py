"""Head of Generalised Focal Loss (GFL) that computes the targets of a batch at once."""

from __future__ import annotations

from mmdet.models.dense_heads import GFLHead as MMDetGFLHead
from torch import Tensor

from mmdet_ext.detection.heads.dense.batch_targets import AnchorTargets, MatchedBatch
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class GFLHead(AnchorTargets, MMDetGFLHead):  # type: ignore[misc]
    """Drop-in replacement of mmdet's ``GFLHead`` that computes the targets of a batch at once.

    Options, weights and losses are mmdet's. Use it with our `ATSSAssigner`. With an assigner of
    mmdet, or a sampler that draws, mmdet's code computes the targets (see `BatchTargets`).
    """

    gives_levels = True

    def box_targets(self, matched: MatchedBatch) -> Tensor:
        """Return the ground-truth boxes (N, 4), px, whatever ``reg_decoded_bbox`` says."""
        return matched.boxes
