"""Leaf configs for InsightFace's data: identities, backbone, margin and schedule of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS as HOST_MODELS
from mmengine.registry import DefaultScope

from mmdet_ext.registry import MODELS
from tests._helpers.backbones import PARAMETERS, count
from tests._helpers.configs import CONFIGS

FACE = sorted(
    path
    for folder in ('ms1mv3', 'glint360k', 'webface')
    for path in (CONFIGS / 'face' / folder).glob('*.py')
)


# Contents of each leaf config: identities, parameters of the backbone, margin, learning rate,
# weight decay, epochs, folder.
LEAVES: dict[str, tuple[Any, ...]] = {
    'arcface_iresnet50_8xb128_ms1mv3': (93431, PARAMETERS[50], 'ArcFace', 0.1, 5e-4, 20, 'ms1mv3'),
    'arcface_iresnet50_1xb128_ms1mv3': (93431, PARAMETERS[50], 'ArcFace', 0.02, 5e-4, 20, 'ms1mv3'),
    'arcface_iresnet50_pfc01_1xb128_ms1mv3': (
        93431,
        PARAMETERS[50],
        'ArcFace',
        0.02,
        5e-4,
        20,
        'ms1mv3',
    ),
    'arcface_iresnet50_sharded_8xb128_ms1mv3': (
        93431,
        PARAMETERS[50],
        'ArcFace',
        0.1,
        5e-4,
        20,
        'ms1mv3',
    ),
    'arcface_iresnet100_8xb128_ms1mv3': (
        93431,
        PARAMETERS[100],
        'ArcFace',
        0.1,
        5e-4,
        20,
        'ms1mv3',
    ),
    'cosface_iresnet100_8xb128_ms1mv3': (
        93431,
        PARAMETERS[100],
        'CosFace',
        0.1,
        5e-4,
        20,
        'ms1mv3',
    ),
    'arcface_mobilefacenet_8xb128_ms1mv3': (93431, 1_003_136, 'ArcFace', 0.1, 1e-4, 40, 'ms1mv3'),
    'cosface_iresnet50_8xb128_glint360k': (
        360232,
        PARAMETERS[50],
        'CosFace',
        0.1,
        1e-4,
        20,
        'glint360k',
    ),
    'cosface_iresnet100_8xb128_glint360k': (
        360232,
        PARAMETERS[100],
        'CosFace',
        0.1,
        1e-4,
        20,
        'glint360k',
    ),
    'cosface_iresnet50_8xb128_webface12m': (
        617970,
        PARAMETERS[50],
        'CosFace',
        0.1,
        5e-4,
        20,
        'webface12m',
    ),
    'cosface_iresnet100_8xb128_webface42m': (
        2059906,
        PARAMETERS[100],
        'CosFace',
        0.1,
        5e-4,
        20,
        'webface42m',
    ),
}
MARGINS = {'ArcFace': 0.5, 'CosFace': 0.4}


def test_table_lists_every_leaf_config() -> None:
    assert sorted(path.stem for path in FACE) == sorted(LEAVES)


@pytest.mark.parametrize('path', FACE, ids=lambda path: path.stem)
def test_leaf_config_matches_its_name(path: Path) -> None:
    classes, parameters, margin, rate, decay, epochs, folder = LEAVES[path.stem]
    cfg = Config.fromfile(path)
    assert cfg.default_scope == 'mmpretrain'
    preprocessor = MODELS.build(cfg.model.pop('data_preprocessor'))
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmpretrain'):
        model = HOST_MODELS.build({**cfg.model, 'data_preprocessor': preprocessor})
    backbone, head = model.backbone, cfg.model.head
    assert count(backbone) == parameters
    assert tuple(model.head.weight.shape) == (classes, backbone.num_features)
    assert (head.type, head.num_classes, head.in_channels, head.scale) == (
        'mmdet_ext.ShardedMarginHead' if 'sharded' in path.stem else 'mmdet_ext.MarginHead',
        classes,
        backbone.num_features,
        64,
    )
    assert head.margin == dict(type=margin, m=MARGINS[margin])
    assert cfg.model.neck is None
    # InsightFace divides by 127.5, and the paper of MobileFaceNet by 128.
    assert preprocessor.mean.unique().tolist() == [127.5]
    assert preprocessor.std.unique().tolist() == [127.5 if 'iresnet' in path.stem else 128.0]
    wrapper = cfg.optim_wrapper
    assert (wrapper.optimizer.lr, wrapper.optimizer.weight_decay) == (rate, decay)
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[0].end == epochs
    assert cfg.param_scheduler[0].power == 2
    devices = 8 if '8xb128' in path.stem else 1
    assert cfg.auto_scale_lr.base_batch_size == devices * cfg.train_dataloader.batch_size
    assert cfg.train_dataloader.batch_size == 128
    for part, kind in [('train', 'Record'), ('val', 'Pairs'), ('test', 'Pairs')]:
        dataset = cfg[f'{part}_dataloader'].dataset
        assert dataset.type == f'mmdet_ext.Face{kind}Dataset'
        assert dataset.data_root == f'data/{folder}/'
        assert dataset.get('ann_file') == (None if part == 'train' else 'lfw.bin')
