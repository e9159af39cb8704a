"""What backbones that end in an embedding share: sizes, checks, and full precision at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

#: Autocast is known by these names; tensors without storage ('meta') follow the processor's.
_AUTOCAST_DEVICES = ('cpu', 'cuda')


def picture_size(value: Any) -> tuple[int, int]:
    """Height and width, px, from a side of a square or a pair.

    Raises:
        TypeError: if the value is neither a whole number nor two of them.
        ValueError: if a side is below 1.

    >>> picture_size(112), picture_size((112, 96))
    ((112, 112), (112, 96))
    """
    pair = (value, value) if isinstance(value, int) else value
    if (
        not isinstance(pair, Sequence)
        or len(pair) != 2
        or not all(isinstance(side, int) and not isinstance(side, bool) for side in pair)
    ):
        raise TypeError(
            f'input_size must be a side in px, or height and width, got {value!r}: '
            'for instance 112 or (112, 96)'
        )
    height, width = pair
    if min(height, width) < 1:
        raise ValueError(f'input_size must be at least 1 px a side, got {value!r}')
    return height, width


def halved(size: tuple[int, int], times: int) -> tuple[int, int]:
    """The size of a map after ``times`` 3x3 convolutions of stride 2 and padding 1.

    Each makes ``n`` cells ``ceil(n / 2)``.

    >>> halved((112, 96), 4), halved((100, 1), 4)
    ((7, 6), (7, 1))
    """
    return -(-size[0] // 2**times), -(-size[1] // 2**times)


def check_positive(name: str, value: Any) -> None:
    """Raise unless an option is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f'{name} must be a whole number of at least 1, got {value!r}')


def check_pictures(pictures: Tensor, size: tuple[int, int], normalised: bool) -> None:
    """Raise unless pictures suit the layers that make their embedding.

    Args:
        pictures: (N, 3, H, W).
        size: height and width that the layers were built for, px.
        normalised: whether the embedding is normalised over the batch, as in training.

    Raises:
        ValueError: if the size is another, or a batch of one is to be normalised.
    """
    given = tuple(pictures.shape[-2:])
    if given != size:
        raise ValueError(
            f'pictures of {given[0]} x {given[1]} px (height x width) came, but the embedding is '
            f'built for input_size={size}. Resize or align the pictures to that, or set '
            f'input_size={given} of the backbone (weights of its last layer do not carry over)'
        )
    if normalised and len(pictures) == 1:
        raise ValueError(
            'a batch of 1 picture cannot be normalised over the batch in training: use batches '
            'of 2 or more, and drop_last=True of the data loader where one may be left over'
        )


def full_precision(device: torch.device) -> torch.autocast:
    """A context without autocast: an embedding is made in the precision of its weights.

    Rounded to half precision, cosines err by 1e-3, which is more than a threshold bears at low
    rates of false accepts.
    """
    kind = device.type if device.type in _AUTOCAST_DEVICES else 'cpu'
    return torch.autocast(device_type=kind, enabled=False)
