"""RoIs, and training of a RoI head on made features."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.registry import MODELS

CLASSES = 3
SIZE = 64
USUAL = dict(pos_weight=-1, debug=False)
ASSIGNER = dict(
    type='mmdet_ext.MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, match_low_quality=False
)
TEST = ConfigDict(score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10)


def build(kind: str, **options: Any) -> Any:
    """Build a part of ours."""
    return MODELS.build(ConfigDict(type=f'mmdet_ext.{kind}', **options))


def random_rois(count: int, images: int = 2, seed: int = 0) -> Tensor:
    """Return RoIs of at least 4 px in images of `SIZE`."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(count, 2, generator=generator) * (SIZE - 8)
    last = first + 4 + torch.rand(count, 2, generator=generator) * (SIZE - 4 - first)
    number = torch.randint(images, (count, 1), generator=generator)
    return torch.cat([number, first, last.clamp(max=SIZE)], 1)


def roi_head(kind: str = 'StandardRoIHead', sampler: Any = None, **parts: Any) -> Any:
    """Build a RoI head that can be trained."""
    sampler = sampler or dict(
        type='RandomSampler', num=8, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=True
    )
    cfg = ConfigDict(
        type=kind,
        train_cfg=dict(**USUAL, assigner=ASSIGNER, sampler=sampler),
        test_cfg=TEST,
        **parts,
    )
    head = MODELS.build(cfg)
    torch.manual_seed(0)
    head.init_weights()
    return head


def samples(images: int = 2, boxes: int = 2) -> tuple[list[InstanceData], list[DetDataSample]]:
    """Return proposals and annotations of some images, each with ``boxes`` ground-truth boxes."""
    proposals, found = [], []
    for number in range(images):
        rois = random_rois(20, seed=number)[:, 1:]
        proposals.append(InstanceData(bboxes=rois, scores=torch.ones(len(rois))))
        sample = DetDataSample(metainfo=dict(img_shape=(SIZE, SIZE), scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(
            bboxes=rois[:boxes] + 0.5, labels=torch.arange(boxes) % CLASSES
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4))
        found.append(sample)
    return proposals, found


def assert_trains_and_predicts(head: Any, feats: tuple[Tensor, ...]) -> None:
    """Assert finite losses and gradients, also without ground truth, and sound predictions."""
    for boxes in (2, 0):
        proposals, data = samples(len(feats[0]), boxes)
        losses = head.loss(feats, proposals, data)
        assert set(losses) == {'loss_cls', 'loss_bbox', 'acc'}
        head.zero_grad()
        (losses['loss_cls'] + losses['loss_bbox']).backward()
        for name, parameter in head.named_parameters():
            assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
        pulled = [p.grad is not None and bool(p.grad.any()) for p in head.parameters()]
        assert any(pulled)
    head.eval()
    proposals, data = samples(len(feats[0]))
    with torch.no_grad():
        found = head.predict(feats, proposals, data)
        none = [InstanceData(bboxes=torch.zeros(0, 4), scores=torch.zeros(0)) for _ in data]
        nothing = head.predict(feats, none, data)
    assert all(0 < len(each) <= 10 for each in found) and all(len(each) == 0 for each in nothing)
    for each in found:
        assert (each.scores >= 0).all() and (each.scores <= 1).all()
        assert (each.bboxes >= 0).all() and (each.bboxes <= SIZE).all()
        assert set(each.labels.tolist()) <= set(range(CLASSES))
