"""Tests of the synthetic set: tight boxes, correct visible shares, the ratio of classes."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet_ext.data.synthetic.shape_scenes import (
    CLASS_SHARES,
    CLASSES,
    MIN_VISIBLE,
    Shape,
    ShapesError,
    draw_scene,
    render,
    visible_shares,
)
from mmdet_ext.data.synthetic.shapes import make_shapes
from tests._helpers.tools import load_tool

make_shapes_tool = load_tool('data/make_shapes.py')

WIDTH, HEIGHT = 240, 180
FINE = 8  # sub-pixels per side of a pixel in the masks drawn here


def fine_mask(shape: Shape, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Draw the shape with OpenCV at eight times the size, from its angle and radius."""
    mask = np.zeros((height * FINE, width * FINE), np.uint8)
    x, y = (round(value * FINE) for value in shape.centre)
    if shape.name == 'circle':
        cv2.circle(mask, (x, y), round(shape.radius * FINE), 1, cv2.FILLED)
    else:
        step = {'square': 90, 'triangle': 120}[shape.name]
        points = [
            (
                x + round(FINE * shape.radius * math.cos(math.radians(angle) + shape.angle)),
                y + round(FINE * shape.radius * math.sin(math.radians(angle) + shape.angle)),
            )
            for angle in range(0, 360, step)
        ]
        cv2.fillPoly(mask, [np.array(points)], 1)
    return mask.astype(bool)


def extent(mask: np.ndarray) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def scenes(count: int, width: int = WIDTH, height: int = HEIGHT) -> list[list[Shape]]:
    return [
        draw_scene(np.random.default_rng((7, number)), width, height) for number in range(count)
    ]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def load(folder: Path, split: str) -> dict:
    return json.loads((folder / 'annotations' / f'instances_{split}.json').read_text())


def test_boxes_are_tight_around_drawn_masks() -> None:
    shapes = [shape for scene in scenes(12) for shape in scene]
    assert {shape.name for shape in shapes} == set(CLASSES)
    errors = [
        np.subtract(shape.box(WIDTH, HEIGHT), np.divide(extent(fine_mask(shape)), FINE))
        for shape in shapes
    ]
    assert np.abs(errors).max() < 0.3  # the mask's corners are rounded to 1/8 px, and drawn wider


