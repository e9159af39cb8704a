"""Gradient descent of 1,715,000 boxes to their targets, for each box loss.

    python tools/analysis/simulate_boxes.py --out docs/results/box_simulation
    python tools/analysis/simulate_boxes.py --points 100 --losses mmdet.GIoULoss mmdet_ext.IoULoss:power=3

The experiment of Zheng et al. 2020 (below). Targets: 7 boxes of area 1 at (10, 10), w : h from
1 : 4 to 4 : 1. Anchors: 5,000 points, uniform on a disc of radius 3 around them; at each, 7 areas
times 7 aspect ratios. Each anchor goes to each target by 200 steps on (x, y, w, h),

    box <- box - rate * (2 - IoU) * gradient of the loss,

at a rate of 0.1, from 80 % of the steps on 0.01, from 90 % on 0.001. A case's error is
|dx| + |dy| + |dw| + |dh|.

A loss is SCOPE.NAME, with options behind a colon: mmdet_ext.IoULoss:mode=linear,power=3. Its
gradient is exact, by automatic differentiation. The scope `published` has IoU, GIoU, DIoU and CIoU
with the gradients that the authors' program has written out. These give the published curves, but
they are not the losses' derivatives: with those, GIoU gets as near as DIoU. Where they differ is
told in mmdet_ext/catalog/published_gradients.py. All losses go at one rate, steep or flat. A loss
that takes the mean of a batch (Wise-IoU v2, v3) gets one of 21,952 cases, of 64 points.

Writes OUT.json, OUT.md and OUT.png. One seed gives one result, whatever the number of workers.

References:
    Zheng et al., Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression, AAAI
    2020, section "Simulation Experiment", algorithm 1. Program: github.com/Zzh-tju/DIoU.
"""

from __future__ import annotations

import argparse
import ast
import functools
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import MODELS
from torch import Tensor

from mmdet_ext.catalog.published_gradients import Gradient, corners, overlap, published_gradient
from mmdet_ext.plots.losses import SimulatedLoss, draw_simulation, ring_errors
from mmdet_ext.utils.files import write_json, write_text

ASPECT_RATIOS = (1 / 4, 1 / 3, 1 / 2, 1.0, 2.0, 3.0, 4.0)
AREAS = (0.5, 0.67, 0.75, 1.0, 1.33, 1.5, 2.0)
CENTER = 10.0
RADIUS = 3.0
CASES_PER_POINT = len(ASPECT_RATIOS) * len(AREAS) * len(ASPECT_RATIOS)
#: So many points at a time: what one step touches then stays in a core's cache.
POINTS_PER_CHUNK = 64
#: No side gets shorter: a box without area gives some losses no gradient to come back by.
SHORTEST_SIDE = 0.01
GOOD_OVERLAP = 0.9

DEFAULT_LOSSES = (
    'mmdet_ext.IoULoss:mode=linear',
    'mmdet_ext.GIoULoss',
    'mmdet_ext.DIoULoss',
    'mmdet_ext.CIoULoss',
    'mmdet_ext.EfficientIoULoss',
    'mmdet_ext.SIoULoss:neg_gamma=True',
    'mmdet_ext.MPDIoULoss',
    'mmdet_ext.ShapeIoULoss',
    'mmdet_ext.WiseIoULoss:version=v1',
    'mmdet_ext.NWDLoss:constant=1',
    'published.IoU',
    'published.GIoU',
    'published.DIoU',
    'published.CIoU',
)


@dataclass(frozen=True)
class ChunkResult:
    """What became of the cases of a few points.

    Attributes:
        errors: their summed error before the first step and after each, (T + 1,).
        point_errors: final error, mean over the cases of each point, (P,).
        good: how many cases end with an IoU above GOOD_OVERLAP.
        seconds: of one core.
    """

    errors: np.ndarray
    point_errors: np.ndarray
    good: int
    seconds: float


