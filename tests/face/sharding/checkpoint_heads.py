"""Runs with `ShardedMarginHead` that resume; `test_checkpoints_heads.py` reads the results.

Usage: python checkpoint_heads.py FOLDER
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner, load_checkpoint
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from mmdet_ext.face.sharding.checkpoints import Peers, export_checkpoint
from tests.face.sharding.checkpoint_worlds import run_world
from tests.face.sharding.scenarios import BATCH, CHANNELS, Faces, Rows

STEPS, HALF = 8, 4
CASES: dict[str, dict[str, Any]] = {
    'sub-centres': dict(num_subcenters=2, margin=dict(type='AdaFace')),
    'sampled': dict(sample_rate=0.4, margin=dict(type='CurricularFace')),
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    'sub-centres': dict(type='SGD', lr=0.5, momentum=0.9, weight_decay=0.01),
    'sampled': dict(type='AdamW', lr=0.05),
}


def head_of(case: str, kind: str = 'ShardedMarginHead', **more: Any) -> dict[str, Any]:
    """Return the config of a head of ten classes."""
    sizes = dict(num_classes=10, in_channels=CHANNELS, scale=16.0)
    return dict(type=f'mmdet_ext.{kind}', **sizes, **CASES[case], **more)


def trained(folder: Path, case: str, options: dict[str, Any], rank: int) -> dict[str, Tensor]:
    """Train under MMEngine's runner, and return the values of this process at the end."""
    peers = Peers()
    os.environ['LOCAL_RANK'] = str(rank)
    cfg = dict(
        model=dict(type='Faces', head=head_of(case)),
        model_wrapper_cfg=dict(type='mmdet_ext.ShardedHeadDDP'),
        train_dataloader=dict(
            dataset=dict(type='Rows', steps=STEPS),
            batch_size=BATCH // peers.count,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        train_cfg=dict(by_epoch=False, max_iters=STEPS),
        optim_wrapper=dict(optimizer=OPTIMIZERS[case], clip_grad=dict(max_norm=0.5)),
        param_scheduler=[dict(type='CosineAnnealingLR', T_max=STEPS, by_epoch=False)],
        default_hooks=dict(
            checkpoint=dict(
                type='mmdet_ext.ShardedCheckpointHook',
                interval=HALF,
                by_epoch=False,
                async_save=case == 'sampled',
            )
        ),
        custom_hooks=[dict(type='mmdet_ext.ShardedEMAHook', momentum=0.25, update_buffers=True)],
        randomness=dict(seed=7),
        launcher='none' if peers.count == 1 else 'pytorch',
        work_dir=str(folder),
        experiment_name=f'{folder.name}_{peers.count}',
        log_level='WARNING',
        **options,
    )
    runner = Runner.from_cfg(Config(cfg))
    model: Any = runner.train()
    model = getattr(model, 'module', model)
    found = {'head.weight': model.head.weight}
    (average,) = (hook for hook in runner.hooks if type(hook).__name__ == 'ShardedEMAHook')
    found['head.ema'] = average.ema_model.module.head.weight
    found['layer.ema'] = average.ema_model.module.layer.weight
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if name not in ('head.weight', 'head.weight_drawn'):
            found[name.replace('head.', 'of_head.')] = value
        for item, entry in runner.optim_wrapper.optimizer.state.get(value, {}).items():
            found[f'{name}.{item}'] = torch.as_tensor(entry)
    return {name: value.detach().clone() for name, value in found.items()}


def joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the values of all processes: rows of classes in turn, others of the first."""
    return {
        name: torch.cat([part[name] for part in parts])
        if name.startswith('head.') and value.dim()
        else value
        for name, value in parts[0].items()
    }


def exported(folder: Path, case: str) -> dict[str, Any]:
    """Load exports of a checkpoint into models for one process, as ``mim test`` does."""
    latest = folder / 'sharded' / f'iter_{STEPS}'
    found: dict[str, Any] = {}
    for centers in (False, True):
        path = folder / f'plain_{centers}.pth'
        names = export_checkpoint(latest, path, centers)
        model = Faces(head_of(case, 'MarginHead'))
        load_checkpoint(model, str(path))
        found[f'names {centers}'] = names
        found[f'layer {centers}'] = model.layer.weight.detach()
        found[f'centres {centers}'] = model.head.weight.detach()
    return found


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    MODELS.register_module(module=Faces)
    DATASETS.register_module(module=Rows)
    # What a run imports takes seconds: import it before the forks.
    trained(folder / 'first', 'sampled', {}, 0)
    results: dict[str, Any] = {}
    for case in CASES:
        whole = folder / f'{case}_whole'
        work = partial(trained, whole, case, {})
        results[case] = joined(run_world(4, work, folder / f'{case}_of_whole'))
        half = dict(resume=True, load_from=str(whole / 'sharded' / f'iter_{HALF}'))
        for count in (3, 1):
            name = f'{case}_{count}'
            work = partial(trained, folder / name, case, half)
            results[f'{case}/{count}'] = joined(run_world(count, work, folder / f'{name}_of'))
        results[f'{case}/exported'] = exported(whole, case)
    torch.save(results, folder / 'results.pt')


if __name__ == '__main__':
    main(Path(sys.argv[1]))
