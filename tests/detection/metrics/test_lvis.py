"""LVISMetric: figures of mmdet's, which the package lvis computes, and its rules by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

pytest.importorskip('mmdet', reason='MMDetection is absent')

from tests.detection.metrics.coco_samples import (
    CLASSES,
    SIDE,
    content,
    evaluated,
    metric_of,
    samples_of,
    written,
)
from tests.evaluation.made_columns import BACKENDS

NAMES = ['AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'APr', 'APc', 'APf']


def lvis_content(images: int = 10, seed: int = 0) -> Any:
    """Make annotations with LVIS's lists; each category has a class of its own."""
    generator = np.random.default_rng(seed)
    made = content(images, seed=seed)
    made['categories'] = [
        {'id': each['id'], 'name': each['name'], 'frequency': 'rcf'[place % 3]}
        for place, each in enumerate(made['categories'])
        if each['name'] in CLASSES
    ]
    ids = [each['id'] for each in made['categories']]
    made['annotations'] = [each for each in made['annotations'] if each['category_id'] in ids]
    for each in made['annotations']:
        del each['iscrowd']
    for image in made['images']:
        mine = [a['category_id'] for a in made['annotations'] if a['image_id'] == image['id']]
        absent = [number for number in ids if number not in mine]
        image['neg_category_ids'] = absent[: generator.integers(0, 2)]
        image['not_exhaustive_category_ids'] = [int(generator.choice(ids))]
    return made


def samples(annotations: Any, masks: bool = False) -> list[dict[str, Any]]:
    made = {
        **annotations,
        'annotations': [dict(each, iscrowd=0) for each in annotations['annotations']],
    }
    return samples_of(made, masks=masks)


@pytest.mark.parametrize('backend', BACKENDS)
def test_figures_are_those_of_mmdet(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('lvis', reason='the package lvis is absent')
    # lvis 0.5.3 asks for a name that NumPy dropped in 1.24.
    monkeypatch.setattr(np, 'float', float, raising=False)
    annotations = lvis_content()
    path, found = written(tmp_path / 'lvis.json', annotations), samples(annotations, masks=True)
    options = dict(ann_file=path, metric=['bbox', 'segm'], classwise=True)
    ours = evaluated(metric_of('mmdet_ext', 'LVISMetric', backend=backend, **options), found)
    theirs = metric_of('mmdet', 'LVISMetric', **options)
    figures = evaluated(theirs, found)
    assert list(ours) == list(figures) and max(figures.values()) > 0.3
    # mmdet leaves boxes in the file of masks, and lvis then takes the areas of boxes.
    by_size = {name for name in ours if ours[name] != figures[name]}
    assert by_size and by_size <= {f'lvis/segm_AP{size}' for size in 'sml'}
    write = theirs.results2json
    monkeypatch.setattr(theirs, 'results2json', lambda *args: without_boxes(write(*args)))
    figures = evaluated(theirs, found)
    np.testing.assert_array_equal(list(ours.values()), list(figures.values()))


def without_boxes(files: dict[str, str]) -> dict[str, str]:
    """Take the boxes out of the file of masks."""
    path = Path(files['segm'])
    content = json.loads(path.read_text('utf-8'))
    for each in content:
        del each['bbox']
    path.write_text(json.dumps(content), 'utf-8')
    return files


@pytest.mark.parametrize('backend', BACKENDS)
def test_figures_are_the_same_with_each_backend(backend: str, tmp_path: Path) -> None:
    pytest.importorskip(backend)
    annotations = lvis_content(seed=3)
    path, found = written(tmp_path / 'lvis.json', annotations), samples(annotations)
    options = dict(ann_file=path, metric=['bbox', 'proposal'])
    ours = evaluated(metric_of('mmdet_ext', 'LVISMetric', backend=backend, **options), found)
    options['backend'] = 'pycocotools'
    assert ours == evaluated(metric_of('mmdet_ext', 'LVISMetric', **options), found)
    recalls = [f'lvis/AR{size}@300' for size in ('', 's', 'm', 'l')]
    assert list(ours) == [f'lvis/bbox_{name}' for name in NAMES] + recalls


def scene(**lists: list[int]) -> Any:
    """Make an image with one box of 'cat'."""
    ids = {'cat': 1, 'dog': 2, 'emu': 3}
    empty = {'neg_category_ids': [], 'not_exhaustive_category_ids': []}
    box = {'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [10, 10, 40, 40], 'area': 1600}
    return {
        'images': [{'id': 1, 'height': SIDE, 'width': SIDE, **empty, **lists}],
        'categories': [
            {'id': number, 'name': name, 'frequency': 'rcf'[number - 1]}
            for name, number in ids.items()
        ],
        'annotations': [box],
    }


def sample(boxes: list[list[float]], labels: list[int]) -> dict[str, Any]:
    """Make a data sample whose scores fall."""
    pred = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32),
        labels=torch.tensor(labels),
        scores=torch.linspace(0.9, 0.1, len(boxes)),
    )
    return dict(img_id=1, ori_shape=(SIDE, SIDE), pred_instances=pred)


