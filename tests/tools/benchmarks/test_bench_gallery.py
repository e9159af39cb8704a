"""Benchmark of searches in a gallery: it runs, and reports a missed recall."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).resolve().parents[3] / 'tools' / 'benchmarks'


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    pytest.importorskip('faiss')
    monkeypatch.syspath_prepend(str(FOLDER))
    threads = torch.get_num_threads()
    yield importlib.import_module('bench_gallery')
    torch.set_num_threads(threads)
    for name in ('bench_gallery', 'timing'):
        sys.modules.pop(name, None)


def test_latency_recall_and_memory_of_three_searches_are_reported(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'out.json'
    args = ['--people', '600', '--dim', '32', '--probes', '50', '--runs', '2']
    args += ['--likeness', '0.95', '--recall', '0.9']
    assert bench.main([*args, '--out', str(out)]) == 0
    printed = capsys.readouterr().out
    assert '600 people, 32 numbers each' in printed and '50 probes of cosine 0.95' in printed
    content = json.loads(out.read_text())
    flat, ivf, hnsw = content['rows']
    assert [row['kind'] for row in content['rows']] == ['flat', 'ivf', 'hnsw']
    assert (flat['recall'], flat['effort'], flat['index_mib']) == (1.0, 0, 0.0)
    for row in (ivf, hnsw):
        assert row['recall'] >= 0.9 and row['effort'] >= 1
        # A byte per number, and of HNSW the links of a row beside it.
        assert row['index_mib'] > 600 * 32 / 2**20
        assert min(row['build_s'], row['single_ms'], row['batch_ms']) > 0
    assert hnsw['index_mib'] > ivf['index_mib']


def test_an_index_is_measured_at_several_efforts(bench: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / 'out.json'
    args = ['--people', '600', '--dim', '32', '--probes', '50', '--runs', '2', '--kinds', 'hnsw']
    assert bench.main([*args, '--efforts', '8', '64', '--recall', '0.1', '--out', str(out)]) == 0
    flat, *rows = json.loads(out.read_text())['rows']
    assert [row['effort'] for row in rows] == [8, 64]
    assert rows[0]['build_s'] == rows[1]['build_s'] > 0 == flat['build_s']
    assert rows[0]['recall'] <= rows[1]['recall']


def test_a_missed_recall_ends_with_1(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    real = bench.measure
    monkeypatch.setattr(bench, 'measure', lambda *given: {**real(*given), 'recall': 0.5})
    args = ['--people', '50', '--dim', '8', '--probes', '5', '--runs', '2', '--kinds']
    assert bench.main(args) == 1


def test_made_faces_have_the_stated_cosines(bench: ModuleType) -> None:
    rows = bench.faces(400, 512, seed=0)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
    probes = bench.similar(rows, 0.6, seed=1)
    assert (rows * probes).sum(1).mean() == pytest.approx(0.6, abs=0.01)
    # Two of one of the four centres have the cosine 0.3, others 0.
    between = (rows @ rows.T)[np.triu_indices(400, 1)]
    near = between[between > 0.15]
    assert near.mean() == pytest.approx(0.3, abs=0.02) and 0.2 < len(near) / len(between) < 0.3
