"""CocoMetric: figures of mmdet's to the last digit, and what it does where that fails."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData

pytest.importorskip('mmdet', reason='MMDetection is absent')

from tests.detection.metrics.coco_samples import (
    CLASSES,
    content,
    evaluated,
    metric_of,
    samples_of,
    written,
)
from tests.evaluation.made_columns import BACKENDS


@pytest.fixture(scope='module')
def annotations() -> Any:
    return content()


@pytest.fixture(scope='module')
def masked(annotations: Any) -> Any:
    return samples_of(annotations, masks=True)


@pytest.fixture
def truth(annotations: Any, tmp_path: Path) -> str:
    return written(tmp_path / 'truth.json', annotations)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets the lines of the log; MMEngine's logger passes none on."""
    lines: list[str] = []
    monkeypatch.setattr(MMLogger, 'log', lambda self, level, message, *args: lines.append(message))
    return lines


def assert_same(ours: dict[str, float], theirs: dict[str, float]) -> None:
    """Assert the same names in the same order, and the same values; NaN equals NaN."""
    assert list(ours) == list(theirs)
    np.testing.assert_array_equal(list(ours.values()), list(theirs.values()))


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize(
    'options',
    [
        {'metric': ['bbox', 'segm', 'proposal'], 'classwise': True},
        {'metric': 'bbox', 'proposal_nums': (1, 5, 100)},
        {'metric': ['bbox', 'proposal'], 'proposal_nums': (100, 2, 7)},
        {'metric': 'bbox', 'proposal_nums': (1, 10, 50)},
        {'metric': 'segm', 'metric_items': ['mAP_75', 'AR@300', 'AR_m@1000']},
        {'metric': 'proposal', 'metric_items': ['AR@100', 'AR_s@1000', 'mAP_50']},
        {'metric': 'bbox', 'iou_thrs': np.array([0.5, 0.75]), 'prefix': 'mine'},
    ],
    ids=str,
)
def test_figures_are_those_of_mmdet(
    backend: str, options: dict[str, Any], truth: str, masked: Any
) -> None:
    pytest.importorskip(backend)
    theirs = evaluated(metric_of('mmdet', ann_file=truth, **options), masked)
    ours = evaluated(metric_of('mmdet_ext', ann_file=truth, backend=backend, **options), masked)
    assert_same(ours, theirs)
    assert max(theirs.values()) > 0.3


@pytest.mark.parametrize('metric', [['bbox', 'segm'], 'proposal'], ids=str)
def test_figures_without_a_file_are_those_of_mmdet(metric: Any, masked: Any) -> None:
    options = dict(metric=metric, classwise=metric != 'proposal')
    theirs = evaluated(metric_of('mmdet', **options), masked)
    assert_same(evaluated(metric_of('mmdet_ext', **options), masked), theirs)


def test_labels_count_categories_in_the_order_of_the_file(tmp_path: Path) -> None:
    unsorted = content(ascending=False)
    path, samples = written(tmp_path / 'unsorted.json', unsorted), samples_of(unsorted)
    theirs = evaluated(metric_of('mmdet', ann_file=path, classwise=True), samples)
    ours = evaluated(metric_of('mmdet_ext', ann_file=path, classwise=True), samples)
    # mmdet reads the figures by id and names them in the order of the file.
    names = [f'coco/{name}_precision' for name in ('dog', 'cat', 'emu')]
    assert list(ours)[:3] == list(theirs)[:3] == names
    by_id = [ours[f'coco/{name}_precision'] for name in ('cat', 'emu', 'dog')]
    assert len(set(by_id)) == 3 and by_id == [theirs[name] for name in names]
    assert_same(
        {name: value for name, value in ours.items() if 'mAP' in name},
        {name: value for name, value in theirs.items() if 'mAP' in name},
    )


def test_categories_can_be_sorted(tmp_path: Path) -> None:
    unsorted = content(ascending=False)
    path = written(tmp_path / 'unsorted.json', unsorted)
    unsorted['categories'].sort(key=lambda each: each['id'])
    samples = samples_of(unsorted)
    options = dict(ann_file=path, sort_categories=True, classwise=True)
    theirs = evaluated(metric_of('mmdet', **options), samples)
    assert_same(evaluated(metric_of('mmdet_ext', **options), samples), theirs)


def test_thresholds_in_a_list_are_read_at_their_value(truth: str, masked: Any) -> None:
    items = ['mAP', 'mAP_50', 'mAP_75']
    array = dict(ann_file=truth, metric_items=items, iou_thrs=np.array([0.5, 0.75]))
    expected = evaluated(metric_of('mmdet', **array), masked)
    listed = array | {'iou_thrs': [0.5, 0.75]}
    assert evaluated(metric_of('mmdet_ext', **listed), masked) == expected
    # mmdet compares a list with a number: -1, and an error from NumPy 2.1 on.
    try:
        wrong = evaluated(metric_of('mmdet', **listed), masked)
    except ValueError as error:
        assert '0d arrays' in str(error)
    else:
        assert wrong['coco/bbox_mAP_50'] == wrong['coco/bbox_mAP_75'] == -1
    single = evaluated(metric_of('mmdet_ext', ann_file=truth, iou_thrs=0.5), masked)
    assert single['coco/bbox_mAP'] == single['coco/bbox_mAP_50'] == expected['coco/bbox_mAP_50']
    assert single['coco/bbox_mAP_75'] == -1


