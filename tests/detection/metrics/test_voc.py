"""VOCAPMetric: figures of mmdet's VOCMetric where that is right, and what it adds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

pytest.importorskip('mmdet', reason='MMDetection is absent')

from tests.detection.metrics.coco_samples import CLASSES, evaluated, metric_of


def samples(seed: int = 0, count: int = 20) -> list[dict[str, Any]]:
    """Make data samples with difficult boxes, and detections near boxes."""
    generator = np.random.default_rng(seed)
    made = []
    for image in range(count):
        boxes = generator.uniform(0, 60, (5, 2))
        boxes = np.concatenate([boxes, boxes + generator.uniform(5, 50, (5, 2))], 1)
        labels = generator.integers(0, 3, 5)
        source = generator.integers(0, 5, 12)
        near = boxes[source] + generator.normal(0, 2, (12, 4))
        pred = InstanceData(
            bboxes=torch.tensor(near, dtype=torch.float32),
            scores=torch.from_numpy(generator.random(12).astype(np.float32)),
            labels=torch.from_numpy(np.where(source < 3, labels[source], 0)),
        )
        tensor = torch.tensor(boxes, dtype=torch.float32)
        label = torch.from_numpy(labels)
        made.append(
            dict(
                img_id=image,
                pred_instances=pred,
                gt_instances=InstanceData(bboxes=tensor[:4], labels=label[:4]),
                ignored_instances=InstanceData(bboxes=tensor[4:], labels=label[4:]),
            )
        )
    return made


@pytest.mark.parametrize('mode', ['area', '11points'])
def test_figures_are_those_of_mmdet_with_widths_of_pixels(mode: str) -> None:
    options = dict(iou_thrs=[0.5, 0.7], eval_mode=mode)
    theirs = evaluated(metric_of('mmdet', 'VOCMetric', **options), samples())
    ours = metric_of('mmdet_ext', 'VOCAPMetric', pixel_widths=True, **options)
    figures = evaluated(ours, samples())
    assert list(figures) == list(theirs)
    assert figures == pytest.approx(theirs, abs=1e-6) and 0.1 < figures['pascal_voc/mAP'] < 0.9
    plain = evaluated(metric_of('mmdet_ext', 'VOCAPMetric', **options), samples())
    assert plain != figures


def test_the_recall_is_over_all_classes() -> None:
    box = torch.tensor([[0.0, 0.0, 20.0, 20.0], [40.0, 40.0, 70.0, 70.0]])
    found = InstanceData(bboxes=box, scores=torch.tensor([0.9, 0.8]), labels=torch.tensor([1, 2]))
    truth = InstanceData(bboxes=box, labels=torch.tensor([1, 2]))
    none = InstanceData(bboxes=box[:0], labels=torch.zeros(0, dtype=torch.int64))
    one = dict(img_id=1, pred_instances=found, gt_instances=truth, ignored_instances=none)
    options = dict(metric='recall', iou_thrs=[0.5], proposal_nums=(1, 2))
    # mmdet takes the detections of class 0, of which there are none.
    theirs = evaluated(metric_of('mmdet', 'VOCMetric', **options), [one])
    ours = evaluated(metric_of('mmdet_ext', 'VOCAPMetric', **options), [one])
    assert list(ours) == list(theirs)
    assert list(theirs.values()) == [0, 0] and list(ours.values()) == [0.5, 1]


def test_both_kinds_and_classes_are_reported() -> None:
    metric = metric_of(
        'mmdet_ext',
        'VOCAPMetric',
        metric=['mAP', 'recall'],
        iou_thrs=[0.5, 0.7],
        proposal_nums=(1, 12),
        classwise=True,
    )
    figures = evaluated(metric, samples())
    own = {name.removeprefix('pascal_voc/'): value for name, value in figures.items()}
    means = [np.mean([own[f'{name}_{key}'] for name in CLASSES]) for key in ('AP50', 'AP70')]
    assert [own['AP50'], own['AP70']] == pytest.approx(means, abs=1e-3)
    assert own['mAP'] == pytest.approx(np.mean(means), abs=1e-3)
    assert own['AR@1'] == pytest.approx((own['recall@1@0.5'] + own['recall@1@0.7']) / 2)
    assert own['recall@1@0.5'] < own['recall@12@0.5'] <= 1


def test_without_a_detection_figures_are_0() -> None:
    none = [dict(each, pred_instances=each['pred_instances'][:0]) for each in samples()]
    metric = metric_of('mmdet_ext', 'VOCAPMetric', metric=['mAP', 'recall'])
    assert set(evaluated(metric, none).values()) == {0.0}


def test_ignored_instances_may_be_absent() -> None:
    without = [{k: v for k, v in each.items() if k != 'ignored_instances'} for each in samples()]
    empty = [dict(each, ignored_instances=each['ignored_instances'][:0]) for each in samples()]
    figures = [evaluated(metric_of('mmdet_ext', 'VOCAPMetric'), made) for made in (without, empty)]
    assert figures[0] == figures[1] != evaluated(metric_of('mmdet_ext', 'VOCAPMetric'), samples())


def changed(sample: dict[str, Any], **fields: Any) -> dict[str, Any]:
    kept = dict(sample['pred_instances'].items()) | fields
    kept = {name: value for name, value in kept.items() if value is not None}
    return dict(sample, pred_instances=InstanceData(**kept))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: {k: v for k, v in s.items() if k != 'gt_instances'}, 'image 0: it has no gt_'),
        (lambda s: changed(s, scores=None), 'image 0: pred_instances has no scores'),
        (lambda s: changed(s, scores=torch.full((12,), torch.nan)), 'image 0: a score is NaN'),
    ],
    ids=['no ground truth', 'no scores', 'NaN'],
)
def test_data_samples_that_cannot_be_ranked_are_refused(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric_of('mmdet_ext', 'VOCAPMetric').process({}, [change(samples()[0])])


def test_labels_beyond_the_classes_and_absent_classes_are_refused() -> None:
    metric = metric_of('mmdet_ext', 'VOCAPMetric')
    metric.dataset_meta = {'classes': ('one', 'two')}
    with pytest.raises(ValueError, match='a box has the label 2, and the data set has 2 classes'):
        evaluated(metric, samples())
    metric = metric_of('mmdet_ext', 'VOCAPMetric')
    metric.dataset_meta = {}
    with pytest.raises(ValueError, match="needs the data set's metainfo"):
        evaluated(metric, samples())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'iou_thrs': 0}, 'iou_thrs must be'),
        ({'metric': 'AP'}, 'metric must be'),
        ({'eval_mode': '101points'}, 'eval_mode must be'),
        ({'proposal_nums': (0,)}, 'proposal_nums must be'),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric_of('mmdet_ext', 'VOCAPMetric', **options)
