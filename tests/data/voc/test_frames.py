"""Tests of sizes that the xml states, and of boxes that are not in pixels of the image."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from mmdet_ext.data.coco.class_counts import count_classes
from mmdet_ext.data.coco.voc import convert_voc
from tests.data.coco.voc_builder import Voc, converted_boxes, load_split

Corners = tuple[object, ...]


def convert(
    voc: Voc,
    out: Path,
    stated: str | None,
    *boxes: Corners,
    size: tuple[int, int] = (100, 80),
    turned: bool = False,
) -> tuple[dict[str, list[str]], dict[str, list[str]], list[list[float]]]:
    """Convert an image and a plain one beside it; return what was dropped and noted, and boxes."""
    path = voc.image('a.jpg', size=size)
    if turned:
        exif = Image.Exif()
        exif[0x0112] = 6
        with Image.open(path) as image:
            image.save(path, exif=exif)
    voc.xml('a', *(('cat', box) for box in boxes), size=stated)
    voc.sample('b', ('cat', (1, 1, 9, 9)))
    voc.split('train', 'a', 'b')
    (report,) = convert_voc(voc.root, out)
    found = [box for name, _, box in converted_boxes(out) if name == 'a.jpg']
    return dict(report.dropped_images), dict(report.notes), found


@pytest.mark.parametrize(
    ('stated', 'shown'),
    [
        ('-1 -1', '-1x-1, true 100x80'),
        ('0 0', '0x0, true 100x80'),
        ('100 0', '100x0, true 100x80'),
        ('wide 80', 'widex80, true 100x80'),
        (None, 'none, true 100x80'),
    ],
)
def test_a_missing_size_is_taken_from_the_image(
    voc: Voc, out: Path, stated: str | None, shown: str
) -> None:
    dropped, notes, boxes = convert(voc, out, stated, (1, 2, 99, 79))
    assert (dropped, boxes) == ({}, [[1, 2, 98, 77]])
    assert notes == {'size missing in the xml': [f'a: {shown}']}
    images = load_split(out, 'train')['images']
    assert (images[0]['width'], images[0]['height']) == (100, 80)


def test_a_size_with_decimals_is_a_size(voc: Voc, out: Path) -> None:
    assert convert(voc, out, '100.0 80.0', (1, 2, 99, 79)) == ({}, {}, [[1, 2, 98, 77]])


@pytest.mark.parametrize(
    ('stated', 'reason'),
    [
        ('80 100', 'width and height swapped'),
        ('50 40', 'size of another scale'),
        ('200 160', 'size of another scale'),
        ('99 12', 'size wrong'),
    ],
)
def test_boxes_that_fit_the_image_are_kept_under_another_size(
    voc: Voc, out: Path, stated: str, reason: str
) -> None:
    dropped, notes, boxes = convert(voc, out, stated, (1, 2, 99, 79), (1, 1, 5, 5))
    assert (dropped, boxes) == ({}, [[1, 2, 98, 77], [1, 1, 4, 4]])
    shown = stated.replace(' ', 'x')
    assert notes == {f'{reason} in the xml': [f'a: {shown}, true 100x80']}


@pytest.mark.parametrize(
    ('stated', 'box', 'reason'),
    [
        ('200 160', (1, 2, 180, 150), 'size of another scale'),
        ('200 160', (120, 90, 180, 150), 'size of another scale'),
        ('80 100', (1, 2, 70, 95), 'width and height swapped'),
        ('160 200', (1, 2, 150, 190), 'width and height swapped, of another scale'),
    ],
)
def test_boxes_that_fit_the_stated_size_alone_are_left_out_with_their_image(
    voc: Voc, out: Path, stated: str, box: Corners, reason: str
) -> None:
    dropped, notes, boxes = convert(voc, out, stated, box, (1, 1, 5, 5))
    shown = stated.replace(' ', 'x')
    assert (notes, boxes) == ({}, [])
    assert dropped == {
        'boxes drawn at another size than that of the file; resize or turn boxes or image': [
            f'a: {reason}, {shown}, true 100x80'
        ]
    }


def test_the_size_is_that_of_the_image_as_the_loader_turns_it(voc: Voc, out: Path) -> None:
    dropped, notes, boxes = convert(voc, out, '80 100', (1, 2, 79, 99), turned=True)
    assert (dropped, notes, boxes) == ({}, {}, [[1, 2, 78, 97]])


def test_boxes_of_an_image_that_the_program_did_not_turn_are_left_out(voc: Voc, out: Path) -> None:
    dropped, _, boxes = convert(voc, out, '100 80', (1, 2, 99, 79), turned=True)
    assert boxes == []
    assert list(dropped.values()) == [['a: width and height swapped, 100x80, true 80x100']]
    assert next(iter(dropped)).startswith('boxes drawn at another size than that of the file')


def test_boxes_in_fractions_of_the_image_are_named_with_what_to_do(voc: Voc, out: Path) -> None:
    dropped, notes, boxes = convert(
        voc, out, '100 80', (0.1, 0.25, 0.5, 0.75), (0, 0, 1, 1), ('0.0', '0.0', '1.0', '0.5')
    )
    assert (notes, boxes) == ({}, [])
    assert dropped == {
        'boxes within 0..1, as in fractions of the image; multiply them by its sides': [
            'a: 0.1,0.25,0.5,0.75'
        ]
    }


@pytest.mark.parametrize('corners', [(0, 0, 1, 1), (0.5, 0.5, 40.5, 30.5)])
def test_small_boxes_in_pixels_are_kept(voc: Voc, out: Path, corners: Corners) -> None:
    dropped, notes, boxes = convert(voc, out, '100 80', corners, (1, 1, 50, 50))
    assert (dropped, notes, len(boxes)) == ({}, {}, 2)


def test_class_counts_name_the_images_that_are_left_out(voc: Voc) -> None:
    for name, box in (('a', (0.1, 0.25, 0.5, 0.75)), ('b', (1, 1, 9, 9))):
        voc.sample(name, ('cat', box))
    voc.split('train', 'a', 'b')
    voc.split('val', 'a')
    found = count_classes([voc.root])
    assert (found.counts, found.images) == ([1], 1)
    assert found.notes == [
        f'{voc.root}: images left out with their boxes: 1 boxes within 0..1, as in fractions of '
        'the image; multiply them by its sides (a: 0.1,0.25,0.5,0.75)'
    ]


def test_images_of_one_difference_are_judged_together(voc: Voc, out: Path) -> None:
    for number in range(10):
        corner = 150 if number == 0 else 40
        voc.image(f'{number}.jpg', seed=number)
        voc.xml(f'{number}', ('cat', (1, 2, corner, 60)), size='200 160')
    voc.sample('plain', ('cat', (1, 1, 9, 9)))
    voc.split('train', 'plain', *'0123456789')
    (report,) = convert_voc(voc.root, out)
    assert converted_boxes(out) == [('plain.jpg', 'cat', [1, 1, 8, 8])]
    assert [len(lines) for lines in report.dropped_images.values()] == [10]


def test_many_boxes_that_keep_to_a_smaller_stated_size_are_drawn_at_it(voc: Voc, out: Path) -> None:
    for number in range(10):
        voc.image(f'{number}.jpg', seed=number, size=(200, 160))
        boxes = [('cat', (x, 2, x + 60, 60)) for x in (1, 20, 39)]
        voc.xml(f'{number}', *boxes, size='100 80')
    voc.sample('plain', ('cat', (1, 1, 9, 9)))
    voc.split('train', 'plain', *'0123456789')
    (report,) = convert_voc(voc.root, out)
    assert converted_boxes(out) == [('plain.jpg', 'cat', [1, 1, 8, 8])]
    assert [len(lines) for lines in report.dropped_images.values()] == [10]
