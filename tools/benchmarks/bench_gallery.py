"""Benchmark of searches in a gallery: latency, recall, memory of flat, IVF and HNSW.

    python tools/benchmarks/bench_gallery.py [--people N] [--dim D] [--recall R] [--out FILE.json]

It enrols N made people, whose embeddings lie around one centre per 100 of them, and searches for
probes that have the cosine --likeness with their person. The effort of an index is tuned on other
probes to the recall R, or is each of --efforts in turn, after one build. Latency is that of one
probe per call, and per probe of a batch of all, the median of three; memory is that of the index
beside the embeddings, which all searches need. NumPy and faiss use --threads. It returns 1 if an
index is below R on the probes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits
from timing import environment, parse_arguments

from mmdet_ext.face.gallery import FaceGallery
from mmdet_ext.face.gallery.index import load_faiss
from mmdet_ext.utils.files import write_json

PER_CENTRE = 100
_BLOCK = 16384
_BATCHES = 3


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse_arguments(
        __doc__,
        argv,
        people={'type': int, 'default': 20_000},
        dim={'type': int, 'default': 512},
        probes={'type': int, 'default': 1000},
        likeness={'type': float, 'default': 0.6, 'help': 'cosine of a probe with its person'},
        recall={'type': float, 'default': 0.99},
        kinds={'nargs': '*', 'default': ['ivf', 'hnsw'], 'choices': ['ivf', 'hnsw']},
        efforts={'nargs': '+', 'type': int, 'default': [], 'help': 'instead of tuning'},
    )
    rows = faces(args.people, args.dim, args.seed)
    gallery = FaceGallery('made', index='flat')
    gallery.enrol([str(number) for number in range(args.people)], rows)
    chosen = np.random.default_rng(args.seed + 1).integers(0, args.people, 2 * args.probes)
    probes = similar(rows[chosen], args.likeness, args.seed + 2)
    del rows
    if args.kinds:
        load_faiss('an index')  # before the limit, which counts for libraries that are loaded
    with threadpool_limits(args.threads):
        measured = [
            row for kind in ('flat', *args.kinds) for row in rows_of(gallery, kind, probes, args)
        ]
    print('# Search in a gallery\n')
    print(', '.join(f'{key} {value}' for key, value in environment().items()))
    print(f'\n{table(measured, args)}')
    if args.out is not None:
        write_json(
            args.out,
            {
                'environment': environment(),
                'people': args.people,
                'dim': args.dim,
                'likeness': args.likeness,
                'rows': measured,
            },
        )
        print(f'written to {args.out}')
    return int(any(row['recall'] < args.recall for row in measured))


def rows_of(
    gallery: FaceGallery, kind: Any, probes: np.ndarray, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Build an index, and measure it at each effort, or at the one that it is tuned to."""
    print(f'{kind}: build', file=sys.stderr)
    gallery.use_index(kind)
    start = time.perf_counter()
    gallery.search(probes[:1])
    build = time.perf_counter() - start if kind != 'flat' else 0.0
    rows = []
    for effort in (args.efforts if kind != 'flat' else ()) or [None]:
        if effort is not None:
            gallery.use_index(kind, effort)
        elif kind != 'flat':
            gallery.tune(args.recall, probes[: args.probes], sample=args.probes)
        rows.append(dict(kind=kind, build_s=build, **measure(gallery, probes, args)))
    size = index_bytes(gallery) / 2**20 if kind != 'flat' else 0.0
    return [dict(row, index_mib=size) for row in rows]


def measure(gallery: FaceGallery, probes: np.ndarray, args: argparse.Namespace) -> dict[str, Any]:
    """Measure recall and latency of the index as it is."""
    test = probes[args.probes :]
    found = gallery.measure_recall(test, sample=args.probes)
    single = []
    for run in range(args.runs + 2):
        start = time.perf_counter()
        gallery.search(test[run % len(test)][None])
        single.append(time.perf_counter() - start)
    batch = []
    for _ in range(_BATCHES):
        start = time.perf_counter()
        gallery.search(test)
        batch.append(time.perf_counter() - start)
    return {
        'effort': found.effort,
        'recall': found.recall,
        'single_ms': statistics.median(single[2:]) * 1e3,
        'batch_ms': statistics.median(batch) / len(test) * 1e3,
    }


def index_bytes(gallery: FaceGallery) -> int:
    """Return the size of the files of the index of a gallery."""
    with tempfile.TemporaryDirectory() as folder:
        gallery.save(Path(folder) / 'gallery')
        files = [*Path(folder).glob('*/index-*'), *Path(folder).glob('*/places-*')]
        size = sum(file.stat().st_size for file in files)
        # The embeddings are mapped from the folder, which goes: keep a copy in memory.
        gallery.compact()
    return size


def table(measured: list[dict[str, Any]], args: argparse.Namespace) -> str:
    """Format the results as a Markdown table."""
    flat = measured[0]
    embeddings = args.people * args.dim * 4 / 2**20
    lines = [
        f'{args.people:,} people, {args.dim} numbers each: {embeddings:.0f} MiB of embeddings; '
        f'{args.probes} probes of cosine {args.likeness:g}; threads: {args.threads}\n',
        '| search | build s | effort | recall@1 | ms, 1 probe | flat over it | ms in a batch '
        '| flat over it | index MiB |',
        '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
    ]
    lines += [
        f'| {row["kind"]} | {row["build_s"]:.1f} | {row["effort"]} | {row["recall"]:.4f} '
        f'| {row["single_ms"]:.3f} | {flat["single_ms"] / row["single_ms"]:.1f} x '
        f'| {row["batch_ms"]:.3f} | {flat["batch_ms"] / row["batch_ms"]:.1f} x '
        f'| {row["index_mib"]:.1f} |'
        for row in measured
    ]
    return '\n'.join(lines)


def faces(count: int, dim: int, seed: int) -> np.ndarray:
    """Make embeddings (N, D) of people around centres: cosine 0.3 within those of one centre."""
    generator = np.random.default_rng(seed)
    centres = unit(generator.standard_normal((-(-count // PER_CENTRE), dim), dtype=np.float32))
    rows = np.empty((count, dim), np.float32)
    for start in range(0, count, _BLOCK):
        some = slice(start, min(start + _BLOCK, count))
        own = unit(generator.standard_normal((some.stop - start, dim), dtype=np.float32))
        near = centres[generator.integers(0, len(centres), len(own))]
        rows[some] = unit(0.3**0.5 * near + 0.7**0.5 * own)
    return rows


def similar(rows: np.ndarray, likeness: float, seed: int) -> np.ndarray:
    """Make a probe (N, D) of about the cosine ``likeness`` with each row."""
    noise = np.random.default_rng(seed).standard_normal(rows.shape, dtype=np.float32)
    return unit(likeness * rows + (1 - likeness**2) ** 0.5 * unit(noise))


def unit(rows: np.ndarray) -> np.ndarray:
    """Divide rows by their lengths."""
    normalised: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normalised


if __name__ == '__main__':
    sys.exit(main())
