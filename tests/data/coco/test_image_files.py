"""Tests of stated sizes against files: filled in, corrected, or the image is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmdet_ext.data.coco.image_files import (
    ImageFiles,
    check_image_files,
    note_corner_boxes,
    note_missing_sizes,
)
from mmdet_ext.data.reports import Tally

#: Size of all files, and boxes within it and beyond it, as x, y, width, height.
WIDTH, HEIGHT = 100, 60
INSIDE, RIGHT, BELOW = [10, 10, 30, 40], [120, 20, 60, 30], [20, 70, 20, 25]
DRAWN = 'boxes drawn at another size than that of the file'


@pytest.fixture
def look(tmp_path: Path) -> Callable[..., tuple[ImageFiles, dict[str, Any]]]:
    """Return a function that makes an image per stated size, with its boxes, and checks all."""

    def run(*images: tuple[Any, list[list[float]]], turned: bool = True) -> Any:
        rng = np.random.default_rng(0)
        coco: dict[str, Any] = {'images': [], 'annotations': [], 'categories': []}
        for number, (stated, boxes) in enumerate(images):
            pixels = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f'{number}.png')
            sides = dict(zip(('width', 'height'), stated, strict=True)) if stated else {}
            coco['images'].append({'id': number, 'file_name': f'{number}.png', **sides})
            coco['annotations'] += [{'image_id': number, 'bbox': box} for box in boxes]
        paths = [tmp_path / image['file_name'] for image in coco['images']]
        return check_image_files(coco, paths, turned=turned), coco

    return run


@pytest.mark.parametrize(
    ('stated', 'note'),
    [
        ((WIDTH, HEIGHT), None),
        (None, 'size missing (0.png: none, true 100x60)'),
        ((-1, -1), 'size missing (0.png: -1x-1, true 100x60)'),
        ((0, HEIGHT), 'size missing (0.png: 0x60, true 100x60)'),
        ((None, HEIGHT), 'size missing (0.png: ?x60, true 100x60)'),
        (('wide', HEIGHT), 'size missing (0.png: widex60, true 100x60)'),
        ((HEIGHT, WIDTH), 'width and height swapped (0.png: 60x100, true 100x60)'),
        ((200, 120), 'size of another scale (0.png: 200x120, true 100x60)'),
        ((50, 30), 'size of another scale (0.png: 50x30, true 100x60)'),
        ((120, 200), 'width and height swapped, of another scale (0.png: 120x200, true 100x60)'),
        ((101, 60), 'size wrong (0.png: 101x60, true 100x60)'),
        ((640, 480), 'size wrong (0.png: 640x480, true 100x60)'),
    ],
)
def test_size_of_the_file_is_taken_and_noted(look, stated: Any, note: str | None) -> None:
    found, coco = look((stated, [INSIDE]))
    assert str(found.notes) == (f'1 images, {note}' if note else '')
    assert (coco['images'][0]['width'], coco['images'][0]['height']) == (WIDTH, HEIGHT)
    assert found.bad == {}


def test_images_with_boxes_drawn_at_another_scale_are_bad(look, tmp_path: Path) -> None:
    """Boxes in the upper left fit both sizes; they follow those of the other images."""
    large = (200, 120)
    found, _ = look((large, [INSIDE, RIGHT]), (large, [INSIDE]), (large, []), ((WIDTH, HEIGHT), []))
    assert found.misdrawn == {
        tmp_path / '0.png': '200x120, true 100x60',
        tmp_path / '1.png': '200x120, true 100x60',
    }
    assert found.bad == dict.fromkeys(found.misdrawn, DRAWN)
    assert str(found.notes).startswith('3 images, size of another scale (')


def test_boxes_that_fit_the_file_are_not_drawn_at_the_stated_scale(look) -> None:
    large, careless = (200, 120), [60, 10, 45, 40]
    found, _ = look((large, [INSIDE]), (large, [careless]), (large, [[0, 0, 300, 50]]))
    assert found.bad == {}
    assert look(((50, 30), [INSIDE, [80, 40, 15, 15]]))[0].bad == {}


def test_many_boxes_that_keep_to_a_smaller_stated_size_are_drawn_there(look) -> None:
    half, small = (50, 30), [10, 5, 38, 24]
    found, _ = look((half, [small] * 12), (half, [small] * 8), (half, []))
    assert [path.name for path in found.bad] == ['0.png', '1.png']
    assert look((half, [small] * 12), (half, [small] * 7))[0].bad == {}  # too few to judge
    assert look((half, [small] * 20), (half, [INSIDE]))[0].bad == {}  # one fits the file alone
    assert look(((90, 54), [small] * 20))[0].bad == {}  # hardly smaller


def test_one_odd_image_among_many_is_bad_alone(look, tmp_path: Path) -> None:
    large = (200, 120)
    found, _ = look((large, [RIGHT]), *[(large, [INSIDE])] * 12)
    assert list(found.misdrawn) == [tmp_path / '0.png']


def test_boxes_drawn_before_a_turn_are_bad(look, tmp_path: Path) -> None:
    turned = (HEIGHT, WIDTH)
    found, coco = look((turned, [BELOW]), (turned, [INSIDE]), ((WIDTH, HEIGHT), [INSIDE]))
    assert list(found.misdrawn) == [tmp_path / '0.png', tmp_path / '1.png']
    assert coco['images'][0]['width'] == WIDTH


def test_boxes_drawn_after_a_turn_are_right_where_the_sides_alone_are_swapped(look) -> None:
    turned, wide = (HEIGHT, WIDTH), [70, 10, 25, 40]
    found, _ = look((turned, [wide]), (turned, [INSIDE]))
    assert found.bad == {}
    # Where images of both sorts are mixed, each is judged by its own boxes.
    found, _ = look((turned, [wide]), (turned, [INSIDE]), (turned, [BELOW]))
    assert [path.name for path in found.bad] == ['2.png']


def test_a_turn_in_the_exif_tag_counts_as_the_loader_takes_it(look, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (WIDTH, HEIGHT)).save(tmp_path / 'turned.jpg', exif=exif)
    image = {'id': 1, 'file_name': 'turned.jpg', 'width': WIDTH, 'height': HEIGHT}
    for turned, size in ((False, (WIDTH, HEIGHT)), (True, (HEIGHT, WIDTH))):
        coco = {'images': [dict(image)], 'annotations': [], 'categories': []}
        found = check_image_files(coco, [tmp_path / 'turned.jpg'], turned=turned)
        assert (coco['images'][0]['width'], coco['images'][0]['height']) == size
        assert ('swapped' in str(found.notes)) is turned


def test_copies_and_repeated_files_are_counted(look, tmp_path: Path) -> None:
    _, coco = look(*[((WIDTH, HEIGHT), [INSIDE])] * 4)
    for number in (2, 3):
        (tmp_path / f'{number}.png').write_bytes((tmp_path / '0.png').read_bytes())
    coco['images'] += [{'id': 9, 'file_name': './1.png', 'width': WIDTH, 'height': HEIGHT}]
    paths = [tmp_path / image['file_name'] for image in coco['images']]
    notes = check_image_files(coco, paths).notes
    assert str(notes) == (
        f'1 files under several image ids ({tmp_path}/1.png: ids 1, 9); '
        f'2 files with the content of another file ({tmp_path}/2.png = {tmp_path}/0.png, '
        f'{tmp_path}/3.png = {tmp_path}/0.png)'
    )


def test_files_that_cannot_be_read_keep_their_stated_size(look, tmp_path: Path) -> None:
    _, coco = look((None, [INSIDE]), ((WIDTH, HEIGHT), [INSIDE]))
    (tmp_path / '0.png').unlink()
    del coco['images'][0]['width']
    found = check_image_files(coco, [tmp_path / '0.png', tmp_path / '1.png'])
    assert found.bad == {tmp_path / '0.png': 'missing'} and not found.notes
    assert str(note_missing_sizes(coco)) == '1 images, size missing (0.png: ?x60)'


def corners(*boxes: list[float]) -> str:
    notes = Tally()
    images = [{'id': 1, 'width': WIDTH, 'height': HEIGHT}]
    records = [{'image_id': 1, 'bbox': box} for box in boxes]
    note_corner_boxes({'images': images, 'annotations': records}, notes)
    return str(notes)


def test_corners_in_place_of_sides_are_noted_where_that_is_certain() -> None:
    box = [50, 20, 90, 55]
    assert corners(*[box] * 5).startswith(
        '5 boxes that leave their image, and fit as corners x1, y1, x2, y2; bbox must be '
        '[x, y, width, height] (annotations[0] has bbox [50, 20, 90, 55], '
    )
    assert corners(*[box] * 4) == ''  # too few to judge
    assert corners(*[box] * 5, [50, 20, 10, 10]) == ''  # no corners
    assert corners(*[box] * 5, *[[1, 1, 40, 40]] * 5) == ''  # half of them fit as they are
    assert corners(*[box] * 6, *[[1, 1, 40, 40]] * 5).startswith('6 boxes that leave')
