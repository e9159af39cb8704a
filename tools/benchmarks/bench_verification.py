"""Benchmark of exact verification over all pairs of many embeddings: time and peak memory.

    python tools/benchmarks/bench_verification.py [--embeddings N] [--dim D] [--out FILE.json]

It computes AUC, equal error rate, TAR at FAR and the hardest pairs of all N (N - 1) / 2 pairs of
random embeddings, which lie around one centre per identity. The floor is the time of the matrix
products alone, measured on a few blocks. The peak is the largest memory of the whole process, with
the embeddings and with Python and torch, which take some 0.5 GiB. It returns 1 if the peak is above
--limit.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from typing import Any

import torch
from timing import environment, parse_arguments
from torch import Tensor

from mmdet_ext.functional.scoring.all_pairs import BLOCK, count_all_pairs
from mmdet_ext.functional.scoring.verification import equal_error_rate, roc_auc, tar_at_far
from mmdet_ext.utils.files import write_json

FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse_arguments(
        __doc__,
        argv,
        embeddings={'type': int, 'default': 100_000},
        dim={'type': int, 'default': 512},
        pictures={'type': int, 'default': 10, 'help': 'images per identity'},
        block={'type': int, 'default': BLOCK, 'help': 'rows and columns of one product'},
        limit={'type': float, 'default': 4.0, 'help': 'largest memory of the process, GiB'},
    )
    measured = measure(args)
    _print_report(measured, args.limit)
    if args.out is not None:
        write_json(args.out, measured)
        print(f'written to {args.out}')
    return int(measured['peak_gib'] > args.limit)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate all pairs, and measure time and memory."""
    embeddings, labels = faces(args.embeddings, args.dim, args.pictures, args.seed)
    before = peak_gib()
    start = time.perf_counter()
    found = count_all_pairs(
        embeddings,
        labels,
        hardest=20,
        block=args.block,
        progress=progress if sys.stderr.isatty() else None,
    )
    counted = time.perf_counter() - start
    genuine, impostors = found.counts.totals()
    points = tar_at_far(found.counts, [far for far in FARS if far * impostors >= 1])
    figures = {'auc': roc_auc(found.counts), 'eer': equal_error_rate(found.counts)[0]}
    figures |= {f'tar@far={point.bound:.0e}': point.tar for point in points}
    seconds = time.perf_counter() - start
    return {
        'environment': environment(),
        'embeddings': args.embeddings,
        'dim': args.dim,
        'pairs': genuine + impostors,
        'genuine': genuine,
        'impostors': impostors,
        'distinct': len(found.counts.scores),
        'seconds': seconds,
        'seconds_after_counting': seconds - counted,
        'floor_seconds': product_seconds(args.dim, args.block) * (genuine + impostors),
        'peak_gib': peak_gib(),
        'peak_gib_before': before,
        'figures': figures,
    }


def _print_report(measured: dict[str, Any], limit: float) -> None:
    """Print the results for the terminal."""
    seconds, floor, peak = (measured[key] for key in ('seconds', 'floor_seconds', 'peak_gib'))
    print('# Verification over all pairs\n')
    print(', '.join(f'{key} {value}' for key, value in measured['environment'].items()))
    print(
        f'\n{measured["embeddings"]:,} embeddings of {measured["dim"]}: {measured["genuine"]:,} '
        f'genuine and {measured["impostors"]:,} impostor pairs, {measured["distinct"]:,} distinct '
        'similarities'
    )
    print(', '.join(f'{name} {value:.6f}' for name, value in measured['figures'].items()))
    print(
        f'{seconds:.1f} s, {measured["seconds_after_counting"]:.2f} s of it for the figures; '
        f'products alone {floor:.1f} s: {seconds / floor:.2f} x the floor'
    )
    print(
        f'peak {peak:.2f} GiB, {measured["peak_gib_before"]:.2f} GiB before; limit {limit:g} GiB: '
        f'{"holds" if peak <= limit else "MISSED"}'
    )


def faces(count: int, dim: int, images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Make embeddings around one centre per identity, in random order, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randperm(count, generator=generator) // images
    centres = torch.randn(int(labels.max()) + 1, dim, generator=generator)
    return centres[labels].mul_(0.7) + torch.randn(count, dim, generator=generator), labels


def product_seconds(dim: int, block: int, runs: int = 20) -> float:
    """Measure the seconds per pair of the matrix products, as the median of several runs."""
    rows, columns = torch.randn(block, dim), torch.randn(block, dim)
    out = torch.empty(block, block)
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        torch.mm(rows, columns.T, out=out)
        taken.append(time.perf_counter() - start)
    return sorted(taken)[runs // 2] / block**2


def peak_gib() -> float:
    """Return the peak memory of the process in GiB; Linux reports KiB, macOS bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**30 if sys.platform == 'darwin' else most / 2**20


def progress(done: int, total: int) -> None:
    """Print the progress in a line that is overwritten."""
    end = '\n' if done == total else ''
    print(f'\r{done / total:.1%} of {total:,} pairs', end=end, file=sys.stderr, flush=True)


if __name__ == '__main__':
    sys.exit(main())
