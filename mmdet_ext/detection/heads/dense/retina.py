"""RetinaNet's head, with the targets of a batch made at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmdet.models.dense_heads import RetinaHead as StockRetinaHead

from mmdet_ext.detection.heads.dense.batch_targets import AnchorTargets, PictureTargets
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class RetinaHead(AnchorTargets, StockRetinaHead):  # type: ignore[misc]
    """Stock's ``RetinaHead``, with the targets of all pictures of a batch made at once.

    Options, weights and losses are stock's. Give it our `MaxIoUAssigner`; with another assigner or
    sampler it goes stock's way (see `BatchTargets`).
    """

    returns_anchors = False

    def batch_targets(
        self, *args: Any, return_sampling_results: bool = False, **kwargs: Any
    ) -> Iterable[PictureTargets] | None:
        """As of other heads with anchors; stock's own way for whom asks for sampling results."""
        return None if return_sampling_results else super().batch_targets(*args, **kwargs)
