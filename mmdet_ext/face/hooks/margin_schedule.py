"""Hook that changes an option of the margin, or the scale, during training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from mmengine.hooks import Hook

from mmdet_ext.engine.loops import check_counts_epochs
from mmdet_ext.face.heads.margin_head import MarginHead
from mmdet_ext.face.hooks.common import margin_head
from mmdet_ext.face.margins.class_margins import ClassMargins
from mmdet_ext.functional.numerics.checks import (
    check_number,
    check_one_of,
    check_that,
    check_whole,
    is_real,
)
from mmdet_ext.registry import HOOKS

Kind = Literal['linear', 'cosine', 'step']


@HOOKS.register_module()
class MarginScheduleHook(Hook):  # type: ignore[misc]
    """Hook that sets a number of the margin, or the head's scale, before each step of training.

    Let t be the number of epochs (or steps) that are over, and
    x = (t - begin) / (end - begin), clamped to 0 and 1. The value is::

        linear   start + (stop - start) x
        cosine   start + (stop - start) (1 - cos(pi x)) / 2
        step     the value with the last time in ``values`` that is at most t

    So it is ``start`` up to ``begin``, and ``stop`` from ``end`` on. It depends on t alone, so that
    resumed training continues the schedule. It is logged as ``margin_<param>``. Several hooks may
    run together, each for another number.

    Args:
        param: 'scale' for the scale of the head, or an option of the margin that is a number, such
            as 'm', 'm2' or 'lambda_min'.
        start: first value, for 'linear' and 'cosine'.
        stop: last value, for 'linear' and 'cosine'.
        begin: time at which the value begins to change, in epochs or steps, at least 0.
        end: time at which ``stop`` is reached, after ``begin``; None for the last epoch (or step).
        by_epoch: whether times are epochs instead of steps. The value then stays throughout an
            epoch.
        kind: 'linear', 'cosine' or 'step'.
        values: for 'step', pairs (time, value) with ascending times. The first value also holds
            before its time.

    Raises:
        ValueError: for options that do not fit each other. Before training: if the model has no
            `MarginHead` with a margin, if the margin has no such number or refuses a value of the
            schedule, if the margin does not use the scale, or if two hooks set one number.
        TypeError: if a value is no number.
    """

    def __init__(
        self,
        param: str = 'm',
        start: float | None = None,
        stop: float | None = None,
        begin: int = 0,
        end: int | None = None,
        by_epoch: bool = True,
        kind: Kind = 'linear',
        values: Sequence[tuple[int, float]] | None = None,
    ) -> None:
        check_one_of('kind', kind, Kind)
        if not isinstance(param, str) or not param.isidentifier():
            raise ValueError(f"param must be 'scale' or a number of the margin, got {param!r}")
        self.param, self.kind, self.by_epoch = param, kind, by_epoch
        self.begin, self.end = begin, end
        self.steps: list[tuple[int, float]] = []
        self.start = self.stop = math.nan
        if kind == 'step':
            if (start, stop, begin, end) != (None, None, 0, None):
                raise ValueError(
                    "kind='step' takes values=[(time, value), ...] alone; leave start, stop, begin "
                    'and end away'
                )
            self.steps = _checked_steps(values)
        else:
            if values is not None or start is None or stop is None:
                raise ValueError(
                    f"kind={kind!r} takes start and stop; values are for kind='step'. Got "
                    f'start={start!r}, stop={stop!r}, values={values!r}'
                )
            check_whole('begin', begin, 0)
            if end is not None:
                check_whole('end', end, 0)
                check_that(end > begin, 'end', end, f'after begin={begin}')
            self.start, self.stop = _number('start', start), _number('stop', stop)
        if param == 'scale':
            check_number('scale', min(self._values()), above=0)

    def value_at(self, time: int, last: int) -> float:
        """Return the value after ``time`` epochs (or steps).

        Args:
            time: number of epochs (or steps) that are over.
            last: last time of training, used for ``end=None``.

        >>> hook = MarginScheduleHook(start=0.0, stop=0.5, begin=2)
        >>> [hook.value_at(epoch, last=6) for epoch in range(7)]
        [0.0, 0.0, 0.0, 0.125, 0.25, 0.375, 0.5]
        """
        if self.kind == 'step':
            reached = [value for since, value in self.steps if since <= time]
            return reached[-1] if reached else self.steps[0][1]
        end = last if self.end is None else self.end
        # If training ends before the schedule begins, the value jumps at the end.
        way = (time - self.begin) / (end - self.begin) if end > self.begin else float(time >= end)
        way = min(max(way, 0.0), 1.0)
        if self.kind == 'cosine':
            way = (1 - math.cos(math.pi * way)) / 2
        # This form is exact at both ends.
        return (1 - way) * self.start + way * self.stop

    def before_train(self, runner: Any) -> None:
        """Check that the margin has the number and takes the values, and set the present one."""
        head = margin_head(runner.model, type(self).__name__)
        same = [
            hook
            for hook in runner.hooks
            if isinstance(hook, MarginScheduleHook) and hook.param == self.param
        ]
        if len(same) > 1:
            raise ValueError(
                f'{len(same)} MarginScheduleHook set {self.param!r}: leave one, with '
                "kind='step' or other begin and end"
            )
        if self.by_epoch:
            check_counts_epochs(runner)
        self._check_head(head)
        self._try_values(head, runner.max_epochs if self.by_epoch else runner.max_iters)
        self._set(head, self._present(runner))

    def before_train_iter(
        self, runner: Any, batch_idx: int, data_batch: dict[str, Any] | None = None
    ) -> None:
        """Set the number, and log it."""
        value = self._present(runner)
        self._set(margin_head(runner.model, type(self).__name__), value)
        runner.message_hub.update_scalar(f'train/margin_{self.param}', value)

    def _present(self, runner: Any) -> float:
        """Return the value at the present epoch, or step."""
        if self.by_epoch:
            return self.value_at(runner.epoch, runner.max_epochs - 1)
        return self.value_at(runner.iter, runner.max_iters - 1)

    def _try_values(self, head: MarginHead, times: int) -> None:
        """Set the values that decide whether the number takes all of them, before training.

        Limits are intervals, so that the first and the last value decide for those between. A
        number that must be whole is decided by the first change: if one step is whole, all are.
        """
        for value in self._values():
            self._set(head, value)
        time = self.begin + 1
        if self.steps or time >= times:
            return
        value = self.value_at(time, times - 1)
        try:
            self._set(head, value)
        except ValueError as error:
            unit = 'epochs' if self.by_epoch else 'steps'
            raise ValueError(
                f'{self.param} would become {value:.6g} after {time} {unit}: {error}. With '
                "kind='step' it takes the values given, none between"
            ) from error

    def _values(self) -> list[float]:
        """List the values that the options give."""
        return [value for _, value in self.steps] if self.steps else [self.start, self.stop]

    def _set(self, head: MarginHead, value: float) -> None:
        """Set the number of the head or of its margin."""
        if self.param == 'scale':
            head.scale = value
        else:
            assert head.margin is not None
            head.margin.set_margin(self.param, value)

    def _check_head(self, head: MarginHead) -> None:
        """Raise ValueError unless a schedule of the number makes sense for the margin."""
        name = type(head.margin).__name__
        if self.param == 'scale' and not getattr(head.margin, 'normalize_features', True):
            raise ValueError(
                f'{name} scores features of their own length and makes no use of scale: take the '
                'hook out'
            )
        current = getattr(head.margin, self.param, None)
        if isinstance(current, ClassMargins) and current.values is not None:
            raise ValueError(
                f'{self.param} of {name} has a value per class, which a schedule would make one '
                'for all: give it as one number, or take the hook out'
            )


def _number(name: str, value: Any) -> float:
    """Return a value as a float, after checking that it is a finite number."""
    if not is_real(value):
        raise TypeError(f'{name} must be a number, got {value!r}')
    check_number(name, value, 'finite', finite=True)
    return float(value)


def _checked_steps(values: Any) -> list[tuple[int, float]]:
    """Return the pairs (time, value) of 'step', after checking them."""
    if (
        not isinstance(values, Sequence)
        or not values
        or any(not isinstance(pair, Sequence) or len(pair) != 2 for pair in values)
    ):
        raise ValueError(
            f"kind='step' takes values=[(time, value), ...], at least one pair, got {values!r}"
        )
    steps = []
    for time, value in values:
        check_whole('a time in values', time, 0)
        steps.append((int(time), _number('a value in values', value)))
    times = [time for time, _ in steps]
    if times != sorted(set(times)):
        raise ValueError(f'times in values must ascend, got {times}')
    return steps
