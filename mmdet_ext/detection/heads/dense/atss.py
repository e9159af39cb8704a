"""Head of ATSS that computes the targets of a batch at once."""

from __future__ import annotations

from mmdet.models.dense_heads import ATSSHead as MMDetATSSHead
from torch import Tensor

from mmdet_ext.detection.heads.dense.anchor_targets import AnchorTargets
from mmdet_ext.functional.assignment.fcos import centerness
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class ATSSHead(AnchorTargets, MMDetATSSHead):  # type: ignore[misc]
    """Drop-in replacement of mmdet's ``ATSSHead`` that computes the targets of a batch at once.

    Options, weights and losses are mmdet's. Use it with our `ATSSAssigner`, or any other of ours.
    With an assigner of mmdet, mmdet's code computes the targets; it also draws, where a sampler
    does (see `BatchTargets`).

    `MaxIoUAssigner` and `RFLAAssigner` assign a ground truth to priors whose centres lie outside
    of it. mmdet's head fails there with an assertion. In this head such a prior has a centerness
    of 0, so that it learns its class alone.
    """

    gives_levels = True

    def centerness_target(self, anchors: Tensor, gts: Tensor) -> Tensor:
        """Compute the centerness of anchors within their ground-truth boxes.

        Args:
            anchors: (N, 4) corners, px; their centres count.
            gts: (N, 4) corners, px.

        Returns:
            Tensor: (N,) in [0, 1], 0 for centres outside of the box.
        """
        return centerness((anchors[:, :2] + anchors[:, 2:]) / 2, gts)
