"""Spatial pyramid pooling of RoIs, as in SPPNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.roi_heads import SingleRoIExtractor
from torch import Tensor, nn
from torchvision.ops import roi_pool

from mmdet_ext.functional.numerics.checks import check_count, check_that
from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.functional.pooling.windows import window_cells
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class SPPRoIExtractor(SingleRoIExtractor):  # type: ignore[misc]
    r"""RoI extractor that pools each RoI into several grids of bins, from fine to coarse.

    A RoI takes the cells of the map whose centres are inside of it (`window_cells`), w x h of
    them. Level n of the pyramid has n x n bins. Bin (i, j) holds the maximum over the columns from
    :math:`\lfloor j w / n \rfloor` up to :math:`\lceil (j + 1) w / n \rceil`, and over rows by the
    same rule. The bins of all levels stand one after the other: 50 for 6, 3, 2 and 1. RoI pooling
    of Fast R-CNN is the pyramid of one level.

    A head takes these features with ``roi_feat_size=(50, 1)``, so that its first fully connected
    layer has ``50 * in_channels`` inputs. The maxima are torchvision's, on any device, in float32
    or float64.

    Args:
        out_channels: channels of the features.
        featmap_strides: px of the image per cell, for each level; a RoI is mapped to a level by its
            size, as in mmdet's ``SingleRoIExtractor``. The paper chooses the scale of the image
            instead, by the same idea.
        pyramid: bins per side of each level.
        finest_scale: RoIs of less than twice this side, px, are taken from the first level.
        init_cfg: config of the initialisation.

    Raises:
        ValueError: if ``pyramid`` is empty or has a number below 1, or if features have another
            number of channels.

    References:
        He et al., Spatial Pyramid Pooling in Deep Convolutional Networks for Visual Recognition,
        2014, sections 2.2 and 4, appendix A.
    """

    def __init__(
        self,
        out_channels: int,
        featmap_strides: list[float],
        pyramid: Sequence[int] = (6, 3, 2, 1),
        finest_scale: int = 56,
        init_cfg: Any = None,
    ) -> None:
        check_count('out_channels', out_channels)
        check_that(len(pyramid) > 0, 'pyramid', pyramid, 'bins per side of at least one level')
        for side in pyramid:
            check_count('pyramid', side)
        layer = dict(type=SpatialPyramidPool, pyramid=tuple(pyramid))
        super().__init__(layer, out_channels, featmap_strides, finest_scale, init_cfg)

    def forward(
        self, feats: tuple[Tensor, ...], rois: Tensor, roi_scale_factor: float | None = None
    ) -> Tensor:
        """Pool RoIs.

        Args:
            feats: a map (B, out_channels, H, W) of each level.
            rois: (N, 5), index of the image in the batch and corners, px.
            roi_scale_factor: factor of their sides, with several levels.

        Returns:
            Tensor: (N, out_channels, bins, 1), with the bins of the first level first, row by row.
        """
        for each in feats:
            if each.shape[1] != self.out_channels:
                raise ValueError(
                    f'SPPRoIExtractor got features of {each.shape[1]} channels, but '
                    f'out_channels={self.out_channels}: give the channels of the neck'
                )
        pooled: Tensor = super().forward(promote_half(*feats), rois.float(), roi_scale_factor)
        return pooled


class SpatialPyramidPool(nn.Module):
    """Maxima over the bins of a pyramid, of RoIs on one map.

    Args:
        spatial_scale: cells of the map per px of the image.
        pyramid: bins per side of each level.
    """

    def __init__(self, spatial_scale: float, pyramid: tuple[int, ...]) -> None:
        super().__init__()
        self.stride = 1 / spatial_scale
        self.pyramid = pyramid
        self.output_size = (sum(side**2 for side in pyramid), 1)

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        """Return the maxima (N, C, bins, 1) of RoIs (N, 5) on features (B, C, H, W)."""
        cells = window_cells(rois[:, 1:], self.stride, *features.shape[-2:])
        # torchvision takes the last cell as part of a RoI, and bins of the same bounds.
        windows = torch.cat([rois[:, :1], cells.to(rois)], 1).to(features)
        levels = [roi_pool(features, windows, side).flatten(2) for side in self.pyramid]
        return torch.cat(levels, 2)[..., None]
