"""Tests of the shapes that no class has, in the synthetic set."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet_ext.data.synthetic.shape_masks import label_map
from mmdet_ext.data.synthetic.shape_scenes import (
    CLASSES,
    DISTRACTOR,
    Contents,
    Shape,
    draw_scene,
    render,
    visible_shares,
)
from mmdet_ext.data.synthetic.shapes import make_shapes
from tests._helpers.tools import load_tool

make_shapes_tool = load_tool('data/make_shapes.py')


def load(folder: Path) -> dict:
    return json.loads((folder / 'annotations' / 'instances_train.json').read_text())


def test_distractors_are_painted_and_annotated_nowhere(tmp_path: Path) -> None:
    contents = Contents(shapes=(1, 3), distractors=(2, 4))
    scene = draw_scene(np.random.default_rng((5, 0, 1)), 240, 180, contents)
    names = [shape.name for shape in scene]
    objects = [shape for shape in scene if shape.name in CLASSES]
    assert 1 <= len(objects) <= 3 and 2 <= names.count(DISTRACTOR) <= 4
    assert len(objects) + names.count(DISTRACTOR) == len(scene)
    make_shapes(tmp_path / 'set', train=1, val=1, seed=5, masks=True, contents=contents)
    coco = load(tmp_path / 'set')
    assert [CLASSES[item['category_id'] - 1] for item in coco['annotations']] == [
        shape.name for shape in objects
    ]
    # What a distractor hides counts as hidden, and its pixels are background.
    shares = visible_shares(scene, 240, 180)[: len(objects)]
    assert [item['visible'] for item in coco['annotations']] == pytest.approx(shares, abs=6e-4)
    masks = cv2.imread(str(tmp_path / 'set/masks/train/000001.png'), cv2.IMREAD_UNCHANGED)
    for shape in scene:
        if shape.name == DISTRACTOR:
            x, y = (int(value) for value in shape.centre)
            assert masks[min(y, 179), min(x, 239)] in (0, 255)


def test_a_distractor_hides_the_label_of_what_lies_below() -> None:
    below = Shape('square', (50, 50), 40)
    labels = label_map([below, Shape(DISTRACTOR, (50, 50), 10)], 100, 100)
    square = CLASSES.index('square') + 1
    assert (labels[50, 50], labels[50, 70], labels[2, 2]) == (0, square, 0)


def test_images_of_distractors_alone(tmp_path: Path, capsys) -> None:
    out = tmp_path / 'set'
    options = ['--train', '2', '--val', '1', '--shapes', '0', '0', '--distractors', '3', '3']
    assert make_shapes_tool.main(['--out', str(out), *options]) == 0
    coco = load(out)
    assert len(coco['images']) == 2 and coco['annotations'] == []
    assert 'nan' not in capsys.readouterr().out
    plain, painted = (
        render(np.random.default_rng(3), shapes, 240, 180).astype(int)
        for shapes in ([], draw_scene(np.random.default_rng(4), 240, 180, Contents((0, 0), (3, 3))))
    )
    assert (np.abs(plain - painted).sum(axis=2) > 90).mean() > 0.002
    assert cv2.imread(str(out / 'preview.png')).shape == (2 * 180 + 40, 3 * 2 * 240, 3)
