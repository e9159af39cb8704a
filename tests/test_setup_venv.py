"""Tests of the folder of the environment: which the set-up makes, fills, and deletes."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = str(ROOT / 'tools')
# The tools import each other like scripts. The path is removed again, because it has a `test.py`.
sys.path.insert(0, TOOLS)
try:
    import setup_common
    import setup_venv
finally:
    sys.path.remove(TOOLS)


def test_a_folder_that_is_no_venv_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / 'thesis.tex').write_text('text')
    with pytest.raises(setup_common.SetupError, match='holds other files'):
        setup_venv.discard_unfit(tmp_path)
    assert (tmp_path / 'thesis.tex').read_text() == 'text'


def venv_with_python(folder: Path, version: str) -> None:
    """Make a folder that looks like a venv with a Python of some version."""
    (folder / 'bin').mkdir(parents=True, exist_ok=True)
    (folder / 'pyvenv.cfg').touch()
    (folder / 'bin' / 'python').write_text(f'#!/bin/sh\necho {version}\n')
    (folder / 'bin' / 'python').chmod(0o755)


def test_a_venv_of_the_users_own_is_filled_and_never_deleted(tmp_path: Path) -> None:
    """Not by a later set-up with another Python either, nor by `make clean`."""
    folder = tmp_path / 'env'
    venv_with_python(folder, platform.python_version())
    setup_venv.prepare_venv(folder, {})
    setup_venv.prepare_venv(folder, setup_venv.read_state(folder))
    venv_with_python(folder, '3.9.1')
    with pytest.raises(setup_common.SetupError, match='not made by this set-up'):
        setup_venv.prepare_venv(folder, setup_venv.read_state(folder))
    for adopted in (True, False):
        if not adopted:
            setup_venv.write_state(folder, {'torch': ''})
        if shutil.which('make') is not None:
            command = ['make', '-f', str(ROOT / 'Makefile'), 'clean', f'VENV={folder}']
            subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
            assert folder.exists() is adopted


@pytest.mark.parametrize('mine', [False, True])
def test_venv_of_another_python_is_deleted_only_if_the_set_up_made_it(
    mine: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'env'
    venv_with_python(folder, '3.9.1')
    if mine:
        setup_venv.write_state(folder, {'torch': ''})
        setup_venv.discard_unfit(folder)
        assert f'has Python 3.9.1: making it anew with Python {platform.python_version()}' in (
            capsys.readouterr().out
        )
    else:
        with pytest.raises(setup_common.SetupError, match='not made by this set-up'):
            setup_venv.discard_unfit(folder)
    assert folder.exists() is not mine
