"""Trainings, ends and refusals that the processes of `tests.face.sharding.fleet` run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from mmengine import registry as hosts
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmdet_ext.face.sharding import collectives
from mmdet_ext.face.sharding.ddp import ShardedHeadDDP
from mmdet_ext.registry import MODELS

INPUTS, CHANNELS, BATCH = 6, 8, 24
#: Share of the batch of each process, by their number.
UNEVEN = {1: [24], 2: [24, 0], 4: [10, 0, 9, 5]}


class Training(NamedTuple):
    """A training that must not depend on the number of processes."""

    margin: dict[str, Any]
    steps: int = 20
    classes: int = 10
    head: dict[str, Any] = {}
    clip: dict[str, Any] | None = {'max_norm': 0.5}
    accumulate: int = 1
    uneven: bool = False
    dtype: torch.dtype = torch.float32
    optimizer: str = 'SGD'


ARC, ADA, CURRICULAR = (dict(type=name) for name in ('ArcFace', 'AdaFace', 'CurricularFace'))
SAMPLED = dict(sample_rate=0.4)
DOUBLE = torch.float64
TRAININGS = {
    'arcface': Training(ARC),
    'adaface': Training(ADA),
    'curricularface': Training(CURRICULAR),
    'arcface sampled': Training(ARC, head=SAMPLED),
    'adaface sampled': Training(ADA, head=SAMPLED),
    'curricularface sampled': Training(CURRICULAR, head=SAMPLED),
    'arcface in float64': Training(ARC, dtype=DOUBLE),
    'curricularface in float64, sampled': Training(CURRICULAR, head=SAMPLED, dtype=DOUBLE),
    'exact path': Training(ARC, 6, head=dict(path='exact')),
    'exact path, sampled': Training(ARC, 6, head=dict(path='exact', **SAMPLED)),
    'many classes': Training(ARC, 4, 3000, dict(sample_rate=0.1)),
    'three classes': Training(ARC, 6, 3),
    'three classes, sampled': Training(CURRICULAR, 6, 3, SAMPLED),
    'one class': Training(ARC, 3, 1),
    'uneven batches': Training(ADA, 6, uneven=True),
    'uneven batches, sampled': Training(CURRICULAR, 6, head=SAMPLED, uneven=True),
    'sub-centres': Training(ARC, 6, head=dict(num_subcenters=3)),
    'sub-centres, sampled': Training(ARC, 6, head=dict(num_subcenters=2, **SAMPLED)),
    'filter': Training(CURRICULAR, 6, head=dict(filter_threshold=0.3)),
    'uniface': Training(dict(type='UniFace'), 6),
    'uniface, three classes': Training(dict(type='UniFace'), 6, 3, SAMPLED),
    'magface': Training(dict(type='MagFace', norms=(0.5, 5.0)), 6),
    'softmax with bias': Training(dict(type='Softmax', bias=True), 6),
    'softmax with bias, sampled': Training(dict(type='Softmax', bias=True), 6, head=SAMPLED),
    'softmax with bias, three classes': Training(dict(type='Softmax', bias=True), 6, 3),
    'lsoftmax': Training(dict(type='LSoftmax'), 6),
    'spherefacer v2': Training(dict(type='SphereFaceR', version='v2'), 6),
    'largest norm': Training(ARC, 6, clip=dict(max_norm=0.05, norm_type='inf')),
    # Where gradients are near 0, clipping by value depends on their sign alone.
    'clip by value': Training(ARC, 6, clip=dict(type='value', clip_value=0.01), dtype=DOUBLE),
    'no clipping': Training(ARC, 6, clip=None),
    'accumulation': Training(ARC, 7, accumulate=3),
    'accumulation, sampled': Training(ARC, 7, head=SAMPLED, accumulate=3),
    'adamw': Training(ARC, 6, head=SAMPLED, optimizer='AdamW'),
    'neck': Training(ARC, 4, head=dict(neck='fc', embedding_channels=CHANNELS)),
}


class Faces(BaseModel):
    """Linear layer with a head."""

    def __init__(self, head: dict[str, Any], inputs: int = INPUTS) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, head['in_channels'])
        self.head = MODELS.build(head)

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'loss') -> Any:
        """Return losses, or data samples with embeddings."""
        if isinstance(inputs, list):
            inputs = torch.stack(inputs)
        x = self.layer(inputs)
        if mode == 'loss':
            return self.head.loss((x,), data_samples)
        return self.head.predict((x,), data_samples)


def head_of(training: Training) -> dict[str, Any]:
    """Return the config of the head."""
    return dict(
        type='mmdet_ext.ShardedMarginHead',
        num_classes=training.classes,
        in_channels=CHANNELS,
        margin=training.margin,
        scale=16.0,
        **training.head,
    )


def batches(training: Training) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield features and labels of all processes."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(training.steps):
        x = 2 * torch.randn(BATCH, INPUTS, generator=generator, dtype=torch.float64)
        yield x.to(training.dtype), torch.randint(training.classes, (BATCH,), generator=generator)


def own_rows(training: Training) -> slice:
    """Return the rows of a batch that this process gets."""
    processes, rank = get_world_size(), get_rank()
    sizes = UNEVEN[processes] if training.uneven else [BATCH // processes] * processes
    return slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))


def data_of(x: Tensor, labels: Tensor) -> dict[str, Any]:
    """Return a batch as a model takes it."""
    made = [BaseDataElement() for _ in labels]
    for sample, label in zip(made, labels, strict=True):
        sample.set_field(label.view(1), 'gt_label')
    return dict(inputs=x, data_samples=made)


def optim_wrapper_of(training: Training, model: nn.Module) -> OptimWrapper:
    """Return the wrapper of the optimizer."""
    options: dict[str, Any] = dict(lr=0.5, momentum=0.9, weight_decay=0.01)
    if training.optimizer != 'SGD':
        options = dict(lr=0.05, weight_decay=0.1)
    optimizer = getattr(torch.optim, training.optimizer)(model.parameters(), **options)
    clip = None if training.clip is None else dict(training.clip)
    wrapper = OptimWrapper(optimizer, accumulative_counts=training.accumulate, clip_grad=clip)
    wrapper.initialize_count_status(model, 0, training.steps)
    return wrapper


def rows_of_all(table: Tensor) -> list[Any]:
    """Return the rows of all shards."""
    counts = collectives.batch_sizes(len(table), table.device)
    return list(collectives.gathered(table, counts).tolist())


def train(training: Training) -> dict[str, Any]:
    """Train, and return what must not depend on the number of processes."""
    torch.manual_seed(7)
    model = Faces(head_of(training)).to(training.dtype)
    wrapped = ShardedHeadDDP(model, device_ids=[0])
    wrapper = optim_wrapper_of(training, model)
    norms: list[float] = []
    hub = wrapper.message_hub
    logs = []
    for x, labels in batches(training):
        rows = own_rows(training)
        log = wrapped.train_step(data_of(x[rows], labels[rows]), wrapper)
        logs.append({key: float(value) for key, value in log.items()})
        scalar = hub.log_scalars.get('train/grad_norm')
        norms.append(float(scalar.current()) if scalar is not None else 0.0)
    head: Any = model.head
    trained = head.weight if head.sampled is None else head.weight_drawn
    state = wrapper.optimizer.state[trained]
    tables = {
        name: rows_of_all(value)
        for name, value in state.items()
        if isinstance(value, Tensor) and value.dim()
    }
    replicated = {
        name: value.tolist()
        for name, value in {**dict(model.named_parameters()), **dict(model.named_buffers())}.items()
        if 'weight_drawn' not in name and name != 'head.weight'
    }
    hub.log_scalars.clear()
    return dict(
        logs=logs,
        norms=norms,
        centers=rows_of_all(head.weight.detach()),
        state=tables,
        replicated=replicated,
    )


def trained(folder: Path) -> Any:
    """Train all `TRAININGS` in this group of processes."""
    return {name: train(training) for name, training in TRAININGS.items()}


def ended(folder: Path) -> Any:
    """Let process 1 end in the third step, and return when and how the others noticed."""
    training = TRAININGS['arcface']
    model = ShardedHeadDDP(Faces(head_of(training)))
    wrapper = optim_wrapper_of(training, model)
    start = time.monotonic()
    try:
        for step, (x, labels) in enumerate(batches(training)):
            if step == 2 and get_rank() == 1:
                os._exit(7)
            model.train_step(data_of(x[:8], labels[:8]), wrapper)
    except RuntimeError as error:
        said = dict(message=str(error), cause=str(error.__cause__))
        return dict(step=step, seconds=time.monotonic() - start, **said)
    return None


def overflowed(folder: Path) -> Any:
    """Give one shard a gradient that is not finite in the third step of mixed precision."""
    training = Training(ARC, 5)
    torch.manual_seed(7)
    model = ShardedHeadDDP(Faces(head_of(training)))
    wrapper = mixed_precision(model, clip_grad=dict(max_norm=0.5))
    found = []
    for step, (x, labels) in enumerate(batches(training)):
        head: Any = model.module.head
        hook = head.weight.register_hook(lambda grad: grad * torch.inf)
        if step != 2 or get_rank() != 1:
            hook.remove()
        before = [param.detach().clone() for param in model.parameters()]
        log = model.train_step(data_of(x[own_rows(training)], labels[own_rows(training)]), wrapper)
        hook.remove()
        moved = [not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True)]
        scale = wrapper.loss_scaler.get_scale()
        found.append(dict(loss=float(log['loss']), moved=moved, scale=scale))
    return found


def mixed_precision(model: nn.Module, **options: Any) -> Any:
    """Return MMEngine's wrapper for mixed precision, which otherwise asks for a GPU."""
    with patch.object(amp_optimizer_wrapper, 'is_cuda_available', lambda: True):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        wrapper = AmpOptimWrapper(optimizer=optimizer, dtype='bfloat16', **options)
    wrapper.loss_scaler = torch.amp.GradScaler('cpu', init_scale=8.0)
    return wrapper


