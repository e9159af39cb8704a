"""CocoDataset: stock's samples, and a word about everything that is bad or dropped."""

from __future__ import annotations

import functools
import http.server
import json
import logging
import math
import pickle
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mmdet.datasets import CocoDataset as StockCocoDataset
from mmdet.registry import DATASETS
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from mmdet_ext.detection.datasets.coco import CocoDataset, box_problem

CLASSES = ('circle', 'square', 'triangle')
TRAIN = 'annotations/instances_train.json'
Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def data(shapes_root: Path, tmp_path: Path) -> Path:
    """A copy of the drawn set that a test may spoil: 8 training and 4 validation pictures."""
    return Path(shutil.copytree(shapes_root, tmp_path / 'data'))


@pytest.fixture
def warned() -> Iterator[list[str]]:
    """The warnings logged during a test. MMEngine's loggers take no part in `caplog`."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


def options(data: Path, **more: Any) -> dict[str, Any]:
    return {
        'data_root': str(data),
        'ann_file': TRAIN,
        'data_prefix': {'img': 'images/train/'},
        'metainfo': {'classes': CLASSES},
        'pipeline': [],
        'filter_cfg': {'filter_empty_gt': True, 'min_size': 32},
        **more,
    }


def ours(data: Path, **more: Any) -> CocoDataset:
    """Built as a config builds it, from another scope."""
    return DATASETS.build({'type': 'mmdet_ext.CocoDataset', **options(data, **more)})


def stock(data: Path, **more: Any) -> StockCocoDataset:
    return StockCocoDataset(**options(data, **more))


def samples(dataset: StockCocoDataset) -> list[dict[str, Any]]:
    return [dataset.get_data_info(index) for index in range(len(dataset))]


def edit(data: Path, change: Edit) -> None:
    path = data / TRAIN
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def picture(data: Path, number: int) -> Path:
    return data / 'images' / 'train' / f'{number:06d}.jpg'


# Good data


@pytest.mark.parametrize('test_mode', [False, True])
def test_good_data_gives_stocks_samples_without_a_word(
    data: Path, warned: list[str], test_mode: bool
) -> None:
    found, expected = ours(data, test_mode=test_mode), stock(data, test_mode=test_mode)
    assert samples(found) == samples(expected)
    assert len(found) == 8 and sum(len(s['instances']) for s in samples(found)) > 40
    assert found.metainfo == expected.metainfo
    assert warned == []


def test_a_subset_of_classes_in_file_order_is_stocks(data: Path, warned: list[str]) -> None:
    chosen = {'classes': ('circle', 'triangle')}
    found, expected = ours(data, metainfo=chosen), stock(data, metainfo=chosen)
    assert samples(found) == samples(expected)
    content = json.loads((data / TRAIN).read_text())
    squares = sum(ann['category_id'] == 2 for ann in content['annotations'])
    assert squares > 0
    assert len(warned) == 1 and f'{squares} boxes of other classes' in warned[0]


# The annotation file


def test_missing_annotation_file(data: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'instances_none\.json.*data_root=.*Set data_root'):
        ours(data, ann_file='annotations/instances_none.json')


def test_annotation_file_as_a_path_object(data: Path) -> None:
    assert samples(ours(data, ann_file=data / TRAIN)) == samples(stock(data))


@pytest.mark.parametrize('content', ['{"images": [', '', '\udcff'], ids=['cut', 'empty', 'bytes'])
def test_broken_json(data: Path, content: str) -> None:
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
def test_json_of_another_form(data: Path, content: Any, lacks: str) -> None:
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
        (r'annotations\[0\] has no area; expected', lambda c: c['annotations'][0].pop('area')),
        (r'annotations\[0\] has no id', lambda c: c['annotations'][0].pop('id')),
        (r'annotations\[2\] has no image_id', lambda c: c['annotations'][2].pop('image_id')),
        (r'annotations\[0\] has bbox \[1, 2\]', lambda c: c['annotations'][0].update(bbox=[1, 2])),
        (r"annotations\[0\] has bbox 'ab'", lambda c: c['annotations'][0].update(bbox='ab')),
        (r'images\[1\] has no width; expected a number', lambda c: c['images'][1].pop('width')),
        (r'images\[1\] has height None', lambda c: c['images'][1].update(height=None)),
        (r'categories\[1\] has no name', lambda c: c['categories'][1].pop('name')),
        ("1 ids stand more than once in 'images': 1", lambda c: c['images'][4].update(id=1)),
    ],
)
def test_malformed_record_is_named(data: Path, what: str, change: Edit) -> None:
    edit(data, change)
    with pytest.raises(ValueError, match=rf'instances_train\.json: {what}'):
        ours(data)


def test_boxes_of_unlisted_pictures_are_counted(data: Path, warned: list[str]) -> None:
    def unlist(content: dict[str, Any]) -> None:
        for ann in content['annotations'][2:9]:
            ann['image_id'] = 404

    edit(data, unlist)
    assert samples(ours(data)) == samples(stock(data))
    (message,) = warned
    assert message.endswith(
        'Not used: 7 boxes of unlisted pictures ('
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
def test_no_pictures(data: Path, test_mode: bool) -> None:
    edit(data, lambda content: content.update(images=[], annotations=[]))
    with pytest.raises(
        ValueError,
        match=r'leaves no pictures to use. It has 0 pictures; dropped: '
        r'nothing',
    ):
        ours(data, test_mode=test_mode)


def test_no_boxes(data: Path) -> None:
    edit(data, lambda content: content.update(annotations=[]))
    with pytest.raises(ValueError, match='leaves no boxes to use. It has 8 pictures'):
        ours(data)
    # Pictures without boxes can be tested: every detection is a false one.
    assert len(ours(data, test_mode=True)) == 8


def test_no_boxes_but_bad_ones(data: Path) -> None:
    edit(data, lambda c: [ann['bbox'].__setitem__(2, -5) for ann in c['annotations']])
    with pytest.raises(ValueError, match=r'leaves no boxes.*dropped: \d+ inverted boxes'):
        ours(data)


# Classes


def test_classes_that_are_not_in_the_file(data: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"classes \['cat', 'Circle'\].*\['circle', 'square', "
        r"'triangle'\]\. Set metainfo",
    ):
        ours(data, metainfo={'classes': ('cat', 'square', 'Circle')})


def test_stocks_own_classes_are_named_where_none_were_given(data: Path) -> None:
    with pytest.raises(ValueError, match="'person', 'bicycle'.*Set metainfo"):
        ours(data, metainfo=None)


def test_class_order_that_differs_from_the_files(data: Path) -> None:
    swapped = {'classes': ('triangle', 'square', 'circle')}
    content = json.loads((data / TRAIN).read_text())
    names = {category['id']: category['name'] for category in content['categories']}
    truth = [names[ann['category_id']] for ann in content['annotations'] if ann['image_id'] == 1]

    # Stock numbers labels in the file's order and names them in metainfo's: circles become
    # triangles, without a word.
    said = [
        swapped['classes'][instance['bbox_label']]
        for instance in samples(stock(data, metainfo=swapped))[0]['instances']
    ]
    assert said != truth
    rename = {'circle': 'triangle', 'triangle': 'circle', 'square': 'square'}
    assert said == [rename[name] for name in truth]

    with pytest.raises(
        ValueError,
        match=r"order \['circle', 'square', 'triangle'\].*swapped.*"
        r"classes=\('circle', 'square', 'triangle'\)",
    ):
        ours(data, metainfo=swapped)


def test_classes_of_one_name(data: Path) -> None:
    """Stock counts them as two, so that the last label is one that no head has."""

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


# Boxes

BAD_BOXES = {
    'inverted boxes': {'bbox': [40, 20, -10, 12]},
    'boxes narrower than a pixel': {'bbox': [40, 20, 0, 12]},
    'boxes outside the picture': {'bbox': [96, 20, 10, 12]},
    'boxes with numbers that are not finite': {'bbox': [math.inf, 20, 10, 12]},
    "boxes marked 'ignore'": {'ignore': 1},
    'boxes of other classes': {'category_id': 9},
}


@pytest.mark.parametrize(('reason', 'change'), BAD_BOXES.items(), ids=BAD_BOXES)
def test_bad_boxes_are_dropped_and_counted(
    data: Path, warned: list[str], reason: str, change: dict[str, Any]
) -> None:
    def spoil(content: dict[str, Any]) -> None:
        content['annotations'][0].update(change)
        content['annotations'][3].update(change)

    total = sum(len(sample['instances']) for sample in samples(ours(data)))
    edit(data, spoil)
    found = ours(data)
    assert samples(found) == samples(stock(data))
    assert sum(len(sample['instances']) for sample in samples(found)) == total - 2
    (message,) = warned
    bbox = json.loads((data / TRAIN).read_text())['annotations'][0]['bbox']
    assert f'8 pictures, {total - 2} boxes used. Not used: 2 {reason} (000001.jpg {bbox}' in message
    assert 'instances_train.json' in message


def test_all_reasons_come_in_one_warning_with_few_examples(data: Path, warned: list[str]) -> None:
    def spoil(content: dict[str, Any]) -> None:
        for ann in content['annotations'][:7]:
            ann['bbox'][3] = -3
        content['annotations'][7]['bbox'][2] = 0.5

    edit(data, spoil)
    assert samples(ours(data)) == samples(stock(data))
    (message,) = warned
    inverted, narrow = message.partition('Not used: ')[2].split('; ')
    assert inverted.startswith('7 inverted boxes (') and inverted.endswith(', and 2 more)')
    assert inverted.count('000001.jpg') == 5
    assert narrow.startswith('1 boxes narrower than a pixel (')


def test_dropped_boxes_do_not_stay_in_memory(data: Path) -> None:
    """Each worker of a data loader is sent the pickled data set."""

    def spoil(content: dict[str, Any]) -> None:
        last = content['annotations'][-1]
        content['annotations'] += [
            {**last, 'id': 1000 + number, 'bbox': [7, 7, -5, 12]} for number in range(3000)
        ]

    edit(data, spoil)
    found, expected = ours(data), stock(data)
    assert len(pickle.dumps(found)) < len(pickle.dumps(expected)) + 1000


def test_boxes_partly_outside_stay(data: Path, warned: list[str]) -> None:
    edit(data, lambda c: c['annotations'][0].update(bbox=[-5, -5, 30, 30]))
    (first, *_) = samples(ours(data))[0]['instances']
    assert first['bbox'] == [-5, -5, 25, 25]
    assert warned == []


def test_infinite_box_would_reach_a_stock_training(data: Path) -> None:
    edit(data, lambda c: c['annotations'][0].update(bbox=[5, 5, math.inf, 9], area=9))
    assert samples(stock(data))[0]['instances'][0]['bbox'][2] == math.inf
    found = samples(ours(data))[0]['instances']
    assert found == samples(stock(data))[0]['instances'][1:]


def test_box_problem_is_stocks_rule(shapes_root: Path) -> None:
    """On 3,000 random annotations, good and bad: passed over here as there."""
    rng = random.Random(0)
    dataset = stock(shapes_root)
    image = {'img_id': 1, 'file_name': 'a.jpg', 'width': 96, 'height': 72}
    kept = 0
    for _ in range(3000):
        ann = {
            'bbox': [
                rng.choice([-20, -1, 0, 0.5, 30, 71.5, 72, 95.5, 96, 200]),
                rng.choice([-20, -1, 0, 0.5, 30, 71.5, 72, 95.5, 96, 200]),
                rng.choice([-9, 0, 0.99, 1, 5, 20, 300]),
                rng.choice([-9, 0, 0.99, 1, 5, 20, 300]),
            ],
            'area': rng.choice([-1, 0, 0.1, 9, 9, 9]),
            'category_id': rng.choice([1, 2, 3, 3, 4]),
            'ignore': rng.choice([0, 0, 0, 1]),
        }
        reached = dataset.parse_data_info({'raw_img_info': image, 'raw_ann_info': [ann]})
        kept += len(reached['instances'])
        problem = box_problem(ann, 96, 72, dataset.cat_ids)
        assert (problem is None) == (len(reached['instances']) == 1), (ann, problem)
    assert 100 < kept < 2900


# Pictures


def test_truncated_picture_is_dropped_in_training(data: Path, warned: list[str]) -> None:
    cut(picture(data, 3))
    init_default_scope('mmdet')
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=(96, 72)),
        dict(type='PackDetInputs'),
    ]
    found = ours(data, pipeline=pipeline)
    expected = [sample for sample in samples(stock(data)) if '000003' not in sample['img_path']]
    assert samples(found) == [
        {**sample, 'sample_idx': index} for index, sample in enumerate(expected)
    ]
    assert len(found) == 7
    (message,) = warned
    assert '7 pictures, ' in message and '1 pictures, truncated JPEG' in message
    assert str(picture(data, 3)) in message
    # Training goes on: every sample comes through the pipeline.
    shapes = [tuple(found[index]['inputs'].shape) for index in range(len(found))]
    assert shapes == [(3, 72, 96)] * 7


def test_truncated_picture_is_an_error_in_testing(data: Path) -> None:
    cut(picture(data, 3))
    with pytest.raises(
        ValueError,
        match=r'1 of 8 pictures .* cannot be read: .*000003\.jpg: '
        r"truncated JPEG.*set bad_images='drop'",
    ):
        ours(data, test_mode=True)


def test_what_to_do_with_bad_pictures_can_be_chosen(data: Path, warned: list[str]) -> None:
    cut(picture(data, 3))
    picture(data, 5).unlink()
    assert len(ours(data, bad_images='drop', test_mode=True)) == 6
    assert len(warned) == 1 and '1 pictures, missing' in warned[0]
    assert len(ours(data, bad_images='unchecked')) == 8
    assert len(warned) == 1
    with pytest.raises(ValueError, match=r'2 of 8 pictures.*000003.*000005\.jpg: missing'):
        ours(data, bad_images='error')


@pytest.mark.parametrize('value', ['skip', True, ''])
def test_bad_images_itself_is_checked(data: Path, value: Any) -> None:
    with pytest.raises(ValueError, match=r"bad_images must be 'drop', .* got " + repr(value)):
        ours(data, bad_images=value)


def test_missing_pictures_are_dropped_in_training(data: Path, warned: list[str]) -> None:
    for number in (1, 2):
        picture(data, number).unlink()
    found = ours(data)
    assert [sample['img_id'] for sample in samples(found)] == [3, 4, 5, 6, 7, 8]
    (message,) = warned
    assert '2 pictures, missing (' in message and str(picture(data, 2)) in message


@pytest.mark.parametrize('test_mode', [False, True])
def test_all_pictures_missing_is_a_wrong_folder(data: Path, test_mode: bool) -> None:
    with pytest.raises(
        FileNotFoundError,
        match=r'none of the 8 pictures .*Check data_root=.* and '
        r'data_prefix=.*images/nowhere',
    ):
        ours(data, data_prefix={'img': 'images/nowhere/'}, test_mode=test_mode)


def test_all_pictures_truncated_leaves_nothing(data: Path) -> None:
    for number in range(1, 9):
        cut(picture(data, number))
    with pytest.raises(
        ValueError,
        match=r'leaves no pictures to use. It has 8 pictures; dropped: '
        r'8 pictures, truncated JPEG',
    ):
        ours(data)


def test_pictures_behind_a_backend_are_not_looked_for(data: Path, warned: list[str]) -> None:
    cut(picture(data, 3))
    found = ours(data, backend_args={'backend': 'local'})
    assert len(found) == 8 and warned == []


def test_pictures_behind_a_prefix_are_not_looked_for(data: Path, warned: list[str]) -> None:
    found = ours(data, data_prefix={'img': 's3://bucket/train/'}, test_mode=True)
    assert found[0]['img_path'] == 's3://bucket/train/000001.jpg'
    assert len(found) == 8 and warned == []


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def url(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The data set, served over HTTP."""
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    handler = functools.partial(QuietHandler, directory=str(data))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


def test_annotation_file_behind_a_prefix(data: Path, url: str) -> None:
    assert samples(ours(data, ann_file=f'{url}/{TRAIN}')) == samples(stock(data))
    # What is fetched is checked as a file on disk is, and called by its address.
    edit(data, lambda content: content['images'][3].pop('height'))
    with pytest.raises(ValueError, match=rf'^{url}/{TRAIN}: images\[3\] has no height'):
        ours(data, ann_file=f'{url}/{TRAIN}')


# Pictures that filter_cfg takes away


def test_filtered_pictures_are_counted(data: Path, warned: list[str]) -> None:
    def empty_two(content: dict[str, Any]) -> None:
        content['annotations'] = [a for a in content['annotations'] if a['image_id'] > 2]

    edit(data, empty_two)
    found = ours(data)
    assert samples(found) == samples(stock(data)) and len(found) == 6
    (message,) = warned
    assert "{'filter_empty_gt': True, 'min_size': 32} takes away 2 of 8 pictures" in message


def test_filter_that_takes_all_is_an_error(data: Path) -> None:
    with pytest.raises(ValueError, match=r"'min_size': 500} takes away all 8 pictures"):
        ours(data, filter_cfg={'min_size': 500})
