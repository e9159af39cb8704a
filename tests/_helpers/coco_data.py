"""Data sets in COCO form that tests change: ours and mmdet's on the same files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset as MMDetCocoDataset
from mmdet.registry import DATASETS

from mmdet_ext.detection.datasets.coco import CocoDataset

CLASSES = ('circle', 'square', 'triangle')
TRAIN = 'annotations/instances_train.json'
Edit = Callable[[dict[str, Any]], None]


def options(data: Path, **more: Any) -> dict[str, Any]:
    """Return the options of both data sets, on the training part of ``data``."""
    return {
        'data_root': str(data),
        'ann_file': TRAIN,
        'data_prefix': {'img': 'images/train/'},
        'metainfo': {'classes': CLASSES},
        'pipeline': [],
        'filter_cfg': {'filter_empty_gt': True, 'min_size': 32},
        **more,
    }


def ours(data: Path, **more: Any) -> CocoDataset:
    """Build our data set as a config does, from the scope of mmdet."""
    return DATASETS.build({'type': 'mmdet_ext.CocoDataset', **options(data, **more)})


def stock(data: Path, **more: Any) -> MMDetCocoDataset:
    """Build mmdet's data set on the same files."""
    return MMDetCocoDataset(**options(data, **more))


def samples(dataset: MMDetCocoDataset) -> list[dict[str, Any]]:
    """Return all samples before the pipeline."""
    return [dataset.get_data_info(index) for index in range(len(dataset))]


def edit(data: Path, change: Edit) -> None:
    """Change the annotation file of training."""
    path = data / TRAIN
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def cut(path: Path) -> None:
    """Cut off the second half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def image_path(data: Path, number: int) -> Path:
    """Return the path of a training image."""
    return data / 'images' / 'train' / f'{number:06d}.jpg'
