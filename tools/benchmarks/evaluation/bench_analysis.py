"""Benchmark of the analysis of detections: operating points, kinds of errors, comparison.

    python tools/benchmarks/evaluation/bench_analysis.py [--images 5000] [--out FILE.json]

The work is what a tool does between reading its files and writing its report, in one process on one
thread, on made boxes and detections: by default about 100,000 detections of 80 classes. A
comparison takes two such results. Every run of a tool must give the same report; if one differs,
the benchmark fails. Times are medians of the runs, of the processor and of the clock.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from mmdet_ext.analysis.detection.columns import Detections, GroundTruth, TruthSet
from mmdet_ext.analysis.detection.comparison import COCO_IOU, compare_results
from mmdet_ext.analysis.detection.errors import error_report
from mmdet_ext.analysis.detection.operating_points import PointOptions, operating_points
from mmdet_ext.utils.files import write_json

SIDE = 640.0
#: Mean number of detections of a box: on it, beside it, or of another class.
PER_BOX = 2.0


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return 1 if a tool gives two reports of the same results."""
    args = _parse(argv)
    data, first = made(args.images, args.boxes, args.detections, args.classes, args.seed)
    _, second = made(args.images, args.boxes, args.detections, args.classes, args.seed, shift=9.0)
    rows: dict[str, dict[str, Any]] = {}
    print(f'{len(data.truth):,} boxes, {len(first):,} and {len(second):,} detections')
    print(f'{"":<26}{"s of CPU":>10}{"s":>8}')
    for name, work in works(data, first, second, args.resamples).items():
        with threadpool_limits(1):
            runs = [timed(work) for _ in range(args.runs)]
        if any(run['report'] != runs[0]['report'] for run in runs):
            print(f'{name} gives two reports of the same results', file=sys.stderr)
            return 1
        seconds = {key: [run[key] for run in runs] for key in ('cpu_seconds', 'seconds')}
        rows[name] = {key: statistics.median(values) for key, values in seconds.items()}
        rows[name]['runs'] = seconds
        print(f'{name:<26}{rows[name]["cpu_seconds"]:>10.2f}{rows[name]["seconds"]:>8.2f}')
    if args.out is not None:
        sizes = {key: vars(args)[key] for key in ('images', 'classes', 'resamples', 'seed')}
        sizes |= {'boxes': len(data.truth), 'detections': [len(first), len(second)]}
        content = {'versions': {'numpy': version('numpy')}, 'work': sizes, 'rows': rows}
        write_json(args.out, content)
    return 0


def works(
    data: TruthSet, first: Detections, second: Detections, resamples: int
) -> dict[str, Callable[[], Any]]:
    """Return the work of each tool by its name."""
    options = PointOptions(
        wishes=(('precision', 0.9), ('recall', 0.5), ('fppi', 0.5)), resamples=resamples
    )
    return {
        'operating points': lambda: operating_points(data, first, options),
        'kinds of errors': lambda: error_report(data, first)[0],
        'comparison, one IoU': lambda: compare_results(data, first, second, (0.5,), resamples),
        'comparison, ten IoUs': lambda: compare_results(data, first, second, COCO_IOU, resamples),
    }


def timed(work: Callable[[], Any]) -> dict[str, Any]:
    """Do a work, and return its report as json and the seconds of the processor and the clock."""
    start, cpu = time.perf_counter(), time.process_time()
    report = work()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {'cpu_seconds': cpu, 'seconds': seconds, 'report': json.dumps(report)}


def made(
    images: int, boxes: float, detections: float, classes: int, seed: int, shift: float = 6.0
) -> tuple[TruthSet, Detections]:
    """Make boxes of all sizes, and detections near them and anywhere.

    A detector misses boxes, finds some twice, takes some for another class, and reports more where
    there is nothing, mostly with a lower score. Classes are as unequal as in COCO: the frequency of
    the k-th is 1 / (k + 3).

    Args:
        images: number of images.
        boxes: mean number of boxes per image.
        detections: mean number of detections per image.
        classes: number of classes.
        seed: seed of the boxes.
        shift: deviation of the corners of a detection, px; other detections have another.
    """
    rng = np.random.default_rng(seed)
    frequency = 1 / np.arange(3.0, classes + 3)
    frequency /= frequency.sum()
    count = round(images * boxes)
    image = np.sort(rng.integers(0, images, count))
    label = rng.choice(classes, count, p=frequency)
    box = _boxes(rng, count)
    truth = GroundTruth(image, label, box, box[:, 2] * box[:, 3], rng.random(count) < 0.01)
    data = TruthSet(
        list(range(images)),
        [f'class {k}' for k in range(classes)],
        truth,
        [f'{k}.jpg' for k in range(images)],
    )
    rng = np.random.default_rng([seed, round(1000 * shift)])
    near = np.repeat(np.arange(count), rng.poisson(PER_BOX, count))
    far = max(round(images * detections) - len(near), 0)
    moved = box[near] + rng.normal(0, shift, (len(near), 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], 1)
    wrong = rng.random(len(near)) < 0.15
    other = rng.choice(classes, len(near) + far, p=frequency)
    found_image = np.concatenate([image[near], rng.integers(0, images, far)])
    found_label = np.concatenate(
        [np.where(wrong, other[: len(near)], label[near]), other[len(near) :]]
    )
    found_box = np.concatenate([moved, _boxes(rng, far)])
    score = np.concatenate([rng.beta(3, 2, len(near)), rng.beta(1, 5, far)])
    order = np.argsort(found_image, kind='stable')
    found = Detections(found_image[order], found_label[order], found_box[order], score[order])
    return data, found


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw boxes of all sizes, shape (count, 4)."""
    side = np.exp(rng.uniform(np.log(8), np.log(0.6 * SIDE), (count, 2)))
    return np.concatenate([rng.uniform(0, 1, (count, 2)) * (SIDE - side), side], axis=1)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--images', type=int, default=5000)
    add('--boxes', type=float, default=7.2, help='boxes per image')
    add('--detections', type=float, default=20.0, help='detections per image')
    add('--classes', type=int, default=80)
    add('--resamples', type=int, default=1000, help='resamples of the images')
    add('--seed', type=int, default=0)
    add('--runs', type=int, default=3, help='runs of each tool')
    add('--out', type=Path, help='JSON file to write')
    args = parser.parse_args(argv)
    if args.runs < 1:
        parser.error(f'--runs must be 1 or more, got {args.runs}')
    return args


if __name__ == '__main__':
    sys.exit(main())
