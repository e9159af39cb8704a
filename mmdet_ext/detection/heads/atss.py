"""ATSS's head, with the targets of a batch made at once."""

from __future__ import annotations

from mmdet.models.dense_heads import ATSSHead as StockATSSHead

from mmdet_ext.detection.heads.batch_targets import AnchorTargets
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class ATSSHead(AnchorTargets, StockATSSHead):  # type: ignore[misc]
    """Stock's ``ATSSHead``, with the targets of all pictures of a batch made at once.

    Options, weights and losses are stock's. Give it our `ATSSAssigner`; with another assigner or
    sampler it goes stock's way (see `BatchTargets`).
    """

    gives_levels = True
