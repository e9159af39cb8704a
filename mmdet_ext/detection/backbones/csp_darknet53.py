"""CSPDarknet53, the backbone of YOLOv4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmdet_ext.detection.backbones.layers import BATCH_NORM, StagedBackbone, conv, scaled
from mmdet_ext.registry import MODELS

#: Channels and number of residual blocks of each stage but the first, which is one convolution.
STAGES = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))
#: Channels of the first convolution.
STEM = 32
#: By its full name, as mmcv 2.1 registers no Mish.
MISH = dict(type='torch.nn.Mish')


class CSPStage(nn.Module):
    """Cross-stage partial stage: half of the channels pass by the residual blocks.

    The convolutions are registered in the order of Darknet's file of weights: ``down``, of stride
    2; ``bypass`` and ``entry``, both from its map; the ``blocks``; ``exit``; and ``merge``, from
    the maps of ``exit`` and ``bypass``, in this order.

    Args:
        in_channels: channels of the input.
        channels: channels of the output.
        count: number of residual blocks.
        first: whether both ways have all ``channels``, as in the first stage, not half of them.
        **cfg: ``norm_cfg`` and ``act_cfg``.
    """

    def __init__(
        self, in_channels: int, channels: int, count: int, first: bool, **cfg: Any
    ) -> None:
        super().__init__()
        half = channels if first else channels // 2
        self.down = conv(in_channels, channels, 3, 2, **cfg)
        self.bypass = conv(channels, half, 1, **cfg)
        self.entry = conv(channels, half, 1, **cfg)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(half, channels // 2, 1, **cfg), conv(channels // 2, half, 3, **cfg))
            for _ in range(count)
        )
        self.exit = conv(half, half, 1, **cfg)
        self.merge = conv(2 * half, channels, 1, **cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / 2, W / 2)."""
        x = self.down(x)
        bypass, x = self.bypass(x), self.entry(x)
        for block in self.blocks:
            x = x + block(x)
        merged: Tensor = self.merge(torch.cat([self.exit(x), bypass], 1))
        return merged


@MODELS.register_module()
class CSPDarknet53(StagedBackbone):
    """The backbone of YOLOv4: Darknet-53 with cross-stage partial connections, and Mish.

    The maps of the stages have the strides 1, 2, 4, 8, 16 and 32. mmdet's ``CSPDarknet`` is
    another network, that of YOLOX. The convolutions are registered in the order of the published
    file of weights (see `mmdet_ext.YOLOV4`).

    Args:
        width: factor on all channels, rounded to multiples of 8, for small data.
        out_indices: stages, 0 to 5, whose maps are returned.
        frozen_stages: index of the last stage that is not trained; -1 for none.
        norm_eval: whether batch norms use their running statistics in training.
        norm_cfg: norm behind each convolution.
        act_cfg: activation.
        init_cfg: by default He's for convolutions, gains 1.

    Raises:
        ValueError: if an option is out of its range, or, in the forward pass, a side of the images
            is no multiple of the largest stride.

    References:
        Bochkovskiy et al., YOLOv4: Optimal Speed and Accuracy of Object Detection, 2020, section
        3.4; Wang et al., CSPNet: A New Backbone that can Enhance Learning Capability of CNN, 2020.
    """

    def __init__(
        self,
        width: float = 1.0,
        out_indices: Sequence[int] = (3, 4, 5),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        norm_cfg: Any = BATCH_NORM,
        act_cfg: Any = MISH,
        init_cfg: Any = None,
    ) -> None:
        cfg = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        channels = scaled(STEM, width)
        stages: list[nn.Module] = [conv(3, channels, 3, **cfg)]
        for index, (full, count) in enumerate(STAGES):
            out = scaled(full, width)
            stages.append(CSPStage(channels, out, count, index == 0, **cfg))
            channels = out
        strides = [2**index for index in range(len(stages))]
        super().__init__(stages, strides, out_indices, frozen_stages, norm_eval, init_cfg)
