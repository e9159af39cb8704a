"""Small heads with any of our assigners, and their losses."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from torch import Tensor, nn

from tests._helpers.dense_heads import CHANNELS, CLASSES, STRIDES, Batch, build, value

#: Assigners for three levels, and the kind of priors that each needs.
ASSIGNERS: dict[str, tuple[str, dict[str, Any]]] = {
    'ATSS': ('anchors', dict(type='ATSSAssigner', topk=9)),
    'ATSS by predictions': ('anchors', dict(type='ATSSAssigner', topk=9, alpha=0.8)),
    'max IoU': ('anchors', dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4)),
    'YOLOv3': ('anchors', dict(type='YOLOv3Assigner')),
    'YOLOv3 by priors': ('anchors', dict(type='YOLOv3Assigner', ignore_by='prior')),
    'YOLOv4': ('anchors', dict(type='YOLOv4Assigner')),
    'YOLOv5': ('anchors', dict(type='YOLOv5Assigner')),
    'RFLA on anchors': ('anchors', dict(type='RFLAAssigner', receptive_fields=None)),
    'RFLA': ('any', dict(type='RFLAAssigner', receptive_fields=[16, 32, 64])),
    'task-aligned': ('any', dict(type='TaskAlignedAssigner', topk=13)),
    'one to one': ('any', dict(type='OneToOneTaskAlignedAssigner')),
    'SimOTA': ('any', dict(type='SimOTAAssigner')),
    'soft label': ('any', dict(type='DynamicSoftLabelAssigner')),
    'FCOS': ('any', dict(type='FCOSAssigner', regress_ranges=[(-1, 24), (24, 48), (48, 1e8)])),
    'CenterNet': ('one level', dict(type='CenterNetAssigner')),
}
POINT_HEADS = ('FCOSHead', 'YOLOXHead', 'RTMDetHead', 'RTMDetSepBNHead')
ANCHOR_HEADS = (
    'ATSSHead',
    'GFLHead',
    'NanoDetPlusHead',
    'RetinaHead',
    'TOODHead',
    'SSDHead',
    'YOLOV3Head',
)


def config_of(assigner: str) -> dict[str, Any]:
    options = ASSIGNERS[assigner][1]
    return {**options, 'type': f'mmdet_ext.{options["type"]}'}


def ssd(train_cfg: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    train = dict(smoothl1_beta=1.0, allowed_border=-1, pos_weight=-1, neg_pos_ratio=3, debug=False)
    anchors = dict(
        type='SSDAnchorGenerator',
        scale_major=False,
        input_size=96,
        strides=list(STRIDES),
        ratios=([2], [2], [2]),
        min_sizes=[16, 30, 50],
        max_sizes=[30, 50, 80],
    )
    return MODELS.build(
        ConfigDict(
            type='mmdet_ext.SSDHead',
            num_classes=CLASSES,
            in_channels=(CHANNELS,) * 3,
            anchor_generator=anchors,
            bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2]),
            train_cfg={**train, 'sampler': dict(type='PseudoSampler'), **train_cfg},
        )
    )


def yolov3(train_cfg: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    sides = [[(60, 45), (78, 99)], [(30, 31), (42, 25)], [(10, 13), (23, 13)]]
    return MODELS.build(
        ConfigDict(
            type='mmdet_ext.YOLOV3Head',
            num_classes=CLASSES,
            in_channels=[CHANNELS] * 3,
            out_channels=[CHANNELS] * 3,
            anchor_generator=dict(
                type='YOLOAnchorGenerator', strides=list(STRIDES[::-1]), base_sizes=sides
            ),
            bbox_coder=dict(type='YOLOBBoxCoder'),
            featmap_strides=list(STRIDES[::-1]),
            train_cfg=train_cfg,
        )
    )


def head_with(name: str, assigner: str) -> nn.Module:
    """Build a small head with an assigner, in both phases where it has two."""
    train_cfg = dict(assigner=config_of(assigner))
    if name == 'TOODHead':
        train_cfg['initial_assigner'] = config_of(assigner)
    if name in ('SSDHead', 'YOLOV3Head'):
        return (ssd if name == 'SSDHead' else yolov3)(train_cfg)
    return build(name, 'mmdet_ext', train_cfg=train_cfg)


def losses_of(head: nn.Module, batch: Batch) -> dict[str, Any]:
    if type(head).__name__ == 'SSDHead':  # it takes no ignore regions by this name alone
        return head.loss_by_feat(*head(batch.features), batch.gts, batch.metas)
    if type(head).__name__ == 'YOLOV3Head':
        return head.loss_by_feat(*head(batch.features[::-1]), batch.gts, batch.metas)
    return batch.losses(head)


def total_of(losses: dict[str, Any]) -> Tensor:
    parts = [part for loss in losses.values() for part in (loss if type(loss) is list else [loss])]
    return torch.stack([part.sum() for part in parts]).sum()


def box_loss(losses: dict[str, Any]) -> float:
    return value(losses, 'loss_bbox' if 'loss_bbox' in losses else 'loss_wh')


def refused(name: str, assigner: str) -> bool:
    kind = ASSIGNERS[assigner][0]
    return kind == 'one level' or (kind == 'anchors' and name in POINT_HEADS)


PAIRS = [(name, assigner) for name in (*ANCHOR_HEADS, *POINT_HEADS) for assigner in ASSIGNERS]