def main(argv: list[str] | None = None) -> int:
    """Simulate, print the table and, with --out, write and draw."""
    args = _parse(argv)
    points = anchor_points(args.points, args.seed)
    started = time.perf_counter()
    results = simulate(args.losses, points, args.iterations, args.workers)
    wall = time.perf_counter() - started
    text = table(results)
    print(f'{text}\n\n{wall:.0f} s on {args.workers} workers')
    if args.out is None:
        return 0
    command = (
        f'python tools/analysis/simulate_boxes.py --points {args.points} --iterations {args.iterations} '
        f'--seed {args.seed} --losses {" ".join(args.losses)}'
    )
    cases = args.points * CASES_PER_POINT
    page = (
        f'# Boxes on their way to a target\n\n{cases:,} cases, {args.iterations} steps each, made '
        f'in {wall:.0f} s on {args.workers} workers by\n\n    {command}\n\nThe tool says at its '
        'head what is simulated. Gradients are exact; those of `published` are the ones that the '
        f"paper's program has.\n\n{text}\n"
    )
    write_text(args.out.with_suffix('.md'), page)
    content = {'command': command, 'torch': torch.__version__, 'cases': cases, 'wall_s': wall}
    places = points.numpy() - CENTER
    rows = [row(result, places) for result in results]
    write_json(args.out.with_suffix('.json'), {**content, 'rows': rows})
    draw_simulation(results, places, args.out.with_suffix('.png'))
    return 0


def anchor_points(count: int, seed: int) -> Tensor:
    """Points uniform on the disc, (count, 2)."""
    radius, turn = torch.rand(2, count, generator=torch.Generator().manual_seed(seed))
    angle = 2 * math.pi * turn
    spokes = torch.stack([angle.cos(), angle.sin()], dim=1)
    return CENTER + RADIUS * radius.sqrt()[:, None] * spokes


def cases_of(points: Tensor) -> tuple[Tensor, Tensor]:
    """Anchors and their targets as rows x, y, w, h, (4, N) each, all cases of a point together."""
    ratio = torch.tensor(ASPECT_RATIOS)
    shapes = torch.stack([ratio.sqrt(), ratio.rsqrt()])
    anchors = torch.empty(4, len(points), len(ASPECT_RATIOS), len(AREAS), len(ASPECT_RATIOS))
    targets = torch.full_like(anchors, CENTER)
    targets[2:] = shapes[:, None, :, None, None]
    anchors[:2] = points.t()[:, :, None, None, None]
    sides = torch.tensor(AREAS).sqrt()[:, None] * shapes[:, None, :]
    anchors[2:] = sides[:, None, None]
    return anchors.flatten(1), targets.flatten(1)


def rate(step: int, iterations: int) -> float:
    """Learning rate of a step, counted from 0."""
    if step >= 0.9 * iterations:
        return 0.001
    return 0.01 if step >= 0.8 * iterations else 0.1


def run_chunk(gradient: Gradient, points: Tensor, iterations: int) -> ChunkResult:
    """Let the cases of some points go down a loss."""
    started = time.process_time()
    boxes, targets = cases_of(points)
    errors = np.zeros(iterations + 1)
    errors[0] = (boxes - targets).abs_().sum(dtype=torch.float64)
    for step in range(iterations):
        pace = (2 - overlap(boxes, targets)) * rate(step, iterations)
        boxes -= gradient(boxes, targets).mul_(pace)
        boxes[2:].clamp_(min=SHORTEST_SIDE)
        errors[step + 1] = (boxes - targets).abs_().sum(dtype=torch.float64)
    final = (boxes - targets).abs_().sum(0).reshape(len(points), CASES_PER_POINT)
    return ChunkResult(
        errors=errors,
        point_errors=final.mean(1, dtype=torch.float64).numpy(),
        good=int((overlap(boxes, targets) > GOOD_OVERLAP).sum()),
        seconds=time.process_time() - started,
    )


def exact_gradient(loss: torch.nn.Module) -> Gradient:
    """The derivative of a registered loss by x, y, w, h, each case its own."""

    def gradient(boxes: Tensor, targets: Tensor) -> Tensor:
        leaf = corners(boxes).requires_grad_()
        loss(leaf.t(), corners(targets).t(), reduction_override='sum').backward()
        assert leaf.grad is not None
        low, high = leaf.grad[:2], leaf.grad[2:]
        return torch.cat([low + high, (high - low) / 2])

    return gradient


