"""Values that CocoDataset reads as they are meant, and sizes that it takes from the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests._helpers.coco_data import TRAIN, edit, image_path, ours, samples, stock


@pytest.mark.parametrize('value', ['0', 'false', None, '0.0', False, 'no'])
@pytest.mark.parametrize('key', ['iscrowd', 'ignore'])
def test_flags_that_are_not_set_change_nothing(
    data: Path, warned: list[str], key: str, value: Any
) -> None:
    expected = samples(stock(data))
    edit(data, lambda c: [ann.update({key: value}) for ann in c['annotations']])
    assert samples(ours(data)) == expected
    assert warned == []


def test_text_is_true_to_mmdet(data: Path) -> None:
    edit(data, lambda c: [ann.update(iscrowd='0') for ann in c['annotations']])
    flags = {box['ignore_flag'] for sample in samples(stock(data)) for box in sample['instances']}
    assert flags == {1}


@pytest.mark.parametrize('value', ['1', 'true', True, '1.0'])
def test_flags_that_are_set_are_read(data: Path, warned: list[str], value: Any) -> None:
    def mark(content: dict[str, Any]) -> None:
        content['annotations'][0]['iscrowd'] = value
        content['annotations'][1]['ignore'] = value

    before = samples(ours(data))[0]['instances']
    edit(data, mark)
    first, *others = samples(ours(data))[0]['instances']
    assert first == {**before[0], 'ignore_flag': 1} and others == before[2:]
    (message,) = warned
    assert "Not used: 1 boxes marked 'ignore' (" in message


def test_a_flag_that_cannot_be_read_is_an_error(data: Path) -> None:
    edit(data, lambda c: c['annotations'][4].update(iscrowd='perhaps'))
    with pytest.raises(ValueError, match=r"train\.json: 1 annotations have an iscrowd .*'perhaps'"):
        ours(data)


def test_numbers_as_text_give_the_samples_of_numbers(data: Path, warned: list[str]) -> None:
    def write_text(content: dict[str, Any]) -> None:
        for ann in content['annotations']:
            ann.update(bbox=[str(side) for side in ann['bbox']], area=f' {ann["area"]}')
        for image in content['images']:
            image.update(width=str(image['width']), height=f'{image["height"]}.0')

    expected = samples(ours(data))
    edit(data, write_text)
    assert samples(ours(data)) == expected
    assert warned == []


@pytest.mark.parametrize('value', ['0', None])
def test_testing_warns_of_what_the_evaluator_reads_by_itself(
    data: Path, warned: list[str], value: Any
) -> None:
    edit(data, lambda c: [ann.update(iscrowd=value) for ann in c['annotations'][:7]])
    found = ours(data, test_mode=True)
    assert {box['ignore_flag'] for each in samples(found) for box in each['instances']} == {0}
    (message,) = warned
    assert f'7 iscrowd that is no number (annotations[0] has {value!r}, ' in message
    assert 'such as CocoMetric with ann_file' in message
    assert 'Write the file anew with tools/data/rewrite_coco.py' in message


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_testing_warns_of_a_file_that_the_evaluator_cannot_read(
    data: Path, warned: list[str], encoding: str
) -> None:
    path = data / TRAIN
    path.write_text(path.read_text(), encoding)
    ours(data, test_mode=True)
    (message,) = warned
    assert f'1 file that is not plain UTF-8 (it is {encoding}' in message


def test_testing_warns_of_boxes_whose_numbers_are_text(data: Path, warned: list[str]) -> None:
    edit(data, lambda c: c['annotations'][2].update(bbox=['5', '6', '20', '25']))
    ours(data, test_mode=True)
    (message,) = warned
    assert '1 bbox with numbers that are text (annotations[2])' in message


SIZES: list[tuple[str, Any, str]] = [
    ('absent', None, 'none, true 96x72'),
    ('minus one', (-1, -1), '-1x-1, true 96x72'),
    ('zero', (0, 0), '0x0, true 96x72'),
    ('null', (None, None), 'none, true 96x72'),
    ('text', ('', 'high'), 'xhigh, true 96x72'),
    ('swapped', (72, 96), '72x96, true 96x72'),
    ('half', (48, 36), '48x36, true 96x72'),
    ('double', (192, 144), '192x144, true 96x72'),
    ('wrong', (10, 10), '10x10, true 96x72'),
]


@pytest.mark.parametrize('test_mode', [False, True])
@pytest.mark.parametrize(
    ('size', 'shown'), [case[1:] for case in SIZES], ids=[case[0] for case in SIZES]
)
def test_size_of_the_file_is_taken(
    data: Path, warned: list[str], size: Any, shown: str, test_mode: bool
) -> None:
    def spoil(content: dict[str, Any]) -> None:
        for image in content['images']:
            del image['width'], image['height']
            if size is not None:
                image.update(width=size[0], height=size[1])

    expected = samples(ours(data, test_mode=test_mode))
    edit(data, spoil)
    assert samples(ours(data, test_mode=test_mode)) == expected
    (message,) = warned
    assert f'8 images, {sum(len(s["instances"]) for s in expected)} boxes used. Noted: ' in message
    assert f'(000001.jpg: {shown}, 000002.jpg' in message and 'and 3 more)' in message


def scale_boxes(content: dict[str, Any], numbers: range) -> None:
    """State images at twice their size, with boxes drawn there."""
    for image in content['images']:
        if image['id'] in numbers:
            image.update(width=192, height=144)
    for ann in content['annotations']:
        if ann['image_id'] in numbers:
            ann['bbox'] = [2 * side for side in ann['bbox']]


def test_images_with_boxes_drawn_at_another_size_follow_bad_images(
    data: Path, warned: list[str]
) -> None:
    expected = [sample for sample in samples(ours(data)) if sample['img_id'] > 2]
    edit(data, lambda content: scale_boxes(content, range(1, 3)))
    kept = samples(ours(data))
    assert [(s['img_id'], s['instances']) for s in kept] == [
        (s['img_id'], s['instances']) for s in expected
    ]
    (message,) = warned
    assert (
        'Not used: 2 images, boxes drawn at another size than that of the file ('
        f'{image_path(data, 1)}: 192x144, true 96x72, '
    ) in message
    with pytest.raises(
        ValueError,
        match=r'2 of 8 images .* have another size than the annotations state, and boxes drawn at '
        r"the stated one: .*000001\.jpg: 192x144, true 96x72.*Resize or turn .*bad_images='drop'",
    ):
        ours(data, test_mode=True)


def test_a_turned_photograph_is_used_if_its_boxes_are_turned(data: Path, warned: list[str]) -> None:
    """Annotations state the size as stored, and boxes as seen: they fit the turned image."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = image_path(data, 1)
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    edit(data, lambda content: content['images'][0].update(width=72, height=96))
    assert (
        samples(ours(data))[0]['instances'] == samples(ours(data, test_mode=True))[0]['instances']
    )
    assert len(samples(ours(data))) == 8
    assert '1 images, width and height swapped (000001.jpg: 72x96, true 96x72)' in warned[0]
    # A loader that does not turn gives the image as it is stored.
    warned.clear()
    loader = {'type': 'LoadImageFromFile', 'color_type': 'color_ignore_orientation'}
    assert ours(data, pipeline=[loader])[0]['img'].shape == (96, 72, 3)
    assert not any('swapped' in message for message in warned)


