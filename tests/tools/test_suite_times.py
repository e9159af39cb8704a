"""Times of the Makefile's targets in two checkouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests._helpers.tools import load_tool

suite_times = load_tool('dev/suite_times.py')


def checkout(folder: Path, recipe: str) -> Path:
    folder.mkdir()
    (folder / 'Makefile').write_text(f'quick:\n\t@{recipe}\n')
    return folder


def test_both_checkouts_are_timed_and_a_failure_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base, own = checkout(tmp_path / 'base', 'true'), checkout(tmp_path / 'own', 'false')
    monkeypatch.setattr(suite_times, 'REPO', own)
    assert suite_times.main(['--base', str(base), '--targets', 'quick']) == 1
    first, second, ratio = capsys.readouterr().out.splitlines()
    assert first.startswith(f'make quick in {base}: ') and 'failed' not in first
    assert second.startswith(f'make quick in {own}: ') and second.endswith('failed with code 2')
    assert ratio.endswith('of the other checkout')


def test_a_folder_without_a_makefile_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suite_times.main(['--base', str(tmp_path)]) == 2
    assert f'error: --base {tmp_path}: there is no Makefile' in capsys.readouterr().err
