"""Networks of YOLOv5 by numbers of layers, layout v6, and files in which they are whole objects.

The network is written out here once more: layers in a row, of which some read earlier ones.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

#: Name of a module that exists only while a file is written.
MODULE = 'models.common'


class Conv(nn.Module):
    """Convolution, batch norm and SiLU."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2 if p is None else p, bias=False)
        self.bn = nn.BatchNorm2d(c2, eps=1e-3, momentum=0.03)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """Two convolutions, beside which the input passes or not."""

    def __init__(self, c: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1, self.cv2, self.add = Conv(c, c), Conv(c, c, 3), shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C3(nn.Module):
    """Cross-stage partial block of three convolutions."""

    def __init__(self, c1: int, c2: int, n: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1, self.cv2, self.cv3 = Conv(c1, c2 // 2), Conv(c1, c2 // 2), Conv(c2, c2)
        self.m = nn.Sequential(*(Bottleneck(c2 // 2, shortcut) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat([self.m(self.cv1(x)), self.cv2(x)], 1))


class SPPF(nn.Module):
    """Three poolings in a row."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.cv1, self.cv2, self.m = Conv(c, c // 2), Conv(2 * c, c), nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        y = self.m(x)
        z = self.m(y)
        return self.cv2(torch.cat([x, y, z, self.m(z)], 1))


class Concat(nn.Module):
    """Join of maps."""

    def forward(self, x: list[Tensor]) -> Tensor:
        return torch.cat(x, 1)


class Detect(nn.Module):
    """Last layer, with its anchors in cells."""

    def __init__(self, nc: int, anchors: Tensor, channels: list[int]) -> None:
        super().__init__()
        self.nc, self.stride = nc, torch.tensor([8.0, 16.0, 32.0])
        self.register_buffer('anchors', anchors / self.stride[:, None, None])
        count = anchors.shape[1]
        self.m = nn.ModuleList(nn.Conv2d(c, count * (5 + nc), 1) for c in channels)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return [layer(each) for layer, each in zip(self.m, x, strict=True)]


class DetectionModel(nn.Module):
    """The layers, and the names of the classes."""

    def __init__(self, layers: list[nn.Module], names: Any) -> None:
        super().__init__()
        self.model, self.names = nn.Sequential(*layers), names
        self.yaml, self.save = {'nc': len(names)}, {4, 6, 10, 14}

    def forward(self, x: Tensor) -> list[Tensor]:
        found: list[Any] = []
        joined = {12: 6, 16: 4, 19: 14, 22: 10}
        for index, layer in enumerate(self.model):
            if index in joined:
                x = layer([x, found[joined[index]]])
            elif index == 24:
                return layer([found[17], found[20], found[23]])
            else:
                x = layer(x)
            found.append(x)
        raise AssertionError


KINDS = (Conv, Bottleneck, C3, SPPF, Concat, Detect, DetectionModel)
#: Width and height, px, of three anchors per level.
ANCHORS = [
    [(10, 13), (20, 20), (33, 23)],
    [(30, 61), (62, 45), (59, 119)],
    [(116, 90), (156, 198), (373, 326)],
]


def network(
    width: float = 0.25, blocks: tuple[int, ...] = (1, 2, 3, 1, 1), classes: int = 3, seed: int = 0
) -> DetectionModel:
    """Build a network with random weights and statistics, in evaluation."""
    torch.manual_seed(seed)
    c = [int(width * each) for each in (64, 128, 256, 512, 1024)]
    layers: list[nn.Module] = [Conv(3, c[0], 6, 2, 2)]
    for stage in range(4):
        layers.append(Conv(c[stage], c[stage + 1], 3, 2))
        layers.append(C3(c[stage + 1], c[stage + 1], blocks[stage], True))
    neck, up = blocks[4], nn.Upsample(scale_factor=2)
    layers += [SPPF(c[4]), Conv(c[4], c[3]), up, Concat(), C3(c[4], c[3], neck, False)]
    layers += [Conv(c[3], c[2]), up, Concat(), C3(c[3], c[2], neck, False)]
    layers += [Conv(c[2], c[2], 3, 2), Concat(), C3(c[3], c[3], neck, False)]
    layers += [Conv(c[3], c[3], 3, 2), Concat(), C3(c[4], c[4], neck, False)]
    layers.append(Detect(classes, torch.tensor(ANCHORS).float(), c[2:]))
    model = DetectionModel(layers, [f'class {index}' for index in range(classes)])
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
            part.weight.data.uniform_(0.8, 1.2)
            part.bias.data.normal_(0, 0.1)
    return model.eval()


@contextmanager
def elsewhere(*kinds: type) -> Iterator[None]:
    """Let classes come from a module that exists within the context alone."""
    before = [kind.__module__ for kind in kinds]
    module = ModuleType(MODULE)
    sys.modules[MODULE], sys.modules['models'] = module, ModuleType('models')
    for kind in kinds:
        kind.__module__ = MODULE
        setattr(module, kind.__name__, kind)
    try:
        yield
    finally:
        del sys.modules[MODULE], sys.modules['models']
        for kind, name in zip(kinds, before, strict=True):
            kind.__module__ = name


def save(content: Any, path: Path) -> Path:
    """Write an object of classes that a reader does not have."""
    with elsewhere(*KINDS):
        torch.save(content, path)
    return path
