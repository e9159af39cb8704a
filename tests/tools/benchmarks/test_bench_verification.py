"""Benchmark of verification over all pairs: it runs, and reports a missed limit."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[3] / 'tools' / 'benchmarks'


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    threads = torch.get_num_threads()
    yield importlib.import_module('bench_verification')
    torch.set_num_threads(threads)
    for name in ('bench_verification', 'timing'):
        sys.modules.pop(name, None)


def test_time_memory_and_figures_of_all_pairs_are_reported(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'out.json'
    args = ['--embeddings', '300', '--dim', '16', '--pictures', '4', '--limit', '1000']
    assert bench.main([*args, '--out', str(out)]) == 0
    printed = capsys.readouterr().out
    assert '450 genuine and 44,400 impostor pairs' in printed and 'x the floor' in printed
    content = json.loads(out.read_text())
    assert content['pairs'] == 44_850 and 0.5 < content['figures']['auc'] < 1
    assert content['peak_gib'] >= content['peak_gib_before'] > 0
    assert bench.main([*args[:-1], '0.001']) == 1
    assert 'limit 0.001 GiB: MISSED' in capsys.readouterr().out
