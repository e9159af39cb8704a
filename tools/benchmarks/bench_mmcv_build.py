"""Benchmark of the build of mmcv's operators: in units of many files, against file by file.

    python tools/benchmarks/bench_mmcv_build.py [--venv .venv] [--host onedl] [--plain-flags=-g0]

Both builds take the torch of the venv, the same number of jobs and the same flags, in a temporary
folder; the sources are downloaded before. It prints the time by the clock, the processors' time and
the largest compiler of each, and the ratio. Both must export the same operators.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = str(ROOT / 'tools')
# The path is removed again, because it has a `test.py`.
sys.path.insert(0, TOOLS)
try:
    import setup_mmcv
    from setup_compiler import find_compiler, installed_standard
    from setup_env import CONSTRAINTS, chosen_operators
    from setup_hosts import read_family
    from setup_venv import installed_torch
finally:
    sys.path.remove(TOOLS)


@dataclass(frozen=True)
class Build:
    """Measures of one build.

    Args:
        wall: Seconds by the clock.
        processors: Seconds of all processors.
        gigabytes: Memory of the largest process.
    """

    wall: float
    processors: float
    gigabytes: float


def build(venv: Path, source: Path, flags: str, connection: Connection) -> None:
    """Compile an unpacked distribution; send what it took."""
    standard = installed_standard(venv, installed_torch(venv) or '')
    env = setup_mmcv.build_environment('cpu', find_compiler(standard, 'of the venv'))
    env['CFLAGS'] = flags
    command = setup_mmcv.wheel_command(venv, source.parent / 'wheel')
    began = time.monotonic()
    setup_mmcv.compile_wheel(command, source, env, source.parent / 'log', source.name)
    wall = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 1e9 if sys.platform == 'darwin' else 1e6
    connection.send(Build(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / unit))


def measure(venv: Path, source: Path, flags: str) -> Build:
    """Compile in a process of its own, so that the memory is that of this build."""
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=build, args=(venv, source, flags, sender))
    process.start()
    sender.close()
    try:
        result: Build = receiver.recv()
    finally:
        process.join()
    wheel = next((source.parent / 'wheel').glob('*.whl'))
    setup_mmcv.check_operators(venv, wheel, source)
    return result


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--venv', default='.venv', help='folder of the venv (default: .venv)')
    parser.add_argument('--host', default='', help='family of hosts whose mmcv is compiled')
    parser.add_argument(
        '--plain-flags',
        default=setup_mmcv.COMPILER_FLAGS,
        help='CFLAGS of the build file by file (default: those of the build in units)',
    )
    args = parser.parse_args(argv)
    venv = Path(args.venv).expanduser().absolute()
    torch = installed_torch(venv)
    if torch is None:
        print(f'error: --venv {venv} has no torch: make env sets one up', file=sys.stderr)
        return 2
    operators = chosen_operators(read_family(args.host), CONSTRAINTS.read_text(encoding='utf-8'))
    standard = installed_standard(venv, torch)
    ways = {'in units': setup_mmcv.COMPILER_FLAGS, 'file by file': args.plain_flags}
    rows: dict[str, Build] = {}
    for way, flags in ways.items():
        folder = Path(tempfile.mkdtemp(prefix='mmcv-build-'))
        try:
            source = setup_mmcv.unpack_sources(
                venv, operators, folder, standard, in_units=way == 'in units'
            )
            rows[way] = measure(venv, source, flags)
        finally:
            shutil.rmtree(folder)
    print(f'{operators}, torch {torch}, C++{standard}, {setup_mmcv.parallel_jobs()} jobs')
    for way, row in rows.items():
        print(
            f'{way:14}{row.wall:8.0f} s by the clock{row.processors:8.0f} s of processors'
            f'{row.gigabytes:6.1f} GB, CFLAGS {ways[way]}'
        )
    units, plain = rows.values()
    print(f'ratio: {units.wall / plain.wall:.2f} by the clock')
    return 0


if __name__ == '__main__':
    sys.exit(main())
