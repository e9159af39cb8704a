"""Two processes of one group on the CPU, for tests of what ranks exchange."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def run_on_two_ranks(script: str, folder: Path) -> None:
    """Run a script in two processes, with its rank and a common folder as arguments.

    The test needs the mark ``subprocess``. If a process fails, the end of its output is shown.
    """
    env = {
        **os.environ,
        'PYTHONPATH': str(REPO),
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '',
    }
    workers = [
        subprocess.Popen(
            [sys.executable, '-c', script, str(rank), str(folder)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    for worker in workers:
        output, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0, output[-4000:]
