"""The contract table: one case a registered component, and its behaviours are tested for all.

A test holds the table and the registries equal as sets, so that a component without a case, or a
case without a component, fails.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mmdet_ext.testing.loss_cases import LOSSES, LossCase

__all__ = ['ASSIGNERS', 'DATASETS', 'LOSSES', 'AssignerCase', 'DatasetCase', 'LossCase']

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


ASSIGNERS = (AssignerCase('ATSSAssigner', {'topk': 9}, twin='ATSSAssigner'),)
DATASETS = (DatasetCase('CocoDataset', twin='CocoDataset'),)
