"""Cost of a classifier over many identities: a step of training measured here, GPUs computed.

    python tools/benchmarks/face_scale.py [--quick] [--out FILE.json] [--figure FILE.png]

A step is forward, backward, and SGD with momentum and weight decay on the centres (``fused``, in
place), in float32. Up to --beside identities, `MarginHead` and Partial FC that holds its logits run
in turn in one process, on the same batches and draws; losses, gradients and centres must agree to
1e-4. Shares are those of the CPU time, which other work on the machine hardly changes. Memory is
counted beyond centres, optimizer state and gradients. Lines a + b C are fitted to time and memory.
Then follow the costs that follow from shapes for 1, 8 and 64 GPUs, beside figures that InsightFace
published. It returns 1 if a share from 100,000 identities on is above what is required.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from margin_head_peers import MARGIN, SCALE, PartialFC
from mmengine.structures import BaseDataElement
from timing import Timing, compare, parse_arguments, report
from torch import Tensor

from mmdet_ext.face.heads.margin_head import MarginHead
from mmdet_ext.face.studies.head_cost import bytes_per_identity, cost_table, fit_line
from mmdet_ext.plots.comparison import draw_scale

OURS, PEER = 'mmdet_ext.MarginHead', 'Partial FC, logits held'
SGD: dict[str, Any] = dict(lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
TOLERANCE = 1e-4
_BATCHES = 8
_RUNS_ALONE = 3
# What is required of ours from so many identities on: share of the other's time, and of its memory
# by rate.
FROM = 100_000
MOST_TIME, MOST_MEMORY = 0.6, {1.0: 1 / 20, 0.1: 1 / 2}
# Steps return the loss, the gradient of the features, and the centres.
Result = tuple[Tensor, Tensor, Tensor]
Batches = list[tuple[Tensor, Tensor]]
Row = tuple[str, list[Timing]]


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse_arguments(
        __doc__,
        argv,
        identities={
            'type': int,
            'nargs': '+',
            'default': [10_000, 30_000, 100_000, 300_000, 1_000_000],
        },
        rates={'type': float, 'nargs': '+', 'default': [1.0, 0.1], 'help': 'sample_rate'},
        beside={'type': int, 'default': 100_000, 'help': 'most identities for both forms'},
        samples={'type': int, 'default': 128},
        channels={'type': int, 'default': 512},
        quick={'action': 'store_true', 'help': 'up to 30,000 identities and three runs'},
        figure={'type': Path, 'help': 'png file to draw'},
        join={'type': Path, 'help': 'file of a run with other rates, to show with this one'},
    )
    rows, points = measured(args)
    fits = fitted(points)
    shares = [
        share
        for rate in dict.fromkeys(p['rate'] for p in points)
        for share in shares_of(points, rate)
    ]
    computed = cost_table(samples=args.samples, channels=args.channels)
    report(
        'A step of the classifier',
        rows,
        args.out,
        options={key: getattr(args, key) for key in ('samples', 'channels', 'beside', 'seed')},
        sgd=SGD,
        points=points,
        fits=fits,
        shares=shares,
    )
    for fit in fits:
        print(said(fit))
    missed = missing(shares)
    print(f'\nComputed per GPU, {args.samples} samples each, GB unless said otherwise:\n{computed}')
    own, published = bytes_per_identity()
    print(
        f'\nBytes that an identity adds on all GPUs together: {own:,.0f} computed, '
        f'{published:,.0f} between the published figures'
    )
    if args.figure is not None:
        draw_scale(points, args.figure)
        print(f'written to {args.figure}')
    return int(missed)


def measured(args: argparse.Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Measure a step at each rate and number of identities, and take in those of ``args.join``.

    Returns:
        tuple: the rows of the report, and one point per row and contender for fits and the figure.
    """
    if args.quick:
        args.identities, args.runs = [3_000, 10_000, 30_000], min(args.runs, 3)
    rows: list[Row] = []
    points: list[dict[str, Any]] = []
    for rate, identities in itertools.product(args.rates, sorted(args.identities)):
        try:
            timings, seconds = measure(identities, rate, args)
        except RuntimeError as error:
            if 'allocate memory' not in str(error):
                raise
            print(f'{identities:,} identities, rate {rate:g}: left out, too little memory')
            continue
        rows.append((f'{identities:,} identities, rate {rate:g}', timings))
        points += [
            dict(identities=identities, rate=rate, cpu_ms=1000 * seconds[t.name], **asdict(t))
            for t in timings
        ]
    if args.join is not None:
        content = json.loads(args.join.read_text(encoding='utf-8'))
        rows += [(row['work'], [Timing(**t) for t in row['timings']]) for row in content['rows']]
        points += content['points']
    return rows, points


def missing(shares: list[dict[str, Any]]) -> bool:
    """Print the shares of time and memory; return whether a required one is missed."""
    missed = False
    for share in shares:
        most = MOST_MEMORY.get(share['rate'], 1.0)
        wrong = share['identities'] >= FROM and (share['cpu'] > MOST_TIME or share['memory'] > most)
        missed |= wrong
        print(
            f'rate {share["rate"]:g}, {share["identities"]:,} identities: {share["cpu"]:.2f} of '
            f'the CPU time ({share["time"]:.2f} by the clock), {share["memory"]:.4f} of the memory'
            + (f': MISSED, at most {MOST_TIME} and {most:g}' if wrong else '')
        )
    return missed


