"""Runs of MMEngine's runner with the stub model and `ShardedCheckpointHook`.

Usage, for the cases of several processes: python checkpoint_runs.py FOLDER
"""

from __future__ import annotations

import sys
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import mmdet_ext.registry  # noqa: F401
from mmdet_ext.face.sharding.checkpoints import Peers
from tests.face.sharding.checkpoint_stub import StubModel, joined, snapshot
from tests.face.sharding.checkpoint_worlds import run_world

EPOCHS, STEPS = 4, 2
# MMEngine keeps what runs of one name share.
NUMBERS = count()


class Nothing(BaseMetric):
    """Metric of nothing, so that a test runs."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        return {'count': float(len(results))}


class StopAt(Hook):
    """Hook that ends the training with an error at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def before_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter == self.step:
            raise InterruptedError('stopped')


def make_runner(work_dir: Path, kind: str = 'SGD', steps: int = STEPS, **options: Any) -> Runner:
    """Return a runner of four epochs of two steps, or of so many."""
    peers = Peers()
    hook = dict(type='mmdet_ext.ShardedCheckpointHook', **options.pop('hook', {}))
    optimizer: dict[str, Any] = dict(type=kind, lr=0.1)
    if kind == 'SGD':
        optimizer['momentum'] = 0.9
    loader: dict[str, Any] = dict(
        batch_size=1,
        num_workers=0,
        dataset=list(range(steps * peers.count)),
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    usual: dict[str, Any] = dict(
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=EPOCHS),
        optim_wrapper=dict(optimizer=optimizer),
        param_scheduler=[dict(type='CosineAnnealingLR', T_max=EPOCHS * STEPS, by_epoch=False)],
    )
    if options.pop('only_test', False):
        usual = dict(
            test_dataloader=loader, test_cfg=dict(type='TestLoop'), test_evaluator=[Nothing()]
        )
    return Runner(
        StubModel(peers),
        str(work_dir),
        default_hooks=dict(checkpoint=hook),
        default_scope='mmengine',
        experiment_name=f'run_{next(NUMBERS)}',
        log_level='WARNING',
        **{**usual, **options},
    )


def values_of(runner: Runner) -> dict[str, Tensor]:
    """Return all values of a training that has ended: weights, average, optimizer, numbers."""
    model = runner.model
    found = snapshot(model, runner.optim_wrapper.optimizer)
    for hook in runner.hooks:
        if type(hook).__name__ == 'EMAHook':
            average = hook.ema_model
            found['ema.steps'] = average.steps
            found['ema.backbone'] = average.module.backbone[0].weight
            found['head.ema'] = average.module.head.weight
    found['lr'] = torch.tensor([group['lr'] for group in runner.optim_wrapper.param_groups])
    found['numbers'] = torch.tensor([runner.epoch, runner.iter, runner.optim_wrapper._inner_count])
    losses = runner.message_hub.log_scalars['train/loss'].data[0]
    found['losses'] = torch.tensor(len(losses))
    return {key: value.detach().clone() for key, value in found.items()}


def trained(work_dir: Path, options: dict[str, Any], rank: int) -> dict[str, Tensor]:
    """Train, and return the values at the end; None where a hook stopped the training."""
    hooks = [dict(type='EMAHook', momentum=0.25, update_buffers=False)]
    stop = options.pop('stop', None)
    runner = make_runner(work_dir, custom_hooks=hooks, **options)
    if stop is not None:
        runner.register_hook(StopAt(stop))
    try:
        runner.train()
    except InterruptedError:
        if stop is None:
            raise
    return values_of(runner)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    # What a run imports takes seconds: import it before the forks.
    trained(folder / 'first', {}, 0)

    def world(processes: int, name: str, **options: Any) -> dict[str, Tensor]:
        parts = run_world(
            processes, partial(trained, folder / name, options), folder / f'of_{name}'
        )
        return joined(parts)

    results: dict[str, Any] = {}
    for kind, background in (('SGD', False), ('AdamW', True)):
        options: dict[str, Any] = dict(kind=kind, hook=dict(async_save=background))
        results[f'{kind}/whole'] = world(3, f'{kind}_whole', **options)
        second = folder / f'{kind}_whole' / 'sharded' / 'epoch_2'
        more = dict(options, resume=True, load_from=str(second))
        results[f'{kind}/two'] = world(2, f'{kind}_two', **more)
        results[f'{kind}/one'] = world(1, f'{kind}_one', **more)
    # The third epoch is not complete: the training resumes after the second.
    options = dict(kind='SGD', hook=dict(async_save=True))
    world(3, 'stopped', stop=5, **options)
    (folder / 'stopped' / 'sharded' / 'epoch_3.writing').mkdir()
    (folder / 'of_stopped').rename(folder / 'of_stopped_before')
    results['stopped'] = world(2, 'stopped', resume=True, **options)
    results['stopped_names'] = sorted(path.name for path in (folder / 'stopped/sharded').iterdir())
    torch.save(results, folder / 'results.pt')


if __name__ == '__main__':
    main(Path(sys.argv[1]))
