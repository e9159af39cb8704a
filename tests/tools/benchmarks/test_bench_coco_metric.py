"""Benchmark of the COCO metric: the contenders agree on small work, and a difference is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests._helpers.tools import load_tool

pytest.importorskip('mmdet', reason='MMDetection is absent')
pytest.importorskip('hotcoco', reason='hotcoco is absent')


@pytest.mark.subprocess
def test_contenders_give_the_same_figures(tmp_path: Path, capfd: Any) -> None:
    tool = load_tool('benchmarks/evaluation/bench_coco_metric.py')
    out = tmp_path / 'figures.json'
    assert tool.main(['--images', '20', '--out', str(out)]) == 0
    rows = json.loads(out.read_text('utf-8'))['rows']
    assert set(rows) == {'mmdet', 'hotcoco'}
    assert rows['mmdet'][0]['figures'] == rows['hotcoco'][0]['figures']
    assert rows['hotcoco'][0]['of_backend_mb'] > 0 == rows['mmdet'][0]['of_backend_mb']
    assert 'of CPU' in capfd.readouterr().out


def test_a_difference_fails(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    tool = load_tool('benchmarks/evaluation/bench_coco_metric.py')
    monkeypatch.setattr(tool, 'make', lambda *args: None)
    monkeypatch.setattr(tool, 'measured', lambda name, folder: {'figures': {'mAP': len(name)}})
    assert tool.main([]) == 1
    assert 'hotcoco differs from mmdet' in capsys.readouterr().err
