"""Parts of MMDetection around a detector: mixed images, semi-supervision, tests, inference."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmcv.ops import batched_nms
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner
from torch.utils.data import Dataset

pytest.importorskip('mmdet', reason='MMDetection is absent')

from mmdet.apis import DetInferencer
from mmdet.registry import DATASETS

from mmdet_ext.catalog.hosts import host
from tests.hosts.boxes import built, data_of
from tests.hosts.detectors import CLASSES, single, solo, two_stages
from tests.hosts.runs import (
    Outcome,
    Setting,
    assert_calls_are_those_of_the_table,
    follow,
)
from tests.hosts.yolo_detectors import yolov5

pytestmark = pytest.mark.slow
HOST = host('mmdet')
OURS = 'mmdet_ext.CocoDataset'
LOAD, LABELS, PACK = (
    dict(type=name) for name in ('LoadImageFromFile', 'LoadAnnotations', 'PackDetInputs')
)
LABELS = {**LABELS, 'with_bbox': True}
RESIZE = dict(type='Resize', scale=(96, 96), keep_ratio=True)
BOXES = dict(loss_bbox=dict(type='mmdet_ext.CIoULoss'), reg_decoded_bbox=True)
CLASSES_BY_FOCAL = dict(loss_cls=dict(type='mmdet_ext.FocalLoss', use_sigmoid=True))


def metric(root: Path) -> dict[str, Any]:
    return dict(type='CocoMetric', ann_file=str(root / 'test.json'))


def test_heads_call_a_loss_as_the_table_says(boxes_root: Path, tmp_path: Path) -> None:
    heads = ('RetinaHead', 'ATSSHead', 'GFLHead', 'FCOSHead', 'YOLOV3Head', 'YOLOXHead', 'TOODHead')
    models = [(single(head, 'mmdet'), False) for head in heads if head != 'YOLOV3Head']
    models += [(single('YOLOV3Head'), False), (two_stages(masks=True), True)]
    models += [(solo('SOLOHead', dict(type='DiceLoss')), True)]
    settings = [
        Setting(
            model,
            built(boxes_root, 'train', CLASSES, masks),
            built(boxes_root, 'test', CLASSES, masks),
            metric(boxes_root),
        )
        for model, masks in models
    ]
    assert_calls_are_those_of_the_table(HOST, settings, tmp_path)


def mixed(root: Path) -> dict[str, Any]:
    """Return the config of YOLOX's mixture of images of our data set."""
    inner = data_of(root, 'train', CLASSES, name=OURS, steps=[LOAD, LABELS])
    return dict(
        type='MultiImageMixDataset',
        dataset=inner,
        pipeline=[
            dict(type='Mosaic', img_scale=(64, 64), pad_val=114.0),
            dict(type='RandomAffine', scaling_ratio_range=(0.9, 1.1), border=(-32, -32)),
            dict(type='MixUp', img_scale=(64, 64), ratio_range=(0.8, 1.6), pad_val=114.0),
            dict(type='Resize', scale=(96, 96), keep_ratio=True),
            dict(type='Pad', size=(96, 96), pad_val=dict(img=(114.0, 114.0, 114.0))),
            dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1), keep_empty=False),
            PACK,
        ],
    )


class Seeded(Dataset[Any]):
    """Data set whose random steps depend on the index alone.

    A resumed run passes over what was trained on, and not every MMEngine loads it for that.
    """

    def __init__(self, inner: Any) -> None:
        self.inner, self.metainfo = inner, inner.metainfo

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, place: int) -> Any:
        random.seed(place)
        np.random.seed(place)
        return self.inner[place]


def test_images_of_our_data_set_are_mixed(boxes_root: Path, tmp_path: Path) -> None:
    data = DATASETS.build(mixed(boxes_root))
    test = data_of(boxes_root, 'test', CLASSES, name=OURS)
    follow(HOST, Setting(single('YOLOXHead'), Seeded(data), test, metric(boxes_root)), tmp_path)
    assert type(data.dataset).__module__.startswith('mmdet_ext.')
    counts = [len(data[0]['data_samples'].gt_instances) for _ in range(5)]
    # One image has three boxes, a mosaic of four and another image have more.
    assert max(counts) > 3


