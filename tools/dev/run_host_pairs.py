"""Run the tests on several sets of versions, and record each run for `docs/hosts.md`.

    python tools/dev/run_host_pairs.py --pair torch=2.13.0 --pair torch=2.10.0 python=python3.12

Each pair gets an environment of its own (`tools/setup_env.py`) in a temporary folder, which is
deleted afterwards; compiled operators stay in the user's cache. Words of a pair: `python` (which
Python), `torch`, `host` (stock or onedl), or a package with the release to install. What a pair
does not name is as `make env` has it. The row of a pair is written as soon as its tests end: an
earlier row of the same versions and tests is replaced, all others stay.

Exit code: 0 if all tests of all pairs passed, 1 if some failed, 2 for an environment that could not
be made or an argument that cannot be read.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mmdet_ext.utils.files import write_json

REPO = Path(__file__).resolve().parents[2]
RESULTS = REPO / 'docs' / 'results' / 'hosts.json'
FAST = 'not leaf and not subprocess and not slow'
#: What identifies a row: two runs of the same are one row.
KEYS = ('host', 'python', 'torch', 'torchvision', 'opencv', 'numpy', 'tests')
#: Failed tests that a row names.
SHOWN = 5

VERSIONS = """
import json, platform, sys
from importlib.metadata import PackageNotFoundError, version
def of(*names):
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            pass
    return ''
