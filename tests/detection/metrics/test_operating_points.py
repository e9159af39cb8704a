"""Metric of operating points: mmdet's CrowdHumanMetric, thresholds by hand, files, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.evaluation.metrics import CrowdHumanMetric
from mmengine.structures import InstanceData

from mmdet_ext.analysis.detection.columns import Detections, TruthSet
from mmdet_ext.detection.metrics import OperatingPointMetric
from tests._helpers.results.detections import coco_content, made_set


def corners(box: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], 1))


def samples_of(data: TruthSet, found: Detections, annotated: bool = True) -> list[dict[str, Any]]:
    """Return data samples as mmdet's evaluator hands them to a metric."""
    samples = []
    for place, image_id in enumerate(data.image_ids):
        row = found.image == place
        sample: dict[str, Any] = {
            'img_id': image_id,
            'img_path': data.paths[place],
            'ori_shape': (200, 200),
            'pred_instances': {
                'bboxes': corners(found.box[row]),
                'scores': torch.from_numpy(found.score[row]),
                'labels': torch.from_numpy(found.label[row]),
            },
        }
        if annotated:
            for key, crowd in (('gt_instances', False), ('ignored_instances', True)):
                box = (data.truth.image == place) & (data.truth.crowd == crowd)
                sample[key] = InstanceData(
                    bboxes=corners(data.truth.box[box]),
                    labels=torch.from_numpy(data.truth.label[box]),
                )
        samples.append(sample)
    return samples


def evaluated(metric: Any, data: TruthSet, samples: list[dict[str, Any]]) -> dict[str, Any]:
    metric.dataset_meta = {'classes': tuple(data.classes)}
    for start in range(0, len(samples), 3):
        metric.process(None, samples[start : start + 3])
    figures: dict[str, Any] = metric.evaluate(len(samples))
    return figures


def small(**options: Any) -> Any:
    return OperatingPointMetric(**{'out_dir': None, 'resamples': 20, **options})


@pytest.mark.parametrize('seed', range(3))
def test_miss_rate_is_that_of_mmdet_on_the_protocol_of_crowdhuman(
    seed: int, tmp_path: Path
) -> None:
    data, found = made_set(seed, images=40, classes=1, boxes=9, side=150)
    # CrowdHumanMetric clips boxes to the image; ours are within it.
    assert (found.box[:, :2] + found.box[:, 2:]).max() < 200
    found.box[:, :2] = np.maximum(found.box[:, :2], 0)
    lines = []
    for place, image_id in enumerate(data.image_ids):
        rows = np.flatnonzero(data.truth.image == place)
        boxes = [
            {
                'fbox': data.truth.box[row].tolist(),
                'hbox': data.truth.box[row].tolist(),
                'tag': 'mask' if data.truth.crowd[row] else 'person',
            }
            for row in rows
        ]
        lines.append(json.dumps({'ID': image_id, 'gtboxes': boxes}))
    (tmp_path / 'truth.odgt').write_text('\n'.join(lines), 'utf-8')
    samples = samples_of(data, found)
    theirs = evaluated(CrowdHumanMetric(str(tmp_path / 'truth.odgt'), 'MR'), data, samples)
    ours = evaluated(small(miss_rate='crowdhuman'), data, samples)
    assert round(ours['points/MR_50'], 4) == pytest.approx(theirs['crowd_human/mMR'], abs=1e-9)
    assert 0.05 < ours['points/MR_50'] < 0.99


def test_ground_truth_of_a_file_and_of_data_samples_gives_the_same(tmp_path: Path) -> None:
    data, found = made_set(4, images=15)
    (tmp_path / 'truth.json').write_text(json.dumps(coco_content(data)), 'utf-8')
    options = dict(precision=[0.2], recall=[0.3], fppi=[1.0], classwise=True)
    of_samples, of_file = small(**options), small(ann_file=str(tmp_path / 'truth.json'), **options)
    first = evaluated(of_samples, data, samples_of(data, found))
    second = evaluated(of_file, data, samples_of(data, found, annotated=False))
    assert first == second
    assert of_samples.report == of_file.report
    assert {'points/F1_50', 'points/threshold@precision0.2_50'} < set(first)
    assert 'points/class 0/MR_50' in first


def test_figures_at_the_best_threshold_are_those_of_counting(tmp_path: Path) -> None:
    data, found = made_set(5, images=15, crowds=0.0)
    metric = small(score_thresholds=[0.6])
    figures = evaluated(metric, data, samples_of(data, found))
    entry = metric.report['iou_thresholds'][0]['overall']
    (given,) = entry['at_thresholds']
    assert given['hits'] + given['false'] == (found.score >= 0.6).sum()
    assert given['fppi'] == pytest.approx(given['false'] / 15, rel=1e-5)
    assert given['recall'] == pytest.approx(given['hits'] / len(data.truth), rel=1e-5)
    f1 = 2 * figures['points/precision_50'] * figures['points/recall_50']
    f1 /= figures['points/precision_50'] + figures['points/recall_50']
    assert figures['points/F1_50'] == pytest.approx(f1, rel=1e-4)
    assert figures['points/F1_50'] >= given['f1']
    low, high = entry['chosen'][0]['f1_interval']
    assert low <= figures['points/F1_50'] <= high and high - low < 0.3


