"""The benchmarks' own parts: what they require, and the floor they measure against."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / 'tools' / 'benchmarks'


@pytest.fixture
def assigners(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    threads = torch.get_num_threads()
    yield importlib.import_module('bench_assigners')
    torch.set_num_threads(threads)
    for name in ('bench_assigners', 'timing'):
        sys.modules.pop(name, None)


def test_assigners_are_set_against_stock_with_their_floor(
    assigners: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'out.json'
    args = ['--assigners', 'SimOTAAssigner', '--boxes', '3', '--runs', '2', '--crowd', '500']
    assert assigners.main([*args, '--out', str(out)]) == 0
    content = json.loads(out.read_text())
    (row,) = content['rows']
    assert [t['name'] for t in row['timings']] == ['stock', 'mmdet_ext']
    # 8,400 points, boxes and 80 scores read, an index and an overlap written.
    moved = 8400 * (16 + 16 + 320 + 12) + 3 * (16 + 8)
    floor = moved / (content['copy_gb_per_s'] * 1e9) * 1e3
    assert content['floor_ms'][row['work']] == pytest.approx(floor)
    assert content['crowd']['rows']['SimOTAAssigner']['peak_mib'] > 0
    printed = capsys.readouterr().out
    assert 'x the floor' in printed and '500 boxes in one picture' in printed


def test_a_missed_requirement_is_told(assigners: ModuleType) -> None:
    timing = sys.modules['timing'].Timing('mmdet_ext', 10.0, 1.0, 5, 4.0, 9.0, 0.3)
    priors = torch.zeros(10, 4)
    work = assigners.Work('X', {}, priors, (64, 64), {100: 8.0, 300: 10.0}, 0.25)
    assert assigners.verdict(work, 100, timing)[1]
    line, holds = assigners.verdict(work, 300, timing)
    assert not holds and '9.0 x (at least 10)' in line and 'MISSED' in line