def refused(folder: Path) -> Any:
    """Return the messages of what several processes refuse."""
    training = TRAININGS['arcface']
    x, labels = next(batches(training))
    data = data_of(x, labels)
    found = {}
    torch.manual_seed(7)
    stock = MMDistributedDataParallel(Faces(head_of(training)))
    attempts: dict[str, Callable[[], Any]] = {
        'stock wrapper': lambda: stock.train_step(data, optim_wrapper_of(training, stock)),
        'state': lambda: stock.module.state_dict(),
        'scores': lambda: stock.module.head((torch.zeros(2, CHANNELS),)),
        'sampled': lambda: MODELS.build(
            dict(head_of(training), type='mmdet_ext.MarginHead', sample_rate=0.5)
        ).loss((torch.zeros(BATCH, CHANNELS),), data['data_samples']),
    }
    for name, attempt in attempts.items():
        try:
            attempt()
        except RuntimeError as error:
            found[name] = str(error)
    head = MODELS.build(head_of(training))
    table = torch.arange(10.0 * CHANNELS).view(10, CHANNELS)
    head.load_state_dict({'weight': table})
    return dict(found, loaded=head.weight.tolist(), table=table.tolist())


class Rows(Dataset[Any]):
    """Data set of `batches`."""

    def __init__(self, steps: int) -> None:
        found = list(batches(Training(ARC, steps)))
        self.x, self.labels = (torch.cat(parts) for parts in zip(*found, strict=True))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Any]:
        (sample,) = data_of(self.x[index], self.labels[index, None])['data_samples']
        return dict(inputs=self.x[index], data_samples=sample)


