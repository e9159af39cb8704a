"""Sizes, checks and precision of backbones that end in an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_that, is_whole

# Kinds of device with an autocast of their own. Tensors without storage ('meta') use the CPU's.
_AUTOCAST_DEVICES = ('cpu', 'cuda')


def image_size(value: Any) -> tuple[int, int]:
    """Return height and width in px, from the side of a square or from a pair.

    Raises:
        TypeError: if the value is neither a whole number nor a pair of them.
        ValueError: if a side is below 1.

    >>> image_size(112), image_size((112, 96))
    ((112, 112), (112, 96))
    """
    pair = (value, value) if isinstance(value, int) else value
    if not isinstance(pair, Sequence) or len(pair) != 2 or not all(map(is_whole, pair)):
        raise TypeError(
            f'input_size must be a side in px, or height and width, got {value!r}: '
            'for instance 112 or (112, 96)'
        )
    height, width = pair
    check_that(min(height, width) >= 1, 'input_size', value, 'at least 1 px per side')
    return height, width


def halved(size: tuple[int, int], times: int) -> tuple[int, int]:
    """Return the size of a map after ``times`` 3x3 convolutions of stride 2 and padding 1.

    Each convolution turns ``n`` cells into ``ceil(n / 2)``.

    >>> halved((112, 96), 4), halved((100, 1), 4)
    ((7, 6), (7, 1))
    """
    return -(-size[0] // 2**times), -(-size[1] // 2**times)


def check_images(images: Tensor, size: tuple[int, int], normalised: bool) -> None:
    """Raise ValueError unless images suit the layers that make their embedding.

    Args:
        images: (N, 3, H, W).
        size: height and width that the layers were built for, px.
        normalised: whether the embedding is normalised over the batch, as in training.

    Raises:
        ValueError: if images have another size, or a batch of one is to be normalised.
    """
    given = tuple(images.shape[-2:])
    if given != size:
        raise ValueError(
            f'images of {given[0]} x {given[1]} px (height x width) came, but the embedding is '
            f'built for input_size={size}. Resize or align the images to that, or set '
            f'input_size={given} of the backbone (weights of its last layer do not carry over)'
        )
    if normalised and len(images) == 1:
        raise ValueError(
            'a batch of 1 image cannot be normalised over the batch in training: use batches '
            'of 2 or more, and drop_last=True of the data loader where one may be left over'
        )


def full_precision(device: torch.device) -> torch.autocast:
    """Return a context without autocast, which keeps the precision of the weights.

    In half precision, cosines of embeddings err by 1e-3. This is too much for the thresholds of
    low false accept rates.
    """
    kind = device.type if device.type in _AUTOCAST_DEVICES else 'cpu'
    return torch.autocast(device_type=kind, enabled=False)
