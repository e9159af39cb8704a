"""Cases of the contract table: facts by kind, and the errors for wrong ones."""

from __future__ import annotations

import copy

import pytest

from mmdet_ext.catalog.case import KINDS, Case
from mmdet_ext.catalog.cases import CASES, cases_by_registry, cases_of


def test_a_case_has_its_own_facts_and_the_usual_ones_of_its_kind() -> None:
    case = Case('assigner', 'FCOSAssigner', {'center_sampling': True}, priors='points')
    assert (case.priors, case.predicts, case.every_box) == ('points', False, True)
    assert (case.twin, case.registry) == (None, 'task util')
    assert repr(case) == 'FCOSAssigner-center_sampling=True'
    twin = Case('head', 'GFLHead', twin=True)
    assert (twin.twin, twin.twin_scope, case.twin_scope) == ('GFLHead', 'mmdet', None)
    assert Case('head', 'FCNHead', twin='mmseg').twin_scope == 'mmseg'
    assert copy.deepcopy(case).priors == 'points'


def test_an_unknown_or_missing_fact_is_named() -> None:
    with pytest.raises(TypeError, match=r"GFLHead: a head has no fact \['priors'\]"):
        Case('head', 'GFLHead', priors='points')
    with pytest.raises(TypeError, match=r"CIoULoss: a loss needs the facts \['hard_inputs', 'inp"):
        Case('loss', 'CIoULoss')
    with pytest.raises(TypeError, match="twin must be True, False, 'mmseg' or 'mmpose', got 'GFL"):
        Case('head', 'GFLHead', twin='GFLHead')  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="a head has no fact 'priors'"):
        _ = Case('head', 'GFLHead').priors


def test_kinds_part_the_table() -> None:
    parts = [case for kind in KINDS for case in cases_of(kind)]
    assert len(parts) == len(CASES) and all(cases_of(kind) for kind in KINDS)
    assert sorted(map(repr, parts)) == sorted(map(repr, CASES))
    assert sum(map(len, cases_by_registry().values())) == len(CASES)
    with pytest.raises(KeyError, match='no such kind'):
        cases_of('no such kind')
