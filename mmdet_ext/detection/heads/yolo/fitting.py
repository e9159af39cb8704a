"""Fit of the YOLO heads with the maps that they are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mmdet_ext.detection.heads.dense.fitting import ChecksInput


class UsesLastMap(ChecksInput):
    """Mixin for heads of one map, the last of those that the network gives.

    Sizes and labels that do not fit are named as by the heads of several maps (see `ChecksInput`).
    """

    def loss(
        self, x: Sequence[Tensor], batch_data_samples: Sequence[Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Compute the losses of a batch on the last map."""
        return super().loss(x[-1:], batch_data_samples, *args, **kwargs)

    def predict(
        self, x: Sequence[Tensor], batch_data_samples: Sequence[Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Predict for a batch on the last map."""
        return super().predict(x[-1:], batch_data_samples, *args, **kwargs)


def check_channels(head: Any, maps: Sequence[Tensor], channels: Sequence[int]) -> None:
    """Raise ValueError unless maps have the channels that a head was built for.

    Args:
        head: the head, for the message.
        maps: (B, D, H, W) each.
        channels: D of each map.
    """
    found = [each.shape[1] for each in maps]
    if found != list(channels):
        both = (found[0], channels[0]) if len(found) == 1 else (found, list(channels))
        raise ValueError(
            f'{type(head).__name__} has in_channels={both[1]}, but got '
            f'{"a map" if len(found) == 1 else "maps"} of {both[0]} channels. Set in_channels to '
            'the channels that the neck or backbone gives'
        )
