"""Timing of contenders against each other, in one process, with equal results.

A benchmark gives `compare` its contenders. They run in turn, A B A B, so that a machine that slows
down slows all of them. Medians and interquartile ranges are kept, and the peak of extra memory is
traced in a separate run. If results differ, there is no timing.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from mmdet_ext.catalog.memory import peak_bytes
from mmdet_ext.utils.files import write_json

PACKAGES = ('torch', 'numpy', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'mmdet-ext')


class ResultsDifferError(AssertionError):
    """Error for contenders with different results, whose times cannot be compared."""


def parse_arguments(
    description: str | None, argv: list[str] | None, **own: dict[str, Any]
) -> argparse.Namespace:
    """Parse the options of every benchmark and those of one, and set torch's number of threads.

    Args:
        description: text of the help.
        argv: arguments; None for those of the command line.
        **own: options of this benchmark, name -> keywords of `add_argument`.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, keywords in own.items():
        parser.add_argument(f'--{name}', **keywords)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--runs', type=int, default=15, help='counted runs of each contender')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, help='JSON file to write')
    args = parser.parse_args(argv)
    if args.runs < 2:
        parser.error(
            f'--runs must be at least 2, as medians and quartiles are printed, got {args.runs}'
        )
    torch.set_num_threads(args.threads)
    return args


@dataclass(frozen=True)
class Timing:
    """Times and memory of one contender.

    Attributes:
        name: name of the contender.
        median_ms: median of the runs, ms.
        iqr_ms: interquartile range of the runs, ms.
        runs: number of runs.
        peak_mib: peak of the memory of a run beyond that before it, MiB.
        ratio: median of the reference over this median; above 1 is faster than the reference.
        memory_share: this peak over that of the reference.
    """

    name: str
    median_ms: float
    iqr_ms: float
    runs: int
    peak_mib: float
    ratio: float
    memory_share: float


def compare(
    contenders: Mapping[str, Callable[[], Any]],
    same: Callable[[Any, Any], str | None],
    runs: int = 15,
    warmup: int = 2,
) -> list[Timing]:
    """Time contenders that do the same work; the first is the reference.

    Args:
        contenders: name -> work without arguments.
        same: function of the reference's result and another's that returns None if they are
            equal, and a text about the difference otherwise.
        runs: counted runs of each.
        warmup: uncounted runs of each, first.

    Returns:
        list[Timing]: in the order given.

    Raises:
        ResultsDifferError: if ``same`` finds a difference.
    """
    names = list(contenders)
    expected = contenders[names[0]]()
    for name in names[1:]:
        difference = same(expected, contenders[name]())
        if difference is not None:
            raise ResultsDifferError(f'{name} differs from {names[0]}: {difference}')
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for run in range(warmup + runs):
        if sys.stderr.isatty():
            print(
                f'\r{" against ".join(names)}: {run + 1} of {warmup + runs}',
                end='\r',
                file=sys.stderr,
                flush=True,
            )
        for name in names:
            start = _now()
            contenders[name]()
            if run >= warmup:
                seconds[name].append(_now() - start)
            else:
                _now()
    peaks = {name: peak_memory(contenders[name]) for name in names}
    reference = statistics.median(seconds[names[0]])
    return [
        Timing(
            name=name,
            median_ms=statistics.median(seconds[name]) * 1e3,
            iqr_ms=_interquartile_range(seconds[name]) * 1e3,
            runs=runs,
            peak_mib=peaks[name] / 2**20,
            ratio=reference / statistics.median(seconds[name]),
            memory_share=peaks[name] / max(1, peaks[names[0]]),
        )
        for name in names
    ]


def peak_memory(work: Callable[[], Any]) -> int:
    """Measure the peak of memory that ``work`` allocates, in bytes.

    A GPU's peak is that of its allocator, a CPU's that of `mmdet_ext.catalog.memory.peak_bytes`.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    return peak_bytes(work)


def environment() -> dict[str, Any]:
    """Return all that the figures depend on: processor, threads, device and versions."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = 'not installed'
    cuda = torch.cuda.is_available()
    return {
        'processor': _processor(),
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'device': torch.cuda.get_device_name() if cuda else 'cpu',
        'python': platform.python_version(),
        **versions,
    }


def table(rows: Sequence[tuple[str, Sequence[Timing]]]) -> str:
    """Format a Markdown table with one line per contender, grouped by work."""
    lines = [
        '| work | contender | median ms | IQR ms | faster by | peak MiB | of reference |',
        '| --- | --- | ---: | ---: | ---: | ---: | ---: |',
    ]
    for work, timings in rows:
        lines += [
            f'| {work} | {t.name} | {t.median_ms:.2f} | {t.iqr_ms:.2f} | {t.ratio:.1f} x '
            f'| {t.peak_mib:.2f} | {t.memory_share:.3f} |'
            for t in timings
        ]
    return '\n'.join(lines)


def report(
    title: str, rows: Sequence[tuple[str, Sequence[Timing]]], out: Path | None, **more: Any
) -> None:
    """Print the environment and the table, and write them as JSON if ``out`` is given.

    Args:
        title: title of the benchmark.
        rows: work and the timings of its contenders.
        out: JSON file, which is written whole or not at all; None for none.
        **more: further contents of the file.
    """
    print(f'# {title}\n')
    print(', '.join(f'{key} {value}' for key, value in environment().items()))
    print(f'\n{table(rows)}\n')
    if out is None:
        return
    content = {
        'title': title,
        'environment': environment(),
        'rows': [{'work': work, 'timings': [asdict(t) for t in ts]} for work, ts in rows],
        **more,
    }
    write_json(out, content)
    print(f'written to {out}')


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _interquartile_range(values: Sequence[float]) -> float:
    low, _, high = statistics.quantiles(values, n=4)
    return high - low


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return models[0] if models else platform.machine()
