"""Time a training step of the BCCD configs, ours against mmdet's, with equal losses.

    python tools/benchmarks/bench_train_step.py [--out FILE.json]
    python tools/benchmarks/bench_train_step.py --configs STOCK OTHER ... [--out FILE.json]

A step is the forward and backward pass of one batch of random images, with the size of BCCD's and
as many boxes. Both models have the same weights and differ in the assigner and the box loss alone.
With --configs, any configs are compared with the first one, each with its own losses.
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
Losses = dict[str, Tensor]


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = parse_arguments(
        __doc__,
        argv,
        batch={'type': int, 'default': 8},
        boxes={'type': int, 'nargs': '+', 'default': [14, 100], 'help': 'per image'},
        configs={'type': Path, 'nargs': '+', 'metavar': 'CONFIG', 'help': 'instead of these two'},
    )
    register_all_modules()
    models = built(args.configs, args.seed) if args.configs else twins(args.seed)
    same: Callable[[Any, Any], str | None] = ignored if args.configs else differing
    rows: list[tuple[str, list[Timing]]] = []
    for count in args.boxes:
        batch = random_batch(torch.Generator().manual_seed(args.seed), args.batch, count)
        contenders = {name: step(model, batch) for name, model in models.items()}
        work = f'step, {args.batch} pictures {WIDTH} x {HEIGHT}, {count} boxes each'
        rows.append((work, compare(contenders, same, args.runs)))
    title = 'Training step' if args.configs else 'Training step, ATSS ResNet-18'
    report(title, rows, args.out)
    return 0


def twins(seed: int) -> dict[str, Any]:
    """Build mmdet's detector and ours, with the same weights."""
    torch.manual_seed(seed)
    stock, ours = (MODELS.build(Config.fromfile(CONFIGS / name).model) for name in (STOCK, OURS))
    stock.init_weights()
    ours.load_state_dict(stock.state_dict())
    return {'stock': stock, 'mmdet_ext': ours}


def built(configs: Sequence[Path], seed: int) -> dict[str, Any]:
    """Build the detectors of configs, each with weights of the same seed."""
    models = {}
    for path in configs:
        torch.manual_seed(seed)
        models[path.stem] = MODELS.build(Config.fromfile(path).model)
        models[path.stem].init_weights()
    return models


def ignored(one: Any, other: Any) -> None:
    """Accept any losses, as configs with losses of their own do not agree."""


def random_batch(
    generator: torch.Generator, images: int, boxes: int, width: int = WIDTH, height: int = HEIGHT
) -> dict[str, Any]:
    """Make images of noise with random boxes, as a data loader gives them."""
    samples = []
    for _ in range(images):
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
    noise = torch.randint(256, (images, 3, height, width), generator=generator)
    return {'inputs': list(noise.to(torch.uint8)), 'data_samples': samples}


def step(model: Any, batch: dict[str, Any]) -> Callable[[], Losses]:
    """Return a function that runs forward and backward, and returns the losses."""

    def run() -> Losses:
        model.train()
        model.zero_grad(set_to_none=True)
        data = model.data_preprocessor(batch, training=True)
        losses = model(**data, mode='loss')
        total, logged = model.parse_losses(losses)
        total.backward()
        return {name: value.detach() for name, value in logged.items()}

    return run


def differing(one: dict[str, Tensor], other: dict[str, Tensor], most: float = 1e-5) -> str | None:
    """Return the losses that differ by more than ``most``, as a share, or None without any."""
    gaps = {name: float((one[name] - other[name]).abs() / one[name].abs()) for name in one}
    wrong = {name: gap for name, gap in gaps.items() if gap > most}
    return f'relative gaps {wrong}' if wrong else None


if __name__ == '__main__':
    sys.exit(main())
