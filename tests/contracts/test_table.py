"""The contract table and the registries name the same components, under the rule of names."""

from __future__ import annotations

from importlib import import_module

import pytest
from mmengine.registry import Registry

from mmdet_ext import registry
from mmdet_ext.catalog.case import KINDS, Case
from mmdet_ext.catalog.cases import cases_by_registry
from mmdet_ext.catalog.hosts import host

#: Our registry of each name; the hosts' of the same attribute are its counterparts.
ATTRIBUTES = {
    'model': 'MODELS',
    'task util': 'TASK_UTILS',
    'dataset': 'DATASETS',
    'transform': 'TRANSFORMS',
    'data sampler': 'DATA_SAMPLERS',
    'metric': 'METRICS',
    'hook': 'HOOKS',
    'model wrapper': 'MODEL_WRAPPERS',
    'margin': 'MARGINS',
    'keypoint codec': 'KEYPOINT_CODECS',
}


def installed_hosts() -> list[str]:
    """Name the hosts with registries of their own; mmsegmentation and mmpose may be absent."""
    return ['mmdet', 'mmpretrain', *(n for n in ('mmseg', 'mmpose') if host(n).is_installed())]


def is_hidden(case: Case) -> bool:
    """Return whether a component needs a host that is absent."""
    needs = KINDS[case.kind].needs
    return needs is not None and not host(needs).is_installed()


def stock_names(name: str) -> set[str]:
    """Every class name in the registry of that name of an installed host or of MMEngine."""
    found: set[str] = set()
    for nodes_of in (import_module(f'{each}.registry') for each in installed_hosts()):
        nodes: Registry | None = getattr(nodes_of, ATTRIBUTES[name], None)
        if nodes is not None:
            nodes.import_from_location()
            found |= set(nodes.module_dict) | set(nodes.root.module_dict)
    return found


@pytest.mark.parametrize('name', cases_by_registry())
def test_table_and_registry_are_equal_as_sets(name: str) -> None:
    nodes = getattr(registry, ATTRIBUTES[name])
    nodes.import_from_location()
    assert nodes.name == name
    cases = [case for case in cases_by_registry()[name] if not is_hidden(case)]
    assert {case.name for case in cases} == set(nodes.module_dict)


def test_every_registry_is_in_the_table() -> None:
    assert set(cases_by_registry()) == set(registry.LOCATIONS) == set(ATTRIBUTES)
    ours = {
        name for name, value in vars(registry).items() if isinstance(value, registry.ExtRegistry)
    }
    assert ours == set(ATTRIBUTES.values())


@pytest.mark.parametrize('name', cases_by_registry())
def test_only_a_replacement_has_the_name_of_a_host_component(name: str) -> None:
    stock = stock_names(name)
    # No host has margins, and MMPose alone codecs. Of all other kinds the hosts have some, so that
    # names were compared.
    absent = {'margin', *(['keypoint codec'] if not host('mmpose').is_installed() else [])}
    assert bool(stock) is (name not in absent)
    # A replacement may have more cases, with options that the host's class lacks.
    twins = {case.twin for case in cases_by_registry()[name] if case.twin is not None}
    for case in cases_by_registry()[name]:
        if case.name not in twins:
            assert case.name not in stock, f'{case.name} is taken by a class of a host'
        if case.twin is not None and case.twin_scope in installed_hosts():
            assert case.name == case.twin
            assert case.twin in stock, f'{case.twin} is no class of a host'


def test_no_two_rows_are_the_same() -> None:
    for name, rows in cases_by_registry().items():
        if name != 'model':  # whose losses differ by inputs, too
            described = [(case.name, str(case.options)) for case in rows]
            assert len(set(described)) == len(described), name
