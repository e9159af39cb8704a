"""Random boxes, priors and batches for tests and benchmarks, always from a generator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.geometry import BatchGeometry, Priors


def random_boxes(
    generator: torch.Generator,
    count: int,
    width: float = 320.0,
    height: float = 256.0,
    min_side: float = 4.0,
    max_side: float = 200.0,
) -> Tensor:
    """Draw boxes (count, 4), px: centres uniform over the image, sides log-uniform.

    Width and height are independent. Boxes may reach out of the image, as those of a cropped image
    do before clipping.

    Args:
        generator: source of the numbers.
        count: number of boxes.
        width: of the image, px.
        height: of the image, px.
        min_side: shortest side, px.
        max_side: longest side, px.
    """
    center = torch.rand(count, 2, generator=generator) * torch.tensor([width, height])
    low, high = torch.tensor([min_side, max_side]).log()
    side = (low + (high - low) * torch.rand(count, 2, generator=generator)).exp()
    return torch.cat([center - side / 2, center + side / 2], dim=1)


#: The kinds of `fuzz_box_pairs`, in turn.
FUZZ_KINDS = ('identical', 'disjoint', 'nested', 'without area', 'inverted', 'near')


def fuzz_box_pairs(generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Draw pairs that losses find hard: pred and target (count, 4), 1e-3 to 1e4 px large.

    Pair i is of kind ``FUZZ_KINDS[i % 6]``. Every other pair with a prediction without area has a
    target equal to it.
    """
    size = 10 ** (torch.rand(count, 1, generator=generator) * 7 - 3)
    corner = torch.rand(count, 2, generator=generator) * size
    side = torch.rand(count, 2, generator=generator) * size
    target = torch.cat([corner, corner + side], 1)
    flat = torch.cat([corner, corner + side * torch.tensor([0.0, 1.0])], 1)
    inset = torch.tensor([0.1, 0.1, -0.1, -0.1]) * side.repeat(1, 2)
    shift = (torch.rand(count, 4, generator=generator) - 0.5) * 0.3 * side.repeat(1, 2)
    inverted = target[:, [2, 3, 0, 1]]
    preds = [target, target + 3 * size, target + inset, flat, inverted, target + shift]
    kind = torch.arange(count) % len(FUZZ_KINDS)
    pred = torch.stack(preds)[kind, torch.arange(count)]
    both_flat = (kind == 3) & (torch.arange(count) % 12 < 6)
    return pred, torch.where(both_flat[:, None], flat, target)


def grid_centers(width: int, height: int, stride: int, offset: float = 0.0) -> Tensor:
    """Return places (P, 2), px, ``offset`` strides into each cell of an image, x running faster."""
    y, x = torch.meshgrid(
        (torch.arange(-(-height // stride)) + offset) * stride,
        (torch.arange(-(-width // stride)) + offset) * stride,
        indexing='ij',
    )
    return torch.stack([x, y], dim=-1).view(-1, 2)


def pyramid_anchors(
    width: int = 320,
    height: int = 256,
    strides: Sequence[int] = (8, 16, 32, 64, 128),
    scale: float = 8.0,
) -> tuple[Tensor, list[int]]:
    """Return one square anchor per place, of side ``scale * stride``, as in mmdet's ATSS config.

    Returns:
        tuple: corners (P, 4), px, level by level, x running faster; number of priors per level.
    """
    levels = []
    for stride in strides:
        center = grid_centers(width, height, stride)
        half = scale * stride / 2
        levels.append(torch.cat([center - half, center + half], dim=1))
    return torch.cat(levels), [len(level) for level in levels]


def anchors_as_priors(corners: Tensor, level_sizes: Sequence[int] = ()) -> Priors:
    """Return corners (P, 4) of anchors as priors; () for unknown levels."""
    return Priors(corners=corners, level_sizes=tuple(level_sizes))


def random_geometry(
    generator: torch.Generator,
    boxes_of_images: Sequence[int],
    num_classes: int = 5,
    ignored: bool = False,
) -> BatchGeometry:
    """Return a batch of random boxes on the anchors of a 320 x 256 image.

    Args:
        generator: source of the numbers.
        boxes_of_images: number of boxes of each image.
        num_classes: number of classes of the labels.
        ignored: whether each image has two ignore regions.
    """
    return BatchGeometry.from_lists(
        anchors_as_priors(*pyramid_anchors()),
        [random_boxes(generator, count) for count in boxes_of_images],
        [torch.randint(num_classes, (count,), generator=generator) for count in boxes_of_images],
        [random_boxes(generator, 2) for _ in boxes_of_images] if ignored else None,
    )
