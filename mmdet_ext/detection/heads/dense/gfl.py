"""The head of generalised focal loss, with the targets of a batch made at once."""

from __future__ import annotations

from mmdet.models.dense_heads import GFLHead as StockGFLHead
from torch import Tensor

from mmdet_ext.detection.heads.dense.batch_targets import AnchorTargets, MatchedBatch
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class GFLHead(AnchorTargets, StockGFLHead):  # type: ignore[misc]
    """Stock's ``GFLHead``, with the targets of all pictures of a batch made at once.

    Options, weights and losses are stock's. Give it our `ATSSAssigner`; with another assigner or
    sampler it goes stock's way (see `BatchTargets`).
    """

    gives_levels = True

    def box_targets(self, matched: MatchedBatch) -> Tensor:
        """The boxes themselves, px, whatever ``reg_decoded_bbox`` says."""
        return matched.boxes
