"""Benchmark of the COCO metric: ours against mmdet's, from data samples to the table.

    python tools/benchmarks/evaluation/bench_coco_metric.py [--images 5000] [--out FILE.json]

The work is what a test of a runner does with a metric: the data samples of each batch go to it, and
at the end it evaluates. Reading the annotation file is part of it. Each contender runs in a fresh
process, in turn. Figures must be equal to the last digit; if one differs, the benchmark fails.

Times are of the wall and of all processors, those of the backend's process included. Memory is the
growth of the contender's resident set above that before the work, plus the whole of the backend's
process: an upper bound, as the two peaks need not come together.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.utils.files import write_json

#: Contender -> its metric.
CONTENDERS: dict[str, dict[str, Any]] = {
    'mmdet': {'type': 'mmdet.CocoMetric'},
    'hotcoco': {'type': 'mmdet_ext.CocoMetric', 'backend': 'hotcoco'},
    'faster_coco_eval': {'type': 'mmdet_ext.CocoMetric', 'backend': 'faster_coco_eval'},
    'pycocotools': {'type': 'mmdet_ext.CocoMetric', 'backend': 'pycocotools'},
}
PACKAGES = ('numpy', 'torch', 'mmdet', 'pycocotools', 'hotcoco', 'faster-coco-eval')
CATEGORIES = 80
SIDE = 640


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark, or the work of one contender."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--images', type=int, default=5000)
    parser.add_argument('--boxes', type=float, default=7.2, help='boxes per image')
    parser.add_argument('--detections', type=int, default=100, help='detections per image')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--runs', type=int, default=1, help='runs of each contender')
    parser.add_argument(
        '--contenders', nargs='+', choices=list(CONTENDERS), default=['mmdet', 'hotcoco']
    )
    parser.add_argument('--out', type=Path, help='JSON file to write')
    parser.add_argument('--worker', nargs=2, metavar=('NAME', 'FOLDER'), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker:
        work(*args.worker)
        return 0
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in args.contenders}
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), args.images, args.boxes, args.detections, args.seed)
        for _ in range(args.runs):
            for name in args.contenders:
                rows[name].append(measured(name, Path(folder)))
    reference = args.contenders[0]
    expected = rows[reference][0]['figures']
    for name, runs in rows.items():
        if any(run['figures'] != expected for run in runs):
            print(f'{name} differs from {reference}: {runs[0]["figures"]}', file=sys.stderr)
            return 1
    report(rows, reference)
    if args.out is not None:
        versions = {name: version(name) for name in PACKAGES}
        sizes = {key: vars(args)[key] for key in ('images', 'boxes', 'detections', 'seed')}
        write_json(args.out, {'versions': versions, 'work': sizes, 'rows': rows})
    return 0


def make(folder: Path, images: int, boxes: float, detections: int, seed: int) -> None:
    """Write an annotation file and detections, half of them near boxes and the others anywhere."""
    generator = np.random.default_rng(seed)
    total = int(images * boxes)
    image = np.sort(generator.integers(0, images, total))
    label = generator.integers(0, CATEGORIES, total)
    low = generator.uniform(0, SIDE * 0.8, (total, 2))
    side = np.exp(generator.uniform(np.log(8), np.log(SIDE * 0.6), (total, 2)))
    corners = np.concatenate([low, np.minimum(low + side, SIDE)], 1).round(2)
    annotations = [
        {'id': k + 1, 'image_id': int(image[k]) + 1, 'category_id': int(label[k]) + 1}
        | {'bbox': [x0, y0, x1 - x0, y1 - y0], 'area': (x1 - x0) * (y1 - y0), 'iscrowd': 0}
        for k, (x0, y0, x1, y1) in enumerate(corners.tolist())
    ]
    content = {
        'images': [
            {'id': k + 1, 'file_name': f'{k}.jpg', 'height': SIDE, 'width': SIDE}
            for k in range(images)
        ],
        'categories': [{'id': k + 1, 'name': f'class {k}'} for k in range(CATEGORIES)],
        'annotations': annotations,
    }
    (folder / 'truth.json').write_text(json.dumps(content), 'utf-8')
    shape = (images, detections)
    first = np.searchsorted(image, np.arange(images))
    count = np.maximum(np.bincount(image, minlength=images), 1)
    source = first[:, None] + generator.integers(0, 1 << 30, shape) % count[:, None]
    source = np.minimum(source, total - 1)
    near = generator.random(shape) < 0.5
    anywhere = generator.uniform(0, SIDE * 0.8, (*shape, 2))
    away = np.concatenate([anywhere, anywhere + generator.uniform(8, 200, (*shape, 2))], -1)
    found = np.where(near[..., None], corners[source] + generator.normal(0, 6, (*shape, 4)), away)
    found[..., 2:] = np.maximum(found[..., 2:], found[..., :2] + 1)
    score = generator.random(shape) * np.where(near, 1.0, 0.6)
    np.savez(
        folder / 'found.npz',
        boxes=found.astype(np.float32),
        labels=np.where(near, label[source], generator.integers(0, CATEGORIES, shape)),
        scores=score.astype(np.float32),
    )


def measured(name: str, folder: Path) -> dict[str, Any]:
    """Run a contender in a process of its own, and return what it measured."""
    command = [sys.executable, str(Path(__file__).resolve()), '--worker', name, str(folder)]
    subprocess.run(command, check=True)
    result: dict[str, Any] = json.loads((folder / f'{name}.json').read_text('utf-8'))
    print(f'{name}: {result["seconds"]:.1f} s, {result["peak_mb"]:,.0f} MB', flush=True)
    return result


def work(name: str, folder: str) -> None:
    """Do the work of one contender, and write times, memory and figures."""
    import torch
    from mmengine.registry import METRICS, DefaultScope
    from mmengine.structures import InstanceData

    import mmdet_ext.registry  # noqa: F401

    logging.getLogger('mmengine').setLevel(logging.WARNING)
    tables = {key: torch.from_numpy(value) for key, value in np.load(f'{folder}/found.npz').items()}
    with DefaultScope.overwrite_default_scope('mmdet'):
        kind = METRICS.get(CONTENDERS[name]['type'])  # imports the host
        samples = [
            {
                'img_id': k + 1,
                'ori_shape': (SIDE, SIDE),
                'pred_instances': InstanceData(bboxes=boxes, labels=labels, scores=scores),
            }
            for k, (boxes, labels, scores) in enumerate(
                zip(tables['boxes'], tables['labels'], tables['scores'], strict=True)
            )
        ]
        before = resident('VmRSS')
        Path('/proc/self/clear_refs').write_text('5')  # the peak starts anew
        start, cpu = time.perf_counter(), sum(os.times()[:4])
        options = {key: value for key, value in CONTENDERS[name].items() if key != 'type'}
        metric = kind(ann_file=f'{folder}/truth.json', **options)
        metric.dataset_meta = {'classes': [f'class {k}' for k in range(CATEGORIES)]}
        for sample in samples:
            metric.process({}, [sample])
        figures = metric.evaluate(len(samples))
    ran = getattr(metric, 'outcomes', {}).values()
    seconds, cpu = time.perf_counter() - start, sum(os.times()[:4]) - cpu
    child = max((each.peak_bytes or 0) / 1e6 for each in ran) if ran else 0.0
    grown = resident('VmHWM') - before
    result = {
        'seconds': seconds,
        'cpu_seconds': cpu,
        'peak_mb': grown + child,
        'of_process_mb': grown,
        'of_backend_mb': child,
        'figures': figures,
    }
    Path(folder, f'{name}.json').write_text(json.dumps(result), 'utf-8')


def resident(key: str) -> float:
    """Return a figure of this process's memory in MB."""
    for line in Path('/proc/self/status').read_text('utf-8').splitlines():
        if line.startswith(f'{key}:'):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f'/proc/self/status has no {key}: this benchmark needs Linux')


def report(rows: dict[str, list[dict[str, Any]]], reference: str) -> None:
    """Print the medians, and their ratios to the reference."""
    medians = {
        name: {
            key: float(np.median([run[key] for run in runs]))
            for key in ('seconds', 'cpu_seconds', 'peak_mb')
        }
        for name, runs in rows.items()
    }
    base = medians[reference]
    print(f'{"":>18}{"s":>9}{"s of CPU":>10}{"MB":>8}{"times":>8}{"of CPU":>8}{"memory":>8}')
    for name, row in medians.items():
        print(
            f'{name:>18}{row["seconds"]:>9.2f}{row["cpu_seconds"]:>10.2f}{row["peak_mb"]:>8.0f}'
            f'{base["seconds"] / row["seconds"]:>8.1f}'
            f'{base["cpu_seconds"] / row["cpu_seconds"]:>8.1f}'
            f'{row["peak_mb"] / base["peak_mb"]:>8.3f}'
        )


if __name__ == '__main__':
    sys.exit(main())