def test_the_fast_recall_is_of_the_best_boxes(truth: str, masked: Any, annotations: Any) -> None:
    options = dict(metric='proposal_fast', proposal_nums=(1, 4, 100))
    figures = evaluated(metric_of('mmdet_ext', ann_file=truth, **options), masked)
    assert list(figures) == ['coco/AR@1', 'coco/AR@4', 'coco/AR@100']
    assert 0.05 < figures['coco/AR@1'] < figures['coco/AR@4'] < figures['coco/AR@100'] < 1
    # In another order of images the figures stay: mmdet joins both lists by place.
    again = evaluated(metric_of('mmdet_ext', ann_file=truth, **options), masked[::-1])
    assert again == figures


@pytest.mark.parametrize('masks', [False, True])
def test_files_are_those_of_mmdet(masks: bool, truth: str, masked: Any, tmp_path: Path) -> None:
    kinds = ['bbox', 'segm'] if masks else ['bbox']
    samples = masked if masks else samples_of(content())
    for scope in ('mmdet', 'mmdet_ext'):
        prefix = str(tmp_path / scope / 'result')
        (tmp_path / scope).mkdir()
        options = dict(ann_file=truth, format_only=True, outfile_prefix=prefix)
        assert evaluated(metric_of(scope, metric=kinds, **options), samples) == {}
    for kind in kinds:
        theirs, ours = (
            (tmp_path / scope / f'result.{kind}.json').read_text('utf-8')
            for scope in ('mmdet', 'mmdet_ext')
        )
        assert json.loads(ours) == json.loads(theirs) and len(json.loads(ours)) > 100
    assert len(list((tmp_path / 'mmdet_ext').iterdir())) == len(kinds)


def test_a_file_of_the_ground_truth_of_data_samples_gives_the_same_figures(
    masked: Any, tmp_path: Path
) -> None:
    prefix = str(tmp_path / 'result')
    figures = evaluated(metric_of('mmdet_ext', outfile_prefix=prefix), masked)
    again = evaluated(metric_of('mmdet_ext', ann_file=f'{prefix}.gt.json'), masked)
    assert figures == again and figures['coco/bbox_mAP'] > 0.1


@pytest.mark.parametrize('metric', ['bbox', 'segm', 'proposal'])
def test_without_a_detection_figures_are_0_and_said(
    metric: str, truth: str, masked: Any, said: list[str]
) -> None:
    none = [emptied(sample) for sample in masked]
    ours = metric_of('mmdet_ext', ann_file=truth, metric=metric)
    figures = evaluated(ours, none)
    assert set(figures.values()) <= {0.0, -1.0} and 0.0 in figures.values()
    assert f'{metric}: there is no detection, so that figures are 0' in '\n'.join(said)
    # mmdet reports nothing.
    assert evaluated(metric_of('mmdet', ann_file=truth, metric=metric), none) == {}


def emptied(sample: dict[str, Any]) -> dict[str, Any]:
    return sample | {'pred_instances': sample['pred_instances'][:0]}


def changed(sample: dict[str, Any], **fields: Any) -> dict[str, Any]:
    kept = dict(sample['pred_instances'].items()) | fields
    kept = {name: value for name, value in kept.items() if value is not None}
    return sample | {'pred_instances': InstanceData(**kept)}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda sample: sample | {'img_id': 4}, r'1 image ids of the results \(4\) are not in the'),
        (lambda sample: changed(sample, scores=None), 'image 93: pred_instances has no scores'),
        (lambda sample: changed(sample, scores=nan_in(sample)), 'the score is NaN, first in image'),
        (lambda sample: changed(sample, labels=sample['pred_instances'].labels + 7), 'the label'),
    ],
    ids=['unknown image', 'no score', 'NaN', 'unknown label'],
)
def test_results_that_cannot_be_evaluated_are_refused(
    change: Any, message: str, truth: str, masked: Any
) -> None:
    wrong = [change(masked[0]), *masked[1:]]
    with pytest.raises(ValueError, match=message):
        evaluated(metric_of('mmdet_ext', ann_file=truth), wrong)


def nan_in(sample: dict[str, Any]) -> torch.Tensor:
    scores: torch.Tensor = sample['pred_instances'].scores.clone()
    scores[0] = math.nan
    return scores


def test_masks_are_needed_for_masks(truth: str, annotations: Any) -> None:
    with pytest.raises(KeyError, match='segm is not in the results: image 93 has no masks'):
        evaluated(metric_of('mmdet_ext', ann_file=truth, metric='segm'), samples_of(annotations))


