"""Similarities and embeddings of random pairs, for tests of scoring."""

from __future__ import annotations

import torch
from torch import Tensor


def scored(seed: int, count: int = 600, distinct: int = 40) -> tuple[Tensor, Tensor]:
    """Make similarities of random pairs with many ties, within and across the kinds."""
    generator = torch.Generator().manual_seed(seed)
    same = torch.rand(count, generator=generator) < 0.3
    values = torch.randn(count, generator=generator) * 0.2 + 0.25 * same
    return (values * distinct).round() / distinct, same


def tensors(similarities: list[float], same: str) -> tuple[Tensor, Tensor]:
    """Make tensors of similarities and kinds, 'g' for a genuine pair and 'i' for an impostor."""
    return torch.tensor(similarities), torch.tensor([kind == 'g' for kind in same])


def collapsed(factor: float, count: int = 200) -> tuple[Tensor, Tensor]:
    """Make embeddings around one direction, the closer the larger the factor, and labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(20, (count,), generator=generator)
    own = torch.randn(20, 32, generator=generator)[labels]
    noise = torch.randn(count, 32, generator=generator)
    return factor * torch.randn(1, 32, generator=generator) + own + 2 * noise, labels
