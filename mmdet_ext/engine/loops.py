"""Training loops and wrapped models, as hooks of any task meet them."""

from __future__ import annotations

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop
from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, of one that may be wrapped for distributed training."""
    return model.module if is_model_wrapper(model) else model  # type: ignore[return-value]


def check_counts_epochs(runner: Any) -> None:
    """Raise unless the loop counts epochs.

    Raises:
        ValueError: if it counts steps alone.
    """
    if isinstance(runner.train_loop, IterBasedTrainLoop):
        raise ValueError(
            'IterBasedTrainLoop counts no epochs: set by_epoch=False of the hook, and give its '
            'times in steps'
        )
