"""Everything that claims MMDetection, in small detectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('mmdet', reason='MMDetection is absent')

from mmdet.datasets.samplers import AspectRatioBatchSampler

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.hosts import claims, host
from tests.hosts.boxes import built, data_of
from tests.hosts.detectors import (
    CLASSES,
    corners,
    reported,
    single,
    two_stages,
    with_assigner,
    with_loss,
)
from tests.hosts.faces import configured
from tests.hosts.nanodet_detectors import NANODET, nanodet_plus
from tests.hosts.roi_detectors import PARTS, proposing, with_part
from tests.hosts.runs import Outcome, Setting, follow
from tests.hosts.yolo_detectors import YOLO

HOST = host('mmdet')
META = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')


def of_kind(*kinds: str) -> Any:
    """Parametrise a test over the cases of some kinds that claim the host."""
    return pytest.mark.parametrize(
        'case', [case for case in claims('mmdet') if case.kind in kinds], ids=repr
    )


def run(
    root: Path,
    folder: Path,
    model: dict[str, Any],
    classes: int = CLASSES,
    masks: bool = False,
    **options: Any,
) -> Outcome:
    """Train, test and resume a detector."""
    train, test = (built(root, part, classes, masks) for part in ('train', 'test'))
    kinds = ['bbox', 'segm'] if masks else ['bbox']
    metric = dict(type='CocoMetric', ann_file=str(root / 'test.json'), metric=kinds)
    return follow(HOST, Setting(model, train, test, metric, options), folder)


def assert_detects(outcome: Outcome, head: str, masks: bool = False) -> None:
    """Assert the losses of the head, and figures of the test."""
    for step in outcome.watch.losses:
        assert set(step) - {'loss'} == reported(head)
    assert 0 <= outcome.metrics['coco/bbox_mAP'] <= 1
    assert not masks or 0 <= outcome.metrics['coco/segm_mAP'] <= 1


@of_kind('loss')
def test_a_loss_trains_tests_and_resumes(case: Case, boxes_root: Path, tmp_path: Path) -> None:
    head, model, classes = with_loss(case)
    masks = head in ('masks', 'SOLOHead')
    outcome = run(boxes_root, tmp_path, model, classes, masks)
    assert_detects(outcome, head, masks)


@of_kind('assigner')
def test_an_assigner_trains_tests_and_resumes(case: Case, boxes_root: Path, tmp_path: Path) -> None:
    head, model = with_assigner(case)
    outcome = run(boxes_root, tmp_path, model)
    assert_detects(outcome, head)
    used = outcome.runner.model.bbox_head
    assigners = [getattr(used, name, None) for name in ('assigner', 'alignment_assigner')]
    assert case.name in {type(each).__name__ for each in assigners}


@of_kind('head')
def test_a_head_trains_tests_and_resumes(case: Case, boxes_root: Path, tmp_path: Path) -> None:
    proposes = case.name == 'RPNHead'
    if proposes:
        model = two_stages(rpn=configured(case))
    else:
        networks = YOLO | dict.fromkeys(NANODET, nanodet_plus)
        own = networks.get(case.name)
        model = single(case.name, **case.options) if own is None else own()
    outcome = run(boxes_root, tmp_path, model)
    assert_detects(outcome, 'two stages' if proposes else case.name)
    used = outcome.runner.model.rpn_head if proposes else outcome.runner.model.bbox_head
    assert type(used).__module__.startswith('mmdet_ext.')


@pytest.mark.parametrize('case', [case for case in claims('mmdet') if case.name in PARTS], ids=repr)
def test_a_part_of_a_detector_trains_tests_and_resumes(
    case: Case, boxes_root: Path, tmp_path: Path
) -> None:
    head, model, needs_proposals = with_part(case)
    if needs_proposals:
        train, test = (proposing(boxes_root, part) for part in ('train', 'test'))
        metric = dict(type='CocoMetric', ann_file=str(boxes_root / 'test.json'))
        outcome = follow(HOST, Setting(model, train, test, metric), tmp_path)
    else:
        outcome = run(boxes_root, tmp_path, model)
    assert_detects(outcome, head)
    held = {type(part).__name__ for part in outcome.runner.model.modules()}
    assert case.name in held


@pytest.mark.parametrize(
    'case',
    [case for case in claims('mmdet') if case.name in YOLO and case.kind != 'head'],
    ids=repr,
)
def test_a_network_of_yolo_trains_tests_and_resumes(
    case: Case, boxes_root: Path, tmp_path: Path
) -> None:
    model = YOLO[case.name]()
    outcome = run(boxes_root, tmp_path, model)
    assert_detects(outcome, model['bbox_head']['type'].rpartition('.')[2])
    assert case.name in {type(part).__name__ for part in outcome.runner.model.modules()}


@pytest.mark.parametrize(
    'case',
    [case for case in claims('mmdet') if case.name in NANODET and case.kind != 'head'],
    ids=repr,
)
def test_a_network_of_nanodet_trains_tests_and_resumes(
    case: Case, boxes_root: Path, tmp_path: Path
) -> None:
    outcome = run(boxes_root, tmp_path, nanodet_plus())
    assert_detects(outcome, 'NanoDetPlusHead')
    assert case.name in {type(part).__name__ for part in outcome.runner.model.modules()}


@of_kind('detection transform')
def test_a_transform_trains_tests_and_resumes(case: Case, boxes_root: Path, tmp_path: Path) -> None:
    load = dict(type='LoadImageFromFile')
    labels = dict(type='LoadAnnotations', with_bbox=True)
    steps = [load, labels, configured(case), dict(type='PackDetInputs', meta_keys=META)]
    train, test = (data_of(boxes_root, part, CLASSES, steps=steps) for part in ('train', 'test'))
    metric = dict(type='CocoMetric', ann_file=str(boxes_root / 'test.json'))
    outcome = follow(HOST, Setting(single('RetinaHead'), train, test, metric), tmp_path)
    assert_detects(outcome, 'RetinaHead')
    used = outcome.runner.train_dataloader.dataset.pipeline.transforms[2]
    assert type(used).__name__ == case.name


@of_kind('mixing transform')
def test_a_mix_of_images_trains_tests_and_resumes(
    case: Case, boxes_root: Path, tmp_path: Path
) -> None:
    steps = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=(64, 64), keep_ratio=True),
    ]
    pack = dict(type='PackDetInputs', meta_keys=META)
    train = dict(
        type='MultiImageMixDataset',
        dataset=data_of(boxes_root, 'train', CLASSES, steps=steps),
        pipeline=[configured(case), pack],
    )
    test = data_of(boxes_root, 'test', CLASSES, steps=[*steps, pack])
    metric = dict(type='CocoMetric', ann_file=str(boxes_root / 'test.json'))
    outcome = follow(HOST, Setting(single('RetinaHead'), train, test, metric), tmp_path)
    assert_detects(outcome, 'RetinaHead')
    assert type(outcome.runner.train_dataloader.dataset.pipeline[0]).__name__ == case.name


@of_kind('detection hook')
def test_a_hook_trains_tests_and_resumes(case: Case, boxes_root: Path, tmp_path: Path) -> None:
    hook = dict(configured(case), begin=1, by_epoch=False)
    outcome = run(boxes_root, tmp_path, single('GFLHead'), custom_hooks=[hook])
    assert_detects(outcome, 'GFLHead')
    assert type(outcome.runner.model.bbox_head.assigner).__name__ == 'DynamicSoftLabelAssigner'


@of_kind('grouping loss')
def test_a_grouping_loss_trains_tests_and_resumes(
    case: Case, boxes_root: Path, tmp_path: Path
) -> None:
    outcome = run(boxes_root, tmp_path, corners(configured(case)))
    for step in outcome.watch.losses:
        assert set(step) - {'loss'} == {'det_loss', 'pull_loss', 'push_loss', 'off_loss'}
    assert type(outcome.runner.model.bbox_head.loss_embedding).__name__ == case.name


@of_kind('sampler')
def test_a_sampler_trains_tests_and_resumes(case: Case, boxes_root: Path, tmp_path: Path) -> None:
    sampler = configured(case, num=16, pos_fraction=0.5)
    model = two_stages(rpn_train=dict(sampler=sampler), box_train=dict(sampler=sampler))
    outcome = run(boxes_root, tmp_path, model)
    assert_detects(outcome, 'two stages')
    for part in (outcome.runner.model.rpn_head.sampler, outcome.runner.model.roi_head.bbox_sampler):
        assert type(part).__name__ == case.name


@of_kind('overlap measure')
def test_an_overlap_measure_trains_tests_and_resumes(
    case: Case, boxes_root: Path, tmp_path: Path
) -> None:
    measure = configured(case)
    assigner = dict(
        type='mmdet_ext.MaxIoUAssigner',
        pos_iou_thr=0.5,
        neg_iou_thr=0.4,
        iou_calculator=measure,
    )
    outcome = run(boxes_root, tmp_path, single('RetinaHead', train_cfg=dict(assigner=assigner)))
    assert_detects(outcome, 'RetinaHead')
    assert type(outcome.runner.model.bbox_head.assigner.iou_calculator).__name__ == case.name


@of_kind('class sampler')
def test_a_class_sampler_trains_tests_and_resumes(
    case: Case, boxes_root: Path, tmp_path: Path
) -> None:
    train, test = (data_of(boxes_root, part, CLASSES) for part in ('train', 'test'))
    metric = dict(type='CocoMetric', ann_file=str(boxes_root / 'test.json'))
    setting = Setting(single('RetinaHead'), train, test, metric, sampler=configured(case))
    outcome = follow(HOST, setting, tmp_path)
    assert_detects(outcome, 'RetinaHead')
    sampler = outcome.runner.train_dataloader.sampler
    assert type(sampler).__name__ == case.name
    batches = list(AspectRatioBatchSampler(sampler, batch_size=2))
    assert sorted(sum(batches, [])) == sorted(sampler)


@of_kind('data set')
def test_a_data_set_trains_tests_and_resumes(case: Case, boxes_root: Path, tmp_path: Path) -> None:
    train, test = (
        data_of(boxes_root, part, CLASSES, name=f'mmdet_ext.{case.name}')
        for part in ('train', 'test')
    )
    metric = dict(type='CocoMetric', ann_file=str(boxes_root / 'test.json'))
    outcome = follow(HOST, Setting(single('RetinaHead'), train, test, metric), tmp_path)
    assert_detects(outcome, 'RetinaHead')
    assert type(outcome.runner.train_dataloader.dataset).__module__.startswith('mmdet_ext.')


#: Metric -> its first figure.
HEADLINES = {
    'CocoMetric': 'coco/bbox_mAP',
    'LVISMetric': 'lvis/bbox_AP',
    'OperatingPointMetric': 'points/F1_50',
    'VOCAPMetric': 'pascal_voc/mAP',
}


@of_kind('detection metric')
def test_a_metric_trains_tests_and_resumes(case: Case, boxes_root: Path, tmp_path: Path) -> None:
    masks = 'segm' in case.options.get('metric', ())
    metric = configured(case)
    if case.twin is not None:
        # In this process, as only marked tests start another.
        metric |= dict(ann_file=str(lvis_file(boxes_root, tmp_path)), time_limit=None)
    train, test = (data_of(boxes_root, part, CLASSES, masks) for part in ('train', 'test'))
    model = two_stages(masks=True) if masks else single('RetinaHead')
    outcome = follow(HOST, Setting(model, train, test, metric), tmp_path)
    assert 0 <= outcome.metrics[HEADLINES[case.name]] <= 1


def lvis_file(root: Path, folder: Path) -> Path:
    """Write the annotations of the test with LVIS's lists, which COCO does not read."""
    content = json.loads((root / 'test.json').read_text('utf-8'))
    for image in content['images']:
        image |= {'neg_category_ids': [], 'not_exhaustive_category_ids': []}
    for category in content['categories']:
        category['frequency'] = 'c'
    path = folder / 'lvis.json'
    path.write_text(json.dumps(content), 'utf-8')
    return path
