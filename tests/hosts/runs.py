"""Two iterations by a host's runner, its test, and the second iteration again from a checkpoint."""

from __future__ import annotations

import copy
import math
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch import Tensor, nn

import mmdet_ext.registry  # noqa: F401  lets MMEngine load checkpoints
from mmdet_ext.catalog.hosts import Host, LossCall
from tests._helpers.same import assert_same

STEPS = 2
#: Modules of the losses that a host's head calls.
LOSSES = ('mmdet_ext.losses.', 'mmdet_ext.detection.losses', 'mmdet_ext.pose.losses.')


class Watch(Hook):
    """Hook that records losses, calls of our losses, gradients, and the weights at the start.

    It also seeds each iteration: a checkpoint does not hold the state of the random generators.
    """

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []
        self.calls: list[tuple[int, tuple[str, ...]]] = []
        self.values: list[Tensor] = []
        self.pulled: set[str] = set()
        self.before: dict[str, Tensor] = {}

    def before_train(self, runner: Runner) -> None:
        self.before = copy.deepcopy(runner.model.state_dict())
        for name, parameter in runner.model.named_parameters():
            if parameter.requires_grad:
                parameter.register_hook(partial(self._note, name))
        for loss in losses_of(runner.model):
            loss.register_forward_hook(self._note_call, with_kwargs=True)

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        torch.manual_seed(runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.losses.append({name: float(value.detach()) for name, value in outputs.items()})

    def _note(self, name: str, gradient: Tensor) -> None:
        if gradient.any():
            self.pulled.add(name)

    def _note_call(self, loss: nn.Module, args: Any, named: dict[str, Any], value: Any) -> None:
        self.calls.append((len(args), tuple(sorted(named))))
        parts = value if isinstance(value, tuple) else (value,)
        self.values += [part.detach().clone() for part in parts]  # a host may add to it
        if isinstance(args[0], Tensor) and args[0].requires_grad:
            args[0].register_hook(partial(self._note, 'prediction'))


def losses_of(model: nn.Module) -> list[nn.Module]:
    """List our losses in a model, without those that another of ours wraps."""
    found: dict[str, nn.Module] = {}
    for name, part in model.named_modules():
        inside = any(name.startswith(f'{outer}.') for outer in found)
        if not inside and type(part).__module__.startswith(LOSSES):
            found[name] = part
    return list(found.values())


@dataclass
class Outcome:
    """Finished runs.

    Attributes:
        runner: the runner of the uninterrupted run.
        watch: its hook.
        metrics: result of the host's test.
        resumed: the runner that continued from the first iteration's checkpoint.
        rewatch: its hook.
    """

    runner: Runner
    watch: Watch
    metrics: dict[str, Any]
    resumed: Runner
    rewatch: Watch


@dataclass
class Setting:
    """A model, and the data that a host's runner trains and tests it on.

    Attributes:
        model: config of the model.
        train: data set, or its config.
        test: the same for the test.
        evaluator: config of the metric.
        options: further options of the runner.
        batch: images of a batch.
        sampler: config of the sampler of training.
        collate: name of the function that joins samples.
    """

    model: Any
    train: Any
    test: Any
    evaluator: Any
    options: dict[str, Any] = field(default_factory=dict)
    batch: int = 2
    sampler: dict[str, Any] = field(
        default_factory=lambda: dict(type='InfiniteSampler', shuffle=False)
    )
    collate: str = 'pseudo_collate'

    def loaders(self) -> dict[str, Any]:
        """Return the options of the runner that name data."""
        usual = dict(num_workers=0, collate_fn=dict(type=self.collate))
        test = dict(sampler=dict(type='DefaultSampler', shuffle=False), dataset=self.test)
        return dict(
            train_dataloader=dict(
                **usual, batch_size=self.batch, sampler=dict(self.sampler), dataset=self.train
            ),
            test_dataloader=dict(**usual, batch_size=2, **test),
            test_evaluator=copy.deepcopy(self.evaluator),
            test_cfg=dict(),
        )


@cache
def _visualizer() -> Visualizer:
    # One for all runs: each of them would make a figure of its own.
    return Visualizer.get_instance('hosts')


def start(host: Host, setting: Setting, folder: Path, **options: Any) -> tuple[Runner, Watch]:
    """Return the host's runner and the hook that watches it."""
    model = copy.deepcopy(setting.model)
    runner = Runner(
        model=ConfigDict(model) if isinstance(model, dict) else model,
        work_dir=str(folder),
        default_scope=host.scope,
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=STEPS),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook', interval=1, by_epoch=False, save_param_scheduler=False
            )
        ),
        log_processor=dict(by_epoch=False),
        log_level='ERROR',
        visualizer=_visualizer(),
        randomness=dict(seed=0),
        # The runner names its logger and message hub after the experiment.
        experiment_name=f'hosts-{uuid.uuid4().hex[:8]}',
        **{**setting.loaders(), **copy.deepcopy(setting.options), **options},
    )
    watch = Watch()
    runner.register_hook(watch)
    return runner, watch


