"""Networks with the names of InsightFace's IResNet, and conversions of their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests._helpers.tools import load_tool

main = load_tool('train/convert_checkpoint.py').main


class Unit(nn.Module):
    """Residual unit with InsightFace's names, independent of our code."""

    def __init__(self, before: int, width: int, first: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, 3, 2 if first else 1, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        if first:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, width, 1, 2, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the unit."""
        short = self.downsample(x) if hasattr(self, 'downsample') else x
        y = self.bn1(x)
        y = self.conv1(y)
        y = self.bn2(y)
        y = self.prelu(y)
        y = self.conv2(y)
        return short + self.bn3(y)


class Network(nn.Module):
    """Network with InsightFace's names, and 8 channels at its stem instead of 64."""

    def __init__(self, blocks: tuple[int, ...], cells: int = 4, features: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.prelu = nn.PReLU(8)
        before = 8
        for stage, number in enumerate(blocks):
            width = 8 * 2**stage
            units = [Unit(width if k else before, width, k == 0) for k in range(number)]
            setattr(self, f'layer{stage + 1}', nn.Sequential(*units))
            before = width
        self.bn2 = nn.BatchNorm2d(before)
        self.dropout = nn.Dropout(0)
        self.fc = nn.Linear(before * cells, features)
        self.features = nn.BatchNorm1d(features)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the embeddings, shape (N, features)."""
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(self.dropout(torch.flatten(self.bn2(x), 1))))


BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}


def network(depth: int = 18, **options: Any) -> Network:
    """Make a network whose every number, statistics included, differs from that of a new one."""
    torch.manual_seed(depth)
    model = Network(BLOCKS[depth], **options)
    for name, value in model.state_dict().items():
        if value.ndim == 1:
            value.copy_(torch.rand(value.shape) + ('var' in name) * 0.5)
    model.features.weight.data.fill_(1)
    return model.eval()


def images(height: int = 32, width: int = 32) -> Tensor:
    """Draw three images, shape (3, 3, height, width)."""
    return torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(2))


def saved(content: Any, path: Path) -> Path:
    """Save content with torch; return the path."""
    torch.save(content, path)
    return path


def convert(*arguments: object) -> int:
    """Run the tool for InsightFace's files; return its exit code."""
    return main(['insightface', *map(str, arguments)])


def refused(capsys: pytest.CaptureFixture[str], out: Path, *arguments: object) -> str:
    """Return the error of a conversion that must fail and leave no file behind."""
    before = sorted(out.parent.iterdir())
    assert convert(*arguments) == 2
    assert sorted(out.parent.iterdir()) == before
    error = capsys.readouterr().err
    assert error.startswith('error: ') and error.count('\n') == 1
    return error
