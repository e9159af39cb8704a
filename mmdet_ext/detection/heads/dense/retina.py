"""Head of RetinaNet that computes the targets of a batch at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmdet.models.dense_heads import RetinaHead as MMDetRetinaHead

from mmdet_ext.detection.heads.dense.batch_targets import AnchorTargets, ImageTargets
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class RetinaHead(AnchorTargets, MMDetRetinaHead):  # type: ignore[misc]
    """Drop-in replacement of mmdet's ``RetinaHead`` that computes the targets of a batch at once.

    Options, weights and losses are mmdet's. Use it with our `MaxIoUAssigner`, or any other of
    ours. With an assigner of mmdet, or a sampler that draws, mmdet's code computes the targets
    (see `BatchTargets`).
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
