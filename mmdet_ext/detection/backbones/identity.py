"""Backbone that leaves the image as it is."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor

from mmdet_ext.registry import MODELS


@MODELS.register_module()
class IdentityBackbone(BaseModule):  # type: ignore[misc]
    """Backbone without layers, whose only map is the image.

    It is for detectors whose RoI extractor reads the image itself: `RCNNWarpRoIExtractor`.
    """

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Return the images (B, 3, H, W) as the one level of features."""
        return (x,)