hosts = {
    'mmengine': of('mmengine', 'onedl-mmengine'),
    'mmcv': of('mmcv', 'onedl-mmcv'),
    'mmdet': of('mmdet', 'onedl-mmdetection'),
    'mmpretrain': of('mmpretrain', 'onedl-mmpretrain'),
    'mmseg': of('mmsegmentation', 'onedl-mmsegmentation'),
    'mmpose': of('mmpose'),
}
print(json.dumps({
    'python': platform.python_version(), 'torch': of('torch'), 'torchvision': of('torchvision'),
    'opencv': of('opencv-python', 'opencv-python-headless'), 'numpy': of('numpy'), 'hosts': hosts,
}))
"""


class PairError(Exception):
    """Pair that cannot be read, or whose environment cannot be made."""


def read_pair(words: list[str]) -> dict[str, str]:
    """Read the words of a pair, each `NAME=RELEASE`.

    >>> read_pair(['torch=2.13.0', 'opencv-python=4.14.0.94'])
    {'torch': '2.13.0', 'opencv-python': '4.14.0.94'}
    """
    pair = dict(word.split('=', 1) for word in words if '=' in word)
    odd = [word for word in words if not all(word.partition('='))]
    if odd or len(pair) < len(words):
        raise PairError(
            f'--pair {" ".join(words)}: expected words such as torch=2.13.0, each name once'
        )
    return pair


def set_up_command(pair: dict[str, str], venv: Path) -> list[str]:
    """Return the command that makes the environment of a pair, with every host."""
    command = [pair.get('python', sys.executable), str(REPO / 'tools' / 'setup_env.py')]
    command += ['--venv', str(venv), '--hosts', 'all']
    for name in ('torch', 'host'):
        if name in pair:
            command += [f'--{name}', pair[name]]
    for name in sorted(set(pair) - {'python', 'torch', 'host'}):
        command += ['--pin', f'{name}=={pair[name]}']
    return command


def counts(report: Path) -> dict[str, Any]:
    """Count the tests of a JUnit report; name the first that failed.

    Args:
        report: File that `pytest --junitxml` wrote.

    Returns:
        The numbers passed, failed and skipped, and the names of failures.
    """
    passed, skipped = 0, 0
    failed: list[str] = []
    for test in ElementTree.parse(report).getroot().iter('testcase'):
        outcomes = {child.tag for child in test}
        if outcomes & {'failure', 'error'}:
            failed.append(f'{test.get("classname", "").rpartition(".")[2]}::{test.get("name")}')
        elif 'skipped' in outcomes:
            skipped += 1
        else:
            passed += 1
    return {'passed': passed, 'failed': len(failed), 'skipped': skipped, 'failures': failed}


def run_pair(pair: dict[str, str], venv: Path, tests: str, only: list[str]) -> dict[str, Any]:
    """Make the environment of a pair, run the tests in it and return its row."""
    if subprocess.run(set_up_command(pair, venv)).returncode:
        raise PairError(f'the environment of {described(pair)} could not be made, see above')
    python = venv / 'bin' / 'python'
    facts = json.loads(subprocess.check_output([python, '-c', VERSIONS], text=True))
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, 'report.xml')
        command = [str(python), '-m', 'pytest', '-q', '-n', 'auto', '--maxprocesses=8']
        command += ['--dist', 'loadgroup', f'--junitxml={report}', *only]
        if tests == 'fast':
            command += ['-m', FAST]
        start = time.perf_counter()
        code = subprocess.run(command, cwd=REPO, env=os.environ | {'PATH': _path(venv)}).returncode
        seconds = time.perf_counter() - start
        if code not in (0, 1) or not report.is_file():  # 1: some failed; others: it was ended early
            raise PairError(f'the tests of {described(pair)} did not run to their end, see above')
        found = counts(report)
    shown = found.pop('failures')[:SHOWN]
    return {
        'host': pair.get('host', 'stock'),
        **facts,
        'tests': ' '.join([tests, *only]),
        **found,
        'seconds': round(seconds),
        'date': datetime.now(timezone.utc).date().isoformat(),
        'note': ', '.join(shown),
    }


def described(pair: dict[str, str]) -> str:
    """Return a pair in words."""
    return ', '.join(f'{name} {value}' for name, value in pair.items()) or 'the default versions'


def record(row: dict[str, Any], results: Path) -> None:
    """Write a row into the results, instead of an earlier one of the same versions and tests."""
    rows = json.loads(results.read_text(encoding='utf-8')) if results.is_file() else []
    kept = [old for old in rows if any(old[key] != row[key] for key in KEYS)]
    order = sorted([*kept, row], key=lambda each: [_numbers(str(each[key])) for key in KEYS])
    results.parent.mkdir(parents=True, exist_ok=True)
    write_json(results, order)


def _numbers(text: str) -> list[tuple[int, str]]:
    """Return a key that sorts 3.9 before 3.11, and text as text."""
    return [(int(part), '') if part.isdecimal() else (-1, part) for part in text.split('.')]


def _path(venv: Path) -> str:
    """Return PATH with the programs of a venv first, as an activated one has it."""
    return f'{venv / "bin"}{os.pathsep}{os.environ.get("PATH", "")}'


def main(argv: list[str] | None = None) -> int:
    """Run the pairs one after the other."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or '').partition('\n')[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        '--pair',
        nargs='*',
        action='append',
        metavar='NAME=RELEASE',
        help='versions of one run: python=, torch=, host=, or a package; can be repeated',
    )
    parser.add_argument('--tests', choices=('all', 'fast'), default='all', help='which tests')
    parser.add_argument('--only', nargs='+', default=[], metavar='PATH', help='files of tests')
    parser.add_argument('--results', type=Path, default=RESULTS, help='file of the rows')
    parser.add_argument('--keep', type=Path, metavar='FOLDER', help='keep environments in a folder')
    args = parser.parse_args(argv)
    failed = broken = 0
    try:
        pairs = [read_pair(words) for words in args.pair or [[]]]
    except PairError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    for number, pair in enumerate(pairs, 1):
        print(f'pair {number}/{len(pairs)}: {described(pair)}', flush=True)
        name = '-'.join(f'{key}{Path(value).name}' for key, value in pair.items()) or 'default'
        with tempfile.TemporaryDirectory(prefix='mmdet_ext_') as scratch:
            venv = (args.keep or Path(scratch)).absolute() / name
            try:
                row = run_pair(pair, venv, args.tests, args.only)
            except PairError as error:
                print(f'error: {error}', file=sys.stderr)
                broken += 1
                continue
        record(row, args.results)
        failed += row['failed']
        print(f'pair {number}/{len(pairs)}: {row["passed"]} passed, {row["failed"]} failed')
    return 2 if broken else int(bool(failed))


if __name__ == '__main__':
    sys.exit(main())
