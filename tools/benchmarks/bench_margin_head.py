"""ArcFace over many identities: ours against three others, forward and backward, and the floor.

    python tools/benchmarks/bench_margin_head.py [--out FILE.json]

The others are mmpretrain's ``ArcFaceClsHead``, ArcFace as InsightFace computes it (the target's
logit gathered, then cross entropy), and pytorch-metric-learning's ``ArcFaceLoss`` if that package
is installed. Memory is counted beyond the gradients of centres and features, which all need. The
floor is the time of the four matrix products alone, in the same chunks.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import replace

import torch
from margin_head_peers import MARGIN, OTHERS, SCALE, Maker, Step, step_of
from mmengine.structures import BaseDataElement
from timing import Timing, compare, parse_arguments, report
from torch import Tensor

from mmdet_ext.face.heads.margin_head import MarginHead


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse_arguments(
        __doc__,
        argv,
        classes={'type': int, 'default': 100_000},
        many={'type': int, 'default': 1_000_000, 'help': 'classes for ours alone; 0 for none'},
        samples={'type': int, 'default': 256},
        channels={'type': int, 'default': 512},
    )
    rows: list[tuple[str, list[Timing]]] = []
    floors: dict[str, float] = {}
    ours: dict[str, Maker] = {'mmdet_ext.MarginHead': our_step}
    for classes, makers in ((args.classes, {**OTHERS, **ours}), (args.many, ours)):
        if not classes:
            continue
        generator = torch.Generator().manual_seed(args.seed)
        features = torch.randn(args.samples, args.channels, generator=generator)
        centers = torch.randn(classes, args.channels, generator=generator)
        labels = torch.randint(classes, (args.samples,), generator=generator)
        steps = {name: make(features, centers, labels) for name, make in makers.items()}
        known = {name: step for name, step in steps.items() if step is not None}
        gradients = 4 * (centers.numel() + features.numel()) / 2**20
        work = f'ArcFace, {args.samples} x {args.channels}, {classes:,} classes'
        rows.append((work, beyond(compare(known, differing, args.runs, warmup=1), gradients)))
        floors[work] = floor_ms(features, centers, args.runs)
    report('Margin head, forward and backward', rows, args.out, floor_ms=floors)
    for work, timings in rows:
        say(work, timings, floors[work])
    return 0


def say(work: str, timings: list[Timing], floor: float) -> None:
    """Print our time and memory as shares of the others, and our time over the floor."""
    ours = timings[-1]
    print(
        f'{work}: ours {ours.median_ms:.0f} ms, {ours.median_ms / floor:.2f} x the floor of '
        f'{floor:.0f} ms (four matrix products)'
    )
    if len(timings) > 1:
        first, others = timings[0], timings[:-1]
        best, least = (min(getattr(t, key) for t in others) for key in ('median_ms', 'peak_mib'))
        time_shares = ours.median_ms / first.median_ms, ours.median_ms / best
        memory_shares = ours.peak_mib / first.peak_mib, ours.peak_mib / least
        print('  time: {:.2f} of the first, {:.2f} of the best other'.format(*time_shares))
        print('  memory: {:.3f} of the first, {:.3f} of the least other'.format(*memory_shares))


def our_step(features: Tensor, centers: Tensor, labels: Tensor) -> Step:
    """Make a step of the registered head, called as a classifier calls it."""
    margin = {'type': 'ArcFace', 'm': MARGIN}
    head = MarginHead(len(centers), centers.shape[1], margin, SCALE, path='exact')
    head.weight.data = centers.clone()
    samples = []
    for label in labels:
        sample = BaseDataElement()
        sample.set_field(label.view(1), 'gt_label')
        samples.append(sample)
    return step_of(features, head.weight, lambda x: head.loss((x,), samples)['loss'])


def differing(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> str | None:
    """Return None if loss and gradients agree to float32's rounding, else the largest gaps."""
    gaps = [float((a - b).abs().max() / a.abs().max()) for a, b in zip(one, other, strict=True)]
    return f'relative gaps {gaps}' if max(gaps) > 1e-4 else None


def beyond(timings: list[Timing], mib: float) -> list[Timing]:
    """Subtract the memory of the gradients, ``mib``, that each contender must hold."""
    peaks = [max(t.peak_mib - mib, 0.0) for t in timings]
    return [
        replace(t, peak_mib=peak, memory_share=peak / max(peaks[0], 1e-9))
        for t, peak in zip(timings, peaks, strict=True)
    ]


def floor_ms(features: Tensor, centers: Tensor, runs: int, columns: int = 1024) -> float:
    """Time the products: scores, scores again, and the gradients of features and centres."""
    table = features.new_empty(len(features), columns)
    grad, grad_centers = torch.zeros_like(features), torch.empty_like(centers)

    def products() -> None:
        for recomputed in (False, True):
            for start in range(0, len(centers) - columns + 1, columns):
                rows = centers[start : start + columns]
                torch.mm(features, rows.t(), out=table)
                if recomputed:
                    torch.mm(table.t(), features, out=grad_centers[start : start + columns])
                    grad.addmm_(table, rows)

    seconds = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        products()
        seconds.append(time.perf_counter() - start)
    # Only whole chunks were timed.
    share = len(centers) / (len(centers) // columns * columns)
    return statistics.median(seconds[1:]) * share * 1e3


if __name__ == '__main__':
    sys.exit(main())