def parse_loss(text: str) -> dict[str, Any]:
    """A config from ``SCOPE.NAME:option=value,option=value``.

    Raises:
        ValueError: for options in another form.

    >>> parse_loss('mmdet.IoULoss:mode=linear,eps=1e-3')
    {'type': 'mmdet.IoULoss', 'mode': 'linear', 'eps': 0.001}
    """
    name, _, options = text.partition(':')
    config: dict[str, Any] = {'type': name}
    for part in filter(None, options.split(',')):
        key, equals, value = part.partition('=')
        if not (key and equals):
            raise ValueError(f'{text!r}: {part!r} is no option; give NAME:option=value,...')
        try:
            config[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            config[key] = value
    return config


def build_gradient(text: str) -> Gradient:
    """The gradient of a loss given as on the command line.

    Raises:
        ValueError, KeyError, TypeError: for a loss or option that there is not.
    """
    scope, _, name = text.partition('.')
    if scope == 'published':
        return published_gradient(name)
    return exact_gradient(MODELS.build(parse_loss(text)))


def simulate(
    losses: Iterable[str], points: Tensor, iterations: int, workers: int
) -> list[SimulatedLoss]:
    """Run every loss over all points; a chunk of points is one worker's work."""
    losses = list(losses)
    for loss in losses:
        build_gradient(loss)  # what cannot be built is told before any work
    chunks = points.split(POINTS_PER_CHUNK)
    work = [(loss, chunk.numpy(), iterations) for loss in losses for chunk in chunks]
    results = []
    with _runner(workers) as run:
        arriving = iter(run(_work, work))
        for number, loss in enumerate(losses):
            done: list[ChunkResult] = []
            for result in arriving:
                done.append(result)
                _progress(f'{loss} ({number + 1} of {len(losses)})', len(done), len(chunks))
                if len(done) == len(chunks):
                    break
            results.append(_collect(loss, done))
    return results


@contextmanager
def _runner(workers: int) -> Iterator[Callable[..., Iterable[ChunkResult]]]:
    """A `map` that keeps the order: here for one worker, else over processes of one thread."""
    if workers > 1:
        context = multiprocessing.get_context('spawn')
        with context.Pool(workers, torch.set_num_threads, (1,)) as pool:
            yield pool.imap
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield map
    finally:
        torch.set_num_threads(threads)


def _work(task: tuple[str, np.ndarray, int]) -> ChunkResult:
    loss, points, iterations = task
    return run_chunk(_kept_gradient(loss), torch.from_numpy(points), iterations)


_kept_gradient = functools.cache(build_gradient)


def _collect(loss: str, done: list[ChunkResult]) -> SimulatedLoss:
    point_errors = np.concatenate([result.point_errors for result in done])
    cases = len(point_errors) * CASES_PER_POINT
    return SimulatedLoss(
        name=loss,
        cases=cases,
        errors=np.sum([result.errors for result in done], axis=0),
        point_errors=point_errors,
        good_share=sum(result.good for result in done) / cases,
        seconds=sum(result.seconds for result in done),
    )


def _progress(title: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = '\n' if done == total else '\r'
        print(f'\r{title}: {done / total:.0%}', end=end, file=sys.stderr, flush=True)


def table(results: list[SimulatedLoss]) -> str:
    """A Markdown table, a line a loss."""
    lines = [
        f'| loss | total error | mean error | IoU > {GOOD_OVERLAP} | seconds of a core |',
        '| --- | ---: | ---: | ---: | ---: |',
    ]
    lines += [
        f'| `{r.name}` | {r.errors[-1]:,.0f} | {r.errors[-1] / r.cases:.4f} '
        f'| {r.good_share:.2%} | {r.seconds:.1f} |'
        for r in results
    ]
    return '\n'.join(lines)


def row(result: SimulatedLoss, points: np.ndarray) -> dict[str, Any]:
    """What the JSON holds of a loss; NaN as None."""
    errors = [float(f'{error:.6g}') if error == error else None for error in result.errors]
    return {
        'loss': result.name,
        'mean_error': errors[-1] if errors[-1] is None else errors[-1] / result.cases,
        'good_share': result.good_share,
        'core_seconds': round(result.seconds, 1),
        'ring_errors': ring_errors(result, points),
        'total_errors': errors,
    }


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--losses', nargs='+', default=DEFAULT_LOSSES, help='SCOPE.NAME:options')
    parser.add_argument('--points', type=_count, default=5000, help='of 343 cases each')
    parser.add_argument('--iterations', type=_count, default=200)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--workers', type=_count, default=os.cpu_count() or 1)
    parser.add_argument('--out', type=Path, help='files to write, without suffix')
    return parser.parse_args(argv)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'must be at least 1, got {value}')
    return value


if __name__ == '__main__':
    sys.exit(main())
