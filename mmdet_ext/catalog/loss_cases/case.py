"""Case of a loss: its inputs and properties, for contract tests and tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

#: Predictions, and targets: a tensor or a tuple of tensors.
Inputs = tuple[Tensor, Any]
#: Function that makes inputs from a random generator and their number.
MakeInputs = Callable[[torch.Generator, int], Inputs]


@dataclass(frozen=True)
class LossCase:
    """Inputs and properties of a registered loss.

    Attributes:
        name: registered name.
        inputs: function (generator, N) -> (pred, target), of N ordinary inputs along the first
            dimension.
        hard_inputs: function of the same form, for edge cases at which losses become NaN.
        family: 'overlap' for boxes (N, 4) with losses (N,), 'regression' for (N, 4) with losses
            (N, 4), 'classification' for logits.
        options: config without ``type``.
        stock_options: options of mmdet's loss instead of ``options``, where they differ.
        zero_at_target: the loss is exactly 0 where prediction equals target.
        detaches: the gradient treats part of the formula as constant, as the paper does, so that
            finite differences of the value do not apply. The loss's own tests keep that part
            constant too.
        together: the loss of an element depends on the other elements (a mean over the batch, a
            ranking, a normalisation). The loss's own tests cover the reductions.
        twin: name of mmdet's loss that it replaces, None for a new loss.
        bench_inputs: inputs of the benchmark, where they differ from ``inputs``.
    """

    name: str
    inputs: MakeInputs
    hard_inputs: MakeInputs
    family: Literal['overlap', 'regression', 'classification'] = 'classification'
    options: dict[str, Any] = field(default_factory=dict)
    stock_options: dict[str, Any] | None = None
    zero_at_target: bool = False
    detaches: bool = False
    together: bool = False
    twin: str | None = None
    bench_inputs: MakeInputs | None = None


def cast(target: Any, dtype: torch.dtype) -> Any:
    """Convert the floating tensors of a target to ``dtype``; labels and masks stay as they are."""
    if isinstance(target, tuple):
        return tuple(cast(part, dtype) for part in target)
    return target.to(dtype) if target.is_floating_point() else target
