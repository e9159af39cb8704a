"""Inputs of losses, and the case that joins a loss with its inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmdet_ext.catalog.case import Case

#: Predictions, and targets: a tensor or a tuple of tensors.
Inputs = tuple[Tensor, Any]
#: Function that makes inputs from a random generator and their number.
MakeInputs = Callable[[torch.Generator, int], Inputs]


def loss_case(name: str, inputs: MakeInputs, hard_inputs: MakeInputs, **rest: Any) -> Case:
    """Make the case of a loss, whose inputs every case must give (see `KINDS`)."""
    return Case('loss', name, inputs=inputs, hard_inputs=hard_inputs, **rest)


def cast(target: Any, dtype: torch.dtype) -> Any:
    """Convert the floating tensors of a target to ``dtype``; labels and masks stay as they are."""
    if isinstance(target, tuple):
        return tuple(cast(part, dtype) for part in target)
    return target.to(dtype) if target.is_floating_point() else target
