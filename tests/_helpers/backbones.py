"""Small face backbones, their images, and a step of training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmdet_ext.face.backbones import IResNet

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
#: Parameters at 112 px and 512 numbers. InsightFace reports 43.59 M for 50 and 65.15 M for 100.
PARAMETERS = {18: 24_025_600, 34: 34_139_328, 50: 43_590_848, 100: 65_156_160}


def small_iresnet(**options: Any) -> IResNet:
    """Return an IResNet-18 with 8 channels in its stem, for 40 x 24 px and last maps of 3 x 2."""
    return IResNet(
        **{'depth': 18, 'num_features': 16, 'base_channels': 8, 'input_size': (40, 24), **options}
    )


def images(number: int = 3, size: tuple[int, int] = (40, 24)) -> Tensor:
    """Return random images (number, 3, *size)."""
    return torch.randn(number, 3, *size, generator=torch.Generator().manual_seed(1))


def count(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def step(model: nn.Module, x: Tensor) -> set[str]:
    """Take a training step, and return the names of parameters and statistics that changed."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimiser = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    model.train()
    outputs = model(x)
    # The plain sum of normalised numbers is constant, so that they get random weights.
    weights = torch.randn(outputs[-1].shape, generator=torch.Generator().manual_seed(3))
    (outputs[-1] * weights).sum().backward()
    optimiser.step()
    return {name for name, value in model.state_dict().items() if not value.equal(before[name])}
