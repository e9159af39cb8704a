"""How much of a training step is label assignment, with stock's and with ours.

    python tools/benchmarks/bench_assignment_share.py [--out FILE.json]

YOLOX-s and RTMDet-tiny from stock's configs at 640 x 640, four pictures of 100 boxes each:
forward and backward on the same weights, with stock's head and assigner and with ours. The share
is the time inside the assigner. Losses must be equal.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from bench_train_step import random_batch, step
from mmdet.utils import register_all_modules
from mmengine.hub import get_config
from mmengine.registry import MODELS
from timing import Timing, compare, parse_arguments, report

from mmdet_ext.utils.files import write_json

SIDE = 640
#: Stock's config, and the assigner of ours.
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
        boxes={'type': int, 'default': 100, 'help': 'a picture'},
        side={'type': int, 'default': SIDE, 'help': 'of a picture, px'},
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
            timings = compare(contenders, differing, args.runs, warmup=1)
        work = f'{name}, {args.batch} pictures of {args.side}^2, {args.boxes} boxes each'
        rows.append((work, timings))
        # The last of each is the run in which memory was traced.
        shares[work] = {
            t.name: statistics.median(spent[t.name][-1 - args.runs : -1]) * 1e3 / t.median_ms
            for t in timings
        }
    report('Training step', rows, args.out)
    for work, share in shares.items():
        print(
            f'{work}: assignment takes {share["stock"]:.1%} of the step with stock, '
            f'{share["mmdet_ext"]:.1%} with ours'
        )
    if args.out is not None:
        content = json.loads(args.out.read_text(encoding='utf-8'))
        write_json(args.out, {**content, 'share_of_assignment': shares})
    return 0


def models(name: str) -> tuple[Any, Any]:
    """Stock's detector, and the same with our head and assigner."""
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
    """Add up the time inside the assigner's method in the last entry of ``spent``."""
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
    """A step that begins a new entry of ``spent``, on equal random numbers each time."""

    def call() -> Any:
        torch.manual_seed(0)
        spent.append(0.0)
        return run()

    return call


def differing(one: Any, other: Any) -> str | None:
    """None when all losses agree to 1e-4, else which do not: steps have changed the statistics."""
    gaps = {name: float((one[name] - other[name]).abs() / one[name].abs()) for name in one}
    wrong = {name: gap for name, gap in gaps.items() if gap > 1e-4}
    return f'relative gaps {wrong}' if wrong else None


if __name__ == '__main__':
    sys.exit(main())
