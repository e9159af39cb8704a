r"""Compare the latency, memory and size of a detector in torch and in the files exported of it.

    python tools/benchmarks/latency.py CONFIG --files x.onnx x.xml x_int8.xml x.ncnn.param \
        --out docs/results/latency_NAME.json

torch runs the config's network, as it is and by torch.compile; each file runs in its runtime. What
is timed is the network with its decoding, on one prepared image: not the resize, nor a suppression
outside of the network. Each contender has a process of its own, whose peak memory is that of all
that it loaded. Rounds go in turn, A B A B, so that a machine that slows down slows all of them.
`--others` adds ONNX files of other projects, in onnxruntime and in OpenVINO. The medians are
written as JSON, and drawn beside it as PNG.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mmdet_ext.deploy.errors import DeployError
from mmdet_ext.deploy.processor import int8_instructions, processor_name
from mmdet_ext.deploy.runtimes import open_model
from mmdet_ext.plots.comparison import draw_latency
from mmdet_ext.utils.files import write_json

WORKER = Path(__file__).with_name('latency_worker.py')
PACKAGES = ('torch', 'onnxruntime', 'openvino', 'ncnn', 'nncf', 'numpy', 'mmdet-ext')


@dataclass(frozen=True)
class Latency:
    """Figures of a contender.

    Attributes:
        name: of the contender.
        threads: threads of a call.
        median_ms: median of the runs, ms.
        iqr_ms: interquartile range of the runs, ms.
        runs: number of runs.
        peak_mib: peak memory of its process, MiB.
        megabytes: size of its files, MB; None for torch without a checkpoint.
        ratio: median over that of torch; None where torch did not run.
    """

    name: str
    threads: int
    median_ms: float
    iqr_ms: float
    runs: int
    peak_mib: float
    megabytes: float | None
    ratio: float | None


class Contender:
    """Process of a contender.

    Args:
        name: of the contender.
        spec: as `latency_worker.py` takes it.
        threads: threads of a call.
        files: whose size counts.
    """

    def __init__(self, name: str, spec: dict[str, Any], threads: int, files: list[Path]) -> None:
        self.name, self.threads = name, threads
        self.megabytes = sum(each.stat().st_size for each in files) / 1e6 if files else None
        self.seconds: list[float] = []
        self.peak_mib = 0.0
        environment = {**os.environ, 'OMP_NUM_THREADS': str(threads), 'PYTHONWARNINGS': 'ignore'}
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps({**spec, 'threads': threads})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.facts = self._answer()

    def run(self, runs: int, counted: bool) -> None:
        """Run the contender, and keep the times if they count."""
        assert self.process.stdin is not None
        print(json.dumps({'runs': runs}), file=self.process.stdin, flush=True)
        answer = self._answer()
        if 'error' in answer:
            raise ValueError(f'{self.name} with {self.threads} threads: {answer["error"]}')
        self.peak_mib = answer['peak_mib']
        if counted:
            self.seconds += answer['seconds']

    def end(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def figures(self, torch_ms: float | None) -> Latency:
        """Return the figures."""
        low, _, high = (each * 1e3 for each in statistics.quantiles(self.seconds, n=4))
        median = statistics.median(self.seconds) * 1e3
        return Latency(
            self.name,
            self.threads,
            median,
            high - low,
            len(self.seconds),
            self.peak_mib,
            self.megabytes,
            median / torch_ms if torch_ms else None,
        )

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found: dict[str, Any] = json.loads(line) if line else {'error': 'the process ended'}
        return found


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return 0, or 2 for bad input."""
    args = _parse(argv)
    try:
        size = _size(args)
        rows: list[Latency] = []
        failed: dict[str, str] = {}
        for threads in args.threads:
            rows += _measure(args, size, threads, failed)
    except (DeployError, OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    _print(rows, failed, args, size)
    if args.out is not None:
        content = dict(environment=_environment(), config=str(args.config), size=size)
        write_json(args.out, {**content, 'rows': [asdict(row) for row in rows], 'failed': failed})
        draw_latency([asdict(row) for row in rows], args.out.with_suffix('.png'))
        print(f'written to {args.out} and {args.out.with_suffix(".png").name}')
    return 0


def _size(args: argparse.Namespace) -> tuple[int, int]:
    """Return height and width of the input, of the first file that has a fixed one."""
    if args.size is not None:
        return args.size[0], args.size[1]
    for file in args.files:
        if (size := open_model(file).info.input.size) is not None:
            return size[0], size[1]
    raise ValueError('no file has a fixed size of input: give --size HEIGHT WIDTH')


def _measure(
    args: argparse.Namespace, size: tuple[int, int], threads: int, failed: dict[str, str]
) -> list[Latency]:
    contenders: list[Contender] = []
    try:
        for name, spec, files in _specs(args, size):
            contender = Contender(name, spec, threads, files)
            if 'error' in contender.facts:
                failed[name] = contender.facts['error']
                print(f'{name} does not run: {failed[name]}', file=sys.stderr)
                contender.end()
                continue
            contenders.append(contender)
        for number in range(args.rounds + 1):  # the first does not count
            for contender in contenders:
                contender.run(args.runs, counted=number > 0)
            if sys.stderr.isatty():
                print(f'\r{threads} threads: {number} of {args.rounds}', end='', file=sys.stderr)
    finally:
        for contender in contenders:
            contender.end()
    torch = [each for each in contenders if each.name == 'torch']
    base = statistics.median(torch[0].seconds) * 1e3 if torch else None
    return [each.figures(base) for each in contenders]


def _specs(
    args: argparse.Namespace, size: tuple[int, int]
) -> list[tuple[str, dict[str, Any], list[Path]]]:
    checkpoint = [args.checkpoint] if args.checkpoint else []
    own: dict[str, Any] = dict(kind='torch', config=str(args.config), size=size)
    own['checkpoint'] = str(args.checkpoint) if args.checkpoint else None
    found: list[tuple[str, dict[str, Any], list[Path]]] = [
        ('torch', {**own, 'compiled': False}, checkpoint),
    ]
    if args.compile:
        found.append(('torch.compile', {**own, 'compiled': True}, checkpoint))
    for file in args.files:
        runtime = open_model(file)
        files = [file] if file.suffix == '.onnx' else [file, file.with_suffix('.bin')]
        name = f'{runtime.name} {runtime.info.precision}'
        kind = dict(kind='file', path=str(file), runtime=runtime.name.lower(), size=size)
        found.append((name, kind, files))
    for file in args.others:
        for runtime_name in ('onnxruntime', 'openvino'):
            kind = dict(kind='plain', path=str(file), runtime=runtime_name)
            found.append((f'{file.stem} {runtime_name}', kind, [file]))
    return found


def _print(
    rows: list[Latency], failed: dict[str, str], args: argparse.Namespace, size: tuple[int, int]
) -> None:
    print(f'# Latency of {args.config.stem} at {size[0]} x {size[1]} px\n')
    print(', '.join(f'{key} {value}' for key, value in _environment().items()))
    print('\n| contender | threads | median ms | IQR ms | of torch | peak MiB | MB |')
    print('| --- | ---: | ---: | ---: | ---: | ---: | ---: |')
    for row in rows:
        size_text = '' if row.megabytes is None else f'{row.megabytes:.2f}'
        ratio_text = '' if row.ratio is None else f'{row.ratio:.2f}'
        print(
            f'| {row.name} | {row.threads} | {row.median_ms:.2f} | {row.iqr_ms:.2f} '
            f'| {ratio_text} | {row.peak_mib:.0f} | {size_text} |'
        )
    for name, reason in failed.items():
        print(f'\n{name} does not run: {reason}')


def _environment() -> dict[str, Any]:
    found: dict[str, Any] = {
        'processor': processor_name(),
        'cores': os.cpu_count(),
        'int8': ', '.join(int8_instructions()) or 'no VNNI',
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = 'not installed'
    return found


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('config', type=Path, metavar='CONFIG')
    add('--checkpoint', type=Path, metavar='FILE.pth', help='default: random weights')
    add('--files', type=Path, nargs='+', default=[], metavar='FILE', help='of export.py')
    add('--others', type=Path, nargs='+', default=[], metavar='FILE.onnx', help='of others')
    add('--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help='default: of the files')
    add('--threads', type=int, nargs='+', default=[1, 2], help='(%(default)s)')
    add('--rounds', type=int, default=15, help='rounds that count (%(default)s)')
    add('--runs', type=int, default=10, help='runs of each contender in a round (%(default)s)')
    add('--no-compile', dest='compile', action='store_false', help='leave torch.compile out')
    add('--out', type=Path, metavar='FILE.json')
    args = parser.parse_args(argv)
    if args.rounds * args.runs < 2 or min(args.threads) < 1:
        parser.error('--rounds times --runs must be at least 2, --threads at least 1')
    return args


if __name__ == '__main__':
    sys.exit(main())