def ran(folder: Path) -> Any:
    """Train under MMEngine's runner, started by types in a config alone."""
    return dict(
        accumulated=_run(folder / 'accumulated', type='OptimWrapper', accumulative_counts=2),
        mixed=_run(folder / 'mixed', type='AmpOptimWrapper', dtype='bfloat16'),
    )


def _run(folder: Path, **wrapper: Any) -> Any:
    hosts.MODELS.register_module(module=Faces, force=True)
    hosts.DATASETS.register_module(module=Rows, force=True)
    cfg = dict(
        model=dict(type='Faces', head=head_of(TRAININGS['arcface'])),
        model_wrapper_cfg=dict(type='mmdet_ext.ShardedHeadDDP'),
        train_dataloader=dict(
            dataset=dict(type='Rows', steps=6),
            batch_size=BATCH // get_world_size(),
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        train_cfg=dict(by_epoch=False, max_iters=6),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.5, momentum=0.9),
            clip_grad=dict(max_norm=0.5),
            **wrapper,
        ),
        default_hooks=dict(checkpoint=None, logger=dict(type='LoggerHook', interval=1)),
        custom_hooks=[],
        randomness=dict(seed=7),
        launcher='pytorch',
        work_dir=str(folder),
        experiment_name=f'{folder.name}_{get_world_size()}',
    )
    with patch.object(amp_optimizer_wrapper, 'is_cuda_available', lambda: True):
        runner = Runner.from_cfg(Config(cfg))
        model: Any = runner.train()
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    norms = runner.message_hub.get_scalar('train/grad_norm').data[0]
    return dict(
        wrapper=type(model).__name__,
        losses=losses.tolist(),
        norms=norms.tolist(),
        centers=rows_of_all(model.module.head.weight.detach()),
        layer=model.module.layer.weight.tolist(),
    )


#: Scenarios with the number of their processes.
SCENARIOS: tuple[tuple[Callable[[Path], Any], int], ...] = (
    (trained, 1),
    (trained, 2),
    (trained, 4),
    (ended, 3),
    (overflowed, 1),
    (overflowed, 2),
    (refused, 2),
    (ran, 1),
    (ran, 2),
)
