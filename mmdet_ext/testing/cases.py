"""The contract table: one case a registered component, and its behaviours are tested for all.

A test holds the table and the registries equal as sets, so that a component without a case, or a
case without a component, fails.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mmdet_ext.testing.loss_cases import LOSSES, LossCase

__all__ = [
    'ASSIGNERS', 'DATASETS', 'HEADS', 'LOSSES', 'SAMPLERS', 'AssignerCase', 'DatasetCase',
    'HeadCase', 'LossCase', 'SamplerCase',
]


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


@dataclass(frozen=True)
class SamplerCase:
    """How to call a sampler.

    Attributes:
        name: registered name.
        options: config beside ``type``, ``num`` and ``pos_fraction``.
        twin: name of the stock sampler that it replaces, None for a new one.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    twin: str | None = None


@dataclass(frozen=True)
class HeadCase:
    """A dense head, by the stock head whose losses it gives.

    Attributes:
        name: registered name.
        twin: name of the stock head.
    """

    name: str
    twin: str | None = None


ASSIGNERS = (AssignerCase('ATSSAssigner', {'topk': 9}, twin='ATSSAssigner'),)
DATASETS = (DatasetCase('CocoDataset', twin='CocoDataset'),)
SAMPLERS = (SamplerCase('HardNegativeSampler'),)
HEADS = (HeadCase('SSDHead', twin='SSDHead'),)
