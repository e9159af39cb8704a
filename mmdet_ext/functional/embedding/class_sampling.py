"""Random choice of the classes that compete in a step: those of the batch, and some others.

`draw_classes` draws a given number of all classes. `draw_by_key` decides for each class by itself,
so that processes that hold a part of the classes each draw what one process would.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_count, check_number

__all__ = ['draw_by_key', 'draw_classes', 'mixed']

# Constants of splitmix64: the step of its counter, and the two factors of its finaliser.
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


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


def mixed(*numbers: int) -> int:
    """Mix whole numbers into one of 63 bits that looks random, such as the seed of a generator.

    References:
        Steele et al., Fast Splittable Pseudorandom Number Generators, OOPSLA 2014 (splitmix64).

    >>> mixed(0, 1) == mixed(0, 1), mixed(0, 1) == mixed(1, 0)
    (True, False)
    """
    state = 0
    for number in numbers:
        state = ((state ^ number) + _STEP) % 2**64
        state = ((state ^ state >> 30) * _FIRST) % 2**64
        state = ((state ^ state >> 27) * _SECOND) % 2**64
        state ^= state >> 31
    return state >> 1


def draw_by_key(
    labels: Tensor, first: int, stop: int, rate: float, key: int
) -> tuple[Tensor, Tensor]:
    """Draw among the classes of a part, each class by itself.

    Class j is drawn if a label is j, or if its key splitmix64(key, j) / 2^64 is below the rate.
    The share of drawn classes is therefore the rate in expectation. Whether a class is drawn does
    not depend on the part that it is in.

    Args:
        labels: class of each sample among all classes, (N,), int64.
        first: first class of the part.
        stop: the class behind the last one of the part; ``first`` for an empty part.
        rate: share of the classes to draw, from 0 to 1.
        key: whole number that fixes the draw.

    Returns:
        tuple: the drawn classes, counted from ``first``, (K,), int64, ascending; and the place of
        each label among them, (N,), -1 for a label of another part.

    References:
        As `mixed`.

    >>> labels = torch.tensor([7, 2, 7])
    >>> draw_by_key(labels, 0, 5, 0.0, key=1), draw_by_key(labels, 5, 10, 0.0, key=1)
    ((tensor([2]), tensor([-1,  0, -1])), (tensor([2]), tensor([ 0, -1,  0])))
    """
    check_number('rate', rate, least=0, most=1)
    keys = torch.arange(first, stop, device=labels.device)
    keys = _splitmix(keys * _signed(_STEP) + _signed(mixed(key)))
    # The highest 53 bits are a float64 without rounding.
    drawn = _shifted(keys, 11) < round(rate * 2**53)
    inside = (labels >= first) & (labels < stop)
    drawn[labels[inside] - first] = True
    classes = drawn.nonzero().squeeze(1)
    places = torch.searchsorted(classes, labels - first)
    return classes, torch.where(inside, places, -1)


def _signed(number: int) -> int:
    """Return the int64 with the bits of a number of 64 bits."""
    number %= 2**64
    return number - 2**64 if number >= 2**63 else number


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shift the bits of int64 to the right, with zeros from the left."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _splitmix(x: Tensor) -> Tensor:
    """Finalise splitmix64 of int64, whose products wrap around."""
    x = (x ^ _shifted(x, 30)) * _signed(_FIRST)
    x = (x ^ _shifted(x, 27)) * _signed(_SECOND)
    return x ^ _shifted(x, 31)
