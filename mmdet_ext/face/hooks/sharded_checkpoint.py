"""Hook that saves and resumes a training with sharded classes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import mmengine
from mmengine.hooks import Hook

from mmdet_ext.engine.loops import check_counts_epochs, unwrapped
from mmdet_ext.face.sharding.checkpoint_folders import (
    complete_folders,
    read_manifest,
    remove_leftovers,
    set_damaged_aside,
)
from mmdet_ext.face.sharding.checkpoints import (
    CheckpointWriter,
    Peers,
    describe,
    latest_checkpoint,
    read_checkpoint,
    restore,
    take_state,
)
from mmdet_ext.face.sharding.shards import writing_shards
from mmdet_ext.functional.numerics.checks import check_that, check_whole
from mmdet_ext.registry import HOOKS


@HOOKS.register_module()
class ShardedCheckpointHook(Hook):  # type: ignore[misc]
    """Hook that saves checkpoints to which each process adds its classes, and resumes from them.

    It takes the place of MMEngine's ``CheckpointHook`` for a head whose centres are split over the
    processes: ``default_hooks = dict(checkpoint=dict(type='mmdet_ext.ShardedCheckpointHook'))``.
    Checkpoints are folders ``epoch_3`` or ``iter_2000`` of ``<work_dir>/sharded``. They hold what
    MMEngine's hold: the model, optimizers, schedules, the message hub, epoch and step, and what
    other hooks add. With ``resume=True`` training goes on from the latest complete one, or from the
    folder ``load_from``, with any number of processes; ``load_from`` alone loads the weights, also
    for a test.

    Models without sharded classes are saved in the same way.

    Args:
        interval: epochs (or steps) from one checkpoint to the next, at least 1; -1 saves none but
            the last.
        by_epoch: whether ``interval`` counts epochs instead of steps.
        max_keep_ckpts: number of checkpoints to keep, at least 1; -1 keeps all.
        async_save: whether a thread writes while training goes on. The state is copied to the
            memory of the CPU first, and the next checkpoint waits for the one before.
        out_dir: folder for checkpoints in place of the ``work_dir``; the last part of the
            ``work_dir`` is added to it. All machines must share the disk.
        save_last: whether the state at the end of training is saved too.

    Raises:
        ValueError: for options out of range. Before training: if the folder holds checkpoints of
            later steps than training begins with, or if a checkpoint does not fit.
        RuntimeError: if a checkpoint could not be written or read by one of the processes; with
            ``async_save`` at the next checkpoint or the end of training.
    """

    priority = 'VERY_LOW'

    def __init__(
        self,
        interval: int = 1,
        by_epoch: bool = True,
        max_keep_ckpts: int = -1,
        async_save: bool = False,
        out_dir: str | None = None,
        save_last: bool = True,
    ) -> None:
        for name, value in (('interval', interval), ('max_keep_ckpts', max_keep_ckpts)):
            check_whole(name, value, -1)
            check_that(value != 0, name, value, 'at least 1, or -1')
        self.interval, self.by_epoch = interval, by_epoch
        self.max_keep_ckpts, self.async_save = max_keep_ckpts, async_save
        self.out_dir, self.save_last = out_dir, save_last
        self._peers: Peers | None = None
        self._writer: CheckpointWriter | None = None

    def root(self, runner: Any) -> Path:
        """Return the folder of a run's checkpoints."""
        work_dir = Path(runner.work_dir)
        base = work_dir if self.out_dir is None else Path(self.out_dir) / work_dir.name
        return base / 'sharded'

    def before_run(self, runner: Any) -> None:
        """Take over from the runner what is to be loaded or resumed, if that is a folder.

        The runner looks for a file. It is given another ``load_or_resume``, because only there
        weights are initialised, and the numbers of steps are not yet in use.
        """
        if self._peers is None:
            self._peers = Peers()
        if runner._has_loaded:
            return
        folder: Path | None = None
        if runner._load_from is not None:
            folder = Path(runner._load_from)
            if not folder.is_dir():
                return
        elif not runner._resume:
            return
        else:
            folder = self._latest(runner)
        resume = runner._resume
        stock = runner.load_or_resume

        def load_or_resume() -> None:
            runner.load_or_resume = stock
            if folder is not None:
                self._load(runner, folder, resume)
            runner._has_loaded = True

        runner.load_or_resume = load_or_resume

    def _latest(self, runner: Any) -> Path | None:
        """Return the checkpoint from which all processes resume."""
        root, found = self.root(runner), None
        assert self._peers is not None
        with self._peers.together():
            if self._peers.rank == 0:
                for line in complete_folders(root)[1].values():
                    runner.logger.warning(f'ignored a damaged checkpoint: {line}')
                found = latest_checkpoint(root)
        found = self._peers.gather(found)[0]
        if found is None:
            runner.logger.info(f'no complete checkpoint in {root}: training starts anew')
        return found

    def _load(self, runner: Any, folder: Path, resume: bool) -> None:
        """Load a checkpoint into the model, and for ``resume`` into all of the training."""
        assert self._peers is not None
        model = unwrapped(runner.model)
        state = read_checkpoint(folder, model, self._peers, model_only=not resume)
        if resume:
            with self._peers.together():
                _check_schedulers(runner.param_schedulers, state.content, folder)
        restore(
            model,
            state,
            self._peers,
            folder,
            runner.optim_wrapper if resume else None,
            lambda checkpoint: runner.call_hook('after_load_checkpoint', checkpoint=checkpoint),
        )
        if not resume:
            runner.logger.info(f'loaded the weights of {folder}')
            return
        content = state.content
        manifest = read_manifest(folder)
        runner.train_loop._epoch, runner.train_loop._iter = manifest.epoch, manifest.iter
        _resume_seed(runner, content['meta'].get('seed'))
        runner.message_hub.load_state_dict(content['message_hub'])
        stored = _by_name(content.get('param_schedulers'))
        for name, schedulers in _by_name(runner.param_schedulers).items():
            for scheduler, values in zip(schedulers, stored[name], strict=True):
                scheduler.load_state_dict(values)
        runner.logger.info(
            f'resumed from {folder}, written by {manifest.processes} process(es): epoch '
            f'{manifest.epoch}, step {manifest.iter}'
        )

    def before_train(self, runner: Any) -> None:
        """Remove what a killed run left behind, and check that the folder fits the run."""
        assert self._peers is not None
        if self.by_epoch:
            check_counts_epochs(runner)
        root = self.root(runner)
        with self._peers.together():
            if self._peers.rank == 0:
                for name in remove_leftovers(root):
                    runner.logger.warning(f'removed the incomplete checkpoint {root / name}')
                for line in set_damaged_aside(root):
                    runner.logger.warning(f'set a damaged checkpoint aside: {line}')
                later = [
                    folder.name
                    for folder, manifest in complete_folders(root)[0].items()
                    if manifest.iter > runner.iter
                ]
                if later:
                    raise ValueError(
                        f'training begins at step {runner.iter}, and {root} has later checkpoints '
                        f'of another run: {", ".join(later)}. Resume from the latest '
                        '(resume=True), take another work_dir or out_dir, or move them away'
                    )
        self._writer = CheckpointWriter(
            root, self._peers, self.max_keep_ckpts, self.async_save, runner.logger.info
        )

    def after_train_epoch(self, runner: Any) -> None:
        """Save a checkpoint after every ``interval`` epochs, and after the last."""
        if self.by_epoch and self._is_due(runner.epoch + 1, runner.max_epochs):
            self._save(runner, f'epoch_{runner.epoch + 1}', runner.epoch + 1, runner.iter)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Save a checkpoint after every ``interval`` steps, and after the last."""
        if not self.by_epoch and self._is_due(runner.iter + 1, runner.max_iters):
            self._save(runner, f'iter_{runner.iter + 1}', runner.epoch, runner.iter + 1)

    def _is_due(self, time: int, last: int) -> bool:
        every = self.interval > 0 and time % self.interval == 0
        return every or (self.save_last and time == last)

    def _save(self, runner: Any, name: str, epoch: int, steps: int) -> None:
        """Save the state of a runner."""
        assert self._peers is not None and self._writer is not None
        self._writer.wait()
        model = unwrapped(runner.model)
        with writing_shards():
            content = {
                'meta': _meta(runner, epoch, steps),
                'state_dict': model.state_dict(),
                'message_hub': runner.message_hub.state_dict(),
                'param_schedulers': _scheduler_states(runner.param_schedulers),
            }
            runner.call_hook('before_save_checkpoint', checkpoint=content)
        state = take_state(model, content, runner.optim_wrapper, self._peers)
        self._writer.write(name, state, describe(model, epoch, steps, self._peers))

    def after_train(self, runner: Any) -> None:
        """Wait for the checkpoint in the background."""
        if self._writer is not None:
            self._writer.wait()


def _meta(runner: Any, epoch: int, steps: int) -> dict[str, Any]:
    """Return the meta information of MMEngine's checkpoints."""
    meta = {
        'epoch': epoch,
        'iter': steps,
        'cfg': runner.cfg.pretty_text,
        'seed': runner.seed,
        'experiment_name': runner.experiment_name,
        'time': time.strftime('%Y%m%d_%H%M%S', time.localtime()),
        'mmengine_version': mmengine.__version__,
    }
    dataset = runner.train_dataloader.dataset
    if hasattr(dataset, 'metainfo'):
        meta['dataset_meta'] = dataset.metainfo
    return meta


