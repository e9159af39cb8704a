"""The schedule of a margin tries its values before training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mmengine.model import BaseModel

from mmdet_ext.face.heads import MarginHead
from mmdet_ext.face.hooks import MarginScheduleHook

SPHERE = dict(type='SphereFace', m=1)


class Net(BaseModel):
    """A model that is a head."""

    def __init__(self, margin: Any) -> None:
        super().__init__()
        self.head: Any = MarginHead(3, 2, margin)

    def forward(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError


def runner_of(hook: MarginScheduleHook, margin: Any, times: int) -> Any:
    """What a hook sees of a runner, of so many epochs or steps."""
    return SimpleNamespace(
        model=Net(margin),
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
def test_values_between_are_tried_before_training(
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
        # Over before it begins.
        (SPHERE, 3, dict(start=1, stop=2, begin=5)),
        (dict(type='ArcFace'), 10**6, dict(start=0.0, stop=3.0, by_epoch=False)),
        (dict(type='CombinedMargin'), 50, dict(param='m1', start=1, stop=4, kind='cosine')),
    ],
)
def test_what_passes_can_be_set_at_each_time(
    margin: Any, times: int, options: dict[str, Any]
) -> None:
    hook = MarginScheduleHook(**options)
    runner = runner_of(hook, margin, times)
    hook.before_train(runner)
    param = options.get('param', 'm')
    for time in range(0, times, max(1, times // 1000)):
        value = hook.value_at(time, times - 1)
        runner.model.head.margin.set_margin(param, value)


def test_present_value_stands_when_training_begins() -> None:
    hook = MarginScheduleHook(start=0.0, stop=0.4)
    runner = runner_of(hook, dict(type='ArcFace'), 5)
    runner.epoch = 3
    hook.before_train(runner)
    assert runner.model.head.margin.m.number == pytest.approx(0.3)


def test_numbers_that_bound_each_other() -> None:
    hook = MarginScheduleHook(param='lambda_max', start=1000.0, stop=1.0)
    with pytest.raises(ValueError, match='lambda_min=5.0 of SphereFace is above lambda_max=1.0'):
        hook.before_train(runner_of(hook, SPHERE, 5))
