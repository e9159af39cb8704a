"""Tests of the detection demo on data with faults: repaired, left out and counted, or refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmdet_ext.data.coco.training_sets import Subset, TrainingSets, read_training_sets
from mmdet_ext.data.reports import LayoutError
from mmdet_ext.studies.detection_demo import SHAPES_TRAIN, SHAPES_VAL
from tests.integration.demo_data import (
    built,
    coco,
    copied,
    corners,
    demo,
    demo_config,
    edited,
    named_boxes,
    prepared,
)


def test_large_set_is_sampled(tmp_path: Path) -> None:
    image = {'file_name': 'a.jpg', 'width': 9, 'height': 9}
    content = {
        'images': [{'id': n, **image} for n in range(5000)],
        'annotations': [
            {'id': n, 'image_id': n, 'category_id': 1, 'bbox': [0, 0, 5, 5]} for n in range(5000)
        ],
        'categories': [{'id': 1, 'name': 'cat'}],
    }
    subset = Subset(content, tmp_path)
    config = demo_config(TrainingSets(subset, subset, ('cat',)), tmp_path)
    base = Config.fromfile(demo.CONFIG)
    written = json.loads((tmp_path / 'data' / 'train.json').read_text())
    assert config.train_cfg.max_epochs == 1
    assert len(written['images']) == base.train_cfg.max_epochs * SHAPES_TRAIN
    kept = [image['id'] for image in written['images']]
    assert [box['image_id'] for box in written['annotations']] == kept
    assert kept != list(range(len(kept))), 'the first images are no random sample'
    looked = len(json.loads((tmp_path / 'data' / 'test.json').read_text())['images'])
    assert 2 * looked <= (base.train_cfg.max_epochs + 1) * SHAPES_VAL


def test_one_set_alone_is_split_by_the_seed(shapes_root: Path, tmp_path: Path) -> None:
    root = tmp_path / 'one'
    shutil.copytree(shapes_root / 'images' / 'train', root / 'images')
    content = coco(shapes_root, 'train')
    (root / 'all.json').write_text(json.dumps(content))
    halves = [read_training_sets(root, tmp_path, seed) for seed in (0, 0, 1)]
    ids = [[image['id'] for image in half.test.coco['images']] for half in halves]
    trained = [image['id'] for image in halves[0].train.coco['images']]
    assert len(ids[0]) == math.ceil(0.2 * 8)
    assert sorted(trained + ids[0]) == [image['id'] for image in content['images']]
    assert ids[0] == ids[1] != ids[2]
    assert {box['image_id'] for box in halves[0].test.coco['annotations']} <= set(ids[0])


def test_bad_images_and_unused_classes_are_reported(
    shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / 'own'
    copied(shapes_root, root)
    content = coco(root, 'train')
    content['categories'].append({'id': 77, 'name': 'hexagon'})
    (root / 'annotations' / 'instances_train.json').write_text(json.dumps(content))
    images = [root / 'images' / 'train' / image['file_name'] for image in content['images']]
    images[0].unlink()
    images[1].write_bytes(images[1].read_bytes()[:500])
    data = read_training_sets(root, tmp_path / 'out', seed=0)
    assert [i['file_name'] for i in data.train.coco['images']] == [p.name for p in images[2:]]
    assert 'hexagon' not in data.classes
    printed = capsys.readouterr().out
    assert f'left out: {images[0]}: missing' in printed
    assert '6 images, 2 left out as unreadable' in printed
    assert "without boxes: ['hexagon']" in printed


def test_ids_and_areas_suit_the_coco_evaluation(shapes_root: Path, tmp_path: Path) -> None:
    root = tmp_path / 'own'
    copied(shapes_root, root)
    content = coco(root, 'val')
    for number, box in enumerate(content['annotations']):
        box['id'] = number
        del box['area']
    (root / 'annotations' / 'instances_val.json').write_text(json.dumps(content))
    boxes = read_training_sets(root, tmp_path / 'out', seed=0).test.coco['annotations']
    assert [box['id'] for box in boxes] == list(range(1, len(boxes) + 1))
    assert [box['area'] for box in boxes] == [box['bbox'][2] * box['bbox'][3] for box in boxes]


def test_categories_of_the_test_set_may_have_another_order(
    shapes_root: Path, tmp_path: Path
) -> None:
    def reverse(content: dict[str, Any]) -> None:
        old = {entry['id']: entry['name'] for entry in content['categories']}
        new = {name: 10 + number for number, name in enumerate(reversed(old.values()))}
        content['categories'] = [{'id': number, 'name': name} for name, number in new.items()]
        for box in content['annotations']:
            box['category_id'] = new[old[box['category_id']]]

    config = prepared(edited(shapes_root, tmp_path, 'val', reverse), tmp_path / 'run')
    for which, split in (('train', 'train'), ('test', 'val')):
        dataset, boxes = built(config, which)
        assert dataset.metainfo['classes'] == ('circle', 'square', 'triangle')
        assert boxes == corners(named_boxes(coco(shapes_root, split)))
        written = json.loads((tmp_path / 'run' / 'data' / f'{which}.json').read_text())
        assert [entry['id'] for entry in written['categories']] == [1, 2, 3]


def test_two_categories_of_one_name_are_taken_as_one(
    shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def repeat(content: dict[str, Any]) -> None:
        content['categories'].insert(0, {'id': 0, 'name': 'square', 'supercategory': 'none'})
        content['annotations'][0]['category_id'] = 0

    truth = coco(shapes_root, 'train')
    truth['annotations'][0]['category_id'] = 2
    config = prepared(edited(shapes_root, tmp_path, 'train', repeat), tmp_path / 'run')
    dataset, boxes = built(config, 'train')
    assert dataset.metainfo['classes'] == ('square', 'circle', 'triangle')
    assert boxes == corners(named_boxes(truth))
    message = "instances_train.json: categories [0, 2], all named 'square', are taken as one"
    assert message in capsys.readouterr().out


def test_annotations_that_cannot_be_used_are_left_out_and_counted(
    shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(content: dict[str, Any]) -> None:
        changes = [
            {'category_id': 99},
            {'bbox': None},
            {'bbox': []},
            {'bbox': ['1', '2', 'x', '4']},
            {'image_id': 99},
            {'area': None, 'iscrowd': None},
        ]
        for box, change in zip(content['annotations'], changes, strict=False):
            box.update(change)

    root = edited(shapes_root, tmp_path, 'train', spoil)
    config = prepared(root, tmp_path / 'run')
    assert built(config, 'train')[1] == corners(named_boxes(coco(shapes_root, 'train'))[5:])
    printed = capsys.readouterr().out
    assert (
        'instances_train.json: annotations left out: 1 of an unknown category_id (annotations[0] '
        'has category_id 99); 3 without a usable bbox (annotations[1] has bbox None, '
        "annotations[2] has bbox [], annotations[3] has bbox ['1', '2', 'x', '4']); "
        '1 of an unknown image_id (annotations[4] has image_id 99)\n'
    ) in printed
    (first, *_) = json.loads((tmp_path / 'run' / 'data' / 'train.json').read_text())['annotations']
    assert first['area'] == first['bbox'][2] * first['bbox'][3]
    assert first['iscrowd'] == 0


@pytest.mark.parametrize('value', ['0', 'false', None, 'no', 0.0])
def test_flags_that_are_not_set_train_all_boxes(
    shapes_root: Path, tmp_path: Path, value: Any
) -> None:
    def write(content: dict[str, Any]) -> None:
        for box in content['annotations']:
            box.update(iscrowd=value, ignore=value, bbox=[str(side) for side in box['bbox']])

    root = edited(shapes_root, tmp_path, 'train', write)
    found = read_training_sets(root, tmp_path / 'out', seed=0).train.coco
    assert named_boxes(found) == named_boxes(coco(shapes_root, 'train'))
    assert {(box['iscrowd'], box['ignore']) for box in found['annotations']} == {(0, 0)}


@pytest.mark.parametrize('value', ['1', 'true', True])
def test_crowds_stay_crowds(shapes_root: Path, tmp_path: Path, value: Any) -> None:
    root = edited(
        shapes_root, tmp_path, 'train', lambda c: c['annotations'][1].update(iscrowd=value)
    )
    boxes = read_training_sets(root, tmp_path / 'out', seed=0).train.coco['annotations']
    assert [box['iscrowd'] for box in boxes[:3]] == [0, 1, 0]


@pytest.mark.parametrize('size', [(-1, -1), (0, 0), (None, None), ('', ''), (72, 96), (192, 144)])
def test_size_of_the_file_is_taken(
    shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: tuple[Any, Any]
) -> None:
    def spoil(content: dict[str, Any]) -> None:
        for image in content['images']:
            image.update(width=size[0], height=size[1])

    root = edited(shapes_root, tmp_path, 'train', spoil)
    found = read_training_sets(root, tmp_path / 'out', seed=0).train.coco
    assert {(image['width'], image['height']) for image in found['images']} == {(96, 72)}
    assert named_boxes(found) == named_boxes(coco(shapes_root, 'train'))
    assert 'instances_train.json: 8 images, ' in capsys.readouterr().out


def test_images_with_boxes_drawn_at_another_size_are_left_out(
    shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def enlarge(content: dict[str, Any]) -> None:
        for image in content['images'][:2]:
            image.update(width=192, height=144)
        for box in content['annotations']:
            if box['image_id'] <= 2:
                box['bbox'] = [2 * side for side in box['bbox']]

    root = edited(shapes_root, tmp_path, 'train', enlarge)
    found = read_training_sets(root, tmp_path / 'out', seed=0).train.coco
    assert [image['id'] for image in found['images']] == [3, 4, 5, 6, 7, 8]
    printed = capsys.readouterr().out
    assert '000001.jpg: boxes drawn at another size than that of the file (192x144, true' in printed
    assert '6 images, 0 left out as unreadable, 2 as drawn at another size' in printed


def test_images_of_both_sets_are_named(
    shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = copied(shapes_root, tmp_path / 'own')
    read_training_sets(root, tmp_path / 'out', seed=0)
    assert 'WARNING' not in capsys.readouterr().out
    train, val = (sorted((root / 'images' / split).iterdir()) for split in ('train', 'val'))
    shutil.copy(train[2], val[1])
    read_training_sets(root, tmp_path / 'out', seed=0)
    assert (
        'WARNING: 1 of 4 images of the test set are also in the training set, as the same file or '
        f'as one of equal content: {val[1]} = {train[2]}. Results on them'
    ) in capsys.readouterr().out


def test_copies_are_counted_and_stay_in_one_part_of_a_split(
    shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / 'one'
    shutil.copytree(shapes_root / 'images' / 'train', root / 'images')
    content = coco(shapes_root, 'train')
    for number in (5, 8):
        shutil.copy(root / 'images' / '000002.jpg', root / 'images' / f'{number:06d}.jpg')
    content['images'][3]['file_name'] = '000001.jpg'  # one file under two ids
    (root / 'all.json').write_text(json.dumps(content))
    for seed in range(12):
        data = read_training_sets(root, tmp_path / 'out', seed)
        parts = [{image['id'] for image in part.coco['images']} for part in (data.train, data.test)]
        assert parts[0] | parts[1] == set(range(1, 9)) and not parts[0] & parts[1]
        assert 1 <= len(parts[1]) <= 2
        assert all({2, 5, 8} <= part or not {2, 5, 8} & part for part in parts)
        assert all({1, 4} <= part or not {1, 4} & part for part in parts)
    printed = capsys.readouterr().out
    assert '1 files under several image ids (' in printed
    assert '2 files with the content of another file (' in printed
    assert 'images of one content go into the same set' in printed and 'WARNING' not in printed


def test_boxes_of_a_class_that_is_not_trained_are_counted(
    shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def add(content: dict[str, Any]) -> None:
        content['categories'].append({'id': 77, 'name': 'hexagon'})
        for box in content['annotations'][:3]:
            box['category_id'] = 77

    config = prepared(edited(shapes_root, tmp_path, 'val', add), tmp_path / 'run')
    assert "test set: boxes of classes left out: {'hexagon': 3}" in capsys.readouterr().out
    assert built(config, 'test')[1] == corners(named_boxes(coco(shapes_root, 'val'))[3:])


def test_a_set_without_boxes_is_refused(shapes_root: Path, tmp_path: Path) -> None:
    root = tmp_path / 'own'
    copied(shapes_root, root)
    content = coco(root, 'val')
    content['annotations'] = []
    (root / 'annotations' / 'instances_val.json').write_text(json.dumps(content))
    with pytest.raises(LayoutError, match='no boxes in the test set'):
        read_training_sets(root, tmp_path / 'out', seed=0)