def _by_name(schedulers: Any) -> dict[str, list[Any]]:
    """Return schedules by the name of the optimizer; '' for a single one."""
    if isinstance(schedulers, dict):
        return schedulers
    return {'': list(schedulers or [])}


def _scheduler_states(schedulers: Any) -> dict[str, list[Any]]:
    return {
        name: [scheduler.state_dict() for scheduler in each]
        for name, each in _by_name(schedulers).items()
    }


def _check_schedulers(schedulers: Any, content: dict[str, Any], folder: Path) -> None:
    """Raise ValueError unless a checkpoint has as many schedules as the training."""
    here = {name: len(each) for name, each in _by_name(schedulers).items()}
    there = {name: len(each) for name, each in _by_name(content.get('param_schedulers')).items()}
    if here != there:
        raise ValueError(
            f'{folder} has the numbers {there} of param_scheduler, this training {here}; nothing '
            'was loaded. Resume with the same schedules'
        )


def _resume_seed(runner: Any, seed: int | None) -> None:
    """Use the seed of a checkpoint, as MMEngine does."""
    if seed is None or seed == runner._randomness_cfg.get('seed'):
        return
    runner.logger.warning(f'the seed is {seed}, that of the checkpoint')
    runner._randomness_cfg.update(seed=seed)
    runner.set_randomness(**runner._randomness_cfg)
