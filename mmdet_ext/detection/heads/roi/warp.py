"""RoIs as crops of the image that each go through a network of their own, as in R-CNN."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.model import BaseModule
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_count
from mmdet_ext.functional.pooling.warp import check_context, warp_regions
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class RCNNWarpRoIExtractor(BaseModule):  # type: ignore[misc]
    r"""RoI extractor that warps each RoI of the image to a square, and runs a network on it.

    The crop shows the RoI in its inner part and some context around it (`warp_regions`). This is
    R-CNN: nothing is shared between overlapping RoIs, so that 2000 proposals cost 2000 runs of the
    network. The image must arrive here unchanged: the detector's backbone is
    `mmdet_ext.IdentityBackbone`, and the network is an option of this extractor.

    Args:
        backbone: config of the network. Its last map is taken.
        out_channels: channels of that map.
        output_size: its height and width for a crop of ``crop_size``: 2 for a ResNet and 64 px.
        crop_size: side of the crops, px.
        context: px of a crop on each side of the RoI.
        crops_per_run: crops that go through the network at once in a test, where there may be
            thousands; in training all go at once.
        init_cfg: config of the initialisation.

    Raises:
        ValueError: if an option is outside of its range, if several maps come instead of the image,
            or if the network gives a map of another shape.

    References:
        Girshick et al., Rich feature hierarchies for accurate object detection and semantic
        segmentation, 2014, section 2.1 and appendix A.
    """

    #: Maps that the RoI head gives: the image alone.
    num_inputs = 1

    def __init__(
        self,
        backbone: dict[str, Any],
        out_channels: int,
        output_size: int,
        crop_size: int = 227,
        context: int = 16,
        crops_per_run: int = 128,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, value in (
            ('out_channels', out_channels),
            ('output_size', output_size),
            ('crops_per_run', crops_per_run),
        ):
            check_count(name, value)
        check_context(crop_size, context)
        self.out_channels = out_channels
        self.output_size = output_size
        self.crop_size = crop_size
        self.context = context
        self.crops_per_run = crops_per_run
        self.backbone = MMDET_MODELS.build(backbone)

    def forward(
        self, feats: tuple[Tensor, ...], rois: Tensor, roi_scale_factor: float | None = None
    ) -> Tensor:
        """Compute the features of RoIs.

        Args:
            feats: the images (B, 3, H, W) alone.
            rois: (N, 5), index of the image in the batch and corners, px.
            roi_scale_factor: must be None.

        Returns:
            Tensor: (N, out_channels, output_size, output_size).
        """
        if len(feats) != 1 or feats[0].shape[1] != 3:
            raise ValueError(
                'RCNNWarpRoIExtractor takes the image, one map of 3 channels, got '
                f'{[tuple(each.shape) for each in feats]}: set backbone of the detector to '
                "dict(type='mmdet_ext.IdentityBackbone'), without a neck"
            )
        if roi_scale_factor is not None:
            raise ValueError(f'roi_scale_factor must be None, got {roi_scale_factor}')
        if not len(rois):
            shape = (0, self.out_channels, self.output_size, self.output_size)
            return feats[0].new_zeros(shape)
        runs = (rois,) if self.training else rois.split(self.crops_per_run)
        return torch.cat([self._run(feats[0], each) for each in runs])

    def _run(self, images: Tensor, rois: Tensor) -> Tensor:
        """Run the network once on the crops of some RoIs."""
        crops = warp_regions(images, rois, self.crop_size, self.context)
        features: Tensor = self.backbone(crops)[-1]
        wanted = (self.out_channels, self.output_size, self.output_size)
        if features.shape[1:] != wanted:
            raise ValueError(
                f'the network makes {tuple(features.shape[1:])} of a crop of '
                f'{self.crop_size} px, but out_channels and output_size state {wanted}'
            )
        return features
