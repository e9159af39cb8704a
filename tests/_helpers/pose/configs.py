"""Small configs of pose: any leaf trains two iterations on a CPU, on a few made figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config

from tests._helpers import configs as helpers

#: Width and height of the network's input, px. HRNet needs a multiple of 32.
INPUT = (96, 96)


def shrink_pose(config: str | Path, data_root: str | Path, **options: Any) -> Config:
    """Load a config of pose, and make it small enough for a test.

    Data, sizes and lengths change; types, losses, heads, optimiser and hooks do not. There is one
    epoch of two iterations with two images, and validation takes two images. An HRNet has one block
    per branch, and no weights are fetched.

    Args:
        config: a leaf config.
        data_root: folder written by `mmdet_ext.data.synthetic.stick_figures.make_stick_figures`.
        **options: options to set afterwards, by dotted key as in ``--cfg-options``.

    Returns:
        Config: the config, which needs a ``work_dir``.
    """
    cfg = Config.fromfile(config)
    for split in ('train', 'val', 'test'):
        loader, part = cfg[f'{split}_dataloader'], 'train' if split == 'train' else 'val'
        loader.update(num_workers=0, persistent_workers=False)
        if split == 'train':
            loader.batch_size = helpers.BATCH_SIZE
        loader.dataset.update(
            data_root=str(data_root),
            ann_file=f'annotations/keypoints_{part}.json',
            data_prefix=dict(img=f'images/{part}/'),
            indices=helpers.ITERATIONS * (helpers.BATCH_SIZE if split == 'train' else 1),
        )
        if split != 'train':
            annotations = Path(data_root) / 'annotations' / f'keypoints_{part}.json'
            cfg[f'{split}_evaluator'].ann_file = str(annotations)
    for part in helpers._dicts_with(cfg, 'input_size'):
        part.input_size = INPUT
    for part in helpers._dicts_with(cfg, 'size_factor'):
        part.size_factor = 32
    for part in helpers._dicts_with(cfg, 'heatmap_size'):
        stride = 1 if cfg.model.test_cfg.get('restore_heatmap_size') else 4
        part.heatmap_size = tuple(side // stride for side in INPUT)
    for part in helpers._dicts_with(cfg.train_dataloader, 'heatmap_size'):
        part.heatmap_size = tuple(side // 4 for side in INPUT)
    for part in helpers._dicts_with(cfg.model, 'num_blocks'):
        part.update(num_modules=1, num_blocks=(1,) * len(part.num_blocks))
    helpers._drop_pretrained(cfg)
    cfg.randomness = dict(seed=0)
    helpers._one_epoch(cfg, Path(config).stem)
    cfg.merge_from_dict(options)
    return cfg