def measure(
    identities: int, rate: float, args: argparse.Namespace
) -> tuple[list[Timing], dict[str, float]]:
    """Time steps of ours, and of the other form before it where there is memory for both.

    Returns:
        tuple: timings, and the median CPU time of each, s.
    """
    generator = torch.Generator().manual_seed(args.seed)
    batches = [
        (
            torch.randn(args.samples, args.channels, generator=generator),
            torch.randint(identities, (args.samples,), generator=generator),
        )
        for _ in range(_BATCHES)
    ]
    torch.manual_seed(args.seed + 1)
    head = MarginHead(
        identities, args.channels, dict(type='ArcFace', m=MARGIN), SCALE, sample_rate=rate
    )
    contenders: dict[str, Callable[[], Result]] = {}
    if identities <= args.beside:
        contenders[PEER] = peer_step(PartialFC(head.weight.detach().clone(), rate, SGD), batches)
    contenders[OURS] = our_step(head, batches)
    runs = args.runs if len(contenders) > 1 else min(args.runs, _RUNS_ALONE)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    watched = {name: watch(step, seconds[name]) for name, step in contenders.items()}
    timings = compare(watched, differing, runs, warmup=1)
    if len(contenders) > 1:
        # Both have made as many steps.
        difference = differing(*(step() for step in contenders.values()))
        assert difference is None, f'after {runs} steps: {difference}'
    drawn = identities if rate == 1 else max(round(rate * identities), 1)
    gradients = 4 * args.channels * (drawn + args.samples) / 2**20
    # What our head keeps from step to step was not allocated in the step that was traced.
    kept = {OURS: sum(rows.nbytes for rows in head.sampled.spare) / 2**20 if head.sampled else 0.0}
    peaks = [max(t.peak_mib + kept.get(t.name, 0.0) - gradients, 0.0) for t in timings]
    beyond = [
        Timing(**{**asdict(t), 'peak_mib': peak, 'memory_share': peak / max(peaks[0], 1e-9)})
        for t, peak in zip(timings, peaks, strict=True)
    ]
    # The first two steps are those that compare results and warm up.
    return beyond, {n: statistics.median(all_[2 : 2 + runs]) for n, all_ in seconds.items()}


def watch(step: Callable[[], Result], seconds: list[float]) -> Callable[[], Result]:
    """Return the step, with its CPU time written down."""

    def run() -> Result:
        start = time.process_time()
        result = step()
        seconds.append(time.process_time() - start)
        return result

    return run


def peer_step(peer: PartialFC, batches: Batches) -> Callable[[], Result]:
    """Make a step of the other form on the next batch."""
    following = itertools.cycle(batches)
    return lambda: (*peer.step(*next(following)), peer.weight)


def our_step(head: MarginHead, batches: Batches) -> Callable[[], Result]:
    """Make a step of our head on the next batch, called as a classifier calls it."""
    optimizer = torch.optim.SGD(head.parameters(), **SGD)
    following = itertools.cycle(
        [
            (x, [BaseDataElement(gt_label=label.view(1)) for label in labels])
            for x, labels in batches
        ]
    )

    def step() -> Result:
        features, data_samples = next(following)
        x = features.detach().requires_grad_()
        loss = head.loss((x,), data_samples)['loss']
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        assert x.grad is not None
        return loss.detach(), x.grad, head.weight.detach()

    return step


def differing(one: Result, other: Result) -> str | None:
    """Return None if loss, gradient and centres agree to `TOLERANCE`, else the largest gaps."""
    gaps = []
    for a, b in zip(one, other, strict=True):
        # In parts, as another table of the centres would need their memory once more.
        parts = list(zip(a.reshape(-1).split(2**22), b.reshape(-1).split(2**22), strict=True))
        largest = max(float(part.abs().max()) for part, _ in parts)
        gaps.append(max(float((p - q).abs().max()) for p, q in parts) / largest)
    return None if max(gaps) <= TOLERANCE else f'relative gaps {gaps}'


def fitted(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fit lines over the identities to time and memory of each form and rate."""
    fits = []
    for name, rate in dict.fromkeys((point['name'], point['rate']) for point in points):
        own = [point for point in points if (point['name'], point['rate']) == (name, rate)]
        if len(own) < 2:
            continue
        identities = [point['identities'] for point in own]
        for key in ('cpu_ms', 'peak_mib'):
            line = fit_line(identities, [max(point[key], 1e-6) for point in own])
            fits.append(dict(name=name, rate=rate, key=key, identities=identities, **asdict(line)))
    return fits


def said(fit: dict[str, Any]) -> str:
    """Say a fitted line in words, per 1,000 identities."""
    what, unit = ('CPU time', 'ms') if fit['key'] == 'cpu_ms' else ('memory', 'MiB')
    residuals = ', '.join(f'{100 * each:+.1f}' for each in fit['residuals'])
    return (
        f'{fit["name"]}, rate {fit["rate"]:g}: {what} = {fit["start"]:.3f} {unit} + '
        f'{1000 * fit["slope"]:.4f} {unit} per 1,000 identities; residuals {residuals} %'
    )


def shares_of(points: list[dict[str, Any]], rate: float) -> list[dict[str, Any]]:
    """List our time and memory as shares of the other form's, where both ran."""
    by_place = {(p['name'], p['identities']): p for p in points if p['rate'] == rate}
    return [
        dict(
            identities=identities,
            rate=rate,
            cpu=by_place[OURS, identities]['cpu_ms'] / other['cpu_ms'],
            time=by_place[OURS, identities]['median_ms'] / other['median_ms'],
            memory=by_place[OURS, identities]['peak_mib'] / other['peak_mib'],
        )
        for (name, identities), other in by_place.items()
        if name == PEER
    ]


if __name__ == '__main__':
    sys.exit(main())
