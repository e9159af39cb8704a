"""How to call a loss in the contract tests and the tables made from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

#: Predictions, and targets as the loss takes them: a tensor or a tuple of tensors.
Inputs = tuple[Tensor, Any]
MakeInputs = Callable[[torch.Generator, int], Inputs]


@dataclass(frozen=True)
class LossCase:
    """How to call a loss.

    Attributes:
        name: registered name.
        inputs: (generator, N) -> pred, target: ordinary ones, N of them along the first dimension.
        hard_inputs: likewise, for the edges: inputs at which losses go NaN.
        family: 'overlap' for boxes (N, 4) to losses (N,), 'regression' for (N, 4) to (N, 4),
            'classification' for logits.
        options: config beside ``type``.
        stock_options: what stock's twin takes in their place, where that differs.
        zero_at_target: the loss is exactly 0 where prediction equals target.
        detaches: part of the formula is held fixed in the gradient, as its paper has it, so that
            finite differences of the value do not apply; its own tests hold that part fixed too.
        together: an element's loss depends on the other elements (a mean over the batch, a
            ranking, an own normalisation); its own tests cover the reductions.
        twin: name of the stock loss that it replaces, None for a new one.
        bench_inputs: inputs for the benchmark's size, where they are not ``inputs``.
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
    """The target's floating tensors in another precision; labels and masks as they are."""
    if isinstance(target, tuple):
        return tuple(cast(part, dtype) for part in target)
    return target.to(dtype) if target.is_floating_point() else target
