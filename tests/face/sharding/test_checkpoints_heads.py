"""`ShardedMarginHead` under MMEngine's runner: stopped on four processes, resumed on others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests._helpers.processes import run_python

WORKER = Path(__file__).with_name('checkpoint_heads.py')
CASES = ['sub-centres', 'sampled']
ROWS = {'sub-centres': 20, 'sampled': 10}

pytestmark = [pytest.mark.subprocess, pytest.mark.slow]


@pytest.fixture(scope='module')
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp('heads')
    run_python(WORKER, folder, cwd=folder)
    return torch.load(folder / 'results.pt')


@pytest.mark.parametrize('count', [3, 1])
@pytest.mark.parametrize('case', CASES)
def test_a_run_of_four_processes_resumes_on_others(
    case: str, count: int, results: dict[str, Any]
) -> None:
    whole, resumed = results[case], results[f'{case}/{count}']
    assert whole.keys() == resumed.keys()
    momentum = 'head.weight_drawn.exp_avg' if case == 'sampled' else 'head.weight.momentum_buffer'
    assert whole[momentum].shape == whole['head.weight'].shape and whole[momentum].any()
    for name, value in whole.items():
        torch.testing.assert_close(
            resumed[name], value, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f'{n}: {m}'
        )


@pytest.mark.parametrize('case', CASES)
def test_exports_load_into_a_margin_head(case: str, results: dict[str, Any]) -> None:
    whole, found = results[case], results[f'{case}/exported']
    assert not any('head.weight' == name for name in found['names False'])
    assert len(found['centres True']) == ROWS[case]
    for centers in (False, True):
        assert torch.equal(found[f'layer {centers}'], whole['layer.ema'])
    # A checkpoint has the averages in place of the weights, as MMEngine's.
    assert torch.equal(found['centres True'], whole['head.ema'])
    assert not torch.equal(found['centres False'], whole['head.ema'])
    assert not torch.allclose(whole['head.ema'], whole['head.weight'])
