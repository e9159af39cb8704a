"""Benchmark of the counts of a segmentation metric: ours against mmseg's IoUMetric.

    python tools/benchmarks/bench_confusion.py [--out FILE.json]

The work is one image, from the labels of ground truth and prediction to the counts that the metric
keeps. Ours counts the whole confusion matrix, mmseg's its diagonal and its sums. One pixel in ten
is wrong, one in twenty ignored. If a count differs, there is no timing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from mmseg.evaluation.metrics import IoUMetric
from timing import compare, parse_arguments, report
from torch import Tensor

from mmdet_ext.segmentation.metrics.labels import ImageCounts

#: Data set of such images -> number of classes, height and width.
WORK = {
    'Cityscapes': (19, 1024, 2048),
    'ADE20K': (150, 512, 512),
    'shapes': (4, 180, 240),
}
PATCH = 16


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse_arguments(
        __doc__,
        argv,
        images={'nargs': '+', 'choices': list(WORK), 'default': list(WORK), 'help': 'work to do'},
    )
    rows = []
    for name in args.images:
        classes, height, width = WORK[name]
        predicted, target = labels(classes, height, width, args.seed)
        work = f'{name}: {classes} classes, {width} x {height}'
        rows.append((work, compare(contenders(predicted, target, classes), differing, args.runs)))
    report('Counts of a segmentation metric', rows, args.out)
    return 0


def labels(classes: int, height: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Make a prediction and a ground truth in patches of one class."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(classes, (-(-height // PATCH), -(-width // PATCH)), generator=generator)
    target = coarse.repeat_interleave(PATCH, 0).repeat_interleave(PATCH, 1)[:height, :width].clone()
    other = torch.randint(classes, target.shape, generator=generator)
    predicted = other.where(torch.rand(target.shape, generator=generator) < 0.1, target)
    target[torch.rand(target.shape, generator=generator) < 0.05] = 255
    return predicted, target


def contenders(predicted: Tensor, target: Tensor, classes: int) -> dict[str, Callable[[], Any]]:
    """Return the work of each metric for an image."""
    sample = {'pred_sem_seg': {'data': predicted[None]}, 'gt_sem_seg': {'data': target[None]}}

    def ours() -> tuple[Tensor, Tensor, Tensor]:
        counts = ImageCounts.of_sample(sample, classes, 255)
        table = torch.zeros(classes * classes, dtype=torch.int64)
        table = table.index_add_(0, counts.place, counts.pixels).view(classes, classes)
        return table.diagonal(), table.sum(0), table.sum(1)

    def theirs() -> tuple[Tensor, Tensor, Tensor]:
        right, _, found, labelled = IoUMetric.intersect_and_union(predicted, target, classes, 255)
        return right, found, labelled

    return {'mmseg': theirs, 'mmdet_ext': ours}


def differing(one: Any, other: Any) -> str | None:
    """Compare the counts of correct, predicted and labelled pixels per class."""
    for name, a, b in zip(('correct', 'predicted', 'labelled'), one, other, strict=True):
        if not a.long().equal(b.long()):
            return f'counts of {name} pixels'
    return None


if __name__ == '__main__':
    sys.exit(main())
