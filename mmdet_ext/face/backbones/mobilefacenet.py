"""MobileFaceNet, a face network of a million parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_ext.face.backbones.common import check_images, full_precision, halved, image_size
from mmdet_ext.functional.numerics.checks import check_number, check_whole
from mmdet_ext.registry import MODELS

#: Expansion, channels, repeats and first stride of the bottlenecks, as in table 1 of the paper.
BOTTLENECKS: tuple[tuple[int, int, int, int], ...] = (
    (2, 64, 5, 2),
    (4, 128, 1, 2),
    (2, 128, 6, 1),
    (4, 128, 1, 2),
    (2, 128, 2, 1),
)
# Convolutions of stride 2: one in the stem and three in the bottlenecks.
_HALVINGS = 4
_STEM, _LAST = 64, 512
# Channels are multiples of this, which suits CPUs and accelerators.
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
    """Build a convolution with BN and, unless ``linear``, PReLU. A kernel of 3 keeps the size."""
    padding = 1 if kernel == 3 else 0
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, channels, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(channels),
    ]
    return nn.Sequential(*layers, *([] if linear else [nn.PReLU(channels)]))


class Bottleneck(nn.Module):
    """Inverted residual: 1x1 to ``expansion`` times the channels, 3x3 depthwise, 1x1 linear.

    The input is added where it has the size and the channels of the output.
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

    The layers are:

    1. A 3x3 stem of stride 2 and a depthwise 3x3 convolution.
    2. Fifteen `Bottleneck` (see `BOTTLENECKS`).
    3. A 1x1 convolution to 512 channels.
    4. A depthwise convolution over the whole map (7x7 at 112 px). It learns a weight for each
       place of a face, where average pooling would weigh all places equally.
    5. A linear 1x1 convolution to the embedding.

    Each convolution has a BN, and all but the linear ones have a PReLU.

    At 112 px and 128 numbers the network has 1,003,136 parameters, or 993,344 with each BN folded
    into its convolution, the 0.99 million of the paper.

    Args:
        num_features: length of the embedding.
        width: factor on all channels except those of the embedding, rounded to multiples of 8.
            0.5 gives about 300,000 parameters, for small data and training on a CPU.
        input_size: side of the images in px, or their height and width. The embedding is built
            for this size alone.
        init_cfg: by default He's for convolutions, gains 1, biases 0.

    Raises:
        ValueError: if an option is out of range.
        TypeError: if ``input_size`` is not a size.

    References:
        Chen et al., "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on
        Mobile Devices", arXiv:1804.07573, table 1. InsightFace's network of that name has twice the
        channels and other last layers, so that its weights do not fit.
    """

    def __init__(
        self,
        num_features: int = 128,
        width: float = 1.0,
        input_size: int | Sequence[int] = 112,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg=_INIT_CFG if init_cfg is None else init_cfg)
        check_whole('num_features', num_features, wanted='a whole number of at least 1')
        check_number('width', width, 'a finite factor above 0', above=0, finite=True)
        self.num_features = num_features
        self.width = width
        self.input_size = image_size(input_size)

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
        """Compute the embedding of images.

        Args:
            x: images, (N, 3, H, W), with ``input_size`` as H and W.

        Returns:
            tuple: the embedding (N, num_features), in float32 also under autocast.

        Raises:
            ValueError: if the size of the images is not ``input_size``, or training gets a batch
                of one image.
        """
        check_images(x, self.input_size, normalised=self.embedding[1].training)
        x = self.expand(self.blocks(self.depthwise(self.stem(x))))
        with full_precision(x.device):
            x = x.to(next(self.embedding.parameters()).dtype)
            return (self.embedding(self.global_depthwise(x)).flatten(1),)


def _scaled(channels: int, width: float) -> int:
    """Return channels times ``width``, rounded to a multiple of 8 and at least 8.

    >>> _scaled(64, 0.5), _scaled(64, 0.3), _scaled(64, 0.01)
    (32, 16, 8)
    """
    return max(_DIVISOR, round(channels * width / _DIVISOR) * _DIVISOR)
