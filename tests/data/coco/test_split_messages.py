"""Tests of what the reader of a user's folder says about splits, lists and files not used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmdet_ext.data.coco.training_sets import read_training_sets
from tests.data.coco.voc_builder import Voc


@pytest.fixture
def cameras(voc: Voc) -> Voc:
    """Make a folder of ten images in two subfolders, with equal names in both."""
    for number in range(10):
        name = f'cam{number % 2}/f{number // 2}'
        voc.image(f'{name}.jpg', seed=number)
        voc.xml(name, ('cat', (1, 1, 20 + number, 30)))
    return voc


def names(voc: Voc, camera: int) -> list[str]:
    return [f'cam{camera}/f{number}' for number in range(5)]


def test_a_list_of_cvat_alone_is_split_with_counts_and_seed(cameras: Voc, tmp_path: Path) -> None:
    cameras.split('default', *names(cameras, 0), *names(cameras, 1)[:3])
    said: list[str] = []
    sets = read_training_sets(cameras.root, tmp_path / 'out', 7, said.append)
    assert (sets.train.size, sets.test.size) == (6, 2)
    text = '\n'.join(said)
    assert '2 of 8 images are held out for the test, drawn with seed 7' in text
    assert '2 images in no list, not used: cam1/f3, cam1/f4' in text


def test_images_of_subfolders_keep_their_boxes(cameras: Voc, tmp_path: Path) -> None:
    cameras.split('Train', *names(cameras, 0))
    cameras.split('Validation', *[f'{name}.jpg'.replace('/', '\\') for name in names(cameras, 1)])
    said: list[str] = []
    sets = read_training_sets(cameras.root, tmp_path / 'out', 0, said.append)
    assert [path.relative_to(cameras.root).as_posix() for path in sets.test.paths] == [
        f'JPEGImages/{name}.jpg' for name in names(cameras, 1)
    ]
    assert [box['bbox'][2] for box in sets.test.coco['annotations']] == [20, 22, 24, 26, 28]
    assert not any('WARNING' in line for line in said)


def test_images_that_are_trained_and_tested_on_are_said(cameras: Voc, tmp_path: Path) -> None:
    cameras.split('default', *names(cameras, 0), 'cam1/f0')
    cameras.split('val', *names(cameras, 1))
    said: list[str] = []
    read_training_sets(cameras.root, tmp_path / 'out', 0, said.append)
    assert any(line.startswith('WARNING: 1 of 5 images of the test set') for line in said)


def test_json_files_that_are_not_used_are_said(cameras: Voc, tmp_path: Path) -> None:
    image = {'id': 1, 'width': 100, 'height': 80}
    box = {'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [1, 1, 9, 9]}
    (tmp_path / 'coco').mkdir()
    for number, split in enumerate(('Train', 'Valid', 'Test')):
        content = {
            'images': [{**image, 'file_name': f'cam0/f{number}.jpg'}],
            'annotations': [box],
            'categories': [{'id': 1, 'name': 'cat'}],
        }
        (tmp_path / 'coco' / f'{split}.json').write_text(json.dumps(content))
    (cameras.root / 'JPEGImages').rename(tmp_path / 'coco' / 'Images')
    said: list[str] = []
    read_training_sets(tmp_path / 'coco', tmp_path / 'out', 0, said.append)
    assert '  1 json files not used: Test.json' in said
