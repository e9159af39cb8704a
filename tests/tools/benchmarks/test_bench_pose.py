"""Benchmark of poses: contenders agree on small work, and a difference is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests._helpers.tools import load_tool

pytest.importorskip('mmpose', reason='MMPose is absent')

TOOL = 'benchmarks/pose/bench_pose.py'


def test_contenders_agree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = load_tool(TOOL)
    threads = torch.get_num_threads()
    try:
        out = tmp_path / 'pose.json'
        monkeypatch.setattr(module, 'BATCH', 1)
        assert module.main(['--people', '2', '--runs', '2', '--out', str(out)]) == 0
        rows = {row['work']: row['timings'] for row in json.loads(out.read_text())['rows']}
        assert [[timing['name'] for timing in timings] for timings in rows.values()] == [
            ['mmpose', 'mmdet_ext'],
            ['mmpose', 'mmdet_ext'],
            ['one write', 'mmdet_ext'],
            ['greedy', 'optimal'],
        ]
        targets, decoding = module.by_fields(2)
        assert targets['mmdet_ext']().shape == (1, 19, 2, 128, 128)
        assert len(decoding['optimal']()[0]) == 2
    finally:
        torch.set_num_threads(threads)


def test_a_difference_fails() -> None:
    module = load_tool(TOOL)
    one = [torch.ones(2)]
    assert module.apart(one, [torch.ones(2) + 1e-6]) is None
    assert 'relative gaps' in module.apart(one, [torch.ones(2) + 1e-3])
    assert 'shapes' in module.apart(one, [torch.ones(3)])