def test_the_ground_truth_must_be_somewhere(masked: Any) -> None:
    without = {name: value for name, value in masked[0].items() if name != 'instances'}
    with pytest.raises(ValueError, match='image 93: its data sample has no instances'):
        metric_of('mmdet_ext').process({}, [without])


def test_classes_must_be_in_the_file(truth: str, masked: Any, said: list[str]) -> None:
    metric = metric_of('mmdet_ext', ann_file=truth)
    metric.dataset_meta = {'classes': (*CLASSES, 'yak')}
    evaluated(metric, masked)
    assert '1 classes are not in the ground truth' in '\n'.join(said) and 'yak' in '\n'.join(said)
    metric.dataset_meta = {'classes': ('yak',)}
    with pytest.raises(ValueError, match="none of the data set's 1 classes .yak"):
        evaluated(metric, masked)
    metric.dataset_meta = None
    with pytest.raises(ValueError, match="needs the data set's metainfo"):
        evaluated(metric, masked)


def test_flags_in_the_file_are_reported(annotations: Any, tmp_path: Path, said: list[str]) -> None:
    flagged = {**annotations, 'annotations': [dict(annotations['annotations'][0], ignore=1)]}
    metric_of('mmdet_ext', ann_file=written(tmp_path / 'flagged.json', flagged))
    assert "1 annotations with an 'ignore' flag, which COCO's protocol" in '\n'.join(said)


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        ({'metric': 'mask'}, KeyError, 'metric should be one of bbox, segm'),
        ({'metric_items': ['AP']}, KeyError, 'metric item "AP" is not supported'),
        ({'format_only': True}, ValueError, 'format_only only writes files'),
        ({'file_client_args': {}}, RuntimeError, 'give backend_args instead'),
        ({'proposal_nums': (1, 10)}, ValueError, r'three numbers from 1 up, got \[1, 10\]'),
        ({'proposal_nums': (0, 1, 10)}, ValueError, 'three numbers from 1 up'),
        ({'iou_thrs': 1.5}, ValueError, 'iou_thrs must be'),
        ({'backend': 'fast'}, ValueError, "backend must be 'auto'"),
        ({'time_limit': 0}, ValueError, 'time_limit must be'),
        ({'ann_file': 'absent.json'}, FileNotFoundError, 'absent.json'),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        metric_of('mmdet_ext', **options)


@pytest.mark.subprocess
def test_the_default_evaluates_in_a_process_of_its_own(
    truth: str, masked: Any, said: list[str]
) -> None:
    metric = metric_of('mmdet_ext', ann_file=truth, metric=['bbox', 'segm'], time_limit='auto')
    figures = evaluated(metric, masked)
    expected = metric_of('mmdet', ann_file=truth, metric=['bbox', 'segm'])
    assert_same(figures, evaluated(expected, masked))
    assert set(metric.outcomes) == {'bbox', 'segm'}
    assert metric.outcomes['segm'].scores.precision.shape == (10, 101, 3, 4, 3)
    for kind in ('bbox', 'segm'):
        assert f'{kind} evaluated by {metric.outcomes[kind]}' in '\n'.join(said)


@pytest.mark.parametrize('backend', BACKENDS)
def test_keypoints_are_evaluated_by_the_given_sigmas(backend: str, tmp_path: Path) -> None:
    pytest.importorskip(backend)
    points = [[20.0 + 3 * k, 30.0 + 2 * k, 2] for k in range(21)]
    made = content(images=1, boxes=1)
    made['annotations'][0] |= {
        'keypoints': [value for point in points for value in point],
        'num_keypoints': 21,
        'category_id': made['categories'][0]['id'],
        'bbox': [20.0, 30.0, 60.0, 40.0],
        'area': 2400.0,
        'iscrowd': 0,
    }
    (sample,) = samples_of(made)
    right = torch.tensor(points)[None, :, :2]
    # The last four of the better detection are far away.
    wrong = right.clone()
    wrong[:, -4:] += 80
    found = InstanceData(
        bboxes=torch.tensor([[20.0, 30.0, 80.0, 70.0]] * 2),
        scores=torch.tensor([0.9, 0.8]),
        labels=torch.zeros(2, dtype=torch.int64),
        keypoints=torch.cat([wrong, right]),
        keypoint_scores=torch.ones(2, 21),
    )
    sample['pred_instances'] = found
    options = dict(ann_file=written(tmp_path / 'people.json', made), metric='keypoints')
    metric = metric_of('mmdet_ext', backend=backend, sigmas=[0.05] * 21, **options)
    figures = evaluated(metric, [sample])
    # 17 of 21 points: a similarity of 0.81, right for seven of the ten thresholds.
    assert figures['coco/keypoints_mAP'] == pytest.approx(0.7 + 0.3 * 0.5, abs=1e-3)
    assert figures['coco/keypoints_mAP_50'] == figures['coco/keypoints_mAP_75'] == 1
    with pytest.raises(ValueError, match='have 21 keypoints and there are 17 sigmas; give sigmas'):
        evaluated(metric_of('mmdet_ext', backend=backend, **options), [sample])