@pytest.mark.parametrize(
    'shape',
    [
        Shape('circle', (60.3, 50.8), 20.2),
        Shape('square', (60.3, 50.8), 25.0, 0.4),
        Shape('triangle', (60.3, 50.8), 25.0, 1.9),
        Shape('circle', (5.0, 90.0), 12.5),
        Shape('triangle', (118.0, 4.0), 15.0, 0.3),
    ],
    ids=str,
)
def test_painted_pixels_fill_the_box(shape: Shape) -> None:
    width, height = 120, 100
    blank, painted = (
        render(np.random.default_rng(3), shapes, width, height).astype(int)
        for shapes in ([], [shape])
    )
    # The two images also differ by their noise: opening removes what is no area of changed pixels.
    changed = np.abs(painted - blank).sum(axis=2) > 90
    found = extent(
        cv2.morphologyEx(changed.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    )
    assert np.abs(np.subtract(found, shape.box(width, height))).max() < 2.5


def test_box_of_known_shapes() -> None:
    assert Shape('circle', (10, 20), 15).box(100, 100) == (0, 5, 25, 35)
    square = Shape('square', (50, 50), 10 * math.sqrt(2), math.pi / 4)
    assert square.box(100, 55) == pytest.approx((40, 40, 60, 55))
    assert square.area() == pytest.approx(400)
    triangle = Shape('triangle', (50, 50), 20, -math.pi / 2)  # one corner up
    assert triangle.box(100, 100) == pytest.approx((50 - 300**0.5, 30, 50 + 300**0.5, 60))
    # With the top corner outside the image, the rest is as wide as before. With a lower corner
    # outside, the lowest point is at the edge of the image.
    assert Shape('triangle', (50, 10), 20, -math.pi / 2).box(100, 100) == pytest.approx(
        (50 - 300**0.5, 0, 50 + 300**0.5, 20)
    )
    leaning = Shape('square', (95, 50), 10)  # corners right, down, left, up
    assert leaning.box(100, 100) == pytest.approx((85, 40, 100, 60))
    at_the_corner = Shape('square', (2, 3), 10)  # only its right and lower corners are inside
    assert at_the_corner.box(100, 100) == pytest.approx((0, 0, 12, 13))
    # The left corner (40.60, -1.42) is above the image; the edge from there to (46.58, 11.40)
    # enters the image at x = 41.27. The right edge is 10 cos 20 deg from the centre, the top y = 0.
    above = Shape('square', (50, 2), 10, math.radians(20))
    assert above.box(100, 100) == pytest.approx((41.27, 0, 59.40, 11.40), abs=0.01)
    assert triangle.area() == pytest.approx(300**0.5 * 30)


def enclosed(corners: np.ndarray) -> float:
    """Return the area of a polygon, corners (K, 2), by the shoelace formula."""
    (x, y), (u, v) = corners.T, np.roll(corners, -1, axis=0).T
    return abs(float((x * v - u * y).sum())) / 2


def test_outline_by_hand() -> None:
    # A regular polygon of 48 corners; its left half alone lies within the image.
    area = 24 * 10**2 * math.sin(2 * math.pi / 48)
    assert enclosed(Shape('circle', (50, 50), 10).outline(100, 100)) == pytest.approx(area)
    assert enclosed(Shape('circle', (100, 50), 10).outline(100, 100)) == pytest.approx(area / 2)
    # A square on its corner, of diagonal 20, that loses half of its lower triangle's height.
    cut = Shape('square', (50, 95), 10).outline(100, 100)
    assert enclosed(cut) == pytest.approx(200 - 25)
    assert cut.max(axis=0).tolist() == pytest.approx([60, 100])


def test_visible_share_by_hand() -> None:
    side = 20 / math.sqrt(2)  # radius of a square of side 20
    below = Shape('square', (50, 50), side, math.pi / 4)
    quarter = Shape('square', (60, 60), side, math.pi / 4)
    half = Shape('square', (40, 50), side, math.pi / 4)
    edge = Shape('square', (0, 90), side, math.pi / 4)  # 10 x 20 of it in the image
    on_edge = Shape('square', (-5, 90), side, math.pi / 4)  # hides 5 x 20 of that
    assert visible_shares([below], 100, 100) == pytest.approx([1])
    assert visible_shares([below, quarter], 100, 100) == pytest.approx([0.75, 1])
    assert visible_shares([quarter, below], 100, 100) == pytest.approx([0.75, 1])
    assert visible_shares([below, quarter, half], 100, 100) == pytest.approx([0.25, 1, 1])
    # An area that two shapes hide counts once.
    assert visible_shares([below, quarter, quarter], 100, 100) == pytest.approx([0.75, 0, 1])
    assert visible_shares([edge, on_edge], 100, 100) == pytest.approx([0.5, 1])
    circle = Shape('circle', (50, 50), 5)
    assert visible_shares([below, circle], 100, 100) == pytest.approx(
        [1 - 25 * math.pi / 400, 1], abs=1e-3
    )


def test_visible_shares_of_scenes_agree_with_drawn_masks() -> None:
    hidden = []
    for scene in scenes(6):
        masks = [fine_mask(shape) for shape in scene]
        for index, share in enumerate(visible_shares(scene, WIDTH, HEIGHT)):
            above = np.any(masks[index + 1 :], axis=0) if index + 1 < len(masks) else False
            seen = (masks[index] & ~above).sum() / masks[index].sum()
            assert share == pytest.approx(seen, abs=0.06)
            hidden.append(1 - seen)
    assert np.mean(np.array(hidden) > 0.1) > 0.1  # so the comparison covers hidden shapes


def test_scenes_keep_their_limits_and_size_distribution() -> None:
    drawn = scenes(100)
    counts = [len(scene) for scene in drawn]
    assert (min(counts), max(counts)) == (6, 20)
    shares = np.concatenate([visible_shares(scene, WIDTH, HEIGHT) for scene in drawn])
    assert shares.min() >= MIN_VISIBLE - 1e-4
    assert 0.12 < np.mean(shares < 0.9) < 0.35  # occlusion is common, but not the rule
    sizes = [
        2 * shape.radius if shape.name == 'circle' else np.ptp(shape.corners(), axis=0).max()
        for scene in drawn
        for shape in scene
    ]
    assert 8 - 1e-9 <= min(sizes) < 8.2 and 85 < max(sizes) <= 90 + 1e-9
    # Log-uniform: the quantiles are evenly spaced in the logarithm.
    assert np.quantile(sizes, (0.25, 0.5, 0.75)) == pytest.approx(
        8 * (90 / 8) ** np.array((0.25, 0.5, 0.75)), rel=0.1
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ('count', 'width', 'height'), [(800, WIDTH, HEIGHT), (800, 64, 64)], ids=['default', 'crowded']
)
def test_classes_have_their_shares(count: int, width: int, height: int) -> None:
    names = Counter(shape.name for scene in scenes(count, width, height) for shape in scene)
    total = names.total()
    assert total > 10_000
    for name, share in zip(CLASSES, CLASS_SHARES, strict=True):
        spread = math.sqrt(share * (1 - share) / total)
        assert abs(names[name] / total - share) < 4 * spread
    assert np.divide(CLASS_SHARES, CLASS_SHARES[2]) == pytest.approx([20, 4, 1])


def test_same_seed_gives_the_same_images_for_any_number_of_images(tmp_path: Path) -> None:
    make_shapes(tmp_path / 'a', train=4, val=2, width=96, height=64)
    make_shapes(tmp_path / 'b', train=4, val=2, width=96, height=64)
    make_shapes(tmp_path / 'more', train=7, val=3, width=96, height=64)
    make_shapes(tmp_path / 'other', train=4, val=2, width=96, height=64, seed=1)
    first, again, more, other = (files(tmp_path / name) for name in ('a', 'b', 'more', 'other'))
    images = [name for name in first if name.startswith('images')]
    assert sorted(first) == [
        'annotations/instances_train.json',
        'annotations/instances_val.json',
        *(f'images/train/00000{number}.jpg' for number in (1, 2, 3, 4)),
        'images/val/000001.jpg',
        'images/val/000002.jpg',
        'preview.png',
    ]
    assert first == again
    assert all(first[name] == more[name] for name in images)
    assert not any(first[name] == other[name] for name in images)
    assert len({first[name] for name in images}) == 6
    kept = load(tmp_path / 'a', 'train')['annotations']
    assert kept == load(tmp_path / 'more', 'train')['annotations'][: len(kept)]


def test_annotations_describe_the_scenes(tmp_path: Path) -> None:
    report = make_shapes(tmp_path / 'set', train=3, val=1, seed=5, preview=False)
    coco = load(tmp_path / 'set', 'train')
    assert coco['categories'] == [
        {'id': 1, 'name': 'circle'},
        {'id': 2, 'name': 'square'},
        {'id': 3, 'name': 'triangle'},
    ]
    assert coco['images'] == [
        {'id': number, 'file_name': f'00000{number}.jpg', 'width': 240, 'height': 180}
        for number in (1, 2, 3)
    ]
    annotations = coco['annotations']
    assert [item['id'] for item in annotations] == list(range(1, len(annotations) + 1))
    for number in (1, 2, 3):
        scene = draw_scene(np.random.default_rng((5, 0, number)), 240, 180)
        mine = [item for item in annotations if item['image_id'] == number]
        assert [CLASSES[item['category_id'] - 1] for item in mine] == [
            shape.name for shape in scene
        ]
        assert [item['visible'] for item in mine] == pytest.approx(
            visible_shares(scene, 240, 180), abs=6e-4
        )
        for item, shape in zip(mine, scene, strict=True):
            x, y, width, height = item['bbox']
            assert (x, y, x + width, y + height) == pytest.approx(shape.box(240, 180), abs=0.011)
            assert item['area'] == pytest.approx(width * height, abs=0.011)
            assert item['iscrowd'] == 0
            (polygon,) = item['segmentation']
            xs, ys = polygon[::2], polygon[1::2]
            extent = min(xs), min(ys), max(xs), max(ys)
            assert extent == pytest.approx(shape.box(240, 180), abs=0.011)
        path = tmp_path / 'set' / 'images' / 'train' / f'00000{number}.jpg'
        assert cv2.imread(str(path)).shape == (180, 240, 3)
    summary = report.splits['train']
    counts = Counter(item['category_id'] for item in annotations)
    assert summary.class_boxes == {name: counts[index] for index, name in enumerate(CLASSES, 1)}
    assert summary.mean_occlusion == pytest.approx(
        1 - np.mean([item['visible'] for item in annotations])
    )
    sizes = sorted(max(item['bbox'][2:]) for item in annotations)
    assert (summary.sizes[0], summary.sizes[4]) == (sizes[0], sizes[-1])
    assert not (tmp_path / 'set' / 'preview.png').exists()
    assert [path.name for path in tmp_path.iterdir()] == ['set']  # no scratch folder is left


def test_preview_shows_boxes_and_legend(tmp_path: Path) -> None:
    make_shapes(tmp_path / 'set', train=2, val=1, width=80, height=64)
    sheet = cv2.imread(str(tmp_path / 'set' / 'preview.png'))
    assert sheet.shape == (2 * 64 + 40, 3 * 2 * 80, 3)  # one row of three, the last one blank
    assert (sheet[2:126, 322:478] == 255).all()
    circle = np.array((0, 230, 255))
    assert (sheet[:128, :320] == circle).all(axis=2).sum() > 50
    # OpenCV 4 draws no pixel of so thin a text in its full colour.
    assert (abs(sheet[128:].astype(int) - circle).max(axis=2) < 30).any()


def test_only_an_earlier_set_is_overwritten(tmp_path: Path) -> None:
    out = tmp_path / 'set'
    out.mkdir()  # an empty folder is accepted
    make_shapes(out, train=3, val=1, width=64, height=64)
    before = files(out)
    with pytest.raises(ShapesError, match='not an empty folder.*--overwrite'):
        make_shapes(out, train=1, val=1, width=64, height=64)
    assert files(out) == before
    (out / 'notes.txt').write_text('mine')
    make_shapes(out, train=1, val=1, width=64, height=64, overwrite=True, preview=False)
    assert sorted(files(out)) == [
        'annotations/instances_train.json',
        'annotations/instances_val.json',
        'images/train/000001.jpg',
        'images/val/000001.jpg',
        'notes.txt',
    ]


@pytest.mark.parametrize('content', ['{"info": {"description": "COCO 2017"}}', '[]', '{', None])
def test_another_set_is_never_overwritten(tmp_path: Path, content: str | None) -> None:
    out = tmp_path / 'mine'
    (out / 'annotations').mkdir(parents=True)
    (out / 'images').mkdir()
    (out / 'images' / 'precious.jpg').write_bytes(b'pixels')
    if content is not None:
        (out / 'annotations' / 'instances_train.json').write_text(content)
    before = files(out)
    with pytest.raises(ShapesError, match='something else than an earlier set of shapes'):
        make_shapes(out, train=1, val=1, overwrite=True)
    assert files(out) == before


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--train', '0'), 'train is 0; expected at least 1'),
        (('--val', '-3'), 'val is -3; expected at least 1'),
        (('--size', '240', '63'), 'height is 63; expected at least 64'),
        (('--seed', '-1'), 'seed is -1; expected at least 0'),
        (
            ('--shapes', '3', '1'),
            'shapes are from 3 to 1; expected two numbers, at least 0, the smaller one first',
        ),
        (
            ('--distractors', '-1', '1'),
            'distractors are from -1 to 1; expected two numbers, at least 0, the smaller one first',
        ),
    ],
)
def test_tool_reports_bad_arguments(
    tmp_path: Path, capsys, arguments: tuple[str, ...], message: str
) -> None:
    assert make_shapes_tool.main(['--out', str(tmp_path / 'set'), *arguments]) == 2
    assert capsys.readouterr().err == f'error: {message}\n'
    assert not any(tmp_path.iterdir())


def test_tool_reports_a_file_in_the_way(tmp_path: Path, capsys) -> None:
    (tmp_path / 'file').write_text('')
    assert make_shapes_tool.main(['--out', str(tmp_path / 'file')]) == 2
    assert capsys.readouterr().err.startswith(f'error: {tmp_path / "file"} is there already')


def test_tool_prints_the_table(tmp_path: Path, capsys) -> None:
    out = tmp_path / 'set'
    assert (
        make_shapes_tool.main(
            ['--out', str(out), '--train', '3', '--val', '2', '--size', '80', '64', '--no-preview']
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    counts = [
        Counter(item['category_id'] for item in load(out, split)['annotations'])
        for split in ('train', 'val')
    ]
    assert lines[0] == f'wrote {out}'
    assert [line.split() for line in lines[1:7]] == [
        ['train', 'val'],
        ['images', '3', '2'],
        ['boxes', *(str(count.total()) for count in counts)],
        *(
            [name, *(str(count[index]) for count in counts)]
            for index, name in enumerate(CLASSES, 1)
        ),
    ]