@pytest.mark.parametrize(
    'options',
    [
        {'bad_images': 'unchecked'},
        {'backend_args': {'backend': 'local'}},
        {'data_prefix': {'img': 's3://bucket/train/'}},
    ],
    ids=['unchecked', 'backend', 'prefix'],
)
def test_sizes_must_be_stated_where_images_are_not_checked(
    data: Path, options: dict[str, Any]
) -> None:
    assert len(ours(data, **options)) == 8
    edit(data, lambda content: content['images'][3].update(height=-1))
    with pytest.raises(
        ValueError,
        match=r'train\.json: unchecked images\[3\] has height -1; expected a number of px above 0',
    ):
        ours(data, **options)


@pytest.mark.parametrize('test_mode', [False, True])
@pytest.mark.parametrize('key', ['image_id', 'category_id'])
def test_ids_of_another_kind_are_named(data: Path, key: str, test_mode: bool) -> None:
    edit(data, lambda c: [ann.update({key: str(ann[key])}) for ann in c['annotations']])
    count = len(json.loads((data / TRAIN).read_text())['annotations'])
    with pytest.raises(
        ValueError,
        match=rf'{key} and the ids of .* are of different kinds: {key} is text in {count} '
        rf"annotations \(annotations\[0\] has {key} '1', .* are numbers, such as 1\. Write both",
    ):
        ours(data, test_mode=test_mode)


def test_ids_may_all_be_text(data: Path, warned: list[str]) -> None:
    def write_text(content: dict[str, Any]) -> None:
        for record in (*content['images'], *content['categories']):
            record['id'] = str(record['id'])
        for ann in content['annotations']:
            ann.update(image_id=str(ann['image_id']), category_id=str(ann['category_id']))

    expected = [sample['instances'] for sample in samples(ours(data))]
    edit(data, write_text)
    found = samples(ours(data))
    assert [sample['instances'] for sample in found] == expected
    assert found[0]['img_id'] == '1' and warned == []


def test_an_unlisted_image_of_another_kind_is_named_as_such(data: Path, warned: list[str]) -> None:
    edit(data, lambda content: content['annotations'][2].update(image_id='gone'))
    ours(data)
    (message,) = warned
    assert (
        "1 boxes of unlisted images (annotation 3 of image_id 'gone', of another kind than ids of "
        'images such as 1)'
    ) in message


@pytest.mark.parametrize('test_mode', [False, True])
def test_boxes_in_fractions_are_named(data: Path, test_mode: bool) -> None:
    def divide(content: dict[str, Any]) -> None:
        for ann in content['annotations']:
            ann['bbox'] = [side / (96, 72, 96, 72)[k] for k, side in enumerate(ann['bbox'])]

    edit(data, divide)
    with pytest.raises(ValueError, match='boxes are in fractions of the size of the image'):
        ours(data, test_mode=test_mode)


def test_a_few_boxes_in_fractions_are_counted(data: Path, warned: list[str]) -> None:
    edit(data, lambda content: content['annotations'][0].update(bbox=[0.25, 0.5, 0.5, 0.125]))
    ours(data)
    (message,) = warned
    assert '1 boxes within 0..1, as in fractions of the image instead of px (000001.jpg ' in message


def test_corners_in_place_of_sides_are_noted(data: Path, warned: list[str]) -> None:
    def write_corners(content: dict[str, Any]) -> None:
        for ann in content['annotations']:
            ann['bbox'] = [50, 40, 90, 70]

    edit(data, write_corners)
    ours(data)
    (message,) = warned
    assert 'boxes that leave their image, and fit as corners x1, y1, x2, y2' in message
