"""Small trainings under a margin head, for tests of hooks."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmdet_ext.face.heads import MarginHead

EPOCHS, STEPS = 4, 3


class Points:
    """Data set of random points of four numbers, twelve per class."""

    def __init__(self, classes: tuple[str, ...] = ('a', 'b', 'c'), noise: bool = False) -> None:
        self.metainfo = {'classes': classes}
        self.noise = noise
        rng = np.random.default_rng(0)
        self.points = rng.normal(size=(12 * len(classes), 4)).astype(np.float32)
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.points)

    def get_data_info(self, place: int) -> dict[str, Any]:
        return {'gt_label': place % len(self.metainfo['classes'])}

    def __getitem__(self, place: int) -> dict[str, Any]:
        self.asked.append(place)
        sample = BaseDataElement(metainfo={'sample_idx': place})
        sample.set_field(torch.tensor([self.get_data_info(place)['gt_label']]), 'gt_label')
        point = torch.tensor(self.points[place])
        if self.noise:
            point = point + random.random() + float(np.random.rand()) + torch.rand(())
        return {'inputs': point, 'data_samples': sample}


class Net(BaseModel):
    """Model of a linear layer with dropout and a margin head."""

    def __init__(self, margin: dict[str, Any], channels: int = 2, **options: Any) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, channels), nn.Dropout(0.1))
        self.head = MarginHead(3, channels, margin=margin, scale=8.0, **options)
        self.frozen = nn.Dropout().eval()

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Any:
        x = self.layers(inputs if isinstance(inputs, Tensor) else torch.stack(inputs))
        if mode == 'loss':
            return self.head.loss(x, data_samples)
        return self.head.predict(x, data_samples)


class Watch(Hook):
    """Hook that records scale, margin and module modes at each step."""

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.seen: list[tuple[float, Any]] = []
        self.modes: list[tuple[bool, bool]] = []

    def before_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        head = runner.model.head
        self.seen.append((head.scale, head.margin.m if hasattr(head.margin, 'm') else None))
        self.seen[-1] = (head.scale, getattr(self.seen[-1][1], 'number', self.seen[-1][1]))
        self.modes.append((runner.model.layers.training, runner.model.frozen.training))


def make_runner(
    tmp_path: Path,
    hooks: list[Any],
    model: nn.Module | None = None,
    dataset: Any = None,
    epochs: int = EPOCHS,
    by_epoch: bool = True,
    val: Any = None,
    **options: Any,
) -> tuple[Runner, Watch]:
    """Return a runner over the points, and the hook that watches it."""
    torch.manual_seed(0)
    dataset = dataset or Points()
    loader = dict(
        batch_size=len(dataset) // STEPS,
        num_workers=0,
        dataset=dataset,
        sampler=dict(type='DefaultSampler', shuffle=True),
    )
    cfg = (
        dict(type='EpochBasedTrainLoop', max_epochs=epochs)
        if by_epoch
        else dict(type='IterBasedTrainLoop', max_iters=epochs * STEPS)
    )
    if val is not None:
        options.update(
            val_dataloader={**loader, 'dataset': val},
            val_cfg=dict(type='ValLoop'),
            val_evaluator=dict(type='DumpResults', out_file_path=str(tmp_path / 'x.pkl')),
        )
    runner = Runner(
        model=model or Net(dict(type='ArcFace', m=0.1)),
        work_dir=str(tmp_path),
        train_dataloader=loader,
        train_cfg=cfg,
        custom_hooks=hooks,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        randomness=dict(seed=1),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        experiment_name=f'hooks_{random.Random().random()}',
        log_level='WARNING',
        **options,
    )
    watch = Watch()
    runner.register_hook(watch)
    return runner, watch


def scalars(runner: Runner) -> list[dict[str, Any]]:
    """Return the logged scalars of each step."""
    lines = (Path(runner.log_dir) / 'vis_data' / 'scalars.json').read_text().splitlines()
    return [line for line in map(json.loads, lines) if 'loss' in line]


class StopAfter(Hook):
    """Hook that ends training after some epochs, as a crash would."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def after_train_epoch(self, runner: Any) -> None:
        if runner.epoch + 1 == self.epochs:
            runner.train_loop.stop_training = True


def drawings(folder: Path) -> list[str]:
    """Return the names of the plots in a folder."""
    return sorted(path.name for path in folder.glob('*.png'))