def follow(host: Host, setting: Setting, folder: Path) -> Outcome:
    """Train, test and resume, and assert what holds for every component.

    Both iterations have finite losses. Gradients are finite by the weights that they change. Our
    losses are called in a form of the host's table, and their gradient reaches the prediction. The
    second iteration after a resume equals that of the uninterrupted run, bit for bit.
    """
    whole, resumed = folder / 'whole', folder / 'resumed'
    runner, watch = start(host, setting, whole)
    runner.train()
    metrics = runner.test()
    again, rewatch = start(host, setting, resumed, resume=True, load_from=str(whole / 'iter_1.pth'))
    again.train()
    outcome = Outcome(runner, watch, metrics, again, rewatch)
    _assert_trained(host, outcome)
    _assert_tested(outcome)
    _assert_resumed(outcome)
    return outcome


def _assert_trained(host: Host, outcome: Outcome) -> None:
    watch = outcome.watch
    assert len(watch.losses) == STEPS
    for step in watch.losses:
        assert 'loss' in step and all(map(math.isfinite, step.values())), step
    after = outcome.runner.model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, watch.before[name])}
    assert all(value.isfinite().all() for value in after.values())
    assert watch.pulled - {'prediction'} and changed & watch.pulled
    if losses_of(outcome.runner.model):
        assert watch.calls, 'the loss was not called'
        assert all(is_listed(call, host.calls) for call in watch.calls), set(watch.calls)
        assert all(value.isfinite().all() for value in watch.values)
        assert any((value > 0).any() for value in watch.values), watch.values
        assert 'prediction' in watch.pulled


def _assert_tested(outcome: Outcome) -> None:
    numbers = [value for value in outcome.metrics.values() if isinstance(value, Real)]
    assert numbers and all(map(math.isfinite, numbers)), outcome.metrics


def _assert_resumed(outcome: Outcome) -> None:
    assert outcome.rewatch.losses == outcome.watch.losses[1:]
    assert outcome.resumed.iter == outcome.runner.iter == STEPS
    assert_same(outcome.runner.model.state_dict(), outcome.resumed.model.state_dict())
    assert_same(
        outcome.runner.optim_wrapper.state_dict(), outcome.resumed.optim_wrapper.state_dict()
    )
    # The resumed iteration changed the weights, so that the equality above says something.
    before, after = outcome.rewatch.before, outcome.resumed.model.state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in after.items())


def is_listed(call: tuple[int, tuple[str, ...]], forms: tuple[LossCall, ...]) -> bool:
    """Return whether a call, by its positional values and keywords, is one of the forms."""
    return any(call == (len(form.positional), tuple(sorted(form.keywords))) for form in forms)


def assert_calls_are_those_of_the_table(
    host: Host, settings: Iterable[Setting], folder: Path
) -> None:
    """Assert that the heads of some runs, with any loss, use every form of the table and no other.

    A head names its losses ``loss`` or ``loss_...``.
    """
    seen: set[tuple[int, tuple[str, ...]]] = set()

    def note(loss: nn.Module, args: Any, named: dict[str, Any]) -> None:
        seen.add((len(args), tuple(sorted(named))))

    for number, setting in enumerate(settings):
        runner, _ = start(host, setting, folder / str(number))
        for name, part in runner.model.named_modules():
            own, _, last = name.rpartition('.')
            if last.startswith('loss') or own.endswith('loss_decode'):
                part.register_forward_pre_hook(note, with_kwargs=True)
        runner.train()
    listed = {(len(form.positional), tuple(sorted(form.keywords))) for form in host.calls}
    assert seen == listed
