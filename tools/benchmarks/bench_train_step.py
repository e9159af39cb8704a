"""A training step of the BCCD configs, ours against the stock twin: time, memory, equal losses.

    python tools/benchmarks/bench_train_step.py [--out FILE.json]
    python tools/benchmarks/bench_train_step.py --configs STOCK OTHER ... [--out FILE.json]

Forward and backward on one batch of random pictures of BCCD's size and crowding, both models with
the same weights. The assigner and the box loss are all that differs. With --configs any configs are
set against the first, each with its own losses, to see what a step of each costs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from timing import Timing, compare, parse_arguments, report
from torch import Tensor

from mmdet_ext.catalog.synthetic import random_boxes

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'detection' / 'atss'
STOCK, OURS = 'atss_r18_fpn_stock_12e_bccd.py', 'atss_r18_fpn_12e_bccd.py'
WIDTH, HEIGHT = 320, 240


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse_arguments(
        __doc__,
        argv,
        batch={'type': int, 'default': 8},
        boxes={'type': int, 'nargs': '+', 'default': [14, 100], 'help': 'a picture'},
        configs={'type': Path, 'nargs': '+', 'metavar': 'CONFIG', 'help': 'instead of these two'},
    )
    register_all_modules()
    models = built(args.configs, args.seed) if args.configs else twins(args.seed)
    rows: list[tuple[str, list[Timing]]] = []
    for count in args.boxes:
        batch = random_batch(torch.Generator().manual_seed(args.seed), args.batch, count)
        contenders = {name: step(model, batch) for name, model in models.items()}
        work = f'step, {args.batch} pictures {WIDTH} x {HEIGHT}, {count} boxes each'
        same = anything_goes if args.configs else differing
        rows.append((work, compare(contenders, same, args.runs)))
    title = 'Training step' if args.configs else 'Training step, ATSS ResNet-18'
    report(title, rows, args.out)
    return 0


def twins(seed: int) -> dict[str, Any]:
    """Stock's detector and ours, of the same weights."""
    torch.manual_seed(seed)
    stock, ours = (MODELS.build(Config.fromfile(CONFIGS / name).model) for name in (STOCK, OURS))
    stock.init_weights()
    ours.load_state_dict(stock.state_dict())
    return {'stock': stock, 'mmdet_ext': ours}


def built(configs: Sequence[Path], seed: int) -> dict[str, Any]:
    """The detectors of configs, each begun with the same seed."""
    models = {}
    for path in configs:
        torch.manual_seed(seed)
        models[path.stem] = MODELS.build(Config.fromfile(path).model)
        models[path.stem].init_weights()
    return models


def anything_goes(one: Any, other: Any) -> None:
    """Configs with losses of their own are not to agree."""


def random_batch(
    generator: torch.Generator,
    pictures: int,
    boxes: int,
    width: int = WIDTH,
    height: int = HEIGHT,
) -> dict[str, Any]:
    """Noise for pictures, with boxes, as a data loader hands them on."""
    samples = []
    for _ in range(pictures):
        sample = DetDataSample(
            metainfo={'img_shape': (height, width), 'batch_input_shape': (height, width)}
        )
        sample.gt_instances = InstanceData(
            bboxes=random_boxes(generator, boxes, width, height, 15, 120),
            labels=torch.randint(3, (boxes,), generator=generator),
        )
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64)
        )
        samples.append(sample)
    noise = torch.randint(256, (pictures, 3, height, width), generator=generator)
    return {'inputs': list(noise.to(torch.uint8)), 'data_samples': samples}


def step(model: Any, batch: dict[str, Any]) -> Callable[[], dict[str, Tensor]]:
    """Forward and backward; gives the losses."""

    def run() -> dict[str, Tensor]:
        model.train()
        model.zero_grad(set_to_none=True)
        data = model.data_preprocessor(batch, training=True)
        losses = model(**data, mode='loss')
        total, logged = model.parse_losses(losses)
        total.backward()
        return {name: value.detach() for name, value in logged.items()}

    return run


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> str | None:
    """None when all losses agree to 1e-5, else which do not."""
    gaps = {name: float((one[name] - other[name]).abs() / one[name].abs()) for name in one}
    wrong = {name: gap for name, gap in gaps.items() if gap > 1e-5}
    return f'relative gaps {wrong}' if wrong else None


if __name__ == '__main__':
    sys.exit(main())
