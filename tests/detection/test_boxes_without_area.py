"""Ground-truth boxes without area, as pseudo labels have them: in heads, stages and detectors."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from torch import Tensor, nn

from tests._helpers.configs import CONFIGS
from tests._helpers.dense_heads import ALL_HEADS, CLASSES, HEADS, Batch, build, outcome, value

pytestmark = pytest.mark.usefixtures('epoch')

#: No width, no height, neither, and corners in the wrong order.
FLAT = torch.tensor([[60.0, 20, 60, 60], [20, 40, 60, 40], [50, 50, 50, 50], [90, 30, 60, 50]])


@pytest.fixture
def epoch() -> Iterator[None]:
    """Set an epoch in which TOOD has left its first phase."""
    MessageHub.get_current_instance().update_info('epoch', 5)
    yield
    MessageHub.get_current_instance().update_info('epoch', 0)


def with_flat(batch: Batch, flat: Tensor = FLAT) -> Batch:
    """Return the batch with boxes without area before, between and after the others."""
    mixed = copy.copy(batch)
    mixed.gts = []
    for gt in batch.gts:
        boxes, labels = gt.bboxes, gt.labels
        other = torch.zeros(len(flat), dtype=torch.int64)
        mixed.gts.append(
            InstanceData(
                bboxes=torch.cat([flat[:1], boxes[:2], flat[1:2], boxes[2:], flat[2:]]),
                labels=torch.cat([other[:1], labels[:2], other[1:2], labels[2:], other[2:]]),
            )
        )
    return mixed


@pytest.mark.parametrize('name', ALL_HEADS)
def test_losses_of_a_head_of_ours_are_those_without_such_boxes(name: str) -> None:
    batch = Batch((5, 0, 3))
    plain, gradients = outcome(build(name, 'mmdet_ext'), batch)
    mixed, mixed_gradients = outcome(build(name, 'mmdet_ext'), with_flat(batch))
    torch.testing.assert_close(mixed, plain, rtol=0, atol=0)
    torch.testing.assert_close(mixed_gradients, gradients, rtol=0, atol=0)
    assert value(plain, 'loss_bbox') > 0


@pytest.mark.parametrize(
    ('assigner', 'finite'), [('mmdet', False), ('mmdet_ext', True)], ids=['mmdet', 'ours']
)
def test_the_head_of_mmdet_has_an_infinite_loss_by_its_own_assigner(
    assigner: str, finite: bool
) -> None:
    """A box of width 0 takes all priors of its image, and its encoded width is minus infinity."""
    head = build('RetinaHead', 'mmdet', assigner)
    batch = with_flat(Batch((3, 2)), FLAT[:1])
    sizes = [level.shape[2:] for level in batch.features]
    anchors = head.get_anchors(sizes, batch.metas, 'cpu')
    labels = head.get_targets(*anchors, batch.gts, batch.metas)[0]
    positives = sum(int((level < CLASSES).sum()) for level in labels)
    total = sum(level.numel() for level in labels)
    losses, _ = outcome(head, batch)
    assert (positives == total) is not finite
    assert torch.tensor(value(losses, 'loss_bbox')).isinf() == (not finite)


@pytest.mark.parametrize('loss', ['SmoothL1Loss', 'BalancedL1Loss'])
def test_a_loss_of_ours_is_finite_by_the_assigner_of_mmdet_too(loss: str) -> None:
    batch = with_flat(Batch((3, 2)))
    for scope, finite in (('mmdet', False), ('mmdet_ext', True)):
        head = build('RetinaHead', 'mmdet', loss_bbox=dict(type=f'{scope}.{loss}'))
        losses, gradients = outcome(head, batch)
        assert torch.tensor(value(losses, 'loss_bbox')).isfinite() == finite
        if finite:
            assert all(g.isfinite().all() for g in gradients if g is not None)


@pytest.mark.parametrize('loss', ['GIoULoss', 'CIoULoss', 'EfficientIoULoss', 'WiseIoULoss'])
def test_losses_of_boxes_qualities_and_distributions_are_finite_by_the_assigner_of_mmdet(
    loss: str,
) -> None:
    """Here such boxes have priors, so that their targets reach all three losses of GFL."""
    rule = dict(type='mmdet.MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)
    head = build(
        'GFLHead',
        'mmdet_ext',
        train_cfg=dict(assigner=rule),
        loss_cls=dict(type='mmdet_ext.QualityFocalLoss'),
        loss_dfl=dict(type='mmdet_ext.DistributionFocalLoss'),
        loss_bbox=dict(type=f'mmdet_ext.{loss}'),
    )
    losses, gradients = outcome(head, with_flat(Batch((3, 2))))
    for name in ('loss_cls', 'loss_bbox', 'loss_dfl'):
        assert 0 < value(losses, name) < math.inf
    assert all(each.isfinite().all() for each in gradients if each is not None)


def sampled(scope: str, sampler: dict[str, Any], boxes: Tensor) -> tuple[Any, Tensor]:
    """Assign and sample proposals as a RoI head does; return the samples and encoded targets."""
    assigner = TASK_UTILS.build(
        dict(
            type=f'{scope}.MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.5,
            min_pos_iou=0.5,
            match_low_quality=False,
        )
    )
    generator = torch.Generator().manual_seed(1)
    proposals = torch.tensor([[10.0, 10, 50, 50], [70, 30, 120, 90], [0, 0, 20, 20]])
    proposals = proposals.repeat(4, 1) + 3 * torch.rand(12, 4, generator=generator)
    pred = InstanceData(priors=proposals, scores=torch.rand(12, generator=generator))
    gt = InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.int64))
    result = TASK_UTILS.build(sampler).sample(assigner.assign(pred, gt), pred, gt)
    coder = TASK_UTILS.build(dict(type='DeltaXYWHBBoxCoder'))
    return result, coder.encode(result.pos_priors, result.pos_gt_bboxes)


@pytest.mark.parametrize(
    'sampler',
    [
        dict(type='RandomSampler', num=64, pos_fraction=1.0, add_gt_as_proposals=True),
        dict(
            type='mmdet_ext.HardNegativeSampler',
            num=64,
            pos_fraction=1.0,
            add_gt_as_proposals=True,
        ),
        dict(type='PseudoSampler'),
    ],
    ids=lambda config: config['type'],
)
def test_they_do_not_join_the_proposals_of_a_second_stage(sampler: dict[str, Any]) -> None:
    """Mmdet's samplers add ground truth to the proposals, each assigned to itself."""
    boxes = torch.tensor([[11.0, 12, 49, 51], [72, 31, 118, 88]])
    plain, targets = sampled('mmdet_ext', sampler, boxes)
    mixed, mixed_targets = sampled('mmdet_ext', sampler, torch.cat([FLAT, boxes]))
    assert torch.equal(mixed.pos_priors, plain.pos_priors)
    assert torch.equal(mixed.pos_assigned_gt_inds, plain.pos_assigned_gt_inds + len(FLAT))
    assert torch.equal(mixed.neg_priors, plain.neg_priors)
    assert torch.equal(mixed_targets, targets) and targets.isfinite().all() and len(targets) > 2
    if sampler['type'] != 'PseudoSampler':
        _, theirs = sampled('mmdet', sampler, torch.cat([FLAT, boxes]))
        assert theirs.isnan().any()


