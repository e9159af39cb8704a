"""Boxes that CocoDataset leaves out, counts and reports."""

from __future__ import annotations

import json
import math
import pickle
import random
from pathlib import Path
from typing import Any

import pytest

from mmdet_ext.detection.datasets.coco import box_problem
from tests._helpers.coco_data import TRAIN, edit, ours, samples, stock

BAD_BOXES = {
    'inverted boxes': {'bbox': [40, 20, -10, 12]},
    'boxes narrower than a pixel': {'bbox': [40, 20, 0, 12]},
    'boxes with an area of 0, which tools/data/rewrite_coco.py computes anew': {'area': 0},
    'boxes outside the image': {'bbox': [96, 20, 10, 12]},
    'boxes with numbers that are not finite': {'bbox': [math.inf, 20, 10, 12]},
    "boxes marked 'ignore'": {'ignore': 1},
    'boxes of other classes': {'category_id': 9},
}


@pytest.mark.parametrize(('reason', 'change'), BAD_BOXES.items(), ids=BAD_BOXES)
def test_bad_boxes_are_left_out_and_counted(
    data: Path, warned: list[str], reason: str, change: dict[str, Any]
) -> None:
    def spoil(content: dict[str, Any]) -> None:
        content['annotations'][0].update(change)
        content['annotations'][3].update(change)

    total = sum(len(sample['instances']) for sample in samples(ours(data)))
    edit(data, spoil)
    found = ours(data)
    assert samples(found) == samples(stock(data))
    assert sum(len(sample['instances']) for sample in samples(found)) == total - 2
    (message,) = warned
    bbox = json.loads((data / TRAIN).read_text())['annotations'][0]['bbox']
    assert f'8 images, {total - 2} boxes used. Not used: 2 {reason} (000001.jpg {bbox}' in message
    assert 'instances_train.json' in message


def test_one_warning_lists_all_reasons_with_a_few_examples(data: Path, warned: list[str]) -> None:
    def spoil(content: dict[str, Any]) -> None:
        for ann in content['annotations'][:7]:
            ann['bbox'][3] = -3
        content['annotations'][7]['bbox'][2] = 0.5

    edit(data, spoil)
    assert samples(ours(data)) == samples(stock(data))
    (message,) = warned
    inverted, narrow = message.partition('Not used: ')[2].split('; ')
    assert inverted.startswith('7 inverted boxes (') and inverted.endswith(', and 2 more)')
    assert inverted.count('000001.jpg') == 5
    assert narrow.startswith('1 boxes narrower than a pixel (')


def test_boxes_that_are_left_out_do_not_stay_in_memory(data: Path) -> None:
    """Each worker of a data loader receives the pickled data set."""

    def spoil(content: dict[str, Any]) -> None:
        last = content['annotations'][-1]
        content['annotations'] += [
            {**last, 'id': 1000 + number, 'bbox': [7, 7, -5, 12]} for number in range(3000)
        ]

    edit(data, spoil)
    found, expected = ours(data), stock(data)
    assert len(pickle.dumps(found)) < len(pickle.dumps(expected)) + 1000


def test_boxes_partly_outside_the_image_are_used(data: Path, warned: list[str]) -> None:
    edit(data, lambda c: c['annotations'][0].update(bbox=[-5, -5, 30, 30]))
    (first, *_) = samples(ours(data))[0]['instances']
    assert first['bbox'] == [-5, -5, 25, 25]
    assert warned == []


def test_an_infinite_box_is_left_out_where_mmdet_uses_it(data: Path) -> None:
    edit(data, lambda c: c['annotations'][0].update(bbox=[5, 5, math.inf, 9], area=9))
    assert samples(stock(data))[0]['instances'][0]['bbox'][2] == math.inf
    found = samples(ours(data))[0]['instances']
    assert found == samples(stock(data))[0]['instances'][1:]


def test_box_problem_is_the_rule_of_mmdet(shapes_root: Path) -> None:
    """Of 3,000 random annotations, good and bad, mmdet leaves out the same."""
    rng = random.Random(0)
    dataset = stock(shapes_root)
    image = {'img_id': 1, 'file_name': 'a.jpg', 'width': 96, 'height': 72}
    kept = 0
    for _ in range(3000):
        ann = {
            'bbox': [
                rng.choice([-20, -1, 0, 0.5, 30, 71.5, 72, 95.5, 96, 200]),
                rng.choice([-20, -1, 0, 0.5, 30, 71.5, 72, 95.5, 96, 200]),
                rng.choice([-9, 0, 0.99, 1, 5, 20, 300]),
                rng.choice([-9, 0, 0.99, 1, 5, 20, 300]),
            ],
            'area': rng.choice([-1, 0, 0.1, 9, 9, 9]),
            'category_id': rng.choice([1, 2, 3, 3, 4]),
            'ignore': rng.choice([0, 0, 0, 1]),
        }
        reached = dataset.parse_data_info({'raw_img_info': image, 'raw_ann_info': [ann]})
        kept += len(reached['instances'])
        problem = box_problem(ann, 96, 72, dataset.cat_ids)
        assert (problem is None) == (len(reached['instances']) == 1), (ann, problem)
    assert 100 < kept < 2900
