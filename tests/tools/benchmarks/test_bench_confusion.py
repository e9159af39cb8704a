"""Benchmark of the counts of a segmentation metric: both contenders do the same work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.tools.benchmarks.test_benchmarks import benchmark


def test_counts_are_compared_with_those_of_mmseg(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip('mmseg', reason='mmsegmentation is not installed')
    with benchmark('bench_confusion', monkeypatch) as module:
        out = tmp_path / 'out.json'
        assert module.main(['--images', 'shapes', '--runs', '2', '--out', str(out)]) == 0
        (row,) = json.loads(out.read_text())['rows']
        assert [timing['name'] for timing in row['timings']] == ['mmseg', 'mmdet_ext']
        predicted, target = module.labels(5, 40, 50, seed=0)
        assert predicted.shape == target.shape == (40, 50)
        work = module.contenders(predicted, target, 5)
        right, found, labelled = work['mmdet_ext']()
        kept = target != 255
        assert labelled.tolist() == target[kept].bincount(minlength=5).tolist()
        assert found.tolist() == predicted[kept].bincount(minlength=5).tolist()
        assert int(right.sum()) == int((predicted == target)[kept].sum())
        assert module.differing(work['mmseg'](), work['mmdet_ext']()) is None
        more = (right, found, labelled + torch.eye(5)[0].long())
        assert module.differing(work['mmseg'](), more) == 'counts of labelled pixels'
