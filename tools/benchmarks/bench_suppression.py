"""Benchmark of soft-NMS over 80 classes: ours against mmcv's.

    python tools/benchmarks/bench_suppression.py [--out FILE.json]

The work is one image of 1,333 x 800 px with detections of all sizes, spread over the image or in
crowds of a dozen per object. Contenders:

- ``mmcv``: ``batched_nms`` with mmcv's ``soft_nms``, as in a stock config. Below 10,000 boxes it is
  one call, from there on a loop over the classes;
- ``mmdet_ext in mmcv``: ``batched_nms`` with ``mmdet_ext.soft_nms``, as in a config of ours;
- the same as a loop over the classes, which a config can ask for (``split_thr``);
- ``mmdet_ext``: ``batched_soft_nms``, called directly.

If boxes or scores differ by more than 1e-6, there is no timing. Coordinates are quarters of a
pixel, because mmcv shifts classes apart in float32, which would round others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from mmcv.ops import batched_nms
from timing import compare, parse_arguments, report
from torch import Tensor

import mmdet_ext.detection  # noqa: F401  # makes mmdet_ext.soft_nms a name of mmcv
from mmdet_ext.catalog.synthetic import random_boxes
from mmdet_ext.functional.boxes.suppression import batched_soft_nms

CLASSES = 80
#: Number of boxes from which on mmcv loops over the classes.
SPLIT = 10_000
WIDTH, HEIGHT = 1333.0, 800.0
#: Detections per object of a crowd, on average.
CROWD = 12


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse_arguments(
        __doc__,
        argv,
        boxes={
            'nargs': '+',
            'type': int,
            'default': [1_000, 5_000, 10_000],
            'help': 'boxes per image',
        },
        methods={'nargs': '+', 'default': ['linear', 'gaussian'], 'help': 'methods of soft-NMS'},
    )
    rows = []
    for count in args.boxes:
        for crowded in (False, True):
            boxes = detections(count, crowded, args.seed)
            for method in args.methods:
                work = f'{count:,} boxes {"in crowds" if crowded else "spread"}, {method}'
                rows.append((work, compare(contenders(boxes, method), differing, args.runs)))
    report('Soft-NMS', rows, args.out)
    return 0


def detections(count: int, crowded: bool, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Make boxes with scores and labels.

    Args:
        count: number of boxes.
        crowded: `CROWD` of them around each object, with its label; else all independent.
        seed: of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    objects = max(1, count // CROWD) if crowded else count
    boxes = random_boxes(generator, objects, WIDTH, HEIGHT, 16.0, 400.0)
    labels = torch.randint(CLASSES, (objects,), generator=generator)
    if crowded:
        owner = torch.randint(objects, (count,), generator=generator)
        boxes, labels = boxes[owner], labels[owner]
        sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        boxes = boxes + 0.08 * sides * torch.randn(count, 4, generator=generator)
        corners = boxes.view(-1, 2, 2)
        boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
    boxes = (boxes * 4).round() / 4
    return boxes, torch.rand(count, generator=generator), labels


def contenders(
    boxes: tuple[Tensor, Tensor, Tensor], method: str
) -> dict[str, Callable[[], tuple[Tensor, Tensor]]]:
    """Return the work of each contender."""
    own: dict[str, Any] = dict(iou_threshold=0.3, sigma=0.5, min_score=1e-3, method=method)
    rule = dict(own, type='mmdet_ext.soft_nms')
    found = {
        'mmcv': lambda: batched_nms(*boxes, dict(own, type='soft_nms')),
        'mmdet_ext in mmcv': lambda: batched_nms(*boxes, rule),
        'mmdet_ext': lambda: batched_soft_nms(*boxes, **own),
    }
    if len(boxes[0]) >= SPLIT:
        found['mmdet_ext in mmcv, by class'] = lambda: batched_nms(
            *boxes, dict(rule, split_thr=SPLIT)
        )
    return found


def differing(one: Any, other: Any) -> str | None:
    """Compare the boxes that are kept, and their scores."""
    if len(one[0]) != len(other[0]):
        return f'{len(one[0])} and {len(other[0])} boxes'
    (dets, keep), (other_dets, other_keep) = (by_index(*each) for each in (one, other))
    if not keep.equal(other_keep):
        return 'indices'
    gap = float((dets - other_dets).abs().max()) if len(dets) else 0.0
    return None if gap <= 1e-6 else f'boxes or scores by {gap:.2g}'


def by_index(dets: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Sort results by the index of the box: scores may tie."""
    keep, order = keep.sort()
    return dets[order], keep


if __name__ == '__main__':
    sys.exit(main())
