"""Neck of YOLOv4: spatial pyramid pooling, and a path aggregation network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from mmdet_ext.detection.backbones.layers import (
    BATCH_NORM,
    INIT_CFG,
    LEAKY_RELU,
    alternating,
    conv,
)
from mmdet_ext.functional.numerics.checks import check_that, is_whole
from mmdet_ext.registry import MODELS

#: Sides of the pooling windows, in the order in which Darknet joins their maps.
WINDOWS = (13, 9, 5)


class UpBlock(nn.Module):
    """Step of the path to finer maps: join the enlarged map with a finer one of the backbone.

    Args:
        top_channels: channels of the coarser map.
        side_channels: channels of the finer map of the backbone.
        channels: channels of the output.
        **cfg: ``norm_cfg`` and ``act_cfg``.
    """

    def __init__(self, top_channels: int, side_channels: int, channels: int, **cfg: Any) -> None:
        super().__init__()
        self.reduce = conv(top_channels, channels, 1, **cfg)
        self.lateral = conv(side_channels, channels, 1, **cfg)
        self.convs = alternating(2 * channels, channels, 5, **cfg)

    def forward(self, top: Tensor, side: Tensor) -> Tensor:
        """Return a map (B, channels, H, W) of the size of ``side``."""
        side = self.lateral(side)
        top = interpolate(self.reduce(top), size=side.shape[-2:])
        joined: Tensor = self.convs(torch.cat([side, top], 1))
        return joined


class DownBlock(nn.Module):
    """Step of the path to coarser maps: join the halved map with a coarser one.

    Args:
        in_channels: channels of the finer map.
        channels: channels of the coarser map, and of the output.
        **cfg: ``norm_cfg`` and ``act_cfg``.
    """

    def __init__(self, in_channels: int, channels: int, **cfg: Any) -> None:
        super().__init__()
        self.down = conv(in_channels, channels, 3, 2, **cfg)
        self.convs = alternating(2 * channels, channels, 5, **cfg)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Return a map (B, channels, H, W) of the size of ``coarse``."""
        joined: Tensor = self.convs(torch.cat([self.down(fine), coarse], 1))
        return joined


@MODELS.register_module()
class YOLOV4Neck(BaseModule):  # type: ignore[misc]
    """Neck of YOLOv4, in the place of mmdet's ``YOLOV3Neck``: the deepest map comes first.

    1. The coarsest map is pooled by its maximum in windows of 13, 9 and 5 places, and joined with
       these maps (SPP), between three convolutions on each side.
    2. From coarse to fine, each map is enlarged and joined with that of the backbone.
    3. From fine to coarse, each map is halved by a convolution and joined with that of step 2.

    Each output has half of the channels of its input. The convolutions are registered in the order
    of the published file of weights, but for those of the head between them (see
    `mmdet_ext.YOLOV4`).

    Args:
        in_channels: channels of the maps of the backbone, the finest first, each even.
        norm_cfg: norm behind each convolution.
        act_cfg: activation.
        init_cfg: by default He's for convolutions, gains 1.

    Raises:
        ValueError: if ``in_channels`` has fewer than two numbers or an odd one, or, in the forward
            pass, the number of maps differs from its length.

    References:
        Bochkovskiy et al., YOLOv4: Optimal Speed and Accuracy of Object Detection, 2020, section
        3.4; He et al., Spatial Pyramid Pooling in Deep Convolutional Networks, 2014; Liu et al.,
        Path Aggregation Network for Instance Segmentation, 2018.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (256, 512, 1024),
        norm_cfg: Any = BATCH_NORM,
        act_cfg: Any = LEAKY_RELU,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg=INIT_CFG if init_cfg is None else init_cfg)
        check_that(
            len(in_channels) >= 2
            and all(is_whole(each) and each >= 2 and each % 2 == 0 for each in in_channels),
            'in_channels',
            in_channels,
            'even numbers of the channels of two maps or more, the finest first',
        )
        cfg = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.in_channels = tuple(in_channels)
        outs = [each // 2 for each in in_channels]
        self.before_pooling = alternating(in_channels[-1], outs[-1], 3, **cfg)
        pooled = outs[-1] * (1 + len(WINDOWS))
        self.after_pooling = alternating(pooled, outs[-1], 3, **cfg)
        levels = range(len(outs) - 1)
        self.ups = nn.ModuleList(
            UpBlock(outs[level + 1], in_channels[level], outs[level], **cfg)
            for level in reversed(levels)
        )
        self.downs = nn.ModuleList(
            DownBlock(outs[level], outs[level + 1], **cfg) for level in levels
        )

    def forward(self, x: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the maps of the head.

        Args:
            x: maps of the backbone, the finest first.

        Returns:
            tuple: maps with half of the channels, the coarsest first.
        """
        if len(x) != len(self.in_channels):
            raise ValueError(
                f'YOLOV4Neck has in_channels of {len(self.in_channels)} maps, but got {len(x)} '
                'maps: let out_indices of the backbone name as many stages'
            )
        top = self.before_pooling(x[-1])
        windows = [max_pool2d(top, side, stride=1, padding=side // 2) for side in WINDOWS]
        maps = [self.after_pooling(torch.cat([*windows, top], 1))]
        for up, side in zip(self.ups, reversed(x[:-1]), strict=True):
            maps.append(up(maps[-1], side))
        # From here on the finest map is the last: it is the first output that is finished.
        found = [maps.pop()]
        for down in self.downs:
            found.append(down(found[-1], maps.pop()))
        return tuple(reversed(found))