RIGHT, WRONG = [10.0, 10.0, 50.0, 50.0], [70.0, 70.0, 90.0, 90.0]


@pytest.mark.parametrize(
    ('lists', 'expected'),
    [({}, 0.5), ({'not_exhaustive_category_ids': [1]}, 1.0)],
    ids=['exhaustive', 'not exhaustive'],
)
def test_an_unmatched_detection_counts_where_boxes_are_exhaustive(
    lists: dict[str, list[int]], expected: float, tmp_path: Path
) -> None:
    path = written(tmp_path / 'lvis.json', scene(**lists))
    found = [sample([WRONG, RIGHT], [0, 0])]
    figures = evaluated(metric_of('mmdet_ext', 'LVISMetric', ann_file=path), found)
    assert figures['lvis/bbox_AP'] == figures['lvis/bbox_APr'] == expected
    # No image is annotated for the others.
    assert figures['lvis/bbox_APc'] == figures['lvis/bbox_APf'] == -1


def test_an_image_has_300_detections_of_all_categories(tmp_path: Path) -> None:
    path = written(tmp_path / 'lvis.json', scene())
    for others, expected in ((299, 1.0), (300, 0.0)):
        found = [sample([WRONG] * others + [RIGHT], [1] * others + [0])]
        figures = evaluated(metric_of('mmdet_ext', 'LVISMetric', ann_file=path), found)
        assert figures['lvis/bbox_AP'] == expected, others


def test_proposals_are_compared_whatever_their_label(tmp_path: Path) -> None:
    path = written(tmp_path / 'lvis.json', scene())
    metric = metric_of('mmdet_ext', 'LVISMetric', ann_file=path, metric='proposal')
    figures = evaluated(metric, [sample([WRONG, RIGHT], [2, 2])])
    assert figures == {
        'lvis/AR@300': 1.0,
        'lvis/ARs@300': -1.0,
        'lvis/ARm@300': 1.0,
        'lvis/ARl@300': -1.0,
    }


def test_chosen_figures_are_reported(tmp_path: Path) -> None:
    path = written(tmp_path / 'lvis.json', scene())
    options = dict(ann_file=path, metric_items=['AP50', 'APr'], classwise=True)
    figures = evaluated(metric_of('mmdet_ext', 'LVISMetric', **options), [sample([RIGHT], [0])])
    assert list(figures)[-2:] == ['lvis/bbox_AP50', 'lvis/bbox_APr']
    assert figures['lvis/cat_precision'] == 1 and np.isnan(figures['lvis/dog_precision'])


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        ({}, ValueError, 'LVISMetric needs ann_file'),
        ({'ann_file': 'here', 'metric_items': ['mAP']}, KeyError, '"mAP" is not supported'),
        ({'ann_file': 'here', 'metric': 'keypoints'}, KeyError, 'bbox, segm, proposal'),
        ({'ann_file': 'coco'}, ValueError, "lack 'neg_category_ids'.*no LVIS file"),
    ],
    ids=['no file', 'no figure', 'no metric', 'no LVIS file'],
)
def test_options_out_of_range_are_refused(
    options: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    files = {'here': scene(), 'coco': content()}
    if 'ann_file' in options:
        name = options['ann_file']
        options = {**options, 'ann_file': written(tmp_path / 'truth.json', files[name])}
    with pytest.raises(error, match=message):
        metric_of('mmdet_ext', 'LVISMetric', **options)
