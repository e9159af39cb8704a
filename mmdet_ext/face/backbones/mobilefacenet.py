"""MobileFaceNet: a face network of a million parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_ext.face.backbones.common import (
    check_pictures,
    check_positive,
    full_precision,
    halved,
    picture_size,
)
from mmdet_ext.registry import MODELS

#: Expansion, channels, number and first stride of the bottlenecks, as in table 1 of the paper.
BOTTLENECKS: tuple[tuple[int, int, int, int], ...] = (
    (2, 64, 5, 2),
    (4, 128, 1, 2),
    (2, 128, 6, 1),
    (4, 128, 1, 2),
    (2, 128, 2, 1),
)
#: Convolutions of stride 2: the stem's and three bottlenecks'.
_HALVINGS = 4
_STEM, _LAST = 64, 512
#: Channels are whole multiples of this, which processors and accelerators like.
_DIVISOR = 8
_INIT_CFG = [
    dict(type='Kaiming', layer='Conv2d'),
    dict(type='Constant', layer='BatchNorm2d', val=1),
]


def _conv(
    in_channels: int,
    channels: int,
    kernel: int | tuple[int, int],
    stride: int = 1,
    groups: int = 1,
    linear: bool = False,
) -> nn.Sequential:
    """Convolution, BN and, unless it is ``linear``, PReLU. Kernels of 3 keep the size."""
    padding = 1 if kernel == 3 else 0
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, channels, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(channels),
    ]
    return nn.Sequential(*layers, *([] if linear else [nn.PReLU(channels)]))


class Bottleneck(nn.Module):
    """An inverted residual: 1x1 to ``expansion`` times the channels, 3x3 depthwise, 1x1 linear.

    What came in is added where stride and channels allow it.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.layers = nn.Sequential(
            _conv(in_channels, hidden, 1),
            _conv(hidden, hidden, 3, stride, groups=hidden),
            _conv(hidden, channels, 1, linear=True),
        )
        self.residual = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, ceil(H / stride), ceil(W / stride))."""
        out = self.layers(x)
        return x + out if self.residual else out


@MODELS.register_module()
class MobileFaceNet(BaseModule):  # type: ignore[misc]
    """MobileFaceNet, whose last layer is the embedding.

    A 3x3 stem of stride 2, a depthwise 3x3, fifteen `Bottleneck` (see `BOTTLENECKS`), 1x1 to 512
    channels, then a depthwise convolution over the whole map (7x7 at 112 px), which learns what
    each place of a face counts where average pooling takes all alike, and a linear 1x1 to the
    embedding. Each has a BN; all but the linear ones a PReLU.

    At 112 px and 128 numbers it has 1,003,136 parameters; 993,344 with each BN folded into its
    convolution, the 0.99 million of the paper.

    Args:
        num_features: length of the embedding.
        width: factor of all channels but the embedding's, which are rounded to multiples of 8.
            0.5 makes about 300,000 parameters, for small data and training on a CPU.
        input_size: side of the pictures in px, or their height and width. The embedding is built
            for this size alone.
        init_cfg: by default He's for convolutions, gains 1, biases 0.

    Raises:
        ValueError: if an option is out of its range.
        TypeError: if ``input_size`` is no size.

    References:
        Chen et al., "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on
        Mobile Devices", arXiv:1804.07573, table 1. The network of that name in InsightFace has
        twice the channels and another end: its weights do not fit.
    """

    def __init__(
        self,
        num_features: int = 128,
        width: float = 1.0,
        input_size: int | Sequence[int] = 112,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg=_INIT_CFG if init_cfg is None else init_cfg)
        check_positive('num_features', num_features)
        if not 0 < width < float('inf'):
            raise ValueError(f'width must be a finite factor above 0, got {width!r}')
        self.num_features = num_features
        self.width = width
        self.input_size = picture_size(input_size)

        channels = _scaled(_STEM, width)
        self.stem = _conv(3, channels, 3, stride=2)
        self.depthwise = _conv(channels, channels, 3, groups=channels)
        blocks = []
        for expansion, out_channels, number, first_stride in BOTTLENECKS:
            for index in range(number):
                stride = first_stride if index == 0 else 1
                out = _scaled(out_channels, width)
                blocks.append(Bottleneck(channels, out, stride, expansion))
                channels = out
        self.blocks = nn.Sequential(*blocks)
        last = _scaled(_LAST, width)
        self.expand = _conv(channels, last, 1)
        cells = halved(self.input_size, _HALVINGS)
        self.global_depthwise = _conv(last, last, cells, groups=last, linear=True)
        self.embedding = _conv(last, num_features, 1, linear=True)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Embedding of pictures.

        Args:
            x: (N, 3, H, W), with H and W as ``input_size`` says.

        Returns:
            tuple: the embedding (N, num_features), in float32 under autocast too.

        Raises:
            ValueError: if the pictures have another size than ``input_size``, or a single one
                comes in training.
        """
        check_pictures(x, self.input_size, normalised=self.embedding[1].training)
        x = self.expand(self.blocks(self.depthwise(self.stem(x))))
        with full_precision(x.device):
            x = x.to(next(self.embedding.parameters()).dtype)
            return (self.embedding(self.global_depthwise(x)).flatten(1),)


def _scaled(channels: int, width: float) -> int:
    """Channels times ``width``, to the nearest multiple of 8 but not below 8.

    >>> _scaled(64, 0.5), _scaled(64, 0.3), _scaled(64, 0.01)
    (32, 16, 8)
    """
    return max(_DIVISOR, round(channels * width / _DIVISOR) * _DIVISOR)
