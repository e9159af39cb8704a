"""Tests of COCO files: wrong records are named or counted, categories are matched by name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from mmdet_ext.data.coco.annotations import (
    check_records,
    load_coco,
    number_categories,
    repeated_names,
    usable_annotations,
)
from mmdet_ext.data.reports import LayoutError, Tally

IMAGE = {'id': 1, 'file_name': 'a.jpg', 'width': 40, 'height': 30}
BOX = {'id': 5, 'image_id': 1, 'category_id': 1, 'bbox': [1, 2, 3, 4]}


def coco(*annotations: Any, **lists: Any) -> dict[str, Any]:
    categories = [{'id': 1, 'name': 'cat'}, {'id': 7, 'name': 'dog'}]
    content = {'images': [IMAGE], 'annotations': list(annotations), 'categories': categories}
    return {**content, **lists}


def written(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding='utf-8')
    return path


def test_good_file_is_read_unchanged(tmp_path: Path) -> None:
    content = coco(BOX, info={'year': 2024})
    assert load_coco(written(tmp_path / 'a.json', content)) == content


def test_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    content = coco(BOX, categories=[{'id': 1, 'name': 'K\u00e4fer'}])
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(content, ensure_ascii=False), encoding='utf-8-sig')
    assert load_coco(path) == content


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('{"images": [', 'cannot be read as json'),
        ('[1, 2]', 'no list images, annotations, categories; found list'),
        ('{"images": [], "annotations": {}}', r'no list annotations, categories; found \['),
        ('{"images": [], "annotations": [], "categories": null}', r'no list categories; found \['),
    ],
)
def test_other_json_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / 'train.json'
    path.write_text(text)
    with pytest.raises(LayoutError, match=reason) as caught:
        load_coco(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ('kind', 'record', 'reason'),
    [
        ('images', {'file_name': 'b.jpg', 'width': 4, 'height': 3}, 'has no id; expected a number'),
        ('images', {**IMAGE, 'id': [2]}, r'has id \[2\]; expected a number or text'),
        ('images', {'id': 2, 'width': 4, 'height': 3}, 'has no file_name; expected text'),
        ('images', {**IMAGE, 'id': 2, 'file_name': ''}, "has file_name ''; expected text"),
        ('images', {**IMAGE, 'id': True}, 'has id True; expected a number or text'),
        ('images', {**IMAGE, 'id': math.nan}, 'has id nan; expected a number or text'),
        ('categories', {'id': False, 'name': 'cow'}, 'has id False; expected a number or text'),
        ('images', 'b.jpg', "is 'b.jpg', no record with 'id'"),
        ('images', None, "is None, no record with 'id'"),
        ('categories', {'name': 'cow'}, 'has no id'),
        ('categories', {'id': 3}, 'has no name; expected text'),
        ('categories', {'id': 3, 'name': None}, 'has name None; expected text'),
    ],
)
def test_record_that_cannot_be_used_is_named(
    tmp_path: Path, kind: str, record: Any, reason: str
) -> None:
    content = coco()
    content[kind] = [*content[kind], record]
    where = rf'a\.json: {kind}\[{len(content[kind]) - 1}\] '
    with pytest.raises(LayoutError, match=where + reason + '.*Mend this record or remove it'):
        load_coco(written(tmp_path / 'a.json', content))


@pytest.mark.parametrize('kind', ['images', 'categories'])
def test_repeated_ids_are_named(tmp_path: Path, kind: str) -> None:
    records = {'images': IMAGE, 'categories': {'name': 'cat'}}
    content = coco(**{kind: [{**records[kind], 'id': n} for n in (4, 9, 4, 9, 9, 2)]})
    with pytest.raises(LayoutError, match=f"a.json: 2 ids stand more .* '{kind}': 4, 9. Give each"):
        load_coco(written(tmp_path / 'a.json', content))


@pytest.mark.parametrize(
    ('change', 'shown'),
    [({'width': None}, 'width None'), ({'height': -1}, 'height -1'), ({'width': 0}, 'width 0')],
)
def test_sizes_are_checked_only_where_they_are_needed(
    tmp_path: Path, change: dict[str, Any], shown: str
) -> None:
    images = [IMAGE, {**IMAGE, 'id': 2, **change}, {**IMAGE, 'id': 3, **change}]
    content = load_coco(written(tmp_path / 'a.json', coco(images=images)))
    assert content['images'] == images
    with pytest.raises(
        LayoutError,
        match=rf'a: images\[1\] has {shown}; expected a number of px above 0\. Mend .*'
        r'1 more images are faulty: images\[2\]',
    ):
        check_records('a', 'images', content['images'], ('width', 'height'))


def test_messages_use_the_given_name_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match='^s3://b/a.json is not a COCO'):
        load_coco(written(tmp_path / 'a.json', {}), 's3://b/a.json')


def test_long_records_are_cut_in_messages() -> None:
    record = {**BOX, 'segmentation': [list(range(10000))], 'bbox': None}
    with pytest.raises(LayoutError, match=r'has bbox None; expected \[x, y, width') as caught:
        check_records('a.json', 'annotations', [BOX, record], ('bbox',))
    assert 100 < len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ('change', 'reason', 'shown'),
    [
        ({'bbox': None}, 'without a usable bbox', 'has bbox None'),
        ({'bbox': []}, 'without a usable bbox', 'has bbox []'),
        ({'bbox': ['1', '2', '3', '4']}, 'without a usable bbox', "has bbox ['1', '2', '3', '4']"),
        ({'bbox': [1, 2, 3]}, 'without a usable bbox', 'has bbox [1, 2, 3]'),
        ({'bbox': {'x': 1}}, 'without a usable bbox', "has bbox {'x': 1}"),
        ({'bbox': [1, 2, math.inf, 4]}, 'of no finite size', 'has bbox [1, 2, inf, 4]'),
        ({'bbox': [math.nan, 2, 3, 4]}, 'of no finite size', 'has bbox [nan, 2, 3, 4]'),
        ({'category_id': 99}, 'of an unknown category_id', 'has category_id 99'),
        ({'category_id': '1'}, 'of an unknown category_id', "has category_id '1'"),
        ({'category_id': [1]}, 'without a usable category_id', 'has category_id [1]'),
        ({'image_id': 99}, 'of an unknown image_id', 'has image_id 99'),
        ({'image_id': None}, 'without a usable image_id', 'has image_id None'),
    ],
)
def test_annotations_that_cannot_be_used_are_counted(
    change: dict[str, Any], reason: str, shown: str
) -> None:
    kept, dropped = usable_annotations(coco(BOX, {**BOX, **change}, {**BOX, 'id': 6}))
    assert kept == [BOX, {**BOX, 'id': 6}]
    assert str(dropped) == f'1 {reason} (annotations[1] {shown})'


def test_annotations_without_keys_and_other_values_are_counted() -> None:
    kept, dropped = usable_annotations(coco({'id': 1}, 3, None))
    assert kept == []
    assert str(dropped) == (
        '3 without a usable image_id (annotations[0] has no image_id, annotations[1] is 3, no '
        "record with 'image_id', annotations[2] is None, no record with 'image_id')"
    )


def test_huge_and_negative_coordinates_are_usable() -> None:
    box = {**BOX, 'bbox': [10**400, 0.5, -3, 4]}
    kept, dropped = usable_annotations(coco(box))
    assert kept == [box] and not dropped


def test_categories_are_renumbered_by_name() -> None:
    content = coco(
        *({'id': n, 'image_id': 1, 'category_id': c} for n, c in enumerate([1, 7, 0, 7, 3])),
        categories=[
            {'id': 0, 'name': 'cat'},
            {'id': 1, 'name': 'cat', 'supercategory': 'cat'},
            {'id': 7, 'name': 'dog'},
            {'id': 3, 'name': 'cow'},
        ],
    )
    numbered, left_out = number_categories(content, ('dog', 'cat'))
    assert numbered['categories'] == [{'id': 1, 'name': 'dog'}, {'id': 2, 'name': 'cat'}]
    assert [(b['id'], b['category_id']) for b in numbered['annotations']] == [
        (0, 2),
        (1, 1),
        (2, 2),
        (3, 1),
    ]
    assert left_out == {'cow': 1}
    assert [b['category_id'] for b in content['annotations']] == [1, 7, 0, 7, 3]
    assert repeated_names(content) == {'cat': [0, 1]}


def test_tally_counts_all_and_keeps_few_examples() -> None:
    tally = Tally()
    assert not tally
    for number in range(1000):
        tally.add('thin boxes', f'{number}.jpg')
    tally.add('others', 'x')
    expected = '1000 thin boxes (0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, and 995 more); 1 others (x)'
    assert tally and str(tally) == expected
    assert '5.jpg' not in str(vars(tally))
