"""Cost of classifiers: equal results, memory beyond what all need, fits and a figure."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from mmdet_ext.face.studies.head_cost import head_cost
from mmdet_ext.plots.comparison import draw_scale

FOLDER = Path(__file__).resolve().parents[3] / 'tools' / 'benchmarks'
SMALL = ['--samples', '64', '--channels', '128', '--runs', '2']


@pytest.fixture
def face_scale(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    threads = torch.get_num_threads()
    yield importlib.import_module('face_scale')
    torch.set_num_threads(threads)
    for module in ('face_scale', 'margin_head_peers', 'timing'):
        sys.modules.pop(module, None)


def test_both_forms_train_alike_and_ours_needs_less_memory(
    face_scale: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, figure = tmp_path / 'out.json', tmp_path / 'out.png'
    args = [*SMALL, '--identities', '20000', '12000', '--beside', '12000']
    assert face_scale.main([*args, '--out', str(out), '--figure', str(figure)]) == 0
    assert figure.read_bytes().startswith(b'\x89PNG')
    content = json.loads(out.read_text())
    names = [[t['name'] for t in row['timings']] for row in content['rows']]
    both, alone = [face_scale.PEER, face_scale.OURS], [face_scale.OURS]
    assert names == [both, alone] * 2
    for point in content['points']:
        if point['name'] == face_scale.OURS:
            cost = head_cost(point['identities'], 1, point['rate'], 64, 128, device='cpu')
            assert point['peak_mib'] == pytest.approx(cost.working / 2**20, rel=0.1)
    # The other form holds four copies of the centres in its backward pass.
    (first,) = [p for p in content['points'] if p['name'] == face_scale.PEER and p['rate'] == 1]
    assert first['peak_mib'] == pytest.approx(4 * 4 * 128 * 12_000 / 2**20, rel=0.3)
    assert {(fit['name'], fit['key']) for fit in content['fits']} == {
        (face_scale.OURS, 'cpu_ms'),
        (face_scale.OURS, 'peak_mib'),
    }
    assert [share['memory'] < 1 for share in content['shares']] == [True, True]
    printed = capsys.readouterr().out
    assert '| computed | 100,000,000 | 64 | 0.1 |' in printed
    assert '| published | 29,000,000 | 8 | 0.1 |' in printed
    assert '7,523 between the published figures' in printed


def test_runs_with_other_rates_are_joined(face_scale: ModuleType, tmp_path: Path) -> None:
    low, both = tmp_path / 'low.json', tmp_path / 'both.json'
    args = [*SMALL, '--identities', '1000', '2000']
    assert face_scale.main([*args, '--rates', '0.5', '--out', str(low)]) == 0
    assert face_scale.main([*args, '--rates', '1', '--join', str(low), '--out', str(both)]) == 0
    first, content = (json.loads(path.read_text()) for path in (low, both))
    assert content['points'][4:] == first['points'] and content['rows'][2:] == first['rows']
    assert [(s['rate'], s['identities']) for s in content['shares']] == [
        *((1.0, 1000), (1.0, 2000)),
        *((0.5, 1000), (0.5, 2000)),
    ]
    assert content['fits'][4:] == first['fits']


def test_sizes_without_memory_are_left_out(
    face_scale: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = face_scale.measure

    def measure(identities: int, *rest: object) -> object:
        if identities == 2000:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return whole(identities, *rest)

    monkeypatch.setattr(face_scale, 'measure', measure)
    assert face_scale.main([*SMALL, '--identities', '1000', '2000', '--rates', '1']) == 0
    printed = capsys.readouterr().out
    assert '2,000 identities, rate 1: left out' in printed and '| 1,000 identities' in printed


def test_forms_that_differ_are_not_timed(
    face_scale: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules['margin_head_peers'], 'SCALE', 32.0)
    with pytest.raises(sys.modules['timing'].ResultsDifferError, match='relative gaps'):
        face_scale.main([*SMALL, '--identities', '1000', '2000'])


def test_a_share_above_what_is_required_is_reported(
    face_scale: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(face_scale, 'FROM', 1)
    monkeypatch.setattr(face_scale, 'MOST_MEMORY', {1.0: 0.0})
    assert face_scale.main([*SMALL, '--identities', '1000', '2000', '--rates', '1']) == 1
    assert capsys.readouterr().out.count('MISSED, at most 0.6 and 0') == 2


def test_a_figure_without_points_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='no points'):
        draw_scale([], tmp_path / 'out.png')
