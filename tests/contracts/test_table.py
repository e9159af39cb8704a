"""The contract table and the registries name the same components, under the rule of names."""

from __future__ import annotations

import pytest
from mmengine.registry import Registry

from mmdet_ext import registry
from mmdet_ext.catalog.cases import cases_by_registry

#: Our registry of each name; the hosts' of the same attribute are its counterparts.
ATTRIBUTES = {
    'model': 'MODELS',
    'task util': 'TASK_UTILS',
    'dataset': 'DATASETS',
    'transform': 'TRANSFORMS',
    'data sampler': 'DATA_SAMPLERS',
    'metric': 'METRICS',
    'hook': 'HOOKS',
    'margin': 'MARGINS',
}


def stock_names(name: str) -> set[str]:
    """Every class name in the registry of that name of mmdet, mmpretrain or MMEngine."""
    import mmdet.registry as det
    import mmpretrain.registry as cls

    found: set[str] = set()
    for host in (det, cls):
        nodes: Registry | None = getattr(host, ATTRIBUTES[name], None)
        if nodes is not None:
            nodes.import_from_location()
            found |= set(nodes.module_dict) | set(nodes.root.module_dict)
    return found


@pytest.mark.parametrize('name', cases_by_registry())
def test_table_and_registry_are_equal_as_sets(name: str) -> None:
    nodes = getattr(registry, ATTRIBUTES[name])
    nodes.import_from_location()
    assert nodes.name == name
    assert {row.name for row in cases_by_registry()[name]} == set(nodes.module_dict)


def test_every_registry_is_in_the_table() -> None:
    assert set(cases_by_registry()) == set(registry.LOCATIONS) == set(ATTRIBUTES)
    ours = {
        name for name, value in vars(registry).items() if isinstance(value, registry.ExtRegistry)
    }
    assert ours == set(ATTRIBUTES.values())


@pytest.mark.parametrize('name', cases_by_registry())
def test_a_stock_name_is_a_twin_and_a_new_name_is_nobodys(name: str) -> None:
    stock = stock_names(name)
    # Margins are no host's kind; of all others the hosts have some, so that this looked at them.
    assert bool(stock) is (name != 'margin')
    # A twin may have rows besides, with options that stock's class lacks.
    twins = {row.twin for row in cases_by_registry()[name] if row.twin is not None}
    for row in cases_by_registry()[name]:
        if row.name not in twins:
            assert row.name not in stock, f'{row.name} is taken by a stock class'
        if row.twin is not None:
            assert row.name == row.twin
            assert row.twin in stock, f'{row.twin} is no stock class'


def test_no_two_rows_are_the_same() -> None:
    for name, rows in cases_by_registry().items():
        if name != 'model':  # whose losses differ by inputs, too
            described = [(row.name, str(getattr(row, 'options', None))) for row in rows]
            assert len(set(described)) == len(described), name
