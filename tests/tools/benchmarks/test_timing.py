"""Comparison of running times, as all benchmarks use it."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

FILE = Path(__file__).resolve().parents[3] / 'tools' / 'benchmarks' / 'timing.py'


@pytest.fixture(scope='module')
def timing() -> ModuleType:
    spec = importlib.util.spec_from_file_location('timing', FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules['timing'] = module
    spec.loader.exec_module(module)
    return module


def test_ratio_and_medians(timing: ModuleType) -> None:
    work = {'slow': lambda: time.sleep(0.02), 'fast': lambda: time.sleep(0.005)}
    slow, fast = timing.compare(work, lambda one, other: None, runs=5, warmup=1)
    assert slow.ratio == 1 and slow.runs == 5
    assert 20 <= slow.median_ms < 60 and 5 <= fast.median_ms < 30
    assert fast.ratio == pytest.approx(slow.median_ms / fast.median_ms)


def test_different_results_are_not_timed(timing: ModuleType) -> None:
    with pytest.raises(timing.ResultsDifferError, match='b differs from a: by 1'):
        timing.compare({'a': lambda: 1, 'b': lambda: 2}, lambda one, other: f'by {other - one}')


@pytest.mark.skipif(torch.cuda.is_available(), reason='counts the allocations of the CPU')
def test_peak_memory_counts_what_is_held_at_the_same_time(timing: ModuleType) -> None:
    mebi = 2**20

    def one_after_the_other() -> None:
        for _ in range(3):
            torch.empty(mebi)

    def all_at_once() -> list[torch.Tensor]:
        return [torch.empty(mebi) for _ in range(3)]

    assert timing.peak_memory(one_after_the_other) == pytest.approx(4 * mebi, rel=0.01)
    assert timing.peak_memory(all_at_once) == pytest.approx(12 * mebi, rel=0.01)


def test_report_writes_what_it_prints(
    timing: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    timings = timing.compare({'a': lambda: 1, 'b': lambda: 1}, lambda one, other: None, runs=3)
    timing.report('Title', [('work', timings)], tmp_path / 'deep' / 'out.json')
    content = json.loads((tmp_path / 'deep' / 'out.json').read_text())
    assert torch.__version__.startswith(content['environment']['torch'])
    assert [t['name'] for t in content['rows'][0]['timings']] == ['a', 'b']
    printed = capsys.readouterr().out
    assert f'| work | a | {timings[0].median_ms:.2f} |' in printed


def test_one_run_has_no_quartiles(timing: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_of:
        timing.parse_arguments('Benchmark.', ['--runs', '1'])
    assert exit_of.value.code == 2
    assert '--runs must be at least 2' in capsys.readouterr().err
