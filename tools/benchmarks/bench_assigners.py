"""Compare label assignment with mmdet: time, peak memory, equal results, distance to the floor.

    python tools/benchmarks/bench_assigners.py [--out FILE.json]

Both run through mmdet's call, on one image and one thread. SimOTA and dynamic soft label: 8,400
points of a 640 x 640 image, 80 classes. Task-aligned and ATSS: 22,400 anchors of 1344 x 800.
Max-IoU: 201,600 anchors, nine per place. A last group moves ATSS's anchors off the grid, so that
all distances are computed.

The floor is a lower bound of any implementation: the time to read all inputs and write all outputs
once, at the speed with which this machine copies memory.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData
from timing import Timing, compare, parse_arguments, report
from torch import Tensor

from mmdet_ext.catalog.scenes import points_as_priors, pyramid_points
from mmdet_ext.catalog.synthetic import anchors_as_priors, pyramid_anchors, random_boxes
from mmdet_ext.functional.assignment.geometry import Priors

WIDTH, HEIGHT = 1344, 800
SIDE = 640
CLASSES = 80


@dataclass(frozen=True)
class Work:
    """One assigner with its priors, and the figures that are required of it.

    Attributes:
        assigner: registered name in both scopes.
        options: of the assigner.
        priors: of an image.
        image: width and height, px.
        least: required ratio of the times, by number of boxes.
        share: largest share of mmdet's peak memory at 300 boxes.
        with_levels: whether the call gives the number of priors per level.
        scores: form of the class scores; None where the rule uses priors alone.
        note: on the priors, for the table.
    """

    assigner: str
    options: dict[str, Any]
    priors: Priors
    image: tuple[int, int]
    least: dict[int, float]
    share: float
    with_levels: bool = False
    scores: Literal['probabilities', 'logits'] | None = None
    note: str = ''


def works(generator: torch.Generator) -> list[Work]:
    """List all that is measured."""
    points = points_as_priors(*pyramid_points(SIDE, SIDE, (8, 16, 32), 0.0))
    grid = anchors_as_priors(*pyramid_anchors(WIDTH, HEIGHT))
    shift = torch.rand(len(grid), 2, generator=generator).repeat(1, 2)
    moved = replace(grid, corners=grid.as_corners() + shift)
    anchors = AnchorGenerator(
        strides=[8, 16, 32, 64, 128],
        ratios=[0.5, 1.0, 2.0],
        octave_base_scale=4,
        scales_per_octave=3,
    )
    maps = [(-(-HEIGHT // stride), -(-WIDTH // stride)) for stride in (8, 16, 32, 64, 128)]
    nine = Priors(corners=torch.cat(anchors.grid_priors(maps, device='cpu')))
    small, wide = (SIDE, SIDE), (WIDTH, HEIGHT)
    quick = {10: 3.0, 100: 30.0, 300: 30.0}
    atss = {'topk': 9}
    retina = {'pos_iou_thr': 0.5, 'neg_iou_thr': 0.4, 'min_pos_iou': 0}
    return [
        Work('SimOTAAssigner', {}, points, small, quick, 1 / 20, scores='probabilities'),
        Work('DynamicSoftLabelAssigner', {}, points, small, quick, 1 / 20, scores='logits'),
        Work(
            'TaskAlignedAssigner',
            {'topk': 13},
            grid,
            wide,
            {10: 2.0, 100: 8.0, 300: 8.0},
            1 / 4,
            scores='probabilities',
        ),
        Work('ATSSAssigner', atss, grid, wide, {10: 2.0, 100: 8.0, 300: 10.0}, 1 / 5, True),
        Work('MaxIoUAssigner', retina, nine, wide, {10: 3.0, 100: 12.0, 300: 15.0}, 1 / 8),
        Work('ATSSAssigner', atss, moved, wide, {}, 1.0, True, note=' off any grid'),
    ]


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return 1 if a required figure is missed."""
    args = parse_arguments(
        __doc__,
        argv,
        boxes={'type': int, 'nargs': '+', 'default': [10, 100, 300]},
        assigners={'nargs': '+', 'metavar': 'NAME', 'help': 'default: all'},
        crowd={'type': int, 'default': 10_000, 'help': 'boxes of the last image, ours alone'},
    )
    generator = torch.Generator().manual_seed(args.seed)
    rows: list[tuple[str, list[Timing]]] = []
    verdicts: list[str] = []
    floors: dict[str, float] = {}
    missed = 0
    speed = copy_speed()
    for work in works(generator):
        if args.assigners and work.assigner not in args.assigners:
            continue
        for count in args.boxes:
            pred, gt = inputs(work, count, generator)
            timings = compare(contenders(work, pred, gt), differing, args.runs)
            name = f'{work.assigner}, {len(work.priors):,} priors{work.note}, {count} boxes'
            rows.append((name, timings))
            floors[name] = floor_ms(pred, gt, speed)
            line, holds = verdict(work, count, timings[1])
            verdicts += [
                f'{name}: {line}; {timings[1].median_ms / floors[name]:.0f} x the floor '
                f'of {floors[name]:.2f} ms'
            ]
            missed += not holds
    crowds = {} if args.crowd < 1 else crowd(works(generator), args, generator)
    report(
        'Label assignment',
        rows,
        args.out,
        copy_gb_per_s=speed / 1e9,
        floor_ms=floors,
        crowd={'boxes': args.crowd, 'rows': crowds},
    )
    print('\n'.join(verdicts))
    return int(missed > 0)


