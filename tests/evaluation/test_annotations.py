"""Files of annotations read into columns: what is absent, repeated or unusual in them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mmdet_ext.evaluation.annotations import from_content, read_annotations

pytest.importorskip('pycocotools')


def content(**changes: Any) -> dict[str, Any]:
    """Make a file whose images and categories do not ascend by id."""
    return {
        'images': [
            {'id': 9, 'height': 50, 'width': 60},
            {'id': 4, 'height': 70, 'width': 80},
        ],
        'categories': [{'id': 5, 'name': 'b'}, {'id': 2, 'name': 'a'}],
        'annotations': [box(1, 9, 5), box(2, 4, 2, iscrowd=1), box(3, 4, 5)],
    } | changes


def box(number: int, image: int, category: int, **more: Any) -> dict[str, Any]:
    corner = [number, 2 * number, 10, 20]
    given = {'id': number, 'image_id': image, 'category_id': category, 'bbox': corner}
    return given | {'area': 100 + number, 'iscrowd': 0} | more


def without(annotation: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in annotation.items() if name != key}


def test_rows_ascend_by_id_and_the_order_of_the_file_is_kept() -> None:
    truth, order, notes = from_content(content())
    assert truth.image_ids == [4, 9] and truth.sizes.tolist() == [[70, 80], [50, 60]]
    assert truth.category_ids == [2, 5] and truth.names == ['a', 'b']
    assert order.tolist() == [1, 0]
    assert truth.image.tolist() == [1, 0, 0] and truth.category.tolist() == [1, 0, 1]
    assert truth.boxes.tolist() == [[k, 2 * k, 10, 20] for k in (1, 2, 3)]
    assert truth.area.tolist() == [101, 102, 103] and truth.crowd.tolist() == [False, True, False]
    assert truth.masks is None and truth.keypoints is None and truth.federated is None
    assert notes == ()


def test_an_absent_iscrowd_is_0_and_an_absent_area_that_of_the_mask() -> None:
    mask = [[0, 0, 10, 0, 10, 10]]
    given = [
        without(box(1, 9, 5), 'iscrowd'),
        without(box(2, 9, 5, segmentation=mask), 'area'),
        without(box(3, 9, 5), 'area'),
        without(box(4, 9, 5, segmentation={'size': [50, 60], 'counts': [7, 30, 2963]}), 'area'),
    ]
    truth, _, notes = from_content(content(annotations=given))
    assert truth.crowd.tolist() == [False] * 4
    drawn = truth.area[1]
    # A right triangle of the legs 10, drawn on pixels.
    assert 40 <= drawn <= 60 and truth.area.tolist() == [101, drawn, 200, 30]
    assert notes == (
        "1 annotations without 'iscrowd', taken as 0",
        "3 annotations without 'area', taken from the mask, or from the box where there is none",
    )


@pytest.mark.parametrize(
    ('annotations', 'note'),
    [
        ([box(0, 9, 5), box(1, 9, 5)], '1 annotations with the id 0, renumbered'),
        ([box(1, 9, 5), box(1, 9, 2)], '1 annotations with an id that another one has'),
        ([box(1, 9, 5, ignore=1), box(2, 9, 5, ignore=1, iscrowd=1)], "1 .* an 'ignore' flag"),
        ([box(1, 9, 5), box(2, 99, 5), box(3, 9, 55)], '2 annotations of an image or a category'),
    ],
    ids=['id 0', 'same id', 'ignore', 'unknown image and category'],
)
def test_what_is_unusual_is_reported(annotations: list[Any], note: str) -> None:
    truth, _, notes = from_content(content(annotations=annotations))
    (line,) = notes
    assert re.match(note, line)
    assert len(truth) == sum(
        each['image_id'] in (4, 9) and each['category_id'] in (2, 5) for each in annotations
    )


def test_flags_are_kept_beside_crowds() -> None:
    flagged = [box(1, 9, 5, ignore=1), box(2, 9, 5)]
    truth = from_content(content(annotations=flagged)).truth
    assert truth.flagged.tolist() == [True, False] and not truth.crowd.any()


def test_a_file_without_annotations_has_no_rows() -> None:
    truth = from_content(without(content(), 'annotations')).truth
    assert len(truth) == 0 and truth.boxes.shape == (0, 4) and truth.image_ids == [4, 9]


def test_keypoints_and_masks_are_read_where_they_are_asked_for() -> None:
    points = [1, 2, 2, 3, 4, 0]
    given = [box(1, 9, 5, keypoints=points, segmentation=[[0, 0, 9, 0, 9, 9]])]
    truth = from_content(content(annotations=given), masks=True, keypoints=True).truth
    assert truth.keypoints is not None
    assert truth.keypoints.tolist() == [[[1, 2, 2], [3, 4, 0]]]
    assert truth.masks == [[[0, 0, 9, 0, 9, 9]]]


def test_the_lists_of_lvis_are_read() -> None:
    given = content(
        images=[
            {'id': 9, 'height': 5, 'width': 6}
            | {'neg_category_ids': [2, 77], 'not_exhaustive_category_ids': []},
            {'id': 4, 'height': 5, 'width': 6}
            | {'neg_category_ids': [], 'not_exhaustive_category_ids': [5]},
        ],
        categories=[
            {'id': 5, 'name': 'b', 'frequency': 'f'},
            {'id': 2, 'name': 'a', 'frequency': 'r'},
        ],
        annotations=[without(box(1, 9, 5), 'iscrowd')],
    )
    truth, _, notes = from_content(given, federated=True)
    lists = truth.federated
    assert lists is not None and list(lists.frequency) == ['r', 'f']
    assert [rows.tolist() for rows in lists.negative] == [[], [0]]
    assert [rows.tolist() for rows in lists.not_exhaustive] == [[1], []]
    assert notes == ()
    with pytest.raises(ValueError, match="2 of 2 entries lack 'neg_category_ids', first 9"):
        from_content(content(), federated=True)


@pytest.mark.parametrize(
    ('options', 'annotation', 'message'),
    [
        ({}, without(box(1, 9, 5), 'bbox'), 'annotation 1 of image 9 has no bbox'),
        ({}, box(1, 9, 5, bbox=[1, 2, 3]), 'has no bbox of four numbers'),
        ({'masks': True}, box(1, 9, 5), 'annotation 1 of image 9 has no segmentation, which met'),
        ({'keypoints': True}, box(1, 9, 5), 'there are annotations of .0. numbers'),
        ({'keypoints': True}, box(1, 9, 5, keypoints=[1, 2]), 'annotations of .2. numbers'),
    ],
    ids=['no box', 'three numbers', 'no mask', 'no keypoints', 'no visibility'],
)
def test_annotations_that_lack_what_is_compared_are_refused(
    options: dict[str, bool], annotation: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        from_content(content(annotations=[annotation]), **options)


def test_a_file_is_named_in_its_errors(tmp_path: Path) -> None:
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(content()), 'utf-8')
    assert read_annotations(path).truth.image_ids == [4, 9]
    path.write_text('{"images": [', 'utf-8')
    with pytest.raises(ValueError, match=r'truth\.json is no json file'):
        read_annotations(path)
    path.write_text('[]', 'utf-8')
    with pytest.raises(ValueError, match="is no COCO file: it needs the keys 'images'"):
        read_annotations(path)
    path.write_text(json.dumps(content(annotations=[box(1, 9, 5, bbox=None)])), 'utf-8')
    with pytest.raises(ValueError, match=r'truth\.json: annotation 1'):
        read_annotations(path)
    with pytest.raises(FileNotFoundError):
        read_annotations(tmp_path / 'absent.json')
