"""Gradient descent of 1,715,000 boxes to their targets, for each box loss.

    python tools/analysis/simulate_boxes.py --out docs/results/box_simulation
    python tools/analysis/simulate_boxes.py --losses mmdet.GIoULoss mmdet_ext.IoULoss:power=3

The experiment of Zheng et al. 2020 (below). Targets: 7 boxes of area 1 at (10, 10), w : h from
1 : 4 to 4 : 1. Anchors: 5,000 points, uniform on a disc of radius 3 around the targets, each with
7 areas times 7 aspect ratios. Each anchor moves to each target by 200 steps on (x, y, w, h),

    box <- box - rate * (2 - IoU) * gradient of the loss,

with a rate of 0.1, then 0.01 after 80 % of the steps and 0.001 after 90 %. The error of a case is
|dx| + |dy| + |dw| + |dh|.

A loss is SCOPE.NAME, with options behind a colon: mmdet_ext.IoULoss:mode=linear,power=3. Its
gradient is exact, by automatic differentiation. The scope `published` has IoU, GIoU, DIoU and CIoU
with the gradients that the authors' program has written out. These give the published curves, but
they are not the derivatives of the losses: with exact gradients, GIoU gets as near as DIoU.
mmdet_ext/studies/published_gradients.py lists the differences. All losses have one rate, steep or
flat. A loss that takes the mean of a batch (Wise-IoU v2, v3) takes it over the 21,952 cases of 64
points.

Writes OUT.json, OUT.md and OUT.png. One seed gives one result for any number of workers.

References:
    Zheng et al., Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression, AAAI
    2020, section "Simulation Experiment", algorithm 1. Program: github.com/Zzh-tju/DIoU.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch

from mmdet_ext.analysis.box_simulation import simulation_record, simulation_table
from mmdet_ext.plots.box_simulation import draw_simulation
from mmdet_ext.studies.box_simulation import (
    CASES_PER_POINT,
    CENTER,
    DEFAULT_LOSSES,
    anchor_points,
    simulate,
)
from mmdet_ext.utils.files import write_json, write_text


def main(argv: list[str] | None = None) -> int:
    """Simulate, print the table and, with --out, write and draw."""
    args = _parse(argv)
    points = anchor_points(args.points, args.seed)
    started = time.perf_counter()
    results = simulate(args.losses, points, args.iterations, args.workers)
    wall = time.perf_counter() - started
    text = simulation_table(results)
    print(f'{text}\n\n{wall:.0f} s on {args.workers} workers')
    if args.out is None:
        return 0
    command = (
        f'python tools/analysis/simulate_boxes.py --points {args.points} '
        f'--iterations {args.iterations} --seed {args.seed} --losses {" ".join(args.losses)}'
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
    rows = [simulation_record(result, places) for result in results]
    write_json(args.out.with_suffix('.json'), {**content, 'rows': rows})
    draw_simulation(results, places, args.out.with_suffix('.png'))
    return 0


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