def faster_rcnn(scope: str) -> ConfigDict:
    """Return a small Faster R-CNN with assigners of a scope."""
    model = Config.fromfile(CONFIGS / '_base_' / 'models' / 'faster_rcnn_r18_fpn.py').model
    model.roi_head.bbox_head.num_classes = CLASSES
    for stage in ('rpn', 'rcnn'):
        assigner = model.train_cfg[stage].assigner
        assigner.type = f'{scope}.MaxIoUAssigner'
    return model


def retinanet(scope: str) -> ConfigDict:
    """Return a small RetinaNet, with head and assigner of a scope."""
    parts = faster_rcnn('mmdet')
    head = ConfigDict(copy.deepcopy(HEADS['RetinaHead']), type=f'{scope}.RetinaHead')
    train_cfg = head.pop('train_cfg')
    train_cfg.assigner.type = f'{scope}.MaxIoUAssigner'
    head.anchor_generator.strides = [8, 16, 32, 64]
    head.update(num_classes=CLASSES, in_channels=64)
    return ConfigDict(
        type='RetinaNet',
        data_preprocessor=parts.data_preprocessor,
        backbone=parts.backbone,
        neck=parts.neck,
        bbox_head=head,
        train_cfg=train_cfg,
        test_cfg=dict(
            nms_pre=50,
            min_bbox_size=0,
            score_thr=0.0,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=10,
        ),
    )


