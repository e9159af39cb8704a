"""Benchmark of the analysis of detections: it times each tool, and finds reports that differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests._helpers.tools import load_tool

pytest.importorskip('threadpoolctl', reason='threadpoolctl is absent')

SMALL = ['--images', '30', '--classes', '4', '--resamples', '5']


def test_each_tool_is_timed(tmp_path: Path, capsys: Any) -> None:
    tool = load_tool('benchmarks/evaluation/bench_analysis.py')
    out = tmp_path / 'figures.json'
    assert tool.main([*SMALL, '--runs', '2', '--out', str(out)]) == 0
    content = json.loads(out.read_text('utf-8'))
    assert content['work']['boxes'] == 216
    assert content['work']['detections'] == [600, 600]
    names = ['operating points', 'kinds of errors', 'comparison, one IoU', 'comparison, ten IoUs']
    assert list(content['rows']) == names
    for row in content['rows'].values():
        runs = row['runs']['cpu_seconds']
        assert len(runs) == 2
        assert row['cpu_seconds'] == pytest.approx(sum(runs) / 2)
    assert 's of CPU' in capsys.readouterr().out


def test_reports_that_differ_fail(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    tool = load_tool('benchmarks/evaluation/bench_analysis.py')
    reports = iter(range(2))
    monkeypatch.setattr(tool, 'works', lambda *args: {'tool': lambda: next(reports)})
    assert tool.main([*SMALL, '--runs', '2']) == 1
    assert 'tool gives two reports' in capsys.readouterr().err


def test_the_second_result_has_other_detections_of_the_same_boxes() -> None:
    tool = load_tool('benchmarks/evaluation/bench_analysis.py')
    data, first = tool.made(20, 7.2, 20.0, 4, 0)
    same, second = tool.made(20, 7.2, 20.0, 4, 0, shift=9.0)
    np.testing.assert_array_equal(data.truth.box, same.truth.box)
    assert len(first) == len(second) == 400
    assert not np.array_equal(first.score, second.score)


def test_a_number_of_runs_below_1_is_refused(capsys: Any) -> None:
    tool = load_tool('benchmarks/evaluation/bench_analysis.py')
    with pytest.raises(SystemExit):
        tool.main(['--runs', '0'])
    assert '--runs must be 1 or more' in capsys.readouterr().err
