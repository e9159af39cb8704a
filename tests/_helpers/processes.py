"""New processes of Python, as a user starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests._helpers.configs import CONFIGS


def run_python(*words: str | Path, cwd: Path) -> str:
    """Run Python in a new process, on one thread without a GPU, and return what it printed."""
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', *map(str, words)],
        env={
            **os.environ,
            'PYTHONPATH': str(CONFIGS.parent),
            'OMP_NUM_THREADS': '1',
            'CUDA_VISIBLE_DEVICES': '',
        },
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout
