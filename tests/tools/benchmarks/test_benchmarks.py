"""Benchmarks: their requirements, the floor that they compare with, and equal results."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[3] / 'tools' / 'benchmarks'


@contextmanager
def benchmark(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Import a benchmark as its folder does, and restore torch's threads afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    threads = torch.get_num_threads()
    yield importlib.import_module(name)
    torch.set_num_threads(threads)
    for module in (name, 'timing'):
        sys.modules.pop(module, None)


def test_no_tool_imports_the_tests() -> None:
    """A script runs without the repository's root on its path, where `tests` may be another."""
    for path in FOLDER.parent.rglob('*.py'):
        assert not re.search(r'^\s*(from|import) tests\b', path.read_text(), re.MULTILINE), path


@pytest.fixture
def assigners(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    with benchmark('bench_assigners', monkeypatch) as module:
        yield module


@pytest.fixture
def margin_head(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    with benchmark('bench_margin_head', monkeypatch) as module:
        yield module


@pytest.mark.slow
def test_assigners_are_compared_with_mmdet_and_with_their_floor(
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
    assert 'x the floor' in printed and '500 boxes in one image' in printed


def test_a_missed_requirement_is_reported(assigners: ModuleType) -> None:
    timing = sys.modules['timing'].Timing('mmdet_ext', 10.0, 1.0, 5, 4.0, 9.0, 0.3)
    priors = torch.zeros(10, 4)
    work = assigners.Work('X', {}, priors, (64, 64), {100: 8.0, 300: 10.0}, 0.25)
    assert assigners.verdict(work, 100, timing)[1]
    line, holds = assigners.verdict(work, 300, timing)
    assert not holds and '9.0 x (at least 10)' in line and 'MISSED' in line


def test_margin_heads_give_one_result_and_are_compared_with_the_products(
    margin_head: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'out.json'
    args = ['--classes', '2048', '--many', '3000', '--samples', '8', '--channels', '16']
    assert margin_head.main([*args, '--runs', '2', '--out', str(out)]) == 0
    content = json.loads(out.read_text())
    first, many = content['rows']
    names = [timing['name'] for timing in first['timings']]
    assert names[0] == 'mmpretrain.ArcFaceClsHead' and names[-1] == 'mmdet_ext.MarginHead'
    assert [timing['name'] for timing in many['timings']] == ['mmdet_ext.MarginHead']
    # Beside the gradients, mmpretrain holds several tables of scores, and ours a part of one.
    assert first['timings'][0]['peak_mib'] > 3 * 8 * 2048 * 4 / 2**20
    assert first['timings'][-1]['memory_share'] < 0.5
    assert all(content['floor_ms'][row['work']] > 0 for row in content['rows'])
    assert 'x the floor' in capsys.readouterr().out


def test_margin_heads_that_differ_are_not_timed(
    margin_head: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = margin_head.our_step

    def wrong(*given: torch.Tensor) -> object:
        step = right(*given)
        return lambda: tuple(1.01 * value for value in step())

    monkeypatch.setattr(margin_head, 'our_step', wrong)
    with pytest.raises(sys.modules['timing'].ResultsDifferError, match='relative gaps'):
        margin_head.main(['--classes', '1024', '--many', '0', '--samples', '4', '--runs', '2'])


@pytest.mark.slow
@pytest.mark.subprocess
def test_losses_of_label_maps_are_compared_with_mmseg(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip('mmseg', reason='mmsegmentation is not installed')
    with benchmark('bench_segmentation_losses', monkeypatch) as module:
        out = tmp_path / 'out.json'
        size = ['--size', '1', '4', '9', '11', '--runs', '2']
        assert module.main([*size, '--losses', 'focal loss', '--out', str(out)]) == 0
        content = json.loads(out.read_text())
        (row,) = content['rows']
        assert [timing['name'] for timing in row['timings']] == ['mmseg', 'mmdet_ext']
        assert set(content['resident_mib']['focal loss']) == {'mmseg', 'mmdet_ext'}
        logits, label = module.inputs(0, 1, 4, 9, 11)
        assert {255} < set(label.flatten().tolist()) <= {0, 1, 2, 3, 255}
        for work in module.WORK:
            theirs, ours = (module.step(s, work, logits, label)() for s in module.SCOPES)
            assert module.differing(theirs, ours) is None
            wrong = (ours[0], ours[1] + 1e-3 * ours[1].abs().max())
            assert 'relative gaps' in str(module.differing(theirs, wrong))
