"""Label assignment against stock: time, peak memory, equal assignments.

    python tools/benchmarks/bench_assigners.py [--out FILE.json]

ATSS on the 22,400 anchors of a 1344 x 800 picture, through stock's own call, on one thread. A
second group moves each anchor off the grid, so that all distances are taken: the slow road of our
assigner.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from mmdet.models.task_modules.assigners import ATSSAssigner as StockATSSAssigner
from mmengine.structures import InstanceData
from timing import Timing, compare, parse_arguments, report
from torch import Tensor

from mmdet_ext.detection.assigners import ATSSAssigner
from mmdet_ext.testing.synthetic import pyramid_anchors, random_boxes

WIDTH, HEIGHT = 1344, 800
#: (boxes, least ratio of times, largest share of peak memory) that must hold on the grid.
REQUIRED = {100: (6.0, 0.2), 300: (8.0, 0.2)}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; returns 1 if a required figure is missed."""
    boxes_option = {'type': int, 'nargs': '+', 'default': [10, 100, 300]}
    args = parse_arguments(__doc__, argv, boxes=boxes_option)
    generator = torch.Generator().manual_seed(args.seed)
    grid, sizes = pyramid_anchors(WIDTH, HEIGHT)
    moved = grid + torch.rand(len(grid), 2, generator=generator).repeat(1, 2)
    rows: list[tuple[str, list[Timing]]] = []
    for name, priors in (('anchors', grid), ('anchors off any grid', moved)):
        for count in args.boxes:
            boxes = random_boxes(generator, count, WIDTH, HEIGHT, 12, 400)
            timings = compare(atss_contenders(priors, sizes, boxes), differing, args.runs)
            rows.append((f'ATSS, {len(priors):,} {name}, {count} boxes', timings))
    report('Label assignment', rows, args.out)
    return check(rows[: len(args.boxes)], args.boxes)


def atss_contenders(
    priors: Tensor, sizes: list[int], boxes: Tensor
) -> dict[str, Callable[[], Any]]:
    """Stock's assigner and ours on one picture."""
    pred = InstanceData(priors=priors)
    gt = InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.int64))
    stock, ours = StockATSSAssigner(topk=9), ATSSAssigner(topk=9)
    return {
        'stock': lambda: stock.assign(pred, sizes, gt),
        'mmdet_ext': lambda: ours.assign(pred, sizes, gt),
    }


def differing(one: Any, other: Any) -> str | None:
    """None when two assignments are equal, else how many priors differ."""
    count = int((one.gt_inds != other.gt_inds).sum())
    return f'{count} priors' if count else None


def check(rows: list[tuple[str, list[Timing]]], counts: list[int]) -> int:
    """Print whether the required figures hold; 1 if one does not."""
    missed = 0
    for count, (_, timings) in zip(counts, rows, strict=True):
        if count not in REQUIRED:
            continue
        ratio, share = REQUIRED[count]
        ours = timings[1]
        holds = ours.ratio >= ratio and ours.memory_share <= share
        missed += not holds
        print(
            f'{count} boxes: {ours.ratio:.1f} x (at least {ratio:g}), peak memory '
            f'{ours.memory_share:.3f} (at most {share:g}): {"holds" if holds else "MISSED"}'
        )
    return int(missed > 0)


if __name__ == '__main__':
    sys.exit(main())
