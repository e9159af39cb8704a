"""ATSS's head, with the targets of a batch made at once."""

from __future__ import annotations

from mmdet.models.dense_heads import ATSSHead as StockATSSHead
from torch import Tensor

from mmdet_ext.detection.heads.dense.batch_targets import AnchorTargets
from mmdet_ext.functional.assignment.fcos import centerness
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class ATSSHead(AnchorTargets, StockATSSHead):  # type: ignore[misc]
    """Stock's ``ATSSHead``, with the targets of all pictures of a batch made at once.

    Options, weights and losses are stock's. Give it our `ATSSAssigner`; with another assigner or
    sampler it goes stock's way (see `BatchTargets`). Rules that give a box priors centred outside
    of it, as `MaxIoUAssigner` and `RFLAAssigner` do, end stock's head with an assertion; here such
    a prior has centerness 0, so that it learns its class alone.
    """

    gives_levels = True

    def centerness_target(self, anchors: Tensor, gts: Tensor) -> Tensor:
        """Centerness of the centres of priors (N, 4) in their boxes (N, 4), px; (N,) in [0, 1]."""
        return centerness((anchors[:, :2] + anchors[:, 2:]) / 2, gts)