def inputs(work: Work, count: int, generator: torch.Generator) -> tuple[InstanceData, InstanceData]:
    """Return priors with the predictions of a half-trained head, and the boxes of an image."""
    width, height = work.image
    boxes = random_boxes(generator, count, width, height, 12, 400)
    gt = InstanceData(bboxes=boxes, labels=torch.randint(CLASSES, (count,), generator=generator))
    pred = InstanceData(priors=work.priors.rows)
    if work.scores is not None:
        pred.bboxes = predicted(work.priors, boxes, generator)
        logits = 2 * torch.randn(len(work.priors), CLASSES, generator=generator) - 2
        pred.scores = logits.sigmoid() if work.scores == 'probabilities' else logits
    return pred, gt


def predicted(priors: Priors, boxes: Tensor, generator: torch.Generator) -> Tensor:
    """Predict for each prior a box between one of a stride about it and the nearest box."""
    center, side, total = priors.centers, priors.strides, len(priors)
    if side is None:
        corners = priors.as_corners()
        side = (corners[:, 2:] - corners[:, :2]) / 8  # anchors of eight strides
    side = side * (torch.randn(total, 2, generator=generator) * 0.7 + 1).exp()
    own = torch.cat([center - side / 2, center + side / 2], 1)
    near = torch.cdist(center, (boxes[:, :2] + boxes[:, 2:]) / 2).argmin(1)
    return torch.lerp(own, boxes[near], torch.rand(total, 1, generator=generator))


def contenders(work: Work, pred: InstanceData, gt: InstanceData) -> dict[str, Callable[[], Any]]:
    """Return mmdet's assigner and ours on one image, through mmdet's call."""
    levels = [list(work.priors.sizes)] if work.with_levels else []
    calls: dict[str, Callable[[], Any]] = {}
    for name, scope in (('stock', 'mmdet'), ('mmdet_ext', 'mmdet_ext')):
        assigner = TASK_UTILS.build({'type': f'{scope}.{work.assigner}', **work.options})
        calls[name] = partial(assigner.assign, pred, *levels, gt)
    return calls


def differing(one: Any, other: Any) -> str | None:
    """Return None for equal assignments, otherwise the number of priors that differ."""
    count = int((one.gt_inds != other.gt_inds).sum())
    return f'{count} priors' if count else None


def verdict(work: Work, count: int, ours: Timing) -> tuple[str, bool]:
    """Return the figures beside the required ones, and whether they hold."""
    least = work.least.get(count)
    share = work.share if count == 300 else None
    holds = (least is None or ours.ratio >= least) and (share is None or ours.memory_share <= share)
    line = f'{ours.ratio:.1f} x' + ('' if least is None else f' (at least {least:g})')
    line += f', peak memory {ours.memory_share:.4f}'
    line += '' if share is None else f' (at most {share:.3f})'
    return f'{line}: {"holds" if holds else "MISSED"}', holds


def copy_speed(mib: int = 256, times: int = 5) -> float:
    """Return the bytes per second that a copy reads and writes, the best of some runs."""
    source = torch.zeros(mib * 2**20, dtype=torch.uint8)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(times):
        start = time.perf_counter()
        target.copy_(source)
        best = max(best, 2 * source.numel() / (time.perf_counter() - start))
    return best


def floor_ms(pred: InstanceData, gt: InstanceData, speed: float) -> float:
    """Return the time to read all inputs and write index and overlap of each prior, ms."""
    read = sum(t.numel() * t.element_size() for part in (pred, gt) for t in part.values())
    written = len(pred.priors) * (8 + 4)
    return (read + written) / speed * 1e3


def crowd(found: list[Work], args: Any, generator: torch.Generator) -> dict[str, Any]:
    """Measure each assigner of ours on an image of very many boxes: seconds and peak memory."""
    rows: dict[str, Any] = {}
    for work in found[:5]:
        if args.assigners and work.assigner not in args.assigners:
            continue
        pred, gt = inputs(work, args.crowd, generator)
        ours = contenders(work, pred, gt)['mmdet_ext']
        (timing,) = compare({'mmdet_ext': ours}, differing, runs=2, warmup=0)
        rows[work.assigner] = {'s': timing.median_ms / 1e3, 'peak_mib': timing.peak_mib}
        print(
            f'{work.assigner}, {args.crowd:,} boxes in one image: '
            f'{timing.median_ms / 1e3:.2f} s, {timing.peak_mib:.0f} MiB'
        )
    return rows


if __name__ == '__main__':
    sys.exit(main())
