"""Search for the margin head of a model, for the hooks."""

from __future__ import annotations

from torch import nn

from mmdet_ext.engine.loops import unwrapped
from mmdet_ext.face.heads.margin_head import MarginHead


def margin_head(model: nn.Module, user: str) -> MarginHead:
    """Return the ``head`` of a model, which must be a `MarginHead` with a margin.

    Args:
        model: model of the runner, with or without a distributed wrapper.
        user: name of the caller, for the message.

    Raises:
        ValueError: if the head is absent, or another.
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