def samples(count: int, flat: bool) -> list[DetDataSample]:
    """Return samples of 128 x 128 with two boxes each, and boxes without area if asked."""
    meta = dict(
        img_shape=(128, 128),
        ori_shape=(128, 128),
        pad_shape=(128, 128),
        batch_input_shape=(128, 128),
        scale_factor=(1.0, 1.0),
        homography_matrix=np.eye(3, dtype=np.float32),
    )
    boxes = torch.tensor([[10.0, 10, 60, 70], [50, 40, 120, 110]])
    boxes = torch.cat([boxes, FLAT]) if flat else boxes
    found = []
    for _ in range(count):
        sample = DetDataSample(metainfo=meta)
        sample.gt_instances = InstanceData(
            bboxes=boxes.clone(), labels=torch.zeros(len(boxes), dtype=torch.int64)
        )
        sample.ignored_instances = InstanceData(bboxes=boxes[:0])
        found.append(sample)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(('scope', 'finite'), [('mmdet', False), ('mmdet_ext', True)])
def test_a_step_of_faster_rcnn(scope: str, finite: bool) -> None:
    torch.manual_seed(0)
    model = MODELS.build(faster_rcnn(scope)).train()
    images = torch.randn(2, 3, 128, 128)
    gts = unpack_gt_instances(samples(2, True))[0]
    assert len(gts[0]) == 2 + len(FLAT)
    losses = model.loss(images, samples(2, True))
    assert losses['loss_bbox'].isfinite() == finite
    if finite:
        assert all(
            sum(part).isfinite() for part in (losses['loss_rpn_bbox'], losses['loss_rpn_cls'])
        )


#: Detectors that learn from pseudo labels, and the detector inside.
SEMI = {'SemiBaseDetector': retinanet, 'SoftTeacher': faster_rcnn}


def semi(name: str, scope: str, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Build a semi-supervised detector whose teacher also finds boxes without area."""
    torch.manual_seed(0)
    model = MODELS.build(
        ConfigDict(
            type=name,
            detector=SEMI[name](scope),
            data_preprocessor=dict(type='DetDataPreprocessor'),
            semi_train_cfg=dict(
                freeze_teacher=True,
                sup_weight=1.0,
                unsup_weight=4.0,
                cls_pseudo_thr=0.0,
                pseudo_label_initial_score_thr=0.0,
                rpn_pseudo_thr=0.0,
                reg_pseudo_thr=1e9,
                jitter_times=2,
                jitter_scale=0.06,
                # Keeps boxes without area; (0.01, 0.01) would leave them out.
                min_pseudo_bbox_wh=(-1, -1),
            ),
            semi_test_cfg=dict(predict_on='teacher'),
        )
    ).train()
    found = model.get_pseudo_instances

    def and_flat(*args: Any) -> Any:
        batch, info = found(*args)
        for sample in batch:
            boxes = torch.cat([FLAT[:3], torch.tensor([[8.0, 8.0, 70.0, 60.0]])])
            own = InstanceData(
                bboxes=boxes,
                labels=torch.zeros(4, dtype=torch.int64),
                scores=torch.full((4,), 0.9),
            )
            if name == 'SoftTeacher':
                own.reg_uncs = torch.zeros(4)
            sample.gt_instances = own
        return batch, info

    monkeypatch.setattr(model, 'get_pseudo_instances', and_flat)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(('scope', 'finite'), [('mmdet', False), ('mmdet_ext', True)])
@pytest.mark.parametrize('name', SEMI)
def test_a_step_on_pseudo_labels(
    name: str, scope: str, finite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = semi(name, scope, monkeypatch)
    branches = ('sup', 'unsup_teacher', 'unsup_student')
    losses = model.loss(
        {branch: torch.randn(1, 3, 128, 128) for branch in branches},
        {branch: samples(1, False) for branch in branches},
    )
    total, _ = model.parse_losses(losses)
    assert total.isfinite() == finite
    if finite:
        total.backward()
        gradients = [p.grad for p in model.student.parameters() if p.grad is not None]
        assert len(gradients) > 30 and all(each.isfinite().all() for each in gradients)
