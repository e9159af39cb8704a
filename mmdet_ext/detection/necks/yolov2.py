"""Neck of YOLOv2: a finer map passed through beside the coarse one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_ext.detection.backbones.layers import BATCH_NORM, INIT_CFG, LEAKY_RELU, conv
from mmdet_ext.functional.numerics.checks import check_count, check_that
from mmdet_ext.functional.yolo.v2 import passthrough
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class YOLOV2Neck(BaseModule):  # type: ignore[misc]
    """Neck that joins the last map with the one before it, stacked to its size.

    Two 3x3 convolutions continue the coarse map. A 1x1 convolution makes the fine map narrow, and
    :func:`mmdet_ext.functional.yolo.v2.passthrough` stacks each 2 x 2 block of it into channels.
    The result is the fine map's channels, then those of the coarse map: 4 x 64 + 1024 = 1280.

    Args:
        in_channels: channels of the maps, the last two of which are used.
        out_channels: channels of the coarse map after its convolutions.
        fine_channels: channels of the fine map after its convolution.
        norm_cfg: norm behind each convolution.
        act_cfg: activation.
        init_cfg: by default He's for convolutions, gains 1.

    Raises:
        ValueError: if there are fewer than two maps, or, in the forward pass, the sides of the fine
            map are not twice those of the coarse one.

    References:
        Redmon and Farhadi, YOLO9000: Better, Faster, Stronger, 2017, section 2, "fine-grained
        features".
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (512, 1024),
        out_channels: int = 1024,
        fine_channels: int = 64,
        norm_cfg: Any = BATCH_NORM,
        act_cfg: Any = LEAKY_RELU,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg=INIT_CFG if init_cfg is None else init_cfg)
        check_that(len(in_channels) >= 2, 'in_channels', in_channels, 'of two maps or more')
        check_count('out_channels', out_channels)
        check_count('fine_channels', fine_channels)
        cfg = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        fine, coarse = in_channels[-2:]
        self.coarse = nn.Sequential(
            conv(coarse, out_channels, 3, **cfg), conv(out_channels, out_channels, 3, **cfg)
        )
        self.fine = conv(fine, fine_channels, 1, **cfg)

    def forward(self, x: Sequence[Tensor]) -> tuple[Tensor]:
        """Compute the joined map.

        Args:
            x: maps of the backbone, the last of stride 32, say, and the one before it of stride 16.

        Returns:
            tuple: one map (B, 4 fine_channels + out_channels, H, W), with the size of the last.
        """
        fine, coarse = x[-2:]
        sides, wanted = tuple(fine.shape[-2:]), tuple(2 * side for side in coarse.shape[-2:])
        if sides != wanted:
            raise ValueError(
                f'YOLOV2Neck needs a fine map of {wanted[0]} x {wanted[1]}, twice the last map, '
                f'but got one of {sides[0]} x {sides[1]} (height x width). Pad the images to a '
                'multiple of the last stride (pad_size_divisor of the data preprocessor), and let '
                'the backbone return maps of consecutive strides'
            )
        return (torch.cat([passthrough(self.fine(fine)), self.coarse(coarse)], 1),)
