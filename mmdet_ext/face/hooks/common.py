"""What the hooks share: finding the head, and whether a loop counts epochs."""

from __future__ import annotations

from torch import nn

from mmdet_ext.engine.loops import unwrapped
from mmdet_ext.face.heads import MarginHead


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
