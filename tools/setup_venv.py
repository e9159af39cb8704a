"""Folder of the environment: its Python, its state, and what is done with one that does not fit."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from setup_common import SetupError, report, venv_python

STATE_FILE = '.mmdet_ext.json'


def read_state(venv: Path) -> dict[str, Any]:
    """Return the state that an earlier set-up wrote into the venv; empty for any other venv."""
    try:
        state = json.loads((venv / STATE_FILE).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(venv: Path, state: dict[str, Any]) -> None:
    """Write the state into the venv: what was chosen and, at the end, the fingerprint."""
    partial = venv / (STATE_FILE + '.tmp')
    partial.write_text(json.dumps(state) + '\n', encoding='utf-8')
    os.replace(partial, venv / STATE_FILE)


def installed_torch(venv: Path) -> str | None:
    """Return the version of torch in a venv, without importing it."""
    found = sorted(venv.glob('lib/python3*/site-packages/torch-*.dist-info'))
    return found[0].name[len('torch-') : -len('.dist-info')] if found else None


def python_of(venv: Path) -> str | None:
    """Return the Python version of a venv, or None if its Python or pip does not work."""
    code = 'import pip, platform; print(platform.python_version())'
    try:
        done = subprocess.run([venv_python(venv), '-c', code], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def discard_unfit(venv: Path) -> None:
    """Delete a venv of an earlier set-up if it is broken or has another Python.

    A folder that this set-up did not make is never deleted: a venv of the user's own, which it may
    fill, stays the user's (`adopted` in the state).
    """
    mine = (venv / STATE_FILE).is_file() and not read_state(venv).get('adopted')
    if not mine and not (venv / 'pyvenv.cfg').is_file():
        raise SetupError(f'VENV={venv} holds other files: name a folder that is new, or a venv')
    version = python_of(venv)
    if version == platform.python_version():
        return
    reason = f'has Python {version}' if version else 'is incomplete'
    if not mine:
        raise SetupError(
            f'VENV={venv} {reason}, Python {platform.python_version()} is asked for. It was not '
            'made by this set-up, so it is left alone: delete it, or name another folder'
        )
    report(f'{venv} {reason}: making it anew with Python {platform.python_version()}')
    shutil.rmtree(venv)


def prepare_venv(venv: Path, state: dict[str, Any]) -> None:
    """Make the venv, or keep an existing one."""
    if venv.is_dir() and any(venv.iterdir()):
        discard_unfit(venv)
    venv.mkdir(parents=True, exist_ok=True)
    is_venv = (venv / 'pyvenv.cfg').is_file()
    if is_venv and not (venv / STATE_FILE).is_file():
        state = {**state, 'adopted': True}
    write_state(venv, state)
    if is_venv:
        return
    report(f'making {venv} with Python {platform.python_version()}')
    base = getattr(sys, '_base_executable', sys.executable)
    done = subprocess.run([base, '-m', 'venv', str(venv)], capture_output=True, text=True)
    if done.returncode:
        last = (done.stdout + done.stderr).strip()
        raise SetupError(
            f'{base} could not make a venv:\n{last}\nOn Debian and Ubuntu install '
            f'python3.{sys.version_info.minor}-venv'
        )
