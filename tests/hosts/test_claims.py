"""The table of hosts: every component claims a host, and every claim is run by its host's tests."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from mmdet_ext import registry
from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.cases import CASES, cases_of
from mmdet_ext.catalog.hosts import HOSTS, Host, LossCall, claims, host, hosts_of, target_of
from mmdet_ext.registry import ExtRegistry

REPO = Path(__file__).resolve().parents[2]
NAMES = tuple(each.name for each in HOSTS)


def test_every_registered_component_claims_a_host() -> None:
    claimed: dict[str, set[str]] = {}
    for name in NAMES:
        for case in claims(name):
            claimed.setdefault(case.registry, set()).add(case.name)
    nodes = [part for part in vars(registry).values() if isinstance(part, ExtRegistry)]
    for each in nodes:
        each.import_from_location()
    assert claimed == {each.name: set(each.module_dict) for each in nodes}


def test_claims_are_of_hosts_in_the_table() -> None:
    for case in CASES:
        assert hosts_of(case) and set(hosts_of(case)) <= set(NAMES), case
        assert len(set(hosts_of(case))) == len(hosts_of(case)), case


@pytest.mark.parametrize('name', NAMES)
def test_each_claim_is_a_case_of_a_test_of_its_host(name: str) -> None:
    each = host(name)
    if not each.is_installed():
        pytest.skip(f'{each.title} is absent')
    tests = vars(import_module(f'tests.hosts.test_{name}'))
    run = [case for test in tests.values() for case in cases_run_by(test)]
    assert sorted(map(id, run)) == sorted(map(id, claims(name)))


def cases_run_by(test: Any) -> list[Case]:
    """List the cases over which a test is parametrised."""
    marks = getattr(test, 'pytestmark', ())
    marks = marks if isinstance(marks, list) else ()
    return [case for mark in marks if mark.args[:1] == ('case',) for case in mark.args[1]]


@pytest.mark.parametrize('each', HOSTS, ids=NAMES)
def test_a_host_has_an_extra_that_installs_either_package(each: Host) -> None:
    packages = {'': each.package, 'onedl-': each.fork}
    assert each.fork is not None or each.name == 'mmpose'
    for prefix, package in ((key, name) for key, name in packages.items() if name is not None):
        lists = [f'{prefix}{each.extra}'] if each.extra else [prefix + n for n in ('det', 'cls')]
        for name in lists:
            lines = (REPO / 'requirements' / f'{name}.txt').read_text('utf-8').splitlines()
            assert [line for line in lines if re.match(rf'{package}[<>=]', line)], (name, package)


def test_targets_are_read_off_the_inputs() -> None:
    found = {(case.name, target_of(case)) for case in cases_of('loss')}
    assert {
        ('CrossEntropyLoss', 'labels'),
        ('CrossEntropyLoss', 'masks'),
        ('FocalLoss', 'elements'),
        ('QualityFocalLoss', 'scores'),
        ('DistributionFocalLoss', 'distances'),
        ('DiceCELoss', 'label maps'),
        ('CIoULoss', 'boxes'),
        ('SmoothL1Loss', 'offsets'),
    } <= found


def test_losses_claim_the_hosts_that_give_their_target() -> None:
    def of(name: str, **options: Any) -> set[tuple[str, ...]]:
        cases = [case for case in cases_of('loss') if case.name == name]
        return {hosts_of(case) for case in cases if options.items() <= case.options.items()}

    everywhere = ('mmdet', 'mmpretrain', 'mmseg', 'mmengine')
    assert of('BalancedSoftmaxLoss') == {everywhere}
    assert of('GIoULoss') == of('DistributionFocalLoss') == {('mmdet', 'mmengine')}
    # Probabilities come from heads of mmdet alone, label maps from those of mmseg.
    assert of('FocalLoss', activated=True) == {('mmdet', 'mmengine')}
    assert of('DiceLoss', activate=False) == {('mmdet', 'mmengine')}
    assert of('DiceCELoss') == {('mmseg', 'mmengine')}


def test_a_form_of_a_call_gives_values_in_its_places() -> None:
    form = LossCall('any', ('pred', 'target', 'weight'), ('avg_factor',))

    def loss(*args: int, **named: int) -> Any:
        return args, named

    values = dict(pred=1, target=2, weight=3, avg_factor=4, ignore_index=5)
    assert form(loss, **values) == ((1, 2, 3), {'avg_factor': 4})
    assert str(form) == 'loss(pred, target, weight, avg_factor=...)'
    with pytest.raises(KeyError, match='avg_factor'):
        form(loss, pred=1, target=2, weight=3)
    with pytest.raises(KeyError, match='no host'):
        host('mmrotate')
