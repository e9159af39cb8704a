"""What the hooks share: finding the head, and whether a loop counts epochs."""

from __future__ import annotations

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop
from torch import nn

from mmdet_ext.recognition.heads import MarginHead


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, of one that may be wrapped for distributed training."""
    return model.module if is_model_wrapper(model) else model  # type: ignore[return-value]


def margin_head(model: nn.Module, user: str) -> MarginHead:
    """The `MarginHead` with a margin that a model, wrapped or not, has as its ``head``.

    Args:
        model: of the runner.
        user: who asks, for the message.

    Raises:
        ValueError: if there is none.
    """
    model = unwrapped(model)
    head = getattr(model, 'head', None)
    if isinstance(head, MarginHead) and head.margin is not None:
        return head
    found = 'none' if head is None else type(head).__name__
    if isinstance(head, MarginHead):
        found = 'a MarginHead without a margin'
    raise ValueError(
        f"{user} needs a model with head=dict(type='mmdet_ext.MarginHead', margin=dict(...), ...); "
        f'the head of {type(model).__name__} is {found}'
    )


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
