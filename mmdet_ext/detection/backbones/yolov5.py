"""Backbone of YOLOv5, layout v6."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from mmdet_ext.detection.backbones.layers import StagedBackbone, conv, scaled
from mmdet_ext.functional.numerics.checks import check_number
from mmdet_ext.registry import MODELS

#: Channels and number of residual blocks of each stage but the first, which is one convolution.
STAGES = ((128, 3), (256, 6), (512, 9), (1024, 3))
#: Channels of the first convolution.
STEM = 64
#: Norm, activation and first weights of all convolutions.
BATCH_NORM = dict(type='BN', eps=1e-3, momentum=0.03)
SILU = dict(type='SiLU', inplace=True)
INIT_CFG = [
    # What torch gives a convolution by default.
    dict(
        type='Kaiming',
        layer='Conv2d',
        a=5**0.5,
        distribution='uniform',
        mode='fan_in',
        nonlinearity='leaky_relu',
    ),
    dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
]
#: Side of the window of the pooling, which is applied three times.
WINDOW = 5


class CSPBlock(nn.Module):
    """Cross-stage partial block of three 1x1 convolutions and the residual blocks of one way.

    Two convolutions halve the channels. The first way goes through the ``blocks``, a 1x1 and a 3x3
    convolution each, the second passes by; the third convolution merges them, the first way first.

    Args:
        in_channels: channels of the input.
        channels: channels of the output, even.
        count: number of blocks.
        residual: whether the input of a block is added to its output.
        **cfg: ``norm_cfg`` and ``act_cfg``.
    """

    def __init__(
        self, in_channels: int, channels: int, count: int, residual: bool, **cfg: Any
    ) -> None:
        super().__init__()
        half = channels // 2
        self.residual = residual
        self.entry = conv(in_channels, half, 1, **cfg)
        self.bypass = conv(in_channels, half, 1, **cfg)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(half, half, 1, **cfg), conv(half, half, 3, **cfg))
            for _ in range(count)
        )
        self.merge = conv(2 * half, channels, 1, **cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H, W)."""
        bypass, x = self.bypass(x), self.entry(x)
        for block in self.blocks:
            x = x + block(x) if self.residual else block(x)
        merged: Tensor = self.merge(torch.cat([x, bypass], 1))
        return merged


class PoolingPyramid(nn.Module):
    """Spatial pyramid pooling by one small window, applied three times in a row (SPPF).

    Windows of 5 places in a row are those of 5, 9 and 13 places, for less work.

    Args:
        channels: channels of the input and of the output, even.
        **cfg: ``norm_cfg`` and ``act_cfg``.
    """

    def __init__(self, channels: int, **cfg: Any) -> None:
        super().__init__()
        half = channels // 2
        self.reduce = conv(channels, half, 1, **cfg)
        self.merge = conv(4 * half, channels, 1, **cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        maps = [self.reduce(x)]
        for _ in range(3):
            maps.append(max_pool2d(maps[-1], WINDOW, stride=1, padding=WINDOW // 2))
        merged: Tensor = self.merge(torch.cat(maps, 1))
        return merged


@MODELS.register_module()
class YOLOv5Backbone(StagedBackbone):
    """The backbone of YOLOv5 in the layout of release 6.

    A 6x6 convolution of stride 2, then four stages of a 3x3 convolution of stride 2 and a
    cross-stage partial block; behind the last, a pooling pyramid. The maps of the stages have the
    strides 2, 4, 8, 16 and 32. mmdet's ``CSPDarknet``, of YOLOX, begins otherwise and pools
    otherwise.

    Args:
        depth: factor on the numbers of residual blocks 3, 6, 9 and 3: 0.33 (n and s), 0.67 (m) or
            1 (l); at least one remains.
        width: factor on all channels, rounded to multiples of 8: 0.25 (n), 0.5 (s), 0.75 (m) or 1.
        out_indices: stages, 0 to 4, whose maps are returned.
        frozen_stages: index of the last stage that is not trained; -1 for none.
        norm_eval: whether batch norms use their running statistics in training.
        norm_cfg: norm behind each convolution.
        act_cfg: activation.
        init_cfg: by default torch's own weights of convolutions, gains 1.

    Raises:
        ValueError: if an option is out of its range, or, in the forward pass, a side of the images
            is no multiple of the largest stride.

    References:
        Jocher, YOLOv5, https://github.com/ultralytics/yolov5, release 6, models/yolov5s.yaml; Wang
        et al., CSPNet: A New Backbone that can Enhance Learning Capability of CNN, 2020.
    """

    def __init__(
        self,
        depth: float = 1.0,
        width: float = 1.0,
        out_indices: Sequence[int] = (2, 3, 4),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        norm_cfg: Any = BATCH_NORM,
        act_cfg: Any = SILU,
        init_cfg: Any = None,
    ) -> None:
        cfg = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        channels = scaled(STEM, width)
        stages: list[nn.Module] = [ConvModule(3, channels, 6, stride=2, padding=2, **cfg)]
        for full, count in STAGES:
            out = scaled(full, width)
            parts: list[nn.Module] = [
                conv(channels, out, 3, 2, **cfg),
                CSPBlock(out, out, deepened(count, depth), True, **cfg),
            ]
            if len(stages) == len(STAGES):  # the last
                parts.append(PoolingPyramid(out, **cfg))
            stages.append(nn.Sequential(*parts))
            channels = out
        strides = [2 ** (index + 1) for index in range(len(stages))]
        init_cfg = INIT_CFG if init_cfg is None else init_cfg
        super().__init__(stages, strides, out_indices, frozen_stages, norm_eval, init_cfg)


def deepened(count: int, depth: float) -> int:
    """Return a number of blocks times ``depth``, rounded, at least 1.

    Args:
        count: of the large network.
        depth: factor, above 0.

    Raises:
        ValueError: if the factor is not above 0.

    >>> [deepened(count, 0.33) for count in (3, 6, 9)]
    [1, 2, 3]
    """
    check_number('depth', depth, above=0, finite=True)
    return max(1, round(count * depth))
