"""Margin heads over few classes, their batches, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmdet_ext.face.heads import MarginHead
from mmdet_ext.registry import MODELS

CLASSES, CHANNELS, SCALE = 13, 6, 16.0
PATHS = ('plain', 'exact')
ARC = dict(type='ArcFace')


class Sample(SimpleNamespace):
    """Data sample with the given fields."""

    def __contains__(self, name: str) -> bool:
        return hasattr(self, name)


def samples(labels: Tensor | Sequence[int], **fields: Any) -> list[Any]:
    """Return data samples with a label each, and further fields."""
    return [Sample(gt_label=label.view(1), **fields) for label in torch.as_tensor(labels)]


def make_head(
    margin: str,
    centers: int = 1,
    path: Any = 'exact',
    seed: int = 0,
    classes: int = CLASSES,
    **options: Any,
) -> Any:
    """Return a head with a margin of the given options, and centres of different lengths."""
    torch.manual_seed(seed)
    head = MarginHead(classes, CHANNELS, dict(type=margin, **options), SCALE, centers, path=path)
    nn.init.normal_(head.weight, std=0.4)
    return head


def build_head(margin: Any = ARC, seed: int = 0, **options: Any) -> Any:
    """Return the registered head for seven classes and eight channels, with further options."""
    torch.manual_seed(seed)
    options = {'num_classes': 7, 'in_channels': 8, **options}
    return MODELS.build(dict(type='mmdet_ext.MarginHead', margin=margin, **options))


def elements(number: int) -> list[BaseDataElement]:
    """Return data samples of MMEngine without labels."""
    return [BaseDataElement(metainfo=dict(sample_idx=i)) for i in range(number)]


def batch(seed: int = 0, number: int = 24) -> tuple[Tensor, Tensor]:
    """Return features of lengths from about 1 to 6, at all angles to their centres, and labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(number, CHANNELS, generator=generator)
    x *= 0.5 + torch.rand(number, 1, generator=generator) * 2
    return x, torch.randint(CLASSES - 2, (number,), generator=generator)


def total(losses: dict[str, Tensor]) -> Tensor:
    """Return the sum that a runner minimises: all entries with 'loss' in their name."""
    return torch.stack([value for key, value in losses.items() if 'loss' in key]).sum()


def loss_of(head: MarginHead, x: Tensor, labels: Tensor) -> Tensor:
    """Return the total loss of a batch."""
    return total(head.loss((x,), samples(labels)))


def gradients(head: MarginHead, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """Return the total loss, and its gradients for the features and all parameters."""
    leaf = x.clone().requires_grad_()
    value = loss_of(head, leaf, labels)
    return (value.detach(), *torch.autograd.grad(value, [leaf, *head.parameters()]))


def assert_near(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    """Assert that tensors are equal to a share of the largest entry of each, but at least 1."""
    assert len(found) == len(expected)
    for i, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one.shape == other.shape, i
        if one.numel():
            off = (one.double() - other.double()).abs().max().item()
            assert off <= tolerance * max(1, other.abs().max().item()), (i, off)
