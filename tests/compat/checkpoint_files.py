"""A stock run that writes a checkpoint, and checkpoints with edited pickles."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader

needs_torch_2_6 = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split('.')[:2])) < (2, 6),
    reason='torch before 2.6 loads everything by default: nothing is installed there',
)


class Toy(BaseModel):
    """Model of two weights; its loss is the squared sum of an image's mean times each weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([2.0, 3.0]))

    def forward(self, inputs: Any, mode: str = 'tensor') -> Any:
        loss = (torch.as_tensor(inputs).float().mean() * self.weight).square().sum()
        return {'loss': loss} if mode == 'loss' else [loss]


class NumpyMetric(BaseMetric):
    """Metric of numpy scalars, as evaluations compute it."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(1.0)

    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        return {'score': np.float64(0.25), 'hits': np.int64(3)}


class EveryDtype(Hook):
    """Hook that leaves scalars and arrays of all numeric types in the message hub."""

    def before_train(self, runner: Runner) -> None:
        for dtype in every_dtype():
            runner.message_hub.update_info(f'scalar_{dtype}', dtype.type(1))
            runner.message_hub.update_info(f'array_{dtype}', np.arange(2).astype(dtype))


def every_dtype() -> list[np.dtype[Any]]:
    """List all numeric dtypes of numpy."""
    codes = np.typecodes['AllInteger'] + np.typecodes['Float'] + '?'
    return sorted({np.dtype(np.dtype(code).str) for code in codes}, key=str)


def train_stock(work_dir: Path) -> Path:
    """Train and validate with a stock runner; return the checkpoint that it wrote."""

    def loader() -> DataLoader[Any]:
        return DataLoader(
            [{'inputs': float(i)} for i in range(1, 5)], batch_size=2, collate_fn=default_collate
        )

    runner = Runner(
        model=Toy(),
        work_dir=str(work_dir),
        train_dataloader=loader(),
        val_dataloader=loader(),
        train_cfg=dict(by_epoch=True, max_epochs=2, val_interval=1),
        val_cfg=dict(),
        val_evaluator=Evaluator(NumpyMetric()),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=dict(type='LinearLR', start_factor=0.5, end=2),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', save_best='score', rule='greater')
        ),
        custom_hooks=[EveryDtype()],
        log_level='WARNING',
        experiment_name=work_dir.name,
    )
    runner.train()
    return work_dir / 'epoch_2.pth'


def write_pickle(path: Path, edit: Callable[[bytes], bytes], content: Any = None) -> Path:
    """Save content as torch does, with its pickle edited; return the path."""
    torch.save(content, path)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, data in members.items():
            archive.writestr(name, edit(data) if name.endswith('/data.pkl') else data)
    return path


class Call:
    """Object whose pickle is the call of a function, and a state to set afterwards if given."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self.reduced
