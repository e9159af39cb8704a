"""Tests of the VOC reader: images, lists, random splits and class names are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdet_ext.data.coco.voc import convert_voc
from mmdet_ext.data.coco.voc_folder import VocError
from tests.data.coco.voc_builder import Voc, converted_boxes, load_split


@pytest.mark.parametrize(
    ('image_id', 'image', 'filename'),
    [
        ('a', 'a.JPG', 'a.jpg'),
        ('a', 'a.PNG', ''),
        ('a', 'a.jpeg', 'a'),
        ('a', 'a.bmp', 'z.jpg'),
        ('a.v1_jpg.rf', 'a.v1_jpg.rf.jpg', 'a.jpg'),
        ('a', 'z.Jpg', 'C:\\x\\z.png'),
        ('my cat 1', 'my cat 1.png', ''),
        ('a', 'a.webp', 'a.jpg'),
        ('a', 'a.tif', ''),
        ('a', 'z.TIFF', 'z.TIFF'),
    ],
)
def test_images_are_found(voc: Voc, out: Path, image_id: str, image: str, filename: str) -> None:
    voc.image(image)
    voc.xml(image_id, ('cat', (1, 1, 2, 2)), filename=filename)
    voc.split('train', image_id)
    convert_voc(voc.root, out)
    assert converted_boxes(out) == [(image, 'cat', [1, 1, 1, 1])]


def test_the_xml_chooses_between_images_of_one_id(voc: Voc, out: Path) -> None:
    voc.image('a.jpg')
    voc.image('a.png')
    voc.xml('a', ('cat', (1, 1, 2, 2)), filename='a.png')
    voc.split('train', 'a')
    convert_voc(voc.root, out)
    assert converted_boxes(out) == [('a.png', 'cat', [1, 1, 1, 1])]


def test_lists_per_class_are_left_out_unless_chosen(voc: Voc, out: Path) -> None:
    for image_id in 'ab':
        voc.sample(image_id, ('cat', (1, 1, 2, 2)))
    voc.split('train', 'a', 'b')
    voc.split('cat_train', 'a  1', 'b -1')
    assert [report.split for report in convert_voc(voc.root, out)] == ['train']
    convert_voc(voc.root, out, splits=['cat_train'])
    assert [name for name, *_ in converted_boxes(out, 'cat_train')] == ['a.jpg', 'b.jpg']
    (voc.root / 'ImageSets' / 'Main' / 'train.txt').unlink()
    with pytest.raises(VocError, match='no plain list of ids in ImageSets .*; there are: cat_trai'):
        convert_voc(voc.root, out)


def test_random_split_without_lists(voc: Voc, out: Path) -> None:
    for number in range(20):
        voc.sample(f'{number:02d}', ('cat', (1, 1, 2, 2)))
    (voc.root / 'ImageSets' / 'Main').rmdir()
    reports = convert_voc(voc.root, out)
    assert [(report.split, report.origin, report.images) for report in reports] == [
        ('train', 'random split, seed 0', 16),
        ('val', 'random split, seed 0', 4),
    ]
    train, val = ({name for name, *_ in converted_boxes(out, split)} for split in ('train', 'val'))
    assert train | val == {f'{number:02d}.jpg' for number in range(20)} and not train & val
    convert_voc(voc.root, out, splits=['val'])
    assert {name for name, *_ in converted_boxes(out, 'val')} == val
    convert_voc(voc.root, out, seed=1)
    assert {name for name, *_ in converted_boxes(out, 'val')} != val


def test_lists_one_folder_higher(voc: Voc, out: Path) -> None:
    voc.sample('a', ('cat', (1, 1, 2, 2)))
    voc.split('mine', 'a')
    main = voc.root / 'ImageSets' / 'Main'
    (main / 'mine.txt').rename(main.parent / 'mine.txt')
    main.rmdir()
    assert [(report.split, report.images) for report in convert_voc(voc.root, out)] == [('mine', 1)]


def test_class_ids_do_not_depend_on_the_splits(voc: Voc, out: Path) -> None:
    voc.sample('a', ('cat', (1, 1, 2, 2)))
    voc.sample('b', ('zebra', (1, 1, 2, 2)), ('ant', (1, 1, 2, 2)))
    voc.split('train', 'b')
    voc.split('val', 'a')
    convert_voc(voc.root, out, splits=['val'])
    assert load_split(out, 'val')['categories'] == [
        {'id': 1, 'name': 'ant'},
        {'id': 2, 'name': 'cat'},
        {'id': 3, 'name': 'zebra'},
    ]
    convert_voc(voc.root, out, classes=['zebra', 'cat'])
    assert load_split(out, 'val')['annotations'][0]['category_id'] == 2
    assert load_split(out, 'train')['annotations'][0]['category_id'] == 1