def test_a_wish_that_no_threshold_reaches_has_no_figure_and_is_named() -> None:
    data, found = made_set(6, images=10)
    metric = small(recall=[1.0], precision=[0.2])
    figures = evaluated(metric, data, samples_of(data, found))
    assert 'points/threshold@recall1_50' not in figures
    assert 'points/threshold@precision0.2_50' in figures
    chosen = metric.report['iou_thresholds'][0]['overall']['chosen']
    assert [point['reached'] for point in chosen] == [True, True, False]


def test_crowds_neither_help_nor_harm() -> None:
    data, found = made_set(7, images=10, crowds=0.0)
    before = evaluated(small(), data, samples_of(data, found))
    data.truth.crowd[:] = True
    metric = small()
    evaluated(metric, data, samples_of(data, found))
    entry = metric.report['iou_thresholds'][0]['overall']
    assert entry['boxes'] == 0 and entry['ignored_detections'] > 0
    assert entry['log_average_miss_rate'] is None
    assert before['points/F1_50'] > 0


def test_files_are_written_and_an_error_of_writing_is_only_logged(tmp_path: Path) -> None:
    data, found = made_set(8, images=10)
    samples = samples_of(data, found)
    metric = small(out_dir=str(tmp_path / 'out'), iou_thresholds=[0.5, 0.75])
    figures = evaluated(metric, data, samples)
    report = json.loads((tmp_path / 'out/operating_points.json').read_text('utf-8'))
    assert report == json.loads(json.dumps(metric.report))
    assert (tmp_path / 'out/operating_points.png').read_bytes()[:4] == b'\x89PNG'
    (tmp_path / 'file').write_text('', 'utf-8')
    blocked = small(out_dir=str(tmp_path / 'file'), iou_thresholds=[0.5, 0.75])
    assert evaluated(blocked, data, samples) == figures


def test_at_most_so_many_detections_count_per_class_and_image() -> None:
    data, found = made_set(9, images=10, found_per_box=6.0)
    metric = small(max_per_image=2)
    evaluated(metric, data, samples_of(data, found))
    assert metric.report['detections'] <= 2 * 10 * len(data.classes)


def spoilt(change: str) -> tuple[TruthSet, list[dict[str, Any]]]:
    data, found = made_set(10, images=8)
    samples = samples_of(data, found)
    pred = samples[0]['pred_instances']
    if change == 'NaN':
        pred['scores'][0] = float('nan')
    elif change == 'label':
        pred['labels'][0] = 9
    elif change == 'box':
        pred['bboxes'][0, 0] = float('inf')
    elif change == 'no truth':
        samples[0]['gt_instances'] = InstanceData()
    elif change == 'no score':
        del pred['scores']
    return data, samples


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ('NaN', r'image 10: 1 of \d+ scores are not finite \(nan\): did the training diverge'),
        ('label', 'image 10: label 9 is no class; there are 4'),
        ('box', r'image 10: box \[inf, .*\] is not finite'),
        ('no truth', 'image 10: its data sample has no ground truth; load annotations'),
        ('no score', 'image 10: pred_instances has no scores'),
    ],
)
def test_results_that_cannot_be_evaluated_are_named(change: str, message: str) -> None:
    data, samples = spoilt(change)
    with pytest.raises(ValueError, match=message):
        evaluated(small(), data, samples)


def test_a_file_of_another_data_set_is_refused(tmp_path: Path) -> None:
    data, found = made_set(11, images=6)
    content = coco_content(data)
    path = tmp_path / 'truth.json'
    for image in content['images']:
        image['id'] += 1000
    for entry in content['annotations']:
        entry['image_id'] += 1000
    path.write_text(json.dumps(content), 'utf-8')
    samples = samples_of(data, found, annotated=False)
    with pytest.raises(ValueError, match='6 of 6 images are not in the ground truth'):
        evaluated(small(ann_file=str(path)), data, samples)
    content['categories'][1]['name'] = 'other'
    path.write_text(json.dumps(content), 'utf-8')
    with pytest.raises(ValueError, match=r"has no class \['class 1'\]; its classes are"):
        evaluated(small(ann_file=str(path)), data, samples)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(precision=[1.5]), 'precision must be from 0 to 1, got 1.5'),
        (dict(iou_thresholds=[0]), 'iou_thresholds must be numbers above 0'),
        (dict(miss_rate='coco'), "miss_rate must be one of .* 'coco'"),
        (dict(resamples=-1), 'resamples must be 0 or more, got -1'),
        (dict(confidence=1.0), 'confidence must be above 0, below 1, got 1.0'),
        (dict(max_per_image=0), 'max_per_image must be 1 or more, or None, got 0'),
        (dict(score_thresholds=[float('nan')]), 'score_thresholds must be finite'),
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OperatingPointMetric(**options)


def test_without_classes_or_images_there_is_nothing_to_evaluate() -> None:
    metric = small()
    with pytest.raises(ValueError, match='no image was evaluated'):
        metric.compute_metrics([])
    data, found = made_set(12, images=3)
    metric.process(None, samples_of(data, found))
    with pytest.raises(ValueError, match=r"needs the data set's metainfo\['classes'\]"):
        metric.evaluate(3)
