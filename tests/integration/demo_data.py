"""Data sets of shapes with changes, and the configs and boxes that the demo makes of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmdet_ext.data.coco.training_sets import TrainingSets, read_training_sets
from mmdet_ext.studies.detection_demo import write_config
from tests._helpers.tools import load_tool

demo = load_tool('train/demo.py')

#: Change of the contents of an annotation file, in place.
Edit = Callable[[dict[str, Any]], Any]
#: Image id, box and class name.
NamedBox = tuple[int, list[float], str]


def coco(root: Path, split: str) -> dict[str, Any]:
    """Read the annotation file of a split."""
    return dict(json.loads((root / 'annotations' / f'instances_{split}.json').read_text()))


def copied(shapes_root: Path, root: Path) -> Path:
    """Copy the set of shapes to ``root``, once."""
    if not root.exists():
        shutil.copytree(shapes_root, root)
    return root


def edited(shapes_root: Path, tmp_path: Path, split: str, change: Edit) -> Path:
    """Copy the set of shapes with one annotation file changed."""
    root = copied(shapes_root, tmp_path / 'own')
    content = coco(root, split)
    change(content)
    (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))
    return root


def demo_config(data: TrainingSets, work_dir: Path) -> Config:
    """Write the demo's config of some data, and read it."""
    return Config.fromfile(write_config(demo.CONFIG, data, work_dir, seed=0))


def prepared(folder: Path, work_dir: Path) -> Config:
    """Read a user's folder as the demo does, and return the demo's config."""
    return demo_config(read_training_sets(folder, work_dir / 'data', seed=0), work_dir)


def named_boxes(content: dict[str, Any]) -> list[NamedBox]:
    """Return image id, box as x, y, width, height, and class name of each annotation."""
    names = {entry['id']: entry['name'] for entry in content['categories']}
    return [(b['image_id'], b['bbox'], names[b['category_id']]) for b in content['annotations']]


def corners(boxes: list[NamedBox]) -> list[NamedBox]:
    """Convert boxes from x, y, width, height to corners."""
    return [(i, [x, y, x + w, y + h], name) for i, (x, y, w, h), name in boxes]


def built(config: Config, which: str) -> tuple[Any, list[NamedBox]]:
    """Build a data set of a config; return it with its boxes and the names of their labels."""
    from mmdet.registry import DATASETS

    options = config[f'{which}_dataloader'].dataset
    dataset = DATASETS.build({**options, 'pipeline': [], 'test_mode': True})
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    return dataset, [
        (info['img_id'], box['bbox'], dataset.metainfo['classes'][box['bbox_label']])
        for info in infos
        for box in info['instances']
    ]
