"""Hook that gives a dense head another assigner during training."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook

from mmdet_ext.detection.heads.dense.fitting import check_fits
from mmdet_ext.engine.loops import check_counts_epochs, unwrapped
from mmdet_ext.functional.numerics.checks import check_count
from mmdet_ext.registry import HOOKS, TASK_UTILS


@HOOKS.register_module()
class AssignerSwitchHook(Hook):  # type: ignore[misc]
    """Hook that gives the dense head another assigner from an epoch, or step, on.

    A rule that chooses priors by what the head predicts chooses poorly in the first epochs, when
    the predictions are poor; small boxes then get one prior each, or none that teaches. A rule by
    geometry alone, such as `ATSSAssigner`, has no such phase, but knows nothing of the predictions
    later. With this hook the first is followed by the second, as TOOD does within its head::

        model = dict(train_cfg=dict(assigner=dict(type='mmdet_ext.ATSSAssigner')))
        custom_hooks = [
            dict(
                type='mmdet_ext.AssignerSwitchHook',
                begin=5,
                assigner=dict(type='mmdet_ext.DynamicSoftLabelAssigner'),
            )
        ]

    The assigner of ``train_cfg`` decides before ``begin``. The present epoch, or step, alone
    decides, so that resumed training goes on as if it had not stopped.

    Args:
        begin: first epoch, or step, of the other assigner, counted from 0, at least 1.
        assigner: its config.
        by_epoch: whether ``begin`` is an epoch instead of a step.

    Raises:
        ValueError: for a ``begin`` below 1. Before training: if the model has no dense head with an
            assigner, if the head cannot take this one, or if the loop counts steps alone and
            ``by_epoch`` is set.

    References:
        Feng et al., TOOD: Task-aligned One-stage Object Detection, 2021, whose published code
        assigns by ATSS in the first epochs.
    """

    def __init__(self, begin: int, assigner: Any, by_epoch: bool = True) -> None:
        check_count('begin', begin)
        self.begin, self.assigner, self.by_epoch = begin, assigner, by_epoch
        self._built: Any = None

    def before_train(self, runner: Any) -> None:
        """Build the assigner, and compare it with the head."""
        if self.by_epoch:
            check_counts_epochs(runner)
        head = _assigning_head(runner.model)
        self._built = TASK_UTILS.build(self.assigner)
        if hasattr(head, 'gives_points'):
            check_fits(head, self._built)

    def before_train_iter(
        self, runner: Any, batch_idx: int, data_batch: dict[str, Any] | None = None
    ) -> None:
        """Give the head its assigner, once its time has come."""
        head = _assigning_head(runner.model)
        time, unit = (runner.epoch, 'epoch') if self.by_epoch else (runner.iter, 'step')
        if time >= self.begin and head.assigner is not self._built:
            head.assigner = self._built
            name = type(self._built).__name__
            runner.logger.info(f'{type(head).__name__} takes {name} from {unit} {time + 1} on')


def _assigning_head(model: Any) -> Any:
    """Return the ``bbox_head`` of a model, which must have an assigner.

    Raises:
        ValueError: if the head is absent, or has no assigner.
    """
    model = unwrapped(model)
    head = getattr(model, 'bbox_head', None)
    if getattr(head, 'assigner', None) is not None:
        return head
    found = 'no bbox_head' if head is None else f'{type(head).__name__}, which has none'
    raise ValueError(
        'AssignerSwitchHook needs a detector whose bbox_head has an assigner (train_cfg=dict('
        f'assigner=...)); {type(model).__name__} has {found}'
    )
