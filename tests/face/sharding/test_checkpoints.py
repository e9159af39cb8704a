"""Checkpoints of sharded classes, saved by some processes and resumed by others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests._helpers.processes import run_python

WORKER = Path(__file__).with_name('checkpoint_worker.py')
SETS = [f'{kind}_{classes}' for kind in ('sgd', 'adamw') for classes in (10, 3)]
WORLDS = ['sync_4', 'sync_3', 'sync_2', 'sync_1', 'async_2']

pytestmark = [pytest.mark.subprocess, pytest.mark.slow]


@pytest.fixture(scope='module')
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp('worlds')
    run_python(WORKER, folder, cwd=folder)
    return torch.load(folder / 'results.pt')


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], **limits: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=lambda m, n=name: f'{n}: {m}', **limits)


@pytest.mark.parametrize('world', WORLDS)
@pytest.mark.parametrize('name', SETS)
def test_what_four_processes_saved_any_number_loads_bit_for_bit(
    name: str, world: str, results: dict[str, Any]
) -> None:
    at_saving, _ = results[name]
    assert 'head.weight.momentum_buffer' in at_saving or 'head.weight.exp_avg' in at_saving
    assert_equal(results[f'{name}/{world}'][0], at_saving, rtol=0, atol=0)


@pytest.mark.parametrize('world', WORLDS)
@pytest.mark.parametrize('name', SETS)
def test_resuming_equals_going_on(name: str, world: str, results: dict[str, Any]) -> None:
    at_saving, later = results[name]
    assert not torch.allclose(at_saving['head.weight'], later['head.weight'])
    assert_equal(results[f'{name}/{world}'][1], later, rtol=1e-6, atol=1e-6)


def test_one_process_saves_and_three_resume(results: dict[str, Any]) -> None:
    at_saving, later = results['one']
    loaded, resumed = results['one/3']
    assert_equal(loaded, at_saving, rtol=0, atol=0)
    assert_equal(resumed, later, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('drawn', [True, False])
def test_state_that_some_processes_lack_is_zero_there(drawn: bool, results: dict[str, Any]) -> None:
    parts, loaded = results['drawn'], results[f'drawn/{drawn}']
    table = torch.cat([part['head.weight'] for part in parts])
    # Of 10 classes with 2 centres, the second of four processes holds the rows 6 to 11.
    had_state = torch.ones(20, 1)
    had_state[6:12] = 0
    name = 'head.weight_drawn' if drawn else 'head.weight'
    limits = dict(rtol=0, atol=0)
    torch.testing.assert_close(loaded['head.weight'], table, **limits)
    torch.testing.assert_close(loaded[f'{name}.exp_avg'], 2 * table * had_state, **limits)
    torch.testing.assert_close(loaded[f'{name}.exp_avg_sq'], table.square() * had_state, **limits)
    assert loaded[f'{name}.step'] == 4


def test_an_error_of_one_process_is_raised_in_all(results: dict[str, Any]) -> None:
    of_others, of_failing = results['fail']
    assert of_others[0] == 'RuntimeError: process 1 of 2 failed: OSError: no space left'
    assert of_failing[0] == 'OSError: no space left'


def test_an_error_in_the_background_is_raised_in_all(results: dict[str, Any]) -> None:
    of_others, of_failing = results['fail']
    assert of_others[1].startswith('RuntimeError: could not write iter_3: process 1 of 2 failed')
    assert of_failing[1] == 'RuntimeError: could not write iter_3: no space left'


def test_a_model_that_does_not_fit_in_one_process_is_refused_in_all(
    results: dict[str, Any],
) -> None:
    for found in results['fail']:
        assert "rows_per_class of 'head' is 2 there and 1 here. Nothing was loaded" in found[2]


@pytest.mark.parametrize('background', [False, True])
def test_a_process_that_ends_ends_the_others(background: bool, results: dict[str, Any]) -> None:
    message, seconds, left = results[f'end/{background}']
    assert 'another process of this training ended' in message
    assert 'first error in the log of that process' in message
    assert seconds < 60
    assert left == ['iter_3.writing']
