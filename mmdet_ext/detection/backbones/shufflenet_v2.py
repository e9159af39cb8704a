"""ShuffleNetV2 up to its last stage, with the names of torchvision's weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import build_activation_layer, build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_ext.detection.backbones.layers import BATCH_NORM, INIT_CFG, LEAKY_RELU
from mmdet_ext.functional.numerics.checks import check_one_of, check_that, is_whole
from mmdet_ext.registry import MODELS

#: Channels of the first convolution, for every width.
STEM_CHANNELS = 24
#: Channels of stages 2, 3 and 4 by width, of table 5 of the paper.
STAGE_CHANNELS: dict[float, tuple[int, int, int]] = {
    0.5: (48, 96, 192),
    1.0: (116, 232, 464),
    1.5: (176, 352, 704),
    2.0: (244, 488, 976),
}
#: Blocks of stages 2, 3 and 4.
STAGE_BLOCKS = (4, 8, 4)


class ShuffleBlock(nn.Module):
    """Block of two branches whose channels are joined and shuffled.

    With stride 1 the channels are split: one half passes, the other is convolved. With stride 2
    both branches convolve all channels, and the map is halved.

    Args:
        in_channels: channels of the input.
        channels: channels of the output, even.
        stride: 1 or 2.
        norm_cfg: norm behind each convolution.
        act_cfg: activation behind each 1x1 convolution.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int, norm_cfg: Any, act_cfg: Any
    ) -> None:
        super().__init__()
        self.stride = stride
        half = channels // 2

        def pointwise(inner: int) -> list[nn.Module]:
            layers = [nn.Conv2d(inner, half, 1, bias=False), build_norm_layer(norm_cfg, half)[1]]
            return [*layers, build_activation_layer(act_cfg)]

        def depthwise(inner: int) -> list[nn.Module]:
            layer = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
            return [layer, build_norm_layer(norm_cfg, inner)[1]]

        self.branch1 = nn.Sequential()
        if stride == 2:
            self.branch1 = nn.Sequential(*depthwise(in_channels), *pointwise(in_channels))
        self.branch2 = nn.Sequential(
            *pointwise(in_channels if stride == 2 else half), *depthwise(half), *pointwise(half)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the map (B, channels, H / stride, W / stride), rounded up."""
        kept, changed = x.chunk(2, 1) if self.stride == 1 else (self.branch1(x), x)
        joined = torch.cat([kept, self.branch2(changed)], 1)
        # Channel c of one half comes beside channel c of the other.
        shuffled: Tensor = joined.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
        return shuffled


@MODELS.register_module()
class ShuffleNetV2Backbone(BaseModule):  # type: ignore[misc]
    """ShuffleNetV2 without the convolution that its classifier needs behind the last stage.

    mmpretrain's ``ShuffleNetV2`` has that convolution, of 0.5 million weights, always: a detector
    that takes the maps of the stages would compute it for nothing, and its weights would never
    be trained. Here the layers end with the last stage of ``out_indices``. The weights have
    torchvision's names::

        backbone=dict(
            type='mmdet_ext.ShuffleNetV2Backbone',
            init_cfg=dict(type='Pretrained', checkpoint='torchvision://shufflenetv2_x1.0'),
        )

    Each stage halves its input, rounded up, so that any size of images will do.

    Args:
        widen_factor: width, one of 0.5, 1.0, 1.5 and 2.0.
        out_indices: stages whose maps are returned: 0, 1 and 2 for strides 8, 16 and 32.
        frozen_stages: index of the last stage that is not trained, with all before it; -1 for none.
        norm_cfg: norm behind each convolution.
        act_cfg: activation. Classifiers have ReLU; NanoDet-Plus has LeakyReLU, with their weights.
        norm_eval: whether batch norms use their running statistics in training.
        init_cfg: by default He's for convolutions, gains 1.

    Raises:
        ValueError: if an option is none of its values.

    References:
        Ma et al., ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, 2018,
        section 4 and table 5.
    """

    def __init__(
        self,
        widen_factor: float = 1.0,
        out_indices: Sequence[int] = (0, 1, 2),
        frozen_stages: int = -1,
        norm_cfg: Any = BATCH_NORM,
        act_cfg: Any = LEAKY_RELU,
        norm_eval: bool = False,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg=INIT_CFG if init_cfg is None else init_cfg)
        check_one_of('widen_factor', widen_factor, tuple(STAGE_CHANNELS))
        last = len(STAGE_BLOCKS) - 1
        check_that(
            len(out_indices) > 0 and all(is_whole(i) and 0 <= i <= last for i in out_indices),
            'out_indices',
            out_indices,
            f'indices of stages, 0 to {last}',
        )
        check_that(
            is_whole(frozen_stages) and -1 <= frozen_stages <= last,
            'frozen_stages',
            frozen_stages,
            f'-1 for none, or the index of a stage, 0 to {last}',
        )
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, STEM_CHANNELS, 3, 2, 1, bias=False),
            build_norm_layer(norm_cfg, STEM_CHANNELS)[1],
            build_activation_layer(act_cfg),
        )
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stage_names: list[str] = []
        before = STEM_CHANNELS
        for index in range(max(out_indices) + 1):
            channels = STAGE_CHANNELS[widen_factor][index]
            blocks = [
                ShuffleBlock(
                    channels if at else before, channels, 1 if at else 2, norm_cfg, act_cfg
                )
                for at in range(STAGE_BLOCKS[index])
            ]
            name = f'stage{index + 2}'
            self.add_module(name, nn.Sequential(*blocks))
            self.stage_names.append(name)
            before = channels

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps of the stages of ``out_indices``.

        Args:
            x: images (B, 3, H, W).
        """
        x = self.maxpool(self.conv1(x))
        found = []
        for index, name in enumerate(self.stage_names):
            x = getattr(self, name)(x)
            if index in self.out_indices:
                found.append(x)
        return tuple(found)

    def train(self, mode: bool = True) -> ShuffleNetV2Backbone:
        """Set training or evaluation, and keep frozen what the options say."""
        super().train(mode)
        if self.frozen_stages >= 0:
            names = self.stage_names[: self.frozen_stages + 1]
            for part in (self.conv1, *(getattr(self, name) for name in names)):
                part.eval().requires_grad_(False)
        if mode and self.norm_eval:
            for part in self.modules():
                if isinstance(part, _BatchNorm):
                    part.eval()
        return self
