"""Time the set-up, the fast tests and all tests of this checkout, beside another checkout of it.

    python tools/dev/suite_times.py [--base FOLDER] [--targets env test-fast test]

Runs the targets of the Makefile one after the other, in this checkout and in the other, and prints
the seconds with the ratio. Run nothing else meanwhile. A checkout whose environment is finished
times the check of the set-up alone: remove its `.venv` to time the set-up.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def main(argv: list[str] | None = None) -> int:
    """Print the times; returns 1 if a target failed, 2 for a folder without a Makefile."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('--base', type=Path, metavar='FOLDER', help='checkout to compare with')
    parser.add_argument('--targets', nargs='+', default=['env', 'test-fast', 'test'])
    args = parser.parse_args(argv)
    folders = [REPO] if args.base is None else [args.base, REPO]
    for folder in folders:
        if not (folder / 'Makefile').is_file():
            print(f'error: --base {folder}: there is no Makefile in it', file=sys.stderr)
            return 2
    failed = False
    for target in args.targets:
        seconds = []
        for folder in folders:
            start = time.perf_counter()
            done = subprocess.run(['make', target], cwd=folder, capture_output=True, check=False)
            seconds.append(time.perf_counter() - start)
            failed |= done.returncode != 0
            note = '' if done.returncode == 0 else f', failed with code {done.returncode}'
            print(f'make {target} in {folder}: {seconds[-1]:.0f} s{note}', flush=True)
        if len(seconds) == 2:
            print(f'make {target}: {seconds[1] / seconds[0]:.2f} of the other checkout')
    return int(failed)


if __name__ == '__main__':
    sys.exit(main())
