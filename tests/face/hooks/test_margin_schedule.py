"""Schedules of margins: options, values over time, and training with them."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel, MMDistributedDataParallel

from mmdet_ext.face.heads import MarginHead
from mmdet_ext.face.hooks import FeatureScatterHook, MarginScheduleHook
from tests._helpers.face.margin_runs import (
    EPOCHS,
    STEPS,
    Net,
    StopAfter,
    drawings,
    make_runner,
    scalars,
)

SPHERE = dict(type='SphereFace', m=1)


def test_cosine_schedule_matches_its_formula() -> None:
    hook = MarginScheduleHook(start=0.2, stop=0.6, begin=1, end=5, kind='cosine')
    values = [hook.value_at(time, last=9) for time in range(10)]
    expected = [0.2] + [0.4 - 0.2 * math.cos(math.pi * k / 4) for k in range(5)] + [0.6] * 4
    assert values == pytest.approx(expected, abs=1e-12)
    assert values[0] == 0.2 and values[-1] == 0.6


def test_step_schedule_keeps_each_value_until_the_next_time() -> None:
    hook = MarginScheduleHook(kind='step', values=[(1, 0.1), (3, 0.5)])
    assert [hook.value_at(time, last=5) for time in range(6)] == [0.1, 0.1, 0.1, 0.5, 0.5, 0.5]


def test_schedule_longer_than_training_ends_with_the_stop() -> None:
    assert MarginScheduleHook(start=0.0, stop=0.5).value_at(0, last=0) == 0.5
    assert MarginScheduleHook(start=0.0, stop=0.5, begin=9).value_at(4, last=4) == 0.5


def test_given_begin_after_the_end_of_training_is_never_reached() -> None:
    hook = MarginScheduleHook(start=0.0, stop=0.5, begin=9, end=12)
    assert [hook.value_at(time, last=4) for time in range(5)] == [0.0] * 5


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(start=0), 'takes start and stop'),
        (dict(start=0, stop=1, values=[(0, 1)]), "values are for kind='step'"),
        (dict(kind='step'), 'at least one pair, got None'),
        (dict(kind='step', values=[]), r'at least one pair, got \[\]'),
        (dict(kind='step', values=[(0, 1, 2)]), 'at least one pair'),
        (dict(kind='step', values=[(0, 1), (0, 2)]), r'must ascend, got \[0, 0\]'),
        (dict(kind='step', values=[(3, 1), (1, 2)]), r'must ascend, got \[3, 1\]'),
        (dict(kind='step', values=[(-1, 1)]), 'whole number from 0 on, got -1'),
        (dict(kind='step', values=[(0, 1)], start=1), 'leave start, stop, begin'),
        (dict(kind='exp', start=0, stop=1), "kind must be one of .* got 'exp'"),
        (dict(start=0, stop=1, begin=-1), 'begin must be a whole number from 0 on, got -1'),
        (dict(start=0, stop=1, begin=1.5), 'begin must be a whole number from 0 on, got 1.5'),
        (dict(start=0, stop=1, begin=3, end=3), 'end must be after begin=3, got 3'),
        (dict(start=math.inf, stop=1), 'start must be finite, got inf'),
        (dict(start=0, stop=math.nan), 'stop must be finite, got nan'),
        (dict(param='scale', start=0, stop=64), 'scale must be above 0, got 0.0'),
        (dict(param='', start=0, stop=64), "param must be 'scale' or"),
    ],
)
def test_options_that_do_not_fit_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MarginScheduleHook(**options)


def test_value_that_is_no_number_is_named() -> None:
    with pytest.raises(TypeError, match="start must be a number, got '0'"):
        MarginScheduleHook(start='0', stop=1)  # type: ignore[arg-type]


def test_two_hooks_set_and_log_margin_and_scale(tmp_path: Path) -> None:
    hooks = [
        dict(type='mmdet_ext.MarginScheduleHook', param='m', start=0.0, stop=0.3),
        dict(type='mmdet_ext.MarginScheduleHook', param='scale', start=8, stop=41, by_epoch=False),
    ]
    runner, watch = make_runner(tmp_path, hooks)
    runner.train()
    steps = EPOCHS * STEPS
    margins = np.repeat(np.linspace(0, 0.3, EPOCHS), STEPS)
    assert np.allclose([m for _, m in watch.seen], margins, atol=1e-12)
    assert np.allclose([s for s, _ in watch.seen], np.linspace(8, 41, steps))
    lines = scalars(runner)
    assert [line['margin_m'] for line in lines] == pytest.approx(margins)
    assert [line['margin_scale'] for line in lines] == pytest.approx(np.linspace(8, 41, steps))


def test_training_uses_the_margin_that_is_set(tmp_path: Path) -> None:
    hook = dict(type='mmdet_ext.MarginScheduleHook', kind='step', values=[(0, 0.4)])
    weights = []
    for name, hooks, margin in (('set', [hook], 0.0), ('built', [], 0.4), ('other', [], 0.0)):
        torch.manual_seed(3)
        runner, _ = make_runner(tmp_path / name, hooks, Net(dict(type='ArcFace', m=margin)))
        runner.train()
        weights.append(runner.model.head.weight.detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2], atol=1e-4)


def test_resumed_training_continues_the_schedule(tmp_path: Path) -> None:
    hooks = [dict(type='mmdet_ext.MarginScheduleHook', start=0.0, stop=0.3, by_epoch=False)]
    options: dict[str, Any] = {}
    whole, seen = make_runner(tmp_path / 'whole', hooks)
    whole.train()
    first, _ = make_runner(tmp_path / 'parts', hooks, **options)
    first.register_hook(StopAfter(2))
    first.train()
    second, rest = make_runner(
        tmp_path / 'parts',
        hooks,
        resume=True,
        load_from=str(tmp_path / 'parts' / 'epoch_2.pth'),
    )
    second.train()
    assert len(rest.seen) == 2 * STEPS
    assert rest.seen == seen.seen[2 * STEPS :]


def test_hooks_find_the_head_of_a_distributed_model(tmp_path: Path) -> None:
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/rendezvous', rank=0, world_size=1
    )
    try:
        wrapped = MMDistributedDataParallel(Net(dict(type='CombinedMargin')))
        hooks = [
            MarginScheduleHook(param='m2', start=0.5, stop=0.2),
            MarginScheduleHook(param='scale', start=30, stop=20),
        ]
        runner, _ = make_runner(tmp_path, [])
        runner.model = wrapped
        for hook in (*hooks, FeatureScatterHook(dataset='train')):
            hook.before_train(runner)
    finally:
        torch.distributed.destroy_process_group()
    assert wrapped.module.head.margin.m2(torch.zeros(1)) == 0.5
    assert wrapped.module.head.scale == 30
    assert drawings(tmp_path / 'scatter') == ['epoch_000000.png']


@pytest.mark.parametrize(
    ('margin', 'options', 'message'),
    [
        (dict(type='ArcFace'), dict(param='m3'), r'ArcFace has no number named .m3.*: .*\bm\b'),
        (dict(type='ArcFace'), dict(param='easy_margin'), "no number named 'easy_margin'"),
        (dict(type='ArcFace'), dict(stop=4.0), 'm must be from 0 to below 3.142, got 4.0'),
        (dict(type='ArcFace', m=[0.1, 0.2, 0.3]), {}, 'm of ArcFace has a value per class'),
        (dict(type='Softmax'), dict(param='scale', start=1), 'Softmax .* makes no use of scale'),
    ],
)
def test_margin_that_does_not_fit_is_an_error_before_training(
    tmp_path: Path, margin: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    hook = MarginScheduleHook(**{'start': 0.0, 'stop': 0.5, **options})
    runner, watch = make_runner(tmp_path, [hook], Net(margin))
    with pytest.raises(ValueError, match=message):
        runner.train()
    assert watch.seen == []


def test_two_hooks_for_one_number_are_an_error(tmp_path: Path) -> None:
    hooks = [
        MarginScheduleHook(start=0.0, stop=0.5, end=2),
        MarginScheduleHook(start=0.5, stop=0.4, begin=2),
    ]
    runner, _ = make_runner(tmp_path, hooks)
    with pytest.raises(ValueError, match="2 MarginScheduleHook set 'm'"):
        runner.train()


def test_model_without_a_margin_head_is_an_error(tmp_path: Path) -> None:
    class Headless(Net):
        def __init__(self) -> None:
            super().__init__(dict(type='ArcFace'))
            self.margin_head = self.head
            del self.head

    runner, _ = make_runner(tmp_path, [MarginScheduleHook(start=0.0, stop=0.5)], Headless())
    with pytest.raises(ValueError, match='the head of Headless is none'):
        runner.train()


@pytest.mark.slow
def test_iteration_loop_needs_times_in_steps(tmp_path: Path) -> None:
    runner, _ = make_runner(tmp_path, [MarginScheduleHook(start=0.0, stop=0.5)], by_epoch=False)
    with pytest.raises(ValueError, match='set by_epoch=False'):
        runner.train()
    hooks = [MarginScheduleHook(start=0.0, stop=0.55, by_epoch=False)]
    runner, watch = make_runner(tmp_path / 'steps', hooks, by_epoch=False)
    runner.train()
    assert np.allclose([m for _, m in watch.seen], np.linspace(0, 0.55, EPOCHS * STEPS))


class HeadOnly(BaseModel):
    """Model of a margin head without layers."""

    def __init__(self, margin: Any) -> None:
        super().__init__()
        self.head: Any = MarginHead(3, 2, margin)

    def forward(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError


def runner_of(hook: MarginScheduleHook, margin: Any, times: int) -> Any:
    """Return the part of a runner that the hook uses, with a number of epochs or steps."""
    return SimpleNamespace(
        model=HeadOnly(margin),
        hooks=[hook],
        train_loop=None,
        epoch=0,
        iter=0,
        max_epochs=times,
        max_iters=times,
    )


@pytest.mark.parametrize(
    ('times', 'options', 'message'),
    [
        (3, dict(start=1, stop=2), 'm would become 1.5 after 1 epochs: m must be a whole number'),
        (
            4,
            dict(start=1, stop=3),
            'm would become 1.66667 after 1 epochs: .*, got 1.66.*kind=.step',
        ),
        (4, dict(start=1, stop=4, kind='cosine'), 'after 1 epochs'),
        (20, dict(start=1, stop=3, begin=5, end=8), 'm would become 1.66667 after 6 epochs'),
        (9, dict(start=1, stop=2, by_epoch=False), 'm would become 1.125 after 1 steps'),
        (10**6, dict(start=1, stop=2, by_epoch=False), 'm would become .* after 1 steps'),
        (
            10**6,
            dict(start=1, stop=2, begin=70_000, end=70_004, by_epoch=False),
            'm would become 1.25 after 70001 steps',
        ),
    ],
)
def test_schedule_through_fractions_is_an_error_before_training(
    times: int, options: dict[str, Any], message: str
) -> None:
    hook = MarginScheduleHook(**options)
    with pytest.raises(ValueError, match=message):
        hook.before_train(runner_of(hook, SPHERE, times))


@pytest.mark.parametrize(
    ('margin', 'times', 'options'),
    [
        (SPHERE, 4, dict(start=1, stop=4)),
        (SPHERE, 2, dict(start=1, stop=4)),
        (SPHERE, 3, dict(kind='step', values=[(0, 1), (1, 2), (2, 4)])),
        # Training ends before the schedule begins.
        (SPHERE, 3, dict(start=1, stop=2, begin=5)),
        (dict(type='ArcFace'), 10**6, dict(start=0.0, stop=3.0, by_epoch=False)),
        (dict(type='CombinedMargin'), 50, dict(param='m1', start=1, stop=4, kind='cosine')),
    ],
)
def test_accepted_schedule_can_be_set_at_every_time(
    margin: Any, times: int, options: dict[str, Any]
) -> None:
    hook = MarginScheduleHook(**options)
    runner = runner_of(hook, margin, times)
    hook.before_train(runner)
    param = options.get('param', 'm')
    for time in range(0, times, max(1, times // 1000)):
        value = hook.value_at(time, times - 1)
        runner.model.head.margin.set_margin(param, value)


def test_present_value_is_set_when_training_begins() -> None:
    hook = MarginScheduleHook(start=0.0, stop=0.4)
    runner = runner_of(hook, dict(type='ArcFace'), 5)
    runner.epoch = 3
    hook.before_train(runner)
    assert runner.model.head.margin.m.number == pytest.approx(0.3)


def test_schedule_beyond_another_option_is_an_error() -> None:
    hook = MarginScheduleHook(param='lambda_max', start=1000.0, stop=1.0)
    with pytest.raises(ValueError, match='lambda_min=5.0 of SphereFace is above lambda_max=1.0'):
        hook.before_train(runner_of(hook, SPHERE, 5))
