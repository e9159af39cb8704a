"""Benchmark of suppression: all contenders keep the same boxes, with the same scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.tools.benchmarks.test_benchmarks import benchmark


@pytest.mark.parametrize('method', ['linear', 'gaussian'])
def test_contenders_are_compared_with_mmcv(
    method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with benchmark('bench_suppression', monkeypatch) as module:
        out = tmp_path / 'out.json'
        monkeypatch.setattr(module, 'SPLIT', 300)
        options = ['--boxes', '200', '300', '--methods', method, '--runs', '2']
        assert module.main([*options, '--out', str(out)]) == 0
        rows = json.loads(out.read_text())['rows']
        assert [row['work'] for row in rows] == [
            f'{count} boxes {kind}, {method}'
            for count in (200, 300)
            for kind in ('spread', 'in crowds')
        ]
        names = ['mmcv', 'mmdet_ext in mmcv', 'mmdet_ext']
        assert [timing['name'] for timing in rows[0]['timings']] == names
        assert [timing['name'] for timing in rows[2]['timings']] == [
            *names,
            f'{names[1]}, by class',
        ]


def test_other_scores_and_other_boxes_are_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    with benchmark('bench_suppression', monkeypatch) as module:
        boxes = module.detections(600, True, seed=0)
        labels = boxes[2]
        assert len(boxes[0]) == 600 and len(labels.unique()) <= 50
        dets, keep = module.contenders(boxes, 'linear')['mmdet_ext']()
        assert len(keep) < 590
        back = torch.arange(len(keep) - 1, -1, -1)
        assert module.differing((dets, keep), (dets[back], keep[back])) is None
        assert module.differing((dets, keep), (dets + 1e-3, keep)).startswith('boxes or scores')
        assert module.differing((dets, keep), (dets, keep + 1)) == 'indices'
        assert module.differing((dets, keep), (dets[1:], keep[1:])).endswith('boxes')
