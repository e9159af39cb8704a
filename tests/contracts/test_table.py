"""The contract table and the registries name the same components, under the rule of names."""

from __future__ import annotations

import pytest
from mmengine.registry import Registry

from mmdet_ext import registry
from mmdet_ext.testing import cases

TABLE = {
    'model': (registry.MODELS, (*cases.LOSSES, *cases.HEADS)),
    'task util': (
        registry.TASK_UTILS, (*cases.ASSIGNERS, *cases.CALCULATORS, *cases.SAMPLERS)
    ),
    'dataset': (registry.DATASETS, cases.DATASETS),
}


def stock_names(name: str) -> set[str]:
    """Every class name that mmdet or mmpretrain registers in its registry of that name."""
    import mmdet.registry as det
    import mmpretrain.registry as cls

    attribute = {'model': 'MODELS', 'task util': 'TASK_UTILS', 'dataset': 'DATASETS'}[name]
    found: set[str] = set()
    for host in (det, cls):
        nodes: Registry = getattr(host, attribute)
        nodes.import_from_location()
        found |= set(nodes.module_dict) | set(nodes.root.module_dict)
    return found


@pytest.mark.parametrize('name', TABLE)
def test_table_and_registry_are_equal_as_sets(name: str) -> None:
    nodes, rows = TABLE[name]
    nodes.import_from_location()
    assert {row.name for row in rows} == set(nodes.module_dict)


def test_every_registry_is_in_the_table() -> None:
    assert set(TABLE) == set(registry.LOCATIONS)


@pytest.mark.parametrize('name', TABLE)
def test_a_stock_name_is_a_twin_and_a_new_name_is_nobodys(name: str) -> None:
    _, rows = TABLE[name]
    stock = stock_names(name)
    # A twin may have rows besides, with options that stock's class lacks.
    twins = {row.twin for row in rows if row.twin is not None}
    for row in rows:
        if row.name not in twins:
            assert row.name not in stock, f'{row.name} is taken by a stock class'
        if row.twin is not None:
            assert row.name == row.twin
            assert row.twin in stock, f'{row.twin} is no stock class'
