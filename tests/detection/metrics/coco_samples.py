"""A made data set in COCO's form, and data samples with detections of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from mmengine.structures import InstanceData
from pycocotools import mask as mask_api

SIDE = 120
CLASSES = ('cat', 'dog', 'emu')
#: Ids of the classes, which do not ascend in the file, and one category that no class has.
CATEGORIES = {'dog': 8, 'other': 5, 'cat': 3, 'emu': 6}


def drawn(box: Any) -> np.ndarray:
    """Return the ellipse in a box as a mask."""
    left, top, right, bottom = (float(value) for value in box)
    y, x = np.mgrid[:SIDE, :SIDE]
    across = (x - (left + right) / 2) / max((right - left) / 2, 1)
    down = (y - (top + bottom) / 2) / max((bottom - top) / 2, 1)
    return across**2 + down**2 <= 1


def encoded(mask: np.ndarray) -> dict[str, Any]:
    """Return a mask as run lengths for a json file."""
    rle = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {'size': rle['size'], 'counts': rle['counts'].decode()}


def content(images: int = 10, boxes: int = 5, seed: int = 0, ascending: bool = True) -> Any:
    """Make annotations with masks, crowds, and boxes of a category that no class has."""
    generator = np.random.default_rng(seed)
    ids = sorted(CATEGORIES.values())
    categories = {name: ids[k] for k, name in enumerate((*CLASSES, 'other'))}
    categories = categories if ascending else CATEGORIES
    annotations = []
    for image in range(images):
        for _ in range(boxes):
            corner = generator.uniform(0, SIDE - 50, 2)
            box = np.concatenate([corner, corner + generator.uniform(10, 50, 2)]).round(1)
            left, top, right, bottom = box.tolist()
            mask = drawn(box)
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': 10 * image + 3,
                    'category_id': int(generator.choice(list(categories.values()))),
                    'bbox': [left, top, right - left, bottom - top],
                    'area': float(mask.sum()),
                    'iscrowd': int(generator.random() < 0.1),
                    'segmentation': encoded(mask),
                }
            )
    return {
        'images': [
            {'id': 10 * image + 3, 'file_name': f'{image}.png', 'height': SIDE, 'width': SIDE}
            for image in reversed(range(images))
        ],
        'categories': [{'id': number, 'name': name} for name, number in categories.items()],
        'annotations': annotations,
    }


def written(path: Path, annotations: Any) -> str:
    path.write_text(json.dumps(annotations), 'utf-8')
    return str(path)


def samples_of(annotations: Any, seed: int = 1, masks: bool = False) -> list[dict[str, Any]]:
    """Make data samples: two detections near each box and three elsewhere, in tenths of scores.

    A label counts the classes in the order of the file.
    """
    generator = np.random.default_rng(seed)
    order = [each['id'] for each in annotations['categories'] if each['name'] in CLASSES]
    samples = []
    for image in annotations['images']:
        mine = [each for each in annotations['annotations'] if each['image_id'] == image['id']]
        near, labels = [], []
        for each in mine * 2:
            left, top, width, height = each['bbox']
            box = np.array([left, top, left + width, top + height]) + generator.normal(0, 3, 4)
            near.append(box)
            known = each['category_id'] in order and generator.random() < 0.8
            labels.append(order.index(each['category_id']) if known else generator.integers(3))
        for _ in range(3):
            corner = generator.uniform(0, SIDE - 50, 2)
            near.append(np.concatenate([corner, corner + generator.uniform(10, 50, 2)]))
            labels.append(generator.integers(3))
        boxes = np.array(near, np.float32)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 2)
        scores = (generator.integers(0, 10, len(boxes)) / 10).astype(np.float32)
        fields = dict(
            bboxes=torch.from_numpy(boxes),
            scores=torch.from_numpy(scores),
            labels=torch.tensor(np.array(labels, np.int64)),
        )
        if masks:
            fields['masks'] = torch.from_numpy(np.stack([drawn(box) for box in boxes]))
            fields['mask_scores'] = fields['scores'].sqrt()
        samples.append(
            dict(
                img_id=image['id'],
                ori_shape=(image['height'], image['width']),
                pred_instances=InstanceData(**fields),
                instances=instances_of(mine, order),
            )
        )
    return samples


def instances_of(annotations: list[Any], order: list[int]) -> list[dict[str, Any]]:
    """Return annotations as mmdet's data sets hold them."""
    return [
        dict(
            bbox=[left, top, left + width, top + height],
            bbox_label=order.index(each['category_id']),
            ignore_flag=each['iscrowd'],
            mask=each['segmentation'],
        )
        for each in annotations
        for left, top, width, height in [each['bbox']]
        if each['category_id'] in order
    ]


def metric_of(scope: str, name: str = 'CocoMetric', **options: Any) -> BaseMetric:
    """Build a metric; ours evaluates in this process, as only marked tests may start another."""
    if scope == 'mmdet_ext' and name != 'VOCAPMetric':
        options = {'time_limit': None, **options}
    metric = METRICS.build(dict(type=f'{scope}.{name}', **options))
    metric.dataset_meta = {'classes': CLASSES}
    return metric


def evaluated(metric: BaseMetric, samples: list[dict[str, Any]]) -> dict[str, float]:
    for start in range(0, len(samples), 3):
        metric.process({}, samples[start : start + 3])
    figures: dict[str, float] = metric.evaluate(len(samples))
    return figures
