"""BiFPN, the neck of EfficientDet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_ext.functional.numerics.checks import check_count, check_number, check_that, check_whole
from mmdet_ext.functional.pooling.fusion import normalized_fusion
from mmdet_ext.registry import MODELS

NORM = dict(type='BN', momentum=0.01, eps=1e-3)
ACT = dict(type='Swish')


@MODELS.register_module()
class BiFPN(BaseModule):  # type: ignore[misc]
    r"""Bidirectional feature pyramid whose maps are fused by learnt weights.

    Each stage passes once from the coarsest level to the finest, and back. With :math:`P_l` the
    input of level l, :math:`\uparrow` nearest-neighbour enlargement and :math:`\downarrow` max
    pooling (3 x 3, stride 2):

    .. math::
        T_l &= \mathrm{conv}(f(P_l, \uparrow T_{l+1})) \\
        O_l &= \mathrm{conv}(f(P_l, T_l, \downarrow O_{l-1}))

    :math:`f` is `normalized_fusion` with weights of its own in each place, all 1 at first. The
    coarsest level has :math:`T = P`, and :math:`O = \mathrm{conv}(f(P, \downarrow O_{l-1}))`;
    the finest has :math:`O = T`. conv is a depthwise 3 x 3 and a pointwise convolution with a norm
    and an activation. Before the first stage, inputs get ``out_channels`` by 1 x 1 convolutions.
    The first level beyond the inputs is the last input by a 1 x 1 convolution and max pooling, all
    further ones are max pooling.

    Levels may have odd sizes: maps are resized to the size of the level that they join.

    Args:
        in_channels: channels of each input.
        out_channels: channels of all outputs: 64 for EfficientDet-D0.
        num_outs: number of outputs, at least 2: 5 for levels 3 to 7.
        num_stages: how often the pyramid is passed through: 3 for D0.
        start_level: first input that is used.
        end_level: last input that is used, -1 for the last of all.
        epsilon: of the fusion, above 0.
        norm_cfg: config of norms.
        act_cfg: config of activations.
        init_cfg: config of the initialisation.

    Raises:
        ValueError: if an option is outside of its range, or the maps that come are not as many as
            ``in_channels``.

    References:
        Tan et al., EfficientDet: Scalable and Efficient Object Detection, 2020, section 3 and
        figure 3.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        num_outs: int,
        num_stages: int = 3,
        start_level: int = 0,
        end_level: int = -1,
        epsilon: float = 1e-4,
        norm_cfg: dict[str, Any] | None = NORM,
        act_cfg: dict[str, Any] | None = ACT,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        check_count('out_channels', out_channels)
        check_count('num_stages', num_stages)
        check_number('epsilon', epsilon, above=0, finite=True)
        self.in_channels = list(in_channels)
        self._used = _used_levels(len(self.in_channels), start_level, end_level)
        used = [self.in_channels[level] for level in self._used]
        check_whole('num_outs', num_outs, least=max(2, len(used)), why=f'{len(used)} inputs')
        project = dict(kernel_size=1, norm_cfg=norm_cfg, act_cfg=None)
        self.laterals = nn.ModuleList(ConvModule(each, out_channels, **project) for each in used)
        self.extra_levels = num_outs - len(used)
        self.extra = ConvModule(used[-1], out_channels, **project) if self.extra_levels else None
        self.stages = nn.ModuleList(
            BiFPNStage(out_channels, num_outs, epsilon, norm_cfg, act_cfg)
            for _ in range(num_stages)
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Fuse the maps of a backbone.

        Args:
            inputs: maps (B, C, H, W) of each level, the finest first.

        Returns:
            tuple: ``num_outs`` maps of ``out_channels``, the finest first.
        """
        if len(inputs) != len(self.in_channels):
            raise ValueError(
                f'BiFPN got {len(inputs)} maps, but in_channels={self.in_channels} names '
                f'{len(self.in_channels)}: make it fit out_indices of the backbone'
            )
        chosen = [inputs[level] for level in self._used]
        maps = [lateral(each) for lateral, each in zip(self.laterals, chosen, strict=True)]
        if self.extra is not None:
            maps.append(_halve(self.extra(chosen[-1])))
            for _ in range(self.extra_levels - 1):
                maps.append(_halve(maps[-1]))
        for stage in self.stages:
            maps = stage(maps)
        return tuple(maps)


class BiFPNStage(BaseModule):  # type: ignore[misc]
    """One pass down and up the pyramid.

    Args:
        channels: channels of all maps.
        levels: number of maps, at least 2.
        epsilon: of the fusion.
        norm_cfg: config of norms.
        act_cfg: config of activations.
    """

    def __init__(self, channels: int, levels: int, epsilon: float, norm_cfg: Any, act_cfg: Any):
        super().__init__()
        options = (channels, epsilon, norm_cfg, act_cfg)
        # By level, the finest first: `down` has none for the coarsest, `up` none for the finest.
        self.down = nn.ModuleList(FusionNode(2, *options) for _ in range(levels - 1))
        self.up = nn.ModuleList(FusionNode(3, *options) for _ in range(levels - 2))
        self.up.append(FusionNode(2, *options))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Fuse maps, the finest first."""
        middle = [maps[-1]]
        for level in reversed(range(len(maps) - 1)):
            size = maps[level].shape[-2:]
            middle.insert(0, self.down[level](maps[level], F.interpolate(middle[0], size)))
        outputs = [middle[0]]
        for level in range(1, len(maps)):
            lower = _halve(outputs[-1], maps[level].shape[-2:])
            own = [maps[level]] if level == len(maps) - 1 else [maps[level], middle[level]]
            outputs.append(self.up[level - 1](*own, lower))
        return outputs


class FusionNode(BaseModule):  # type: ignore[misc]
    """Weighted mean of some maps, and the convolution behind it.

    Args:
        inputs: number of maps.
        channels: channels of all maps.
        epsilon: of the fusion.
        norm_cfg: config of the norm.
        act_cfg: config of the activation.
    """

    def __init__(self, inputs: int, channels: int, epsilon: float, norm_cfg: Any, act_cfg: Any):
        super().__init__()
        self.epsilon = epsilon
        self.weights = nn.Parameter(torch.ones(inputs))
        self.conv = DepthwiseSeparableConvModule(
            channels,
            channels,
            3,
            padding=1,
            dw_norm_cfg=None,
            dw_act_cfg=None,
            pw_norm_cfg=norm_cfg,
            pw_act_cfg=act_cfg,
            bias=norm_cfg is None,
        )

    def forward(self, *maps: Tensor) -> Tensor:
        """Fuse maps of one size."""
        fused: Tensor = self.conv(normalized_fusion(maps, self.weights, self.epsilon))
        return fused


def _used_levels(inputs: int, start: int, end: int) -> range:
    """Return the inputs from ``start`` to ``end``, both included."""
    last = inputs - 1 if end == -1 else end
    check_that(0 <= last < inputs, 'end_level', end, f'-1, or from 0 to {inputs - 1}')
    check_that(0 <= start <= last, 'start_level', start, f'from 0 to {last}')
    return range(start, last + 1)


def _halve(map_: Tensor, size: torch.Size | None = None) -> Tensor:
    """Pool to half the size, rounded up, or to the size of the next level where that differs."""
    halved = F.max_pool2d(map_, 3, stride=2, padding=1)
    if size is None or halved.shape[-2:] == size:
        return halved
    return F.adaptive_max_pool2d(map_, size)
