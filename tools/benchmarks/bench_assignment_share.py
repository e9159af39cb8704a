"""Measure the share of label assignment in a training step, with mmdet's assigners and ours.

    python tools/benchmarks/bench_assignment_share.py [--out FILE.json]

A step is the forward and backward pass of YOLOX-s or RTMDet-tiny, from mmdet's configs, with four
images of 640 x 640 and 100 boxes each. The head and the assigner are mmdet's or ours, the weights
are the same. The share is the time inside the assigner. Losses must be equal.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from bench_train_step import differing, random_batch, step
from mmdet.utils import register_all_modules
from mmengine.hub import get_config
from mmengine.registry import MODELS
from timing import Timing, compare, parse_arguments, report

SIDE = 640
#: Largest relative difference of losses. Earlier steps have changed the statistics of the norms.
MOST = 1e-4
#: mmdet's config, and our assigner.
NETWORKS = {
    'YOLOX-s': ('mmdet::yolox/yolox_s_8xb8-300e_coco.py', 'SimOTAAssigner'),
    'RTMDet-tiny': ('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', 'DynamicSoftLabelAssigner'),
}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse_arguments(
        __doc__,
        argv,
        batch={'type': int, 'default': 4},
        boxes={'type': int, 'default': 100, 'help': 'per image'},
        side={'type': int, 'default': SIDE, 'help': 'of an image, px'},
    )
    register_all_modules()
    rows: list[tuple[str, list[Timing]]] = []
    shares: dict[str, dict[str, float]] = {}
    for name in NETWORKS:
        torch.manual_seed(args.seed)
        stock, ours = models(name)
        batch = random_batch(
            torch.Generator().manual_seed(args.seed), args.batch, args.boxes, args.side, args.side
        )
        spent: dict[str, list[float]] = {'stock': [], 'mmdet_ext': []}
        with timed(stock, 'assign', spent['stock']), timed(ours, 'match', spent['mmdet_ext']):
            contenders = {
                'stock': counted(step(stock, batch), spent['stock']),
                'mmdet_ext': counted(step(ours, batch), spent['mmdet_ext']),
            }
            timings = compare(contenders, partial(differing, most=MOST), args.runs, warmup=1)
        work = f'{name}, {args.batch} pictures of {args.side}^2, {args.boxes} boxes each'
        rows.append((work, timings))
        # The last run of each contender traced memory, and is not counted.
        shares[work] = {
            t.name: statistics.median(spent[t.name][-1 - args.runs : -1]) * 1e3 / t.median_ms
            for t in timings
        }
    report('Training step', rows, args.out, share_of_assignment=shares)
    for work, share in shares.items():
        print(
            f'{work}: assignment takes {share["stock"]:.1%} of the step with stock, '
            f'{share["mmdet_ext"]:.1%} with ours'
        )
    return 0


def models(name: str) -> tuple[Any, Any]:
    """Build mmdet's detector, and the same with our head and assigner."""
    path, assigner = NETWORKS[name]
    config = get_config(path).model
    for part in (config.get('backbone', {}), config):
        part.pop('init_cfg', None)
    config.data_preprocessor.pop('batch_augments', None)
    own = copy.deepcopy(config)
    own.bbox_head.type = f'mmdet_ext.{own.bbox_head.type}'
    own.train_cfg.assigner.type = f'mmdet_ext.{assigner}'
    own.train_cfg.assigner.pop('iou_calculator', None)
    stock, ours = (MODELS.build(each) for each in (config, own))
    stock.init_weights()
    ours.load_state_dict(stock.state_dict())
    return stock, ours


@contextmanager
def timed(model: Any, method: str, spent: list[float]) -> Iterator[None]:
    """Add the time inside a method of the assigner to the last entry of ``spent``."""
    assigner = model.bbox_head.assigner
    plain = getattr(assigner, method)

    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = plain(*args, **kwargs)
        spent[-1] += time.perf_counter() - start
        return result

    setattr(assigner, method, call)
    try:
        yield
    finally:
        delattr(assigner, method)


def counted(run: Callable[[], Any], spent: list[float]) -> Callable[[], Any]:
    """Wrap a step: add an entry to ``spent``, and reset torch's seed, before each run."""

    def call() -> Any:
        torch.manual_seed(0)
        spent.append(0.0)
        return run()

    return call


if __name__ == '__main__':
    sys.exit(main())
