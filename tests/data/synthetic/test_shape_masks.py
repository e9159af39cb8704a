"""Tests of the labels per pixel: drawn masks, outlines, the files, mmseg's data set."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet_ext.data.synthetic.shape_masks import IGNORED, MASK_CLASSES, PALETTE, label_map
from mmdet_ext.data.synthetic.shape_scenes import Shape, draw_scene
from mmdet_ext.data.synthetic.shapes import make_shapes
from tests._helpers.tools import load_tool

WIDTH, HEIGHT = 240, 180
FINE = 8  # sub-pixels per side of a pixel in the masks drawn here


def fine_labels(shapes: list[Shape]) -> np.ndarray:
    """Paint the labels with OpenCV at eight times the size, later shapes over earlier ones."""
    labels = np.zeros((HEIGHT * FINE, WIDTH * FINE), np.uint8)
    for shape in shapes:
        value = MASK_CLASSES.index(shape.name)
        x, y = (round(value * FINE - 0.5) for value in shape.centre)
        if shape.name == 'circle':
            cv2.circle(labels, (x, y), round(shape.radius * FINE), value, cv2.FILLED)
        else:
            corners = np.array(
                [[round(FINE * c - 0.5) for c in corner] for corner in shape.corners()]
            )
            cv2.fillPoly(labels, [corners], value)
    return labels


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_labels_of_a_square_by_hand() -> None:
    # Edges at 20.5 and 40 along x, and at 10 and 29.5 along y: a column and a row are half covered.
    side = 19.5
    square = Shape('square', (20.5 + side / 2, 10 + side / 2), side / math.sqrt(2), math.pi / 4)
    labels = label_map([square], 60, 50)
    assert labels.shape == (50, 60) and labels.dtype == np.uint8
    assert (labels[10:29, 21:40] == 2).all()
    assert (labels[10:29, 20] == IGNORED).all() and (labels[29, 21:40] == IGNORED).all()
    assert (labels == 0).sum() == 50 * 60 - 20 * 20


def test_a_later_shape_hides_an_earlier_one_and_one_class_has_no_outline_within() -> None:
    below = Shape('circle', (30, 25), 15.0)
    above = Shape('triangle', (34, 25), 8.0)
    labels = label_map([below, above], 60, 50)
    assert labels[25, 34] == 3 and labels[25, 20] == 1
    assert label_map([above, below], 60, 50)[25, 34] == 1
    two = label_map([below, Shape('circle', (34, 25), 15.0)], 60, 50)
    assert (two[25, 17:47] == 1).all()


def test_labels_of_scenes_are_those_of_drawn_masks() -> None:
    ignored = []
    for number in range(6):
        shapes = draw_scene(np.random.default_rng((7, number)), WIDTH, HEIGHT)
        labels, fine = label_map(shapes, WIDTH, HEIGHT), fine_labels(shapes)
        parts = (
            fine.reshape(HEIGHT, FINE, WIDTH, FINE).transpose(0, 2, 1, 3).reshape(HEIGHT, WIDTH, -1)
        )
        share = np.stack([(parts == k).mean(axis=2) for k in range(len(MASK_CLASSES))])
        whole = share.max(axis=0) == 1
        assert (labels[whole] == share.argmax(axis=0)[whole]).mean() > 0.9999
        # OpenCV rounds corners to eighths of a pixel, and covers half of an outline more.
        given = labels != IGNORED
        own = np.take_along_axis(share, np.where(given, labels, 0)[None], axis=0)[0]
        assert (own[given] > 0.5).mean() > 0.9999
        assert (labels[share.max(axis=0) < 0.6] == IGNORED).all()
        ignored.append((labels == IGNORED).mean())
    assert 0.005 < np.mean(ignored) < 0.02


def test_masks_change_no_other_file_and_do_not_depend_on_the_number(tmp_path: Path) -> None:
    common = dict(val=2, width=96, height=72, seed=4)
    make_shapes(tmp_path / 'without', train=3, **common)
    make_shapes(tmp_path / 'with', train=3, masks=True, **common)
    make_shapes(tmp_path / 'more', train=5, masks=True, **common)
    without, new, more = (
        {
            str(path.relative_to(tmp_path / name)): path.read_bytes()
            for path in (tmp_path / name).rglob('*')
            if path.is_file()
        }
        for name in ('without', 'with', 'more')
    )
    masks = [f'masks/train/00000{k}.png' for k in (1, 2, 3)]
    masks += [f'masks/val/00000{k}.png' for k in (1, 2)]
    assert sorted(set(new) - set(without)) == [*masks, 'preview_masks.png']
    assert all(new[name] == content for name, content in without.items())
    assert all(new[name] == more[name] for name in masks)
    for name in masks:
        image = read(tmp_path / 'with' / name.replace('masks', 'images').replace('png', 'jpg'))
        labels = read(tmp_path / 'with' / name)
        assert labels.shape == image.shape[:2] == (72, 96) and labels.dtype == np.uint8
        assert set(np.unique(labels)) <= {0, 1, 2, 3, IGNORED}
    shown = read(tmp_path / 'with' / 'preview_masks.png')
    assert shown.shape == (2 * 72, 3 * 96, 3)
    colours = {tuple(colour[::-1]) for colour in shown[72:].reshape(-1, 3).tolist()}
    assert {PALETTE[0], PALETTE[1], (255, 255, 255)} <= colours <= {*PALETTE, (255, 255, 255)}


def test_an_earlier_set_with_masks_is_replaced_whole(tmp_path: Path) -> None:
    out = tmp_path / 'set'
    make_shapes(out, train=3, val=1, width=64, height=64, masks=True)
    make_shapes(out, train=1, val=1, width=64, height=64, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ['annotations', 'images', 'preview.png']


def test_report_has_the_shares_of_pixels(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tool = load_tool('data/make_shapes.py')
    out = tmp_path / 'set'
    words = ['--out', str(out), '--train', '2', '--val', '1', '--size', '80', '64', '--masks']
    assert tool.main([*words, '--no-preview']) == 0
    lines = capsys.readouterr().out.splitlines()[-5:]
    for split, column in (('train', -2), ('val', -1)):
        pixels = np.concatenate([read(path).ravel() for path in (out / 'masks' / split).iterdir()])
        expected = [(pixels == value).mean() for value in (0, 1, 2, 3, IGNORED)]
        assert [line.split()[column] for line in lines] == [f'{share:.2%}' for share in expected]
    assert [line.split()[1] for line in lines] == [*MASK_CLASSES, 'ignored']
    assert not list(out.glob('*.png'))


def test_the_data_set_of_mmseg_reads_the_masks(tmp_path: Path) -> None:
    pytest.importorskip('mmseg', reason='mmsegmentation is not installed')
    from mmengine.registry import DefaultScope
    from mmseg.datasets import BaseSegDataset

    make_shapes(tmp_path / 'set', train=2, val=1, width=96, height=72, masks=True)
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = BaseSegDataset(
            data_root=str(tmp_path / 'set'),
            data_prefix=dict(img_path='images/train', seg_map_path='masks/train'),
            metainfo=dict(classes=MASK_CLASSES, palette=PALETTE),
            pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')],
        )
        assert len(dataset) == 2
        for entry in dataset:
            name = Path(entry['img_path']).stem
            expected = read(tmp_path / 'set' / 'masks' / 'train' / f'{name}.png')
            assert (entry['gt_seg_map'] == expected).all()
            assert entry['img'].shape == (72, 96, 3)