def semi_data(root: Path) -> dict[str, Any]:
    """Return the config of a labelled and an unlabelled part, both read by our data set."""
    names = ['sup', 'unsup_teacher', 'unsup_student']
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip')
    view = {**PACK, 'meta_keys': (*keys, 'flip_direction', 'homography_matrix')}
    flipped = dict(type='RandomFlip', prob=1.0)
    branches = dict(type='MultiBranch', branch_field=names)
    labelled = [LOAD, LABELS, RESIZE, {**branches, 'sup': PACK}]
    steps = dict(unsup_teacher=[RESIZE, view], unsup_student=[RESIZE, flipped, view])
    unlabelled = [LOAD, dict(type='LoadEmptyAnnotations'), {**branches, **steps}]
    parts = [
        data_of(root, 'train', CLASSES, name=OURS, steps=labelled),
        data_of(root, 'train', CLASSES, name=OURS, steps=unlabelled),
    ]
    return dict(type='ConcatDataset', datasets=parts)


def semi(kind: str, detector: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a semi-supervised wrapper, whose teacher trusts every box."""
    detector = copy.deepcopy(detector)
    return dict(
        type=kind,
        detector=detector,
        data_preprocessor=dict(
            type='MultiBranchDataPreprocessor', data_preprocessor=detector['data_preprocessor']
        ),
        semi_train_cfg=dict(
            freeze_teacher=True,
            sup_weight=1.0,
            unsup_weight=2.0,
            pseudo_label_initial_score_thr=0.0,
            rpn_pseudo_thr=0.0,
            cls_pseudo_thr=0.0,
            reg_pseudo_thr=10.0,
            jitter_times=2,
            jitter_scale=0.06,
            min_pseudo_bbox_wh=(1e-2, 1e-2),
        ),
        semi_test_cfg=dict(predict_on='teacher'),
    )


SEMI = {
    'one stage': (
        'SemiBaseDetector',
        single('RetinaHead', **BOXES, **CLASSES_BY_FOCAL),
        {'loss_cls', 'loss_bbox'},
    ),
    'batched targets': (
        'SemiBaseDetector',
        single('ATSSHead'),
        {'loss_cls', 'loss_bbox', 'loss_centerness'},
    ),
    'soft teacher': (
        'SoftTeacher',
        two_stages(),
        {'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox'},
    ),
}


def semi_run(name: str, root: Path, folder: Path) -> Outcome:
    """Train, test and resume a semi-supervised detector."""
    kind, detector, _ = SEMI[name]
    sampler = dict(type='GroupMultiSourceSampler', batch_size=4, source_ratio=[1, 1])
    setting = Setting(
        semi(kind, detector),
        semi_data(root),
        data_of(root, 'test', CLASSES, name=OURS),
        metric(root),
        dict(custom_hooks=[dict(type='MeanTeacherHook', momentum=0.25)]),
        batch=4,
        sampler=sampler,
    )
    return follow(HOST, setting, folder)


@pytest.mark.parametrize('name', SEMI)
def test_a_teacher_and_a_student_train_on_pseudo_boxes(
    name: str, boxes_root: Path, tmp_path: Path
) -> None:
    outcome = semi_run(name, boxes_root, tmp_path)
    for step in outcome.watch.losses:
        found = {key for key in step if 'loss_' in key}
        assert {f'unsup_{part}' for part in SEMI[name][2]} <= found
        assert sum(value for key, value in step.items() if key.startswith('unsup_')) > 0
        assert sum(value for key, value in step.items() if key.startswith('sup_')) > 0
    # Only the student is trained; the teacher follows it.
    pulled = outcome.watch.pulled - {'prediction'}
    assert pulled and all(key.startswith('student.') for key in pulled)
    before, after = outcome.watch.before, outcome.runner.model.state_dict()
    key = 'backbone.conv1.weight'
    assert not torch.equal(after[f'teacher.{key}'], before[f'teacher.{key}'])
    assert not torch.equal(after[f'teacher.{key}'], after[f'student.{key}'])
    assert 0 <= outcome.metrics['coco/bbox_mAP'] <= 1


def whole_config(root: Path, folder: Path, model: dict[str, Any]) -> Config:
    """Return a config as a user writes it, with test-time augmentation."""
    train, test = (data_of(root, part, CLASSES, name=OURS) for part in ('train', 'test'))
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip')
    view = {**PACK, 'meta_keys': (*keys, 'flip_direction')}
    flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
    loader = dict(batch_size=2, num_workers=0)
    path = folder / 'config.py'
    Config(
        dict(
            default_scope='mmdet',
            custom_imports=dict(imports=['mmdet_ext.compat'], allow_failed_imports=False),
            model=model,
            train_dataloader=dict(
                **loader, dataset=train, sampler=dict(type='DefaultSampler', shuffle=True)
            ),
            test_dataloader=dict(
                **loader, dataset=test, sampler=dict(type='DefaultSampler', shuffle=False)
            ),
            test_evaluator=metric(root),
            train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=1),
            test_cfg=dict(type='TestLoop'),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            visualizer=dict(type='DetLocalVisualizer', vis_backends=[]),
            tta_model=dict(
                type='DetTTAModel',
                tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.6), max_per_img=20),
            ),
            tta_pipeline=[
                LOAD,
                dict(type='TestTimeAug', transforms=[[RESIZE], flips, [LABELS], [view]]),
            ],
            work_dir=str(folder),
            randomness=dict(seed=0),
            log_level='ERROR',
        )
    ).dump(path)
    return Config.fromfile(path)


def boxes_of(found: Any) -> torch.Tensor:
    """Return the rows x1, y1, x2, y2, score, label of predictions, best first."""
    rows = [found.bboxes, found.scores[:, None], found.labels[:, None].to(found.scores)]
    return torch.cat(rows, 1)


def atss() -> dict[str, Any]:
    """Return the config of an ATSS with a loss of ours."""
    return single('ATSSHead', loss_bbox=dict(type='mmdet_ext.SIoULoss', neg_gamma=True))


@pytest.mark.parametrize('make', [atss, yolov5])
def test_augmented_test_and_inferencer_agree_with_the_test(
    make: Callable[[], dict[str, Any]], boxes_root: Path, tmp_path: Path
) -> None:
    cfg = whole_config(boxes_root, tmp_path, make())
    runner = Runner.from_cfg(copy.deepcopy(cfg))
    runner.train()
    plain = runner.test()
    weights = str(tmp_path / 'epoch_1.pth')
    entry = runner.test_dataloader.dataset[1]
    one = dict(inputs=[entry['inputs']], data_samples=[entry['data_samples']])
    with torch.no_grad():
        expected = boxes_of(runner.model.test_step(one)[0].pred_instances)
    assert len(expected) > 5

    path = str(boxes_root / 'test' / '2.png')
    for names in (dict(model=str(tmp_path / 'config.py')), {}):  # {}: the checkpoint's own config
        infer = DetInferencer(**names, weights=weights, device='cpu', show_progress=False)
        options = dict(out_dir=str(tmp_path / 'drawn'), pred_score_thr=0.0)
        found = infer(path, return_datasamples=True, **options)
        torch.testing.assert_close(boxes_of(found['predictions'][0].pred_instances), expected)
    drawn = cv2.imread(str(tmp_path / 'drawn' / 'vis' / '2.png'))
    assert drawn is not None and (drawn != cv2.imread(path)).any()

    # As `tools/test.py --tta` of mmdet does.
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.load_from = weights
    augmented = Runner.from_cfg(cfg)
    assert set(augmented.test()) == set(plain)
    views = augmented.test_dataloader.dataset[1]
    batch = {key: [[view] for view in value] for key, value in views.items()}
    with torch.no_grad():
        (merged,) = augmented.model.test_step(batch)
    each = []
    for image, sample in zip(views['inputs'], views['data_samples'], strict=True):
        with torch.no_grad():
            (found,) = runner.model.test_step(dict(inputs=[image], data_samples=[sample]))
        rows = boxes_of(found.pred_instances)
        if sample.flip:
            rows[:, [0, 2]] = sample.ori_shape[1] - rows[:, [2, 0]]
        each.append(rows)
    rows = torch.cat(each)
    # No two boxes of one class are left that overlap by more than 0.6.
    kept, _ = batched_nms(
        rows[:, :4].contiguous(), rows[:, 4], rows[:, 5], cfg.tta_model.tta_cfg.nms
    )
    torch.testing.assert_close(boxes_of(merged.pred_instances)[:, :5], kept[:20])
    assert len(kept) > len(each[0]) / 2 and not torch.allclose(kept[:5], each[1][:5, :5])
