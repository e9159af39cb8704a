"""Helpers of hooks for training loops and distributed models."""

from __future__ import annotations

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop
from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model itself, without its wrapper for distributed training."""
    return model.module if is_model_wrapper(model) else model  # type: ignore[return-value]


def check_counts_epochs(runner: Any) -> None:
    """Raise ValueError unless the training loop counts epochs.

    Raises:
        ValueError: if the loop counts steps only.
    """
    if isinstance(runner.train_loop, IterBasedTrainLoop):
        raise ValueError(
            'IterBasedTrainLoop counts no epochs: set by_epoch=False of the hook, and give its '
            'times in steps'
        )
