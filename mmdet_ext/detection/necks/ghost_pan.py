"""Neck of NanoDet-Plus: a path aggregation network of ghost blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.functional import interpolate

from mmdet_ext.detection.backbones.layers import BATCH_NORM, INIT_CFG, LEAKY_RELU
from mmdet_ext.functional.numerics.checks import check_count, check_that, check_whole, is_whole
from mmdet_ext.registry import MODELS


class GhostModule(nn.Module):
    """Convolution of which half of the channels are computed cheaply from the other half.

    Args:
        in_channels: channels of the input.
        channels: channels of the output, even.
        norm_cfg: norm behind each convolution.
        act_cfg: activation; None for none.

    References:
        Han et al., GhostNet: More Features from Cheap Operations, 2020, section 3.1.
    """

    def __init__(self, in_channels: int, channels: int, norm_cfg: Any, act_cfg: Any) -> None:
        super().__init__()
        half = channels // 2
        cfg = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.primary = ConvModule(in_channels, half, 1, **cfg)
        self.cheap = ConvModule(half, half, 3, padding=1, groups=half, **cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map (B, channels, H, W)."""
        own = self.primary(x)
        return torch.cat([own, self.cheap(own)], 1)


class GhostBottleneck(nn.Module):
    """Two ghost modules beside a shortcut.

    Args:
        in_channels: channels of the input.
        middle: channels between the two modules.
        channels: channels of the output.
        kernel_size: side of the kernels of the shortcut, odd.
        norm_cfg: norm behind each convolution.
        act_cfg: activation of the first module.
    """

    def __init__(
        self,
        in_channels: int,
        middle: int,
        channels: int,
        kernel_size: int,
        norm_cfg: Any,
        act_cfg: Any,
    ) -> None:
        super().__init__()
        self.expand = GhostModule(in_channels, middle, norm_cfg, act_cfg)
        self.project = GhostModule(middle, channels, norm_cfg, None)
        self.shortcut = nn.Sequential()
        if in_channels != channels:
            self.shortcut = DepthwiseSeparableConvModule(
                in_channels,
                channels,
                kernel_size,
                padding=kernel_size // 2,
                norm_cfg=norm_cfg,
                act_cfg=None,
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return a map (B, channels, H, W)."""
        summed: Tensor = self.project(self.expand(x)) + self.shortcut(x)
        return summed


@MODELS.register_module()
class GhostPAN(BaseModule):  # type: ignore[misc]
    """Neck of NanoDet-Plus, a path aggregation network of light blocks.

    1. A 1x1 convolution gives each map of the backbone the same channels.
    2. From coarse to fine, each map is enlarged by bilinear interpolation, joined with the next
       finer one, and passed through ghost bottlenecks.
    3. From fine to coarse, each map is halved by a depthwise separable convolution, joined with
       the coarser one of step 2, and passed through ghost bottlenecks.
    4. A further level is the sum of two depthwise separable convolutions, which halve the coarsest
       map of step 1 and the last map of step 3.

    Args:
        in_channels: channels of the maps of the backbone, the finest first.
        out_channels: channels of all outputs, even.
        kernel_size: side of the depthwise kernels, odd.
        num_extra_levels: levels beyond those of the backbone, 0 or 1.
        num_blocks: ghost bottlenecks in a row.
        expand: width of a ghost bottleneck, as a factor of ``out_channels``.
        norm_cfg: norm behind each convolution.
        act_cfg: activation.
        init_cfg: by default He's for convolutions, gains 1.

    Raises:
        ValueError: if an option is out of its range, or, in the forward pass, the number of maps
            differs from that of ``in_channels``.

    References:
        RangiLyu, NanoDet-Plus, 2021, https://github.com/RangiLyu/nanodet; Liu et al., Path
        Aggregation Network for Instance Segmentation, 2018, section 3.1.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (116, 232, 464),
        out_channels: int = 96,
        kernel_size: int = 5,
        num_extra_levels: int = 1,
        num_blocks: int = 1,
        expand: int = 1,
        norm_cfg: Any = BATCH_NORM,
        act_cfg: Any = LEAKY_RELU,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg=INIT_CFG if init_cfg is None else init_cfg)
        check_that(
            len(in_channels) > 0 and all(is_whole(each) and each >= 1 for each in in_channels),
            'in_channels',
            in_channels,
            'the channels of one map or more, the finest first',
        )
        for name, value in (
            ('out_channels', out_channels),
            ('kernel_size', kernel_size),
            ('num_blocks', num_blocks),
            ('expand', expand),
        ):
            check_count(name, value)
        check_that(out_channels % 2 == 0, 'out_channels', out_channels, 'even')
        check_that(kernel_size % 2 == 1, 'kernel_size', kernel_size, 'odd')
        check_whole('num_extra_levels', num_extra_levels, least=0)
        check_that(num_extra_levels <= 1, 'num_extra_levels', num_extra_levels, '0 or 1')
        cfg = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.in_channels = tuple(in_channels)

        def block() -> nn.Sequential:
            widths = [2 * out_channels] + [out_channels] * (num_blocks - 1)
            middle = expand * out_channels
            return nn.Sequential(
                *(GhostBottleneck(n, middle, out_channels, kernel_size, **cfg) for n in widths)
            )

        def halving() -> nn.Module:
            return DepthwiseSeparableConvModule(
                out_channels, out_channels, kernel_size, stride=2, padding=kernel_size // 2, **cfg
            )

        steps = range(len(in_channels) - 1)
        self.reduce_layers = nn.ModuleList(
            ConvModule(each, out_channels, 1, **cfg) for each in in_channels
        )
        self.top_down_blocks = nn.ModuleList(block() for _ in steps)
        self.downsamples = nn.ModuleList(halving() for _ in steps)
        self.bottom_up_blocks = nn.ModuleList(block() for _ in steps)
        extra = range(num_extra_levels)
        self.extra_in = nn.ModuleList(halving() for _ in extra)
        self.extra_out = nn.ModuleList(halving() for _ in extra)

    def forward(self, x: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the maps of the head.

        Args:
            x: maps (B, ``in_channels[i]``, H_i, W_i) of the backbone, the finest first, each half
                as large as the one before it.

        Returns:
            tuple: maps of ``out_channels``, the finest first, and those of the further levels.
        """
        if len(x) != len(self.in_channels):
            raise ValueError(
                f'GhostPAN has in_channels of {len(self.in_channels)} maps, but got {len(x)} maps: '
                'let out_indices of the backbone name as many stages'
            )
        reduced = [layer(each) for layer, each in zip(self.reduce_layers, x, strict=True)]
        maps = [reduced[-1]]  # from coarse to fine
        for block, finer in zip(self.top_down_blocks, reduced[-2::-1], strict=True):
            large = interpolate(maps[-1], size=finer.shape[-2:], mode='bilinear')
            maps.append(block(torch.cat([large, finer], 1)))
        found = [maps.pop()]
        for halve, block in zip(self.downsamples, self.bottom_up_blocks, strict=True):
            found.append(block(torch.cat([halve(found[-1]), maps.pop()], 1)))
        for of_input, of_output in zip(self.extra_in, self.extra_out, strict=True):
            found.append(of_input(reduced[-1]) + of_output(found[-1]))
        return tuple(found)
