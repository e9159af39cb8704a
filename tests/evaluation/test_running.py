"""Backends in a process of their own: limit of time, failures, and what takes over."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from mmdet_ext.evaluation import running
from mmdet_ext.evaluation.protocol import Protocol
from mmdet_ext.evaluation.running import BackendError, choose_backend, evaluate, time_bound
from tests.evaluation.made_columns import BACKENDS, assert_same_scores, made

pytest.importorskip('pycocotools')

PROTOCOL = Protocol('bbox', max_dets=(100, 300, 1000))
#: Stub -> what it does in place of an evaluation.
STUBS = {
    'stuck': 'import time\n    time.sleep(600)',
    'failing': "raise ValueError('no such box')",
    'crashing': 'import os, signal\n    os.kill(os.getpid(), signal.SIGSEGV)',
}


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Put a stub in place of hotcoco."""
    source = f'def evaluate(truth, found, protocol):\n    {STUBS[request.param]}\n'
    (tmp_path / 'stub_backend.py').write_text(source, 'utf-8')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(running.BACKENDS, 'hotcoco', 'stub_backend')
    monkeypatch.setattr(running, 'find_spec', lambda name: object())
    return str(request.param)


@pytest.mark.subprocess
@pytest.mark.parametrize('backend', BACKENDS)
def test_a_process_gives_the_tables_of_a_call(backend: str) -> None:
    pytest.importorskip(backend)
    truth, found = made(0)
    here = evaluate(truth, found, PROTOCOL, backend, time_limit=None)
    there = evaluate(truth, found, PROTOCOL, backend)
    assert_same_scores(there.scores, here.scores)
    assert here.backend == there.backend == backend and here.peak_bytes is None
    assert there.peak_bytes is None or 2e7 < there.peak_bytes < 1e9
    assert str(there).startswith(f'{backend} ') and str(there).endswith(' MB')


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ('stub', 'reason'),
    [
        ('stuck', 'did not return within 1 s'),
        ('failing', r'stopped with exit code 1 \(ValueError: no such box\)'),
        ('crashing', r'stopped with exit code -11'),
    ],
    indirect=['stub'],
)
def test_a_backend_that_gives_no_tables_is_replaced_and_named(stub: str, reason: str) -> None:
    truth, found = made(0)
    said: list[tuple[str, int]] = []
    limit = 1.0 if stub == 'stuck' else 120.0
    start = time.monotonic()
    outcome = evaluate(truth, found, PROTOCOL, 'hotcoco', limit, lambda *line: said.append(line))
    assert time.monotonic() - start < 90
    assert outcome.backend == 'pycocotools'
    expected = evaluate(truth, found, PROTOCOL, 'pycocotools', time_limit=None)
    assert_same_scores(outcome.scores, expected.scores)
    (warning,) = [text for text, level in said if level == logging.WARNING]
    with pytest.raises(BackendError, match=f'backend hotcoco .*{reason}.*pycocotools evaluates'):
        raise BackendError(warning)


@pytest.mark.subprocess
def test_a_backend_at_work_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, 'REPORT_EVERY', 0.05)
    said: list[str] = []
    evaluate(*made(0), PROTOCOL, 'pycocotools', say=lambda text, level: said.append(text))
    assert said and all(text.startswith('pycocotools is at work: ') for text in said)


@pytest.mark.subprocess
def test_no_tables_at_all_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(running.BACKENDS, 'pycocotools', 'no_such_module')
    with pytest.raises(BackendError, match=r"pycocotools .* stopped .*No module named 'no_such"):
        evaluate(*made(0), PROTOCOL, 'pycocotools')


def test_the_fastest_installed_backend_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {'hotcoco', 'faster_coco_eval', 'pycocotools'}
    monkeypatch.setattr(running, 'find_spec', lambda name: name if name in there else None)
    assert choose_backend('auto') == 'hotcoco'
    there.remove('hotcoco')
    assert choose_backend('auto') == 'faster_coco_eval'
    assert choose_backend('pycocotools') == 'pycocotools'
    with pytest.raises(ImportError, match=r"'hotcoco': hotcoco not installed.*mmdet-ext\[eval\]"):
        choose_backend('hotcoco')
    there.clear()
    with pytest.raises(ImportError, match="'auto': hotcoco and faster_coco_eval and pycocotools"):
        choose_backend('auto')
    with pytest.raises(ValueError, match="backend must be 'auto' or one of 'hotcoco'.*got 'fast'"):
        choose_backend('fast')


def test_the_bound_grows_with_the_work() -> None:
    truth, found = made(0)
    small = time_bound(truth, found, PROTOCOL)
    more = time_bound(*made(0, images=600), PROTOCOL)
    masks = time_bound(truth, found, Protocol('segm'))
    assert 60 < small < 61 and small < masks
    # 36,000 detections and 3,600 boxes, 2,400 pairs of an image and a category.
    assert more == pytest.approx(60 + 6e-4 * 39_600 + 1e-4 * 2_400)
