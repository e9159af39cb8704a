"""Configs made small: any leaf trains two iterations on a CPU, on a few drawn shapes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'

#: Longer and shorter side, px, that pictures are resized to.
SCALE = (96, 72)
ITERATIONS = 2
BATCH_SIZE = 2


def leaf_configs() -> list[Path]:
    """All configs of the checkout that can be trained, i.e. all but the fragments.

    Raises:
        FileNotFoundError: if there are none, as in an installed package.
    """
    found = sorted(p for p in CONFIGS.rglob('*.py') if '_base_' not in p.parts)
    if not found:
        raise FileNotFoundError(f'no configs in {CONFIGS}: they are found in a checkout only')
    return found


def shrink(config: str | Path, data_root: str | Path, **options: Any) -> Config:
    """Load a detection config, made small enough for a test and otherwise as it is.

    Data, sizes and lengths change; types, losses, assigners, optimiser and hooks do not. An epoch
    is two iterations of two pictures, there is one epoch, and validation takes two pictures. No
    score is too low for a detection, so that an untrained model has some to evaluate.

    Args:
        config: a leaf config.
        data_root: folder that `mmdet_ext.datasets.shapes.make_shapes` wrote.
        **options: what to set afterwards, by dotted key as for ``--cfg-options``.

    Returns:
        Config: to be given a ``work_dir``.
    """
    cfg = Config.fromfile(config)
    root = Path(data_root)
    classes = _class_names(root / 'annotations' / 'instances_train.json')
    for split in ('train', 'val', 'test'):
        loader, evaluator = cfg.get(f'{split}_dataloader'), cfg.get(f'{split}_evaluator')
        # The drawn set has two parts.
        part = 'train' if split == 'train' else 'val'
        pictures = ITERATIONS * BATCH_SIZE if split == 'train' else ITERATIONS
        if loader is not None:
            loader.update(num_workers=0, persistent_workers=False)
            if split == 'train':
                loader.batch_size = BATCH_SIZE
            for dataset in _dicts_with(loader, 'ann_file'):
                dataset.update(
                    data_root=str(root),
                    ann_file=f'annotations/instances_{part}.json',
                    data_prefix=dict(img=f'images/{part}/'),
                    metainfo=dict(classes=classes),
                    indices=pictures,
                )
        for metric in _dicts_with(evaluator, 'ann_file'):
            metric.ann_file = str(root / 'annotations' / f'instances_{part}.json')
    _shrink_everywhere(cfg, len(classes))
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.default_hooks.logger.interval = 1
    cfg.log_level = 'WARNING'
    # The runner names its logger, hub and visualizer by the experiment: several runners of one
    # process must share none.
    cfg.experiment_name = f'{Path(config).stem}-{uuid.uuid4().hex[:8]}'
    cfg.visualizer.pop('name', None)
    cfg.merge_from_dict(options)
    return cfg


def _shrink_everywhere(cfg: Config, num_classes: int) -> None:
    for part in _dicts_with(cfg, 'num_classes'):
        part.num_classes = num_classes
    for part in _dicts_with(cfg, 'init_cfg'):
        if part.init_cfg is not None and part.init_cfg.get('type') == 'Pretrained':
            part.init_cfg = None
    for part in _dicts_with(cfg, 'scale'):
        # One that does not keep the ratio feeds a network of one input size.
        if str(part.get('type')).endswith('Resize') and part.get('keep_ratio', False):
            part.scale = SCALE
    for part in _dicts_with(cfg, 'times'):
        part.times = 1
    for part in _dicts_with(cfg, 'score_thr'):
        part.score_thr = 0.0
    for key, most in (('nms_pre', 100), ('max_per_img', 50), ('fc_out_channels', 64)):
        for part in _dicts_with(cfg, key):
            part[key] = min(part[key], most)


def _class_names(path: Path) -> tuple[str, ...]:
    content = json.loads(path.read_text(encoding='utf-8'))
    return tuple(category['name'] for category in content['categories'])


def _dicts_with(node: Any, key: str) -> Iterator[Any]:
    """All dicts that have the key, in a config however deep."""
    if isinstance(node, Config):
        node = node._cfg_dict
    if isinstance(node, dict):
        if key in node:
            yield node
        children = list(node.values())
    else:
        children = list(node) if isinstance(node, (list, tuple)) else []
    for child in children:
        yield from _dicts_with(child, key)
