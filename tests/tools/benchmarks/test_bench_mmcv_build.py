"""Benchmark of the build of mmcv's operators: both ways, what they took, and their ratio."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests._helpers.tools import load_tool

pytestmark = pytest.mark.subprocess


def test_both_ways_are_built_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = load_tool('benchmarks/bench_mmcv_build.py')
    checked = []

    def unpack(venv: Path, operators: object, folder: Path, standard: int, in_units: bool) -> Path:
        source = folder / 'mmcv'
        source.mkdir()
        (source / 'seconds').write_text('0.2' if in_units else '0.8')
        return source

    def command(venv: Path, folder: Path) -> list[str]:
        code = (
            'import os, time; time.sleep(float(open("seconds").read()))\n'
            f'os.mkdir({str(folder)!r}); open({str(folder / "mmcv.whl")!r}, "w")\n'
            'print(os.environ["CFLAGS"])\n'
        )
        return [sys.executable, '-I', '-c', code]

    def check(venv: Path, wheel: Path, source: Path) -> None:
        checked.append((source.parent / 'log').read_text().split())

    monkeypatch.setattr(bench.setup_mmcv, 'unpack_sources', unpack)
    monkeypatch.setattr(bench.setup_mmcv, 'wheel_command', command)
    monkeypatch.setattr(bench.setup_mmcv, 'check_operators', check)
    monkeypatch.setattr(bench, 'find_compiler', lambda *_: 'c++')
    (tmp_path / 'lib/python3.11/site-packages/torch-2.14.1.dist-info').mkdir(parents=True)
    assert bench.main(['--venv', str(tmp_path), '--plain-flags=-g0']) == 0
    assert checked == [bench.setup_mmcv.COMPILER_FLAGS.split(), ['-g0']]
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r'mmcv [\d.]+, torch 2\.14\.1, C\+\+20, \d+ jobs$', lines[0])
    ratio = re.fullmatch(r'ratio: (\d\.\d\d) by the clock', lines[-1])
    assert ratio is not None
    # 0.2 s against 0.8 s, and twice the start of Python.
    assert 0.25 < float(ratio.group(1)) < 0.9


def test_a_venv_without_torch_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = load_tool('benchmarks/bench_mmcv_build.py')
    assert bench.main(['--venv', str(tmp_path)]) == 2
    assert 'has no torch' in capsys.readouterr().err
