"""The contract table: one case a registered component, and its behaviours are tested for all.

A test holds the table and the registries equal as sets, so that a component without a case, or a
case without a component, fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmdet_ext.testing.synthetic import fuzz_box_pairs, random_boxes

Inputs = tuple[Tensor, Tensor]


def box_pairs(generator: torch.Generator, count: int) -> Inputs:
    """Targets (count, 4) and predictions whose corners lie about a tenth of a side beside."""
    target = random_boxes(generator, count)
    sides = (target[:, 2:] - target[:, :2]).repeat(1, 2)
    jitter = torch.rand(count, 4, generator=generator) - 0.5
    return target + 0.4 * sides * jitter, target


@dataclass(frozen=True)
class LossCase:
    """How to call a loss.

    Attributes:
        name: registered name.
        inputs: (generator, N) -> pred, target.
        hard_inputs: likewise, for the edges: pairs at which losses go NaN.
        options: config beside ``type``.
        zero_at_target: the loss is exactly 0 where prediction equals target.
        detaches: part of the formula is held fixed in the gradient, as its paper has it, so that
            finite differences of the value do not apply; its own tests hold that part fixed too.
        twin: name of the stock loss that it replaces, None for a new one.
    """

    name: str
    inputs: Callable[[torch.Generator, int], Inputs]
    hard_inputs: Callable[[torch.Generator, int], Inputs]
    options: dict[str, Any] = field(default_factory=dict)
    zero_at_target: bool = False
    detaches: bool = False
    twin: str | None = None


@dataclass(frozen=True)
class AssignerCase:
    """How to call an assigner.

    Attributes:
        name: registered name.
        options: config beside ``type``.
        twin: name of the stock assigner that it replaces, None for a new one.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    twin: str | None = None


@dataclass(frozen=True)
class DatasetCase:
    """A data set, by the stock class whose samples it gives.

    Attributes:
        name: registered name.
        twin: name of the stock data set.
    """

    name: str
    twin: str | None = None


LOSSES = (
    LossCase(
        'CIoULoss',
        box_pairs,
        fuzz_box_pairs,
        zero_at_target=True,
        detaches=True,
        twin='CIoULoss',
    ),
)
ASSIGNERS = (AssignerCase('ATSSAssigner', {'topk': 9}, twin='ATSSAssigner'),)
DATASETS = (DatasetCase('CocoDataset', twin='CocoDataset'),)
