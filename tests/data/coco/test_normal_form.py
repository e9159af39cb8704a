"""Tests of flags and numbers as text: read where that is certain, counted where it is not."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_ext.data.coco.annotations import load_coco, read_coco, usable_annotations
from mmdet_ext.data.coco.normal_form import complete_annotations, evaluation_faults
from mmdet_ext.data.reports import LayoutError


def coco(**change: Any) -> dict[str, Any]:
    """Return a file of two images with three boxes each, all annotations changed."""
    return {
        'images': [{'id': n, 'file_name': f'{n}.jpg', 'width': 100, 'height': 80} for n in (1, 2)],
        'categories': [{'id': 1, 'name': 'cat'}],
        'annotations': [
            {
                'id': n + 1,
                'image_id': 1 + n % 2,
                'category_id': 1,
                'bbox': [10 * n, 5, 8, 20],
                'area': 160,
                'iscrowd': 0,
                **change,
            }
            for n in range(6)
        ],
    }


def loaded(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    (folder / 'a.json').write_text(json.dumps(content))
    return load_coco(folder / 'a.json')


@pytest.mark.parametrize('key', ['iscrowd', 'ignore'])
@pytest.mark.parametrize(
    ('value', 'expected'),
    [('0', 0), ('false', 0), (None, 0), ('', 0), (0.0, 0), (False, 0), ('1', 1), ('1.0', 1)]
    + [('true', 1), (True, 1), (1.0, 1), ('Yes', 1)],
)
def test_flags_are_read(tmp_path: Path, key: str, value: Any, expected: int) -> None:
    found = loaded(tmp_path, coco(**{key: value}))['annotations']
    assert [record[key] for record in found] == [expected] * 6


@pytest.mark.parametrize('value', ['maybe', 2, [0], 'nan', 0.5])
def test_flags_that_cannot_be_read_are_counted(tmp_path: Path, value: Any) -> None:
    content = coco()
    for index in (1, 4):
        content['annotations'][index]['iscrowd'] = value
    with pytest.raises(LayoutError) as caught:
        loaded(tmp_path, content)
    assert str(caught.value) == (
        f'{tmp_path}/a.json: 2 annotations have an iscrowd that is neither true nor false: '
        f'annotations[1] has iscrowd {value!r}, annotations[4] has iscrowd {value!r}. Write 0 or 1'
    )


def test_numbers_as_text_are_read_and_other_text_stays(tmp_path: Path) -> None:
    content = coco(bbox=['1', '2.5', ' 3 ', 4], area='12.5')
    content['images'][0].update(width='100', height='80.0')
    content['images'][1].update(width='wide', height=None)
    content['annotations'][0].update(bbox=['1', 'x', 3, 4], area='large')
    found = loaded(tmp_path, content)
    assert [(i['width'], i['height']) for i in found['images']] == [(100, 80.0), ('wide', None)]
    assert found['annotations'][1]['bbox'] == [1, 2.5, 3, 4]
    assert found['annotations'][1]['area'] == 12.5
    assert found['annotations'][0]['bbox'] == ['1', 'x', 3, 4]
    assert found['annotations'][0]['area'] == 'large'
    kept, dropped = usable_annotations(found)
    assert len(kept) == 5 and '1 without a usable bbox' in str(dropped)


@pytest.mark.parametrize(
    'text', ['[1, 2.5, 3, 4]', '1,2.5,3,4', '1 2.5 3 4', ' ( 1 ; 2.5 ; 3 ; 4 ) ', '[1. 2.5 3. 4.]']
)
def test_a_box_may_be_one_text(tmp_path: Path, text: str) -> None:
    assert loaded(tmp_path, coco(bbox=text))['annotations'][0]['bbox'] == [1, 2.5, 3, 4]


@pytest.mark.parametrize('text', ['', 'ab', '1, x, 3, 4', '[]', '1 2 3 4px'])
def test_other_text_is_no_box(tmp_path: Path, text: str) -> None:
    found = loaded(tmp_path, coco(bbox=text))
    assert found['annotations'][0]['bbox'] == text
    kept, dropped = usable_annotations(found)
    assert kept == [] and '6 without a usable bbox (annotations[0] has bbox ' in str(dropped)


def test_boxes_in_fractions_are_named(tmp_path: Path) -> None:
    content = coco(bbox=[0.25, 0.5, 0.125, 0.25], area=0.03)
    content['annotations'][0]['bbox'] = [0, 0, 1, 1]
    content['annotations'][1]['bbox'] = ['0.5', '0.5', '0.5', '0.5']
    with pytest.raises(LayoutError) as caught:
        loaded(tmp_path, content)
    message = str(caught.value)
    assert 'a.json: boxes are in fractions of the size of the image, within 0..1, not in px: ' in (
        message
    )
    assert 'annotations[1] has bbox [0.5, 0.5, 0.5, 0.5], annotations[2] has bbox [0.25' in message
    assert 'Multiply x and width by the width of the image in px' in message


def test_a_few_small_boxes_are_no_fractions(tmp_path: Path) -> None:
    content = coco()
    content['annotations'][0]['bbox'] = [0, 0, 0.5, 0.5]
    assert loaded(tmp_path, content) == content


def evaluated(content: dict[str, Any]) -> float:
    """Return the mAP of a perfect detector, as pycocotools computes it."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(content)
        truth.createIndex()
        results = truth.loadRes(
            [
                {'image_id': 1 + n % 2, 'category_id': 1, 'bbox': [10 * n, 5, 8, 20], 'score': 0.9}
                for n in range(6)
            ]
        )
        evaluation = COCOeval(truth, results, 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


FAULTS = [
    ({'iscrowd': '0'}, "6 iscrowd that is no number (annotations[0] has '0', "),
    ({'iscrowd': 'false'}, "6 iscrowd that is no number (annotations[0] has 'false', "),
    ({'iscrowd': None}, '6 iscrowd that is no number (annotations[0] has None, '),
    ({'bbox': '10, 5, 8, 20'}, '6 bbox that is one text (annotations[0], '),
    ({'area': '160'}, "6 area that is text (annotations[0] has '160', "),
    ({'id': 'a'}, "6 id that is no number (annotations[0] has 'a', "),
]


@pytest.mark.parametrize(('change', 'fault'), FAULTS, ids=[str(case[0]) for case in FAULTS])
def test_values_that_spoil_the_evaluation_are_counted(
    tmp_path: Path, change: dict[str, Any], fault: str
) -> None:
    """A perfect detector does not get its 1.0 from pycocotools, or only after the rewriting."""
    content = coco(**change)
    assert str(evaluation_faults(content)).startswith(fault)
    try:
        score = evaluated(content)
    except Exception:
        score = -1
    assert score < 1
    (tmp_path / 'a.json').write_text(json.dumps(content))
    read, faults = read_coco(tmp_path / 'a.json')
    assert str(faults) == str(evaluation_faults(content))
    complete_annotations(read)
    if 'bbox' in change:  # all boxes are alike there
        assert read['annotations'][0]['bbox'] == [10, 5, 8, 20]
        read = coco()
    assert evaluated(read) == pytest.approx(1)
    assert not evaluation_faults(read)


def test_an_id_of_zero_and_an_absent_iscrowd_are_counted() -> None:
    content = coco()
    content['annotations'][2]['id'] = 0
    content['annotations'][3]['id'] = '0'
    del content['annotations'][4]['iscrowd']
    assert evaluated({**content, 'annotations': content['annotations'][:3]}) < 1
    assert str(evaluation_faults(content)) == (
        "2 id 0, which stands for 'no match' there (annotations[2], annotations[3]); "
        '1 annotations without iscrowd (annotations[4])'
    )


@pytest.mark.parametrize(
    'change', [{}, {'iscrowd': False}, {'iscrowd': 0.0}, {'ignore': '0'}, {'bbox': None}]
)
def test_values_that_the_evaluation_reads_alike_are_no_fault(change: dict[str, Any]) -> None:
    content = coco(**change)
    assert not evaluation_faults({**content, 'annotations': [*content['annotations'], 3, None]})
    if 'bbox' not in change:
        assert evaluated(content) == pytest.approx(1)
