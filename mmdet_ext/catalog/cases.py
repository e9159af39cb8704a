"""The contract table: cases of all registered components, whose behaviours one suite tests.

A test holds the table and the registries equal as sets: a component without a case fails, and so
does a case without a component.
"""

from __future__ import annotations

from mmdet_ext.catalog import (
    detection_cases,
    evaluation_cases,
    face_cases,
    pose_cases,
    segmentation_cases,
)
from mmdet_ext.catalog.case import KINDS, Case
from mmdet_ext.catalog.loss_cases import LOSSES

CASES = (
    *LOSSES,
    *detection_cases.CASES,
    *evaluation_cases.CASES,
    *face_cases.CASES,
    *segmentation_cases.CASES,
    *pose_cases.CASES,
)


def cases_of(*kinds: str) -> tuple[Case, ...]:
    """Return the cases of some kinds, in the order of the table.

    Raises:
        KeyError: if there is no such kind.
    """
    for kind in kinds:
        KINDS[kind]
    return tuple(case for case in CASES if case.kind in kinds)


def cases_by_registry() -> dict[str, tuple[Case, ...]]:
    """Return all cases by the name of the registry that holds their components."""
    table: dict[str, tuple[Case, ...]] = {}
    for case in CASES:
        table[case.registry] = (*table.get(case.registry, ()), case)
    return table
