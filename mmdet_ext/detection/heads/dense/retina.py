"""Heads of RetinaNet and of the RPN that compute the targets of a batch at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmdet.models.dense_heads import RetinaHead as MMDetRetinaHead
from mmdet.models.dense_heads import RPNHead as MMDetRPNHead

from mmdet_ext.detection.heads.dense.anchor_targets import AnchorTargets
from mmdet_ext.detection.heads.dense.batch_targets import ImageTargets
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class RetinaHead(AnchorTargets, MMDetRetinaHead):  # type: ignore[misc]
    """Drop-in replacement of mmdet's ``RetinaHead`` that computes the targets of a batch at once.

    Options, weights and losses are mmdet's. Use it with our `MaxIoUAssigner`, or any other of
    ours. With an assigner of mmdet, mmdet's code computes the targets; it also draws, where a
    sampler does (see `BatchTargets`).
    """

    returns_anchors = False

    def batch_targets(
        self, *args: Any, return_sampling_results: bool = False, **kwargs: Any
    ) -> Iterable[ImageTargets] | None:
        """Compute the targets of each image (see `AnchorTargets`).

        Args:
            *args: arguments of mmdet's ``get_targets``.
            return_sampling_results: True leaves the batch to mmdet's code, as whole sampling
                results exist only there.
            **kwargs: further arguments of mmdet's ``get_targets``.
        """
        return None if return_sampling_results else super().batch_targets(*args, **kwargs)


@MODELS.register_module()
class RPNHead(AnchorTargets, MMDetRPNHead):  # type: ignore[misc]
    """Drop-in replacement of mmdet's ``RPNHead`` that takes every assigner of ours.

    Options, weights and losses are mmdet's. mmdet's head calls its assigner without pyramid levels
    and predictions, so that only rules such as `MaxIoUAssigner` can serve it; this one gives what
    the rule uses. A sampler that draws, as `RandomSampler` and `HardNegativeSampler`, draws from
    the assignment of each image. Losses over all anchors (`FocalLoss`, `OHEMLoss`) go with
    ``sampler=dict(type='PseudoSampler')``.
    """

    returns_anchors = False
