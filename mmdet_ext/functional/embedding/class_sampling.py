"""Random choice of the classes that compete in a step: those of the batch, and some others."""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_count

__all__ = ['draw_classes']


def draw_classes(
    labels: Tensor, num_classes: int, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw classes at random, the classes of the labels always among them.

    All classes that no label has are equally likely. The draw is without replacement.

    Args:
        labels: class of each sample, (N,), int64, from 0 to ``num_classes`` - 1.
        num_classes: C.
        count: number of classes to draw, at least 1. More are drawn if the labels alone have more
            classes, and all if it is above C.
        generator: source of the random numbers, on any device. The same state of it gives the same
            draw.

    Returns:
        tuple: the drawn classes, (K,), int64, ascending; and the place of each label among them,
        (N,). Both are on the device of the labels.

    Raises:
        ValueError: for a count or a number of classes below 1, and labels that are not (N,)
            integers; on a CPU also for labels out of range.

    References:
        An et al., Partial FC: Training 10 Million Identities on a Single Machine, 2020, section 3.

    >>> generator = torch.Generator().manual_seed(0)
    >>> classes, places = draw_classes(torch.tensor([7, 2, 7]), 10, 2, generator)
    >>> classes, places
    (tensor([2, 7]), tensor([1, 0, 1]))
    """
    check_count('num_classes', num_classes)
    check_count('count', count)
    if labels.dim() != 1 or labels.is_floating_point():
        raise ValueError(
            f'labels must be integers, (N,), got {tuple(labels.shape)} of {labels.dtype}'
        )
    if labels.device.type == 'cpu' and len(labels):
        low, high = (int(value) for value in labels.aminmax())
        if low < 0 or high >= num_classes:
            raise ValueError(
                f'labels must be from 0 to {num_classes - 1} for {num_classes} classes, got values '
                f'from {low} to {high}'
            )
    # Two of ten million numbers in float32 would often be equal.
    keys = torch.rand(
        num_classes, generator=generator, device=generator.device, dtype=torch.float64
    ).to(labels.device)
    labels = labels.long()
    keys[labels] = 2.0
    if count < len(labels):
        # Only then may the labels have more classes; counting them waits for a GPU.
        count = max(count, len(labels.unique()))
    classes = keys.topk(min(count, num_classes), sorted=False).indices.sort().values
    return classes, torch.searchsorted(classes, labels)
