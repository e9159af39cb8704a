"""Messages, errors and pip runs of the set-up."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START = time.monotonic()


class SetupError(Exception):
    """Problem that the user can solve; the message says how."""


def clock(seconds: float) -> str:
    """Format a duration in seconds as minutes and seconds, such as `1:05`."""
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d}'


def report(message: str) -> None:
    """Print one line with the time since the start."""
    print(f'[{clock(time.monotonic() - START):>5}] {message}', flush=True)


def venv_python(venv: Path) -> Path:
    """Return the interpreter of a venv."""
    return venv / 'bin' / 'python'


def clean_environment() -> dict[str, str]:
    """Return the environment without variables that make packages of another Python visible."""
    env = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'PYTHONHOME')}
    return env | {
        'PYTHONNOUSERSITE': '1',
        'PIP_DISABLE_PIP_VERSION_CHECK': '1',
        'PIP_NO_INPUT': '1',
        'PIP_USER': '0',
    }


def last_lines(text: str, count: int) -> str:
    """Return the last lines of an output, without pip's remarks on absent local indexes."""
    lines = [line for line in text.splitlines() if line.strip() and 'is ignored: it is' not in line]
    return '\n'.join(f'    {line}' for line in lines[-count:])


def run_pip(venv: Path, *arguments: str) -> None:
    """Run pip in the venv without output; report once per minute that it is still at work.

    Raises:
        SetupError: If pip fails, with its last lines.
    """
    command = [str(venv_python(venv)), '-m', 'pip', *arguments, '-q', '--progress-bar', 'off']
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors='replace',
    ) as process:
        while True:
            try:
                output, _ = process.communicate(timeout=60)
                break
            except subprocess.TimeoutExpired:
                report('  still at work')
    if process.returncode:
        raise SetupError(
            f'pip failed: the package index could not be reached, or has no matching version.\n'
            f'  Its last words:\n{last_lines(output, 12)}\n'
            '  Check the network, PIP_INDEX_URL and proxies, then run the same command again: '
            'it goes on where it stopped'
        )
