"""Sides of boxes: which boxes count, clipped and resized; COCO files and VOC folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmdet_ext.data.coco.box_sides import read_box_sides
from mmdet_ext.data.reports import LayoutError
from tests.data.coco.sized_boxes import write_coco


def test_sides_are_those_of_the_boxes_that_training_uses(tmp_path: Path) -> None:
    path = write_coco(tmp_path / 'a.json')
    found = read_box_sides([path, path])
    assert found.sides.tolist() == [[10, 10], [20, 10], [10, 10], [40, 40], [40, 44]]
    assert found.sizes.tolist() == [[80, 50]] * 3 + [[160, 200]] * 2
    assert found.images == 2 and found.sources == [str(path.resolve())]
    assert found.left_out == {
        'unusable': 1,
        'ignored in training': 1,
        "marked 'ignore'": 1,
        'a side below 1 px': 1,
        'of an image without a size': 1,
    }
    # 80 x 50 to 160 x 200: twice as wide, four times as high; with its ratio twice both.
    assert found.resized(160, 200)[:2].tolist() == [[20, 40], [40, 40]]
    assert found.resized(160, 200, keep_ratio=True)[:2].tolist() == [[20, 20], [40, 20]]
    assert found.resized(160, 200)[3:].tolist() == [[40, 40], [40, 44]]
    with pytest.raises(ValueError, match='1 px or more, got 0 x 200'):
        found.resized(0, 200)


def test_a_voc_folder_is_read_once_per_image(tmp_path: Path) -> None:
    root = tmp_path / 'voc'
    for folder in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True)
    Image.fromarray(np.zeros((50, 80, 3), np.uint8)).save(root / 'JPEGImages/a.png')
    items = ''.join(
        f'<object><name>x</name><difficult>{hard}</difficult><bndbox><xmin>1</xmin><ymin>1</ymin>'
        f'<xmax>{1 + side}</xmax><ymax>11</ymax></bndbox></object>'
        for side, hard in ((10, 0), (30, 0), (20, 1))
    )
    (root / 'Annotations/a.xml').write_text(f'<annotation>{items}</annotation>')
    for split in ('train', 'trainval'):
        (root / f'ImageSets/Main/{split}.txt').write_text('a')
    found = read_box_sides([root])
    assert found.sides.tolist() == [[10, 10], [30, 10]] and found.sizes.tolist() == [[80, 50]] * 2
    assert found.images == 1 and found.left_out == {'ignored in training': 1}
    assert len(read_box_sides([root], ['train']).sides) == 2
    with pytest.raises(LayoutError, match='no split tset'):
        read_box_sides([root], ['tset'])
