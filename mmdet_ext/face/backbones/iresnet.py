"""Residual network of ArcFace, with the parameter names of InsightFace's checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_ext.face.backbones.common import check_images, full_precision, halved, image_size
from mmdet_ext.functional.numerics.checks import check_that, check_whole
from mmdet_ext.registry import MODELS

#: Units per stage, by depth.
STAGE_BLOCKS: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    100: (3, 13, 30, 3),
}
_NUM_STAGES = 4
# InsightFace's initial weights. The scale of a convolution does not matter, because a
# normalisation follows each.
_INIT_CFG = [
    dict(type='Normal', layer='Conv2d', std=0.1),
    dict(type='Constant', layer=['BatchNorm2d', 'BatchNorm1d'], val=1),
]


class IResidualUnit(nn.Module):
    """Improved residual unit: BN - conv - BN - PReLU - conv(stride) - BN, plus the input.

    No activation follows the sum. In the first unit of a stage, a 1x1 convolution with BN brings
    the input to the size of the output.

    Args:
        in_channels: channels of the input map.
        channels: channels of the output map.
        stride: stride of the second convolution; 2 turns ``n`` cells into ``ceil(n / 2)``.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, ceil(H / stride), ceil(W / stride))."""
        out = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        out = self.bn3(self.conv2(out))
        return out + (x if self.downsample is None else self.downsample(x))


@MODELS.register_module()
class IResNet(BaseModule):  # type: ignore[misc]
    """IResNet-18, -34, -50 and -100, whose last layer is the embedding.

    The layers are:

    1. A 3x3 stem of stride 1 without pooling, which keeps the detail of small images.
    2. Four stages of `IResidualUnit` with 64, 128, 256 and 512 channels. Each halves the map: 112
       px become 7 cells.
    3. BN, dropout, a linear layer over all cells, and BN. The gain of the last BN is fixed at 1: it
       centres the embedding and gives all its numbers the same spread.

    Parameters have the names and shapes of InsightFace. `tools/train/convert_checkpoint.py
    insightface` converts InsightFace's checkpoints, which expect RGB images as
    (x - 127.5) / 127.5.

    At 112 px and 512 numbers, parameters: 24,025,600 (18), 34,139,328 (34), 43,590,848 (50) and
    65,156,160 (100).

    Args:
        depth: 18, 34, 50 or 100.
        num_features: length of the embedding.
        dropout: share of the last map that training sets to 0, in [0, 1).
        input_size: side of the images in px, or their height and width. The embedding is built
            for this size alone.
        base_channels: channels of the stem; the stages have 1, 2, 4 and 8 times as many. Values
            other than 64 suit small data; no published weights fit them.
        with_embedding: False omits dropout, linear layer and last BN. The network then returns
            maps, and takes images of any size.
        out_indices: stages (0 to 3) whose maps are returned before the embedding. The map of
            stage 3 is taken behind its BN. The default is none, or (3,) without the embedding.
        frozen_stages: -1 trains all layers; 0 freezes the stem; k > 0 freezes the first k stages
            too. Frozen layers keep the statistics of their BN.
        norm_eval: whether training keeps the statistics of every BN.
        init_cfg: by default as InsightFace: convolutions normal with standard deviation 0.1, gains
            1, biases 0. For converted weights ``dict(type='Pretrained', checkpoint=...,
            prefix='backbone.')``.

    Raises:
        ValueError: if an option is out of range.
        TypeError: if ``input_size`` is not a size.

    References:
        Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition",
        arXiv:1801.07698, section 3.2.2 of version 1 (input, output "E", improved residual unit).
        Duta et al., "Improved Residual Networks for Image and Video Recognition",
        arXiv:2004.04989, describes another network of the same name.
    """

    def __init__(
        self,
        depth: int = 50,
        num_features: int = 512,
        dropout: float = 0.0,
        input_size: int | Sequence[int] = 112,
        base_channels: int = 64,
        with_embedding: bool = True,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg=_INIT_CFG if init_cfg is None else init_cfg)
        _check_options(depth, dropout, frozen_stages)
        for name, value in (('num_features', num_features), ('base_channels', base_channels)):
            check_whole(name, value, wanted='a whole number of at least 1')
        self.depth = depth
        self.num_features = num_features
        self.input_size = image_size(input_size)
        self.with_embedding = with_embedding
        self.out_indices = _checked_stages(out_indices, with_embedding)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

        channels = base_channels
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        for stage, blocks in enumerate(STAGE_BLOCKS[depth]):
            width = base_channels * 2**stage
            units = [IResidualUnit(channels, width, stride=2)]
            units += [IResidualUnit(width, width, stride=1) for _ in range(blocks - 1)]
            self.add_module(f'layer{stage + 1}', nn.Sequential(*units))
            channels = width
        self.bn2 = nn.BatchNorm2d(channels)
        if with_embedding:
            rows, columns = halved(self.input_size, _NUM_STAGES)
            self.dropout = nn.Dropout(dropout)
            self.fc = nn.Linear(channels * rows * columns, num_features)
            self.features = nn.BatchNorm1d(num_features)
            self.features.weight.requires_grad_(False)
        for module in self._frozen_modules():
            module.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute maps and embedding of images.

        Args:
            x: images, (N, 3, H, W). With an embedding, H and W must be ``input_size``.

        Returns:
            tuple: the maps of ``out_indices`` in their order, then the embedding
            (N, num_features), in float32 also under autocast.

        Raises:
            ValueError: if the size of the images is not ``input_size``, or training gets a batch
                of one image.
        """
        if self.with_embedding:
            check_images(x, self.input_size, normalised=self.features.training)
        x = self.prelu(self.bn1(self.conv1(x)))
        outputs = []
        for stage in range(_NUM_STAGES):
            x = getattr(self, f'layer{stage + 1}')(x)
            if stage == _NUM_STAGES - 1:
                x = self.bn2(x)
            if stage in self.out_indices:
                outputs.append(x)
        if self.with_embedding:
            with full_precision(x.device):
                flat = self.dropout(x.flatten(1).to(self.fc.weight.dtype))
                outputs.append(self.features(self.fc(flat)))
        return tuple(outputs)

    def train(self, mode: bool = True) -> IResNet:
        """Set the mode as torch does, but keep frozen layers in evaluation mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def _frozen_modules(self) -> list[nn.Module]:
        """List the layers that ``frozen_stages`` freezes."""
        stem = [self.conv1, self.bn1, self.prelu] if self.frozen_stages >= 0 else []
        return stem + [getattr(self, f'layer{k + 1}') for k in range(self.frozen_stages)]


def _check_options(depth: Any, dropout: Any, frozen_stages: Any) -> None:
    """Raise ValueError, naming the option, unless all three are in range."""
    check_that(depth in STAGE_BLOCKS, 'depth', depth, f'one of {sorted(STAGE_BLOCKS)}')
    check_that(0 <= dropout < 1, 'dropout', dropout, 'a share in [0, 1)', '0 switches it off')
    wanted = f'from -1 (none) over 0 (the stem) to {_NUM_STAGES} (all stages)'
    holds = frozen_stages in range(-1, _NUM_STAGES + 1)
    check_that(holds, 'frozen_stages', frozen_stages, wanted)


def _checked_stages(out_indices: Sequence[int] | None, with_embedding: bool) -> tuple[int, ...]:
    """Return the stages whose maps are returned, after checking them."""
    if out_indices is None:
        return () if with_embedding else (_NUM_STAGES - 1,)
    stages = tuple(out_indices)
    holds = sorted(set(stages)) == list(stages) and set(stages) <= set(range(_NUM_STAGES))
    wanted = f'stages from 0 to {_NUM_STAGES - 1}, each once and in their order'
    check_that(holds, 'out_indices', stages, wanted)
    if not stages and not with_embedding:
        raise ValueError(
            'out_indices is empty and with_embedding is False: nothing would be given out. Name '
            'a stage, or leave out_indices out for the last'
        )
    return stages
