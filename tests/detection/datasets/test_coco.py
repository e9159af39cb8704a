"""CocoDataset: the samples of mmdet, and errors for files and classes that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests._helpers.coco_data import CLASSES, TRAIN, Edit, edit, ours, samples, stock


@pytest.mark.parametrize('test_mode', [False, True])
def test_good_data_gives_the_samples_of_mmdet_without_a_warning(
    data: Path, warned: list[str], test_mode: bool
) -> None:
    found, expected = ours(data, test_mode=test_mode), stock(data, test_mode=test_mode)
    assert samples(found) == samples(expected)
    assert len(found) == 8 and sum(len(s['instances']) for s in samples(found)) > 40
    assert found.metainfo == expected.metainfo
    assert warned == []


@pytest.mark.slow
def test_a_subset_of_classes_in_file_order_gives_the_samples_of_mmdet(
    data: Path, warned: list[str]
) -> None:
    chosen = {'classes': ('circle', 'triangle')}
    found, expected = ours(data, metainfo=chosen), stock(data, metainfo=chosen)
    assert samples(found) == samples(expected)
    content = json.loads((data / TRAIN).read_text())
    squares = sum(ann['category_id'] == 2 for ann in content['annotations'])
    assert squares > 0
    assert len(warned) == 1 and f'{squares} boxes of other classes' in warned[0]


def test_a_missing_annotation_file_is_an_error_that_names_the_options(data: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'instances_none\.json.*data_root=.*Set data_root'):
        ours(data, ann_file='annotations/instances_none.json')


def test_the_annotation_file_may_be_a_path_object(data: Path) -> None:
    assert samples(ours(data, ann_file=data / TRAIN)) == samples(stock(data))


@pytest.mark.parametrize('content', ['{"images": [', '', '\udcff'], ids=['cut', 'empty', 'bytes'])
def test_broken_json_is_refused(data: Path, content: str) -> None:
    (data / TRAIN).write_text(content, errors='surrogateescape')
    with pytest.raises(ValueError, match=r'instances_train\.json cannot be read as json: '):
        ours(data)


@pytest.mark.parametrize(
    ('content', 'lacks'),
    [
        ({'images': [], 'annotations': []}, 'categories'),
        ({'shapes': []}, 'images, annotations, categories'),
        ([{'bbox': [0, 0, 1, 1]}], 'images, annotations, categories'),
        (3, 'images, annotations, categories'),
        ({'images': [], 'annotations': [], 'categories': None}, 'categories'),
    ],
)
def test_json_of_another_form_is_refused(data: Path, content: Any, lacks: str) -> None:
    (data / TRAIN).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f'json is not a COCO .* no list {lacks}; found'):
        ours(data)


@pytest.mark.parametrize(
    ('what', 'change'),
    [
        (
            r'annotations\[0\] has no bbox; expected \[x, y',
            lambda c: c['annotations'][0].pop('bbox'),
        ),
        (
            r'annotations\[0\] has no area; expected.*rewrite_coco.py, which fills',
            lambda c: c['annotations'][0].pop('area'),
        ),
        (r'annotations\[0\] has no id', lambda c: c['annotations'][0].pop('id')),
        (r'annotations\[2\] has no image_id', lambda c: c['annotations'][2].pop('image_id')),
        (r'annotations\[0\] has bbox \[1, 2\]', lambda c: c['annotations'][0].update(bbox=[1, 2])),
        (r"annotations\[0\] has bbox 'ab'", lambda c: c['annotations'][0].update(bbox='ab')),
        (r'images\[1\] has no file_name; expected text', lambda c: c['images'][1].pop('file_name')),
        (r'images\[1\] has id True', lambda c: c['images'][1].update(id=True)),
        (
            r'annotations\[1\] has no bbox.*2 more annotations are faulty: annotations\[4\], ann',
            lambda c: [c['annotations'][index].pop('bbox') for index in (1, 4, 6)],
        ),
        (r'categories\[1\] has no name', lambda c: c['categories'][1].pop('name')),
        ("1 ids stand more than once in 'images': 1", lambda c: c['images'][4].update(id=1)),
        (
            "1 ids stand more than once in 'annotations': 1.*rewrite_coco.py",
            lambda c: c['annotations'][4].update(id=1),
        ),
    ],
)
def test_an_incomplete_record_is_named(data: Path, what: str, change: Edit) -> None:
    edit(data, change)
    with pytest.raises(ValueError, match=rf'instances_train\.json: {what}'):
        ours(data)


def test_boxes_of_unlisted_images_are_counted(data: Path, warned: list[str]) -> None:
    def unlist(content: dict[str, Any]) -> None:
        for ann in content['annotations'][2:9]:
            ann['image_id'] = 404

    edit(data, unlist)
    assert samples(ours(data)) == samples(stock(data))
    (message,) = warned
    assert message.endswith(
        'Not used: 7 boxes of unlisted images ('
        + ', '.join(f'annotation {number} of image_id 404' for number in range(3, 8))
        + ', and 2 more)'
    )


def test_the_file_is_parsed_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    loads = json.JSONDecoder.decode

    def counted(self: json.JSONDecoder, text: str) -> Any:
        parsed.append(len(text))
        return loads(self, text)

    monkeypatch.setattr(json.JSONDecoder, 'decode', counted)
    assert len(ours(data)) == 8
    assert parsed == [(data / TRAIN).stat().st_size]


@pytest.mark.parametrize('test_mode', [False, True])
def test_a_file_without_images_is_refused(data: Path, test_mode: bool) -> None:
    edit(data, lambda content: content.update(images=[], annotations=[]))
    with pytest.raises(
        ValueError,
        match=r'leaves no images to use. It has 0 images; dropped: '
        r'nothing$',
    ):
        ours(data, test_mode=test_mode)


def test_a_file_without_boxes_is_refused_for_training(data: Path) -> None:
    edit(data, lambda content: content.update(annotations=[]))
    with pytest.raises(
        ValueError,
        match='leaves no boxes to use. It has 8 images.*background alone set filter_cfg',
    ):
        ours(data)
    background = ours(data, filter_cfg=dict(filter_empty_gt=False, min_size=32))
    assert len(background) == 8 and background.get_cat_ids(0) == []
    # Images without boxes can be tested: every detection is a false positive.
    assert len(ours(data, test_mode=True)) == 8


def test_a_file_with_bad_boxes_alone_is_refused_for_training(data: Path) -> None:
    edit(data, lambda c: [ann['bbox'].__setitem__(2, -5) for ann in c['annotations']])
    for options in ({}, dict(filter_cfg=dict(filter_empty_gt=False))):
        with pytest.raises(ValueError, match=r'leaves no boxes.*dropped: \d+ inverted boxes'):
            ours(data, **options)


@pytest.mark.slow
def test_an_annotation_file_behind_a_prefix_is_read_and_checked(data: Path, url: str) -> None:
    assert samples(ours(data, ann_file=f'{url}/{TRAIN}')) == samples(stock(data))
    # A fetched file is checked as one on disk is, and errors name its address.
    edit(data, lambda content: content['images'][3].pop('file_name'))
    with pytest.raises(ValueError, match=rf'^{url}/{TRAIN}: images\[3\] has no file_name'):
        ours(data, ann_file=f'{url}/{TRAIN}')


def test_classes_that_are_not_in_the_file_are_refused(data: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"classes \['cat', 'Circle'\].*\['circle', 'square', "
        r"'triangle'\]\. Set metainfo",
    ):
        ours(data, metainfo={'classes': ('cat', 'square', 'Circle')})


def test_the_default_classes_of_mmdet_are_named_where_none_are_given(data: Path) -> None:
    with pytest.raises(ValueError, match="'person', 'bicycle'.*Set metainfo"):
        ours(data, metainfo=None)


def test_classes_in_another_order_than_in_the_file_are_refused(data: Path) -> None:
    swapped = {'classes': ('triangle', 'square', 'circle')}
    content = json.loads((data / TRAIN).read_text())
    names = {category['id']: category['name'] for category in content['categories']}
    truth = [names[ann['category_id']] for ann in content['annotations'] if ann['image_id'] == 1]

    # mmdet numbers labels in the order of the file and names them in the order of metainfo:
    # circles silently become triangles.
    named = [
        swapped['classes'][instance['bbox_label']]
        for instance in samples(stock(data, metainfo=swapped))[0]['instances']
    ]
    assert named != truth
    rename = {'circle': 'triangle', 'triangle': 'circle', 'square': 'square'}
    assert named == [rename[name] for name in truth]

    with pytest.raises(
        ValueError,
        match=r"order \['circle', 'square', 'triangle'\].*swapped.*"
        r"classes=\('circle', 'square', 'triangle'\)",
    ):
        ours(data, metainfo=swapped)


def test_two_classes_with_one_name_are_refused(data: Path) -> None:
    """Mmdet counts them as two classes, so that the last label exceeds those of the head."""

    def repeat(content: dict[str, Any]) -> None:
        content['categories'].insert(0, {'id': 0, 'name': 'circle', 'supercategory': 'none'})

    edit(data, repeat)
    labels = {i['bbox_label'] for sample in samples(stock(data)) for i in sample['instances']}
    assert max(labels) == len(CLASSES)
    with pytest.raises(
        ValueError,
        match=r"several categories of one name, {'circle': \[0, 1\]} "
        r'.*Remove those without boxes',
    ):
        ours(data)


def test_unused_categories_may_share_a_name(data: Path, warned: list[str]) -> None:
    edit(data, lambda c: c['categories'].extend({'id': n, 'name': 'misc'} for n in (8, 9)))
    assert samples(ours(data)) == samples(stock(data))
    assert warned == []
