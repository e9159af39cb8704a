"""Tests of tools/data/anchors.py: COCO files and VOC folders, resized boxes, bad input."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmdet_ext.data.coco.box_sides import read_box_sides
from mmdet_ext.data.reports import LayoutError
from tests._helpers.tools import load_tool

main = load_tool('data/anchors.py').main

BOXES = [
    {'bbox': [0, 0, 10, 10]},
    {'bbox': [5, 5, 20, 10]},
    {'bbox': [70, 40, 20, 20]},  # clipped to 10 x 10 in an image of 80 x 50 px
    {'bbox': [0, 0, 40, 40], 'image_id': 1},
    {'bbox': [0, 0, 40, 44], 'image_id': 1},
    {'bbox': [0, 0, 9, 9], 'iscrowd': 1},
    {'bbox': [0, 0, 9, 9], 'ignore': 1},
    {'bbox': [0, 0, 9, 0]},
    {'bbox': [0, 0, 9, 9], 'image_id': 2},  # its image has no size
    {'bbox': None},
]
SIZES: tuple[dict[str, Any], ...] = (
    {'width': 80, 'height': 50},
    {'width': 160, 'height': 200},
    {},
)


def coco(path: Path, boxes: list[dict[str, Any]] | None = None) -> Path:
    content = {
        'images': [{'id': k, 'file_name': f'{k}.jpg', **size} for k, size in enumerate(SIZES)],
        'categories': [{'id': 1, 'name': 'a'}],
        'annotations': [
            {'id': k + 1, 'image_id': 0, 'category_id': 1, **box}
            for k, box in enumerate(BOXES if boxes is None else boxes)
        ],
    }
    path.write_text(json.dumps(content))
    return path


def run(out: Path, *arguments: object) -> dict[str, Any]:
    assert main([*map(str, arguments), '--out', str(out)]) == 0
    return dict(json.loads(out.read_text()))


def test_sides_are_those_of_the_boxes_that_training_uses(tmp_path: Path) -> None:
    path = coco(tmp_path / 'a.json')
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


def test_the_tool_writes_anchors_with_their_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = coco(tmp_path / 'a.json')
    arguments = ('--input', 160, 200, '--keep-ratio', '--anchors', 2, '--clusters', 1, 3)
    found = run(tmp_path / 'out.json', source, *arguments, '--stride', 16)
    # Boxes are 20 x 20 twice, 40 x 20, 40 x 40 and 40 x 44.
    assert found['anchors_px'] == [[26.67, 20.0], [40.0, 42.0]]
    assert found['anchors_cells'] == [[1.6667, 1.25], [2.5, 2.625]]
    assert found['counts'] == [3, 2]
    overlaps = [20 / (80 / 3)] * 2 + [(80 / 3) / 40, 40 / 42, 42 / 44]
    assert found['mean_iou'] == pytest.approx(np.mean(overlaps))
    assert list(found['mean_iou_by_number']) == ['1', '2', '3']
    assert found['boxes'] == 5 and found['images'] == 2 and found['input'] == [160, 200]
    printed = capsys.readouterr().out
    assert '5 boxes in 2 images' in printed and 'left out: 1 boxes, unusable' in printed
    assert f'{found["mean_iou"]:.4f}' in printed
    header = (tmp_path / 'out.png').read_bytes()[:24]
    assert header[:4] == b'\x89PNG' and min(struct.unpack('>II', header[16:24])) > 200


def test_a_repeat_is_equal_and_a_seed_may_be_chosen(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    boxes = [{'bbox': [0, 0, *map(float, rng.integers(2, 49, 2))]} for _ in range(40)]
    source = coco(tmp_path / 'a.json', boxes)
    one = run(tmp_path / 'b.json', source, '--clusters', 4)
    assert run(tmp_path / 'b.json', source, '--clusters', 4) == one
    others = [run(tmp_path / 'b.json', source, '--seed', seed) for seed in range(4)]
    assert len({str(each['anchors_px']) for each in others}) > 1


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


def test_wrong_input_is_named_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = coco(tmp_path / 'a.json'), tmp_path / 'out' / 'b.json'
    empty = coco(tmp_path / 'empty.json', BOXES[5:])
    for arguments, message in (
        ([tmp_path / 'no.json'], 'cannot be read as json'),
        ([tmp_path], 'A folder must be of VOC form'),
        ([empty], 'is left to cluster; left out:'),
        ([source, '--clusters', '9'], 'k must be at most'),
        ([source, '--clusters', '0'], 'k must be at least 1, got 0'),
        ([source, '--input', '0', '416'], '1 px or more, got 0 x 416'),
        ([source, '--stride', '0'], '--stride must be at least 1 px, got 0'),
    ):
        assert main([*map(str, arguments), '--out', str(out)]) == 2
        assert message in capsys.readouterr().err
    assert main([str(source), '--out', str(tmp_path / 'b.png')]) == 2
    assert 'must be a json file' in capsys.readouterr().err
    assert not out.parent.exists() and not (tmp_path / 'b.png').exists()


def test_bccd(shared_data: Path, tmp_path: Path) -> None:
    """BCCD has 4886 boxes with an area."""
    found = run(tmp_path / 'a.json', shared_data / 'bccd', '--clusters', 1, 3)
    assert found['boxes'] == 361 + 4155 - 2 + 372 and found['images'] == 364
    ious = list(found['mean_iou_by_number'].values())
    assert ious == sorted(ious) and ious[-1] > 0.8
