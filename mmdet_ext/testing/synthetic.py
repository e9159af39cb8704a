"""Random boxes, priors and batches for tests and benchmarks, always from a generator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmdet_ext.structures import BatchGeometry


def random_boxes(
    generator: torch.Generator,
    count: int,
    width: float = 320.0,
    height: float = 256.0,
    min_side: float = 4.0,
    max_side: float = 200.0,
) -> Tensor:
    """Boxes (count, 4), px: centres uniform over the picture, sides log-uniform and independent.

    They may reach out of the picture, as a cropped picture's boxes do before clipping.
    """
    center = torch.rand(count, 2, generator=generator) * torch.tensor([width, height])
    low, high = torch.tensor([min_side, max_side]).log()
    side = (low + (high - low) * torch.rand(count, 2, generator=generator)).exp()
    return torch.cat([center - side / 2, center + side / 2], dim=1)


def pyramid_anchors(
    width: int = 320,
    height: int = 256,
    strides: Sequence[int] = (8, 16, 32, 64, 128),
    scale: float = 8.0,
) -> tuple[Tensor, list[int]]:
    """One square anchor a place, of side ``scale * stride``, as ATSS's stock config has it.

    Returns:
        tuple: priors (P, 4), px, level by level, x running faster; priors of each level.
    """
    levels = []
    for stride in strides:
        y, x = torch.meshgrid(
            torch.arange(-(-height // stride)) * float(stride),
            torch.arange(-(-width // stride)) * float(stride),
            indexing='ij',
        )
        center = torch.stack([x, y], dim=-1).view(-1, 2)
        half = scale * stride / 2
        levels.append(torch.cat([center - half, center + half], dim=1))
    return torch.cat(levels), [len(level) for level in levels]


def random_geometry(
    generator: torch.Generator,
    boxes_of_images: Sequence[int],
    num_classes: int = 5,
    ignored: bool = False,
) -> BatchGeometry:
    """A batch with the given numbers of boxes on the anchors of a 320 x 256 picture."""
    priors, sizes = pyramid_anchors()
    return BatchGeometry.from_lists(
        priors,
        sizes,
        [random_boxes(generator, count) for count in boxes_of_images],
        [torch.randint(num_classes, (count,), generator=generator) for count in boxes_of_images],
        [random_boxes(generator, 2) for _ in boxes_of_images] if ignored else None,
    )
