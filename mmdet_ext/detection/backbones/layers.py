"""Parts that the backbones and necks of the YOLO detectors share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_ext.functional.numerics.checks import check_number, check_that, is_whole

#: Channels are multiples of this where a factor makes them narrower.
_DIVISOR = 8
#: Norm and activation of Darknet's convolutions.
BATCH_NORM = dict(type='BN')
LEAKY_RELU = dict(type='LeakyReLU', negative_slope=0.1)
INIT_CFG = [
    dict(type='Kaiming', layer='Conv2d'),
    dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
]


class StagedBackbone(BaseModule):  # type: ignore[misc]
    """Backbone of stages, each of which halves the size of the one before it.

    Args:
        stages: the stages in their order.
        strides: stride of the map of each stage, to the images.
        out_indices: stages whose maps are returned; those behind them are not built.
        frozen_stages: index of the last stage that is not trained; -1 for none.
        norm_eval: whether batch norms use their running statistics in training.
        init_cfg: by default He's for convolutions, gains 1.

    Raises:
        ValueError: if an index is not that of a stage.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        strides: Sequence[int],
        out_indices: Sequence[int],
        frozen_stages: int,
        norm_eval: bool,
        init_cfg: Any,
    ) -> None:
        super().__init__(init_cfg=INIT_CFG if init_cfg is None else init_cfg)
        last = len(stages) - 1
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
        self.stages = nn.ModuleList(stages[: max(out_indices) + 1])
        self.stride = max(strides[index] for index in out_indices)
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps of the stages of ``out_indices``.

        Args:
            x: images (B, 3, H, W).

        Raises:
            ValueError: if a side of the images is no multiple of the largest stride.
        """
        height, width = x.shape[-2:]
        if height % self.stride or width % self.stride:
            raise ValueError(
                f'{type(self).__name__} halves images until its stride is {self.stride}, and got '
                f'images of {height} x {width} px (height x width), no multiples of '
                f'{self.stride}. Set pad_size_divisor={self.stride} of the data preprocessor, or '
                'resize the images'
            )
        found = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.out_indices:
                found.append(x)
        return tuple(found)

    def train(self, mode: bool = True) -> StagedBackbone:
        """Set training or evaluation, and keep frozen what the options say."""
        super().train(mode)
        for stage in self.stages[: self.frozen_stages + 1]:
            stage.eval().requires_grad_(False)
        if mode and self.norm_eval:
            for part in self.modules():
                if isinstance(part, _BatchNorm):
                    part.eval()
        return self


def conv(in_channels: int, channels: int, kernel: int, stride: int = 1, **cfg: Any) -> ConvModule:
    """Build a convolution that keeps the size at stride 1, with norm and activation.

    Args:
        in_channels: channels of the input.
        channels: channels of the output.
        kernel: side of the kernel, odd.
        stride: stride.
        **cfg: ``norm_cfg`` and ``act_cfg``.
    """
    return ConvModule(in_channels, channels, kernel, stride=stride, padding=kernel // 2, **cfg)


def alternating(in_channels: int, channels: int, count: int, **cfg: Any) -> nn.Sequential:
    """Build 1x1 convolutions to ``channels`` and 3x3 ones to twice as many, in turn.

    Args:
        in_channels: channels of the input.
        channels: channels of the 1x1 convolutions.
        count: number of convolutions.
        **cfg: ``norm_cfg`` and ``act_cfg``.
    """
    layers = []
    for index in range(count):
        wide = index % 2
        out = channels * (1 + wide)
        layers.append(conv(in_channels, out, 1 + 2 * wide, **cfg))
        in_channels = out
    return nn.Sequential(*layers)


def scaled(channels: int, width: float) -> int:
    """Return channels times ``width``, rounded to a multiple of 8 and at least 8.

    Args:
        channels: as in the paper, a multiple of 8.
        width: factor, above 0.

    Raises:
        ValueError: if the factor is not above 0.

    >>> scaled(64, 1.0), scaled(64, 0.25), scaled(64, 0.01)
    (64, 16, 8)
    """
    check_number('width', width, above=0, finite=True)
    return max(_DIVISOR, round(channels * width / _DIVISOR) * _DIVISOR)
