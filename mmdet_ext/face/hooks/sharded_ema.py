"""Hook that averages weights in a training with sharded classes."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import EMAHook

from mmdet_ext.face.sharding.shards import writing_shards
from mmdet_ext.registry import HOOKS


@HOOKS.register_module()
class ShardedEMAHook(EMAHook):  # type: ignore[misc]
    """MMEngine's ``EMAHook`` for heads with sharded classes: each process averages its classes.

    ``EMAHook`` asks the model for its state, which such a head refuses in several processes outside
    of a checkpoint. This hook differs in that alone. ``ShardedCheckpointHook`` saves the average.

    Args:
        ema_type: 'ExponentialMovingAverage', or another average of MMEngine.
        momentum: share of the newest weights in the average, above 0 and below 1.
        update_buffers: whether buffers are averaged too, as centres with ``sample_rate`` below 1.
        interval: steps from one update to the next.
        begin_iter: step from which the average is updated; before, it follows the weights.
        begin_epoch: the same, as an epoch; one of both is 0.
        strict_load: whether a checkpoint must have every weight of the average.
        gamma: of 'ExpMomentumEMA'; None for its default.
    """

    def __init__(
        self,
        ema_type: str = 'ExponentialMovingAverage',
        momentum: float = 0.0002,
        update_buffers: bool = False,
        interval: int = 1,
        begin_iter: int = 0,
        begin_epoch: int = 0,
        strict_load: bool = False,
        gamma: int | None = None,
    ) -> None:
        options: dict[str, Any] = {} if gamma is None else {'gamma': gamma}
        super().__init__(
            ema_type,
            strict_load,
            begin_iter,
            begin_epoch,
            momentum=momentum,
            update_buffers=update_buffers,
            interval=interval,
            **options,
        )

    def before_run(self, runner: Any) -> None:
        """Make the average from a copy of the model."""
        with writing_shards():
            super().before_run(runner)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Update the average."""
        with writing_shards():
            super().after_train_iter(runner, batch_idx, data_batch, outputs)
