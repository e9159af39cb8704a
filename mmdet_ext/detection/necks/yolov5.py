"""Neck of YOLOv5: a path aggregation network of cross-stage partial blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.functional import interpolate

from mmdet_ext.detection.backbones.layers import conv
from mmdet_ext.detection.backbones.yolov5 import BATCH_NORM, INIT_CFG, SILU, CSPBlock, deepened
from mmdet_ext.functional.numerics.checks import check_that, is_whole
from mmdet_ext.registry import MODELS

#: Blocks of each join in the large network.
BLOCKS = 3


@MODELS.register_module()
class YOLOv5Neck(BaseModule):  # type: ignore[misc]
    """Neck of YOLOv5, with as many maps and channels as its inputs.

    1. From coarse to fine: a 1x1 convolution gives a map the channels of the next finer one; it is
       enlarged, joined with that map of the backbone, and goes through a `CSPBlock`.
    2. From fine to coarse: a map is halved by a 3x3 convolution, joined with the one that the 1x1
       convolution of step 1 gave at this size, and goes through a `CSPBlock`.

    Args:
        in_channels: channels of the maps of the backbone, the finest first.
        depth: factor on the three blocks of each join, as in `YOLOv5Backbone`.
        norm_cfg: norm behind each convolution.
        act_cfg: activation.
        init_cfg: by default torch's own weights of convolutions, gains 1.

    Raises:
        ValueError: if an option is out of its range, or, in the forward pass, the number of maps or
            their channels differ from ``in_channels``.

    References:
        Jocher, YOLOv5, https://github.com/ultralytics/yolov5, release 6, models/yolov5s.yaml; Liu
        et al., Path Aggregation Network for Instance Segmentation, 2018.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (256, 512, 1024),
        depth: float = 1.0,
        norm_cfg: Any = BATCH_NORM,
        act_cfg: Any = SILU,
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
        count = deepened(BLOCKS, depth)
        pairs = list(zip(in_channels[:-1], in_channels[1:], strict=True))
        self.reduces = nn.ModuleList(conv(coarse, fine, 1, **cfg) for fine, coarse in pairs[::-1])
        self.ups = nn.ModuleList(
            CSPBlock(2 * fine, fine, count, False, **cfg) for fine, _ in pairs[::-1]
        )
        self.halves = nn.ModuleList(conv(fine, fine, 3, 2, **cfg) for fine, _ in pairs)
        self.downs = nn.ModuleList(
            CSPBlock(2 * fine, coarse, count, False, **cfg) for fine, coarse in pairs
        )

    def forward(self, x: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the maps of the head.

        Args:
            x: maps of the backbone (B, in_channels[l], H_l, W_l), the finest first, each twice as
                large as the next.

        Returns:
            tuple: maps of the same shapes.
        """
        found = [each.shape[1] for each in x]
        if found != list(self.in_channels):
            raise ValueError(
                f'YOLOv5Neck has in_channels={list(self.in_channels)}, but got maps of {found} '
                'channels. Set in_channels to the channels of the stages in out_indices of the '
                'backbone, the finest first'
            )
        top, sides = x[-1], []
        for side, reduce, up in zip(reversed(x[:-1]), self.reduces, self.ups, strict=True):
            narrow = reduce(top)
            sides.append(narrow)
            top = up(torch.cat([interpolate(narrow, size=side.shape[-2:]), side], 1))
        maps = [top]
        for half, down, side in zip(self.halves, self.downs, reversed(sides), strict=True):
            maps.append(down(torch.cat([half(maps[-1]), side], 1)))
        return tuple(maps)
