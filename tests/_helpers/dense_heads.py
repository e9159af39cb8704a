"""Small dense heads of ours and of mmdet, and batches to compare them on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_ext.catalog.synthetic import random_boxes
from mmdet_ext.detection.assigners.base import BatchAssigner
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions

HEIGHT, WIDTH = 96, 128
STRIDES = (8, 16, 32)
CLASSES = 4
CHANNELS = 8

ANCHORS = dict(
    type='AnchorGenerator',
    ratios=[1.0],
    octave_base_scale=3,
    scales_per_octave=1,
    strides=list(STRIDES),
)
DELTAS = dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2])
FOCAL = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25)
QUALITY = dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0)
CENTERNESS = dict(type='CrossEntropyLoss', use_sigmoid=True)
NORM = dict(type='GN', num_groups=2)
USUAL = dict(stacked_convs=1, feat_channels=CHANNELS)
TRAIN = dict(allowed_border=-1, pos_weight=-1, debug=False)

#: Options of each head that mmdet has too; {scope} stands for the scope of its assigner.
HEADS: dict[str, dict[str, Any]] = {
    'ATSSHead': dict(
        **USUAL,
        anchor_generator=ANCHORS,
        bbox_coder=DELTAS,
        norm_cfg=NORM,
        loss_cls=FOCAL,
        loss_bbox=dict(type='GIoULoss'),
        loss_centerness=CENTERNESS,
        train_cfg=dict(**TRAIN, assigner=dict(type='{scope}.ATSSAssigner', topk=9)),
    ),
    'GFLHead': dict(
        **USUAL,
        anchor_generator=ANCHORS,
        norm_cfg=NORM,
        loss_cls=QUALITY,
        loss_bbox=dict(type='GIoULoss'),
        reg_max=8,
        train_cfg=dict(**TRAIN, assigner=dict(type='{scope}.ATSSAssigner', topk=9)),
    ),
    'FCOSHead': dict(
        **USUAL, strides=STRIDES, norm_cfg=NORM, regress_ranges=((-1, 24), (24, 48), (48, 1e8))
    ),
    'RetinaHead': dict(
        **USUAL,
        anchor_generator={**ANCHORS, 'ratios': [0.5, 1.0, 2.0]},
        bbox_coder=DELTAS,
        loss_cls=FOCAL,
        loss_bbox=dict(type='L1Loss'),
        train_cfg=dict(
            **TRAIN,
            sampler=dict(type='PseudoSampler'),
            assigner=dict(
                type='{scope}.MaxIoUAssigner',
                pos_iou_thr=0.5,
                neg_iou_thr=0.4,
                min_pos_iou=0,
                ignore_iof_thr=0.5,
            ),
        ),
    ),
    'YOLOXHead': dict(
        **USUAL,
        strides=STRIDES,
        train_cfg=dict(assigner=dict(type='{scope}.SimOTAAssigner', center_radius=2.5)),
    ),
    'TOODHead': dict(
        **{**USUAL, 'stacked_convs': 2},
        anchor_generator=ANCHORS,
        bbox_coder=DELTAS,
        norm_cfg=NORM,
        initial_loss_cls={**FOCAL, 'activated': True},
        loss_cls={**QUALITY, 'activated': True},
        loss_bbox=dict(type='GIoULoss'),
        train_cfg=dict(
            **TRAIN,
            initial_epoch=4,
            alpha=1,
            beta=6,
            initial_assigner=dict(type='{scope}.ATSSAssigner', topk=9),
            assigner=dict(type='{scope}.TaskAlignedAssigner', topk=13),
        ),
    ),
    'RTMDetHead': dict(
        **USUAL,
        norm_cfg=dict(type='BN'),
        loss_cls=QUALITY,
        loss_bbox=dict(type='GIoULoss'),
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=STRIDES),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        train_cfg=dict(**TRAIN, assigner=dict(type='{scope}.DynamicSoftLabelAssigner', topk=13)),
    ),
}
HEADS['RTMDetSepBNHead'] = {**HEADS['RTMDetHead'], 'with_objectness': False, 'exp_on_reg': True}
#: Heads that mmdet has not.
OWN_HEADS: dict[str, dict[str, Any]] = {
    'NanoDetPlusHead': dict(
        **USUAL,
        strides=STRIDES,
        reg_max=7,
        train_cfg=dict(
            **TRAIN,
            assigner=dict(type='{scope}.DynamicSoftLabelAssigner', soft_center_radius=None),
        ),
    ),
}
ALL_HEADS = {**HEADS, **OWN_HEADS}

#: Heads with an epoch; the one head with two phases is there with an epoch of each.
PHASES = [(name, 5) for name in HEADS] + [('TOODHead', 3)]


def build(name: str, scope: str, assigners: str | None = None, **options: Any) -> nn.Module:
    """Build a small head.

    Args:
        name: registered name of the head.
        scope: scope of the head, which does not change its weights.
        assigners: scope of its assigners; None for the scope of the head.
        **options: options to change; those of ``train_cfg`` are merged.
    """
    config = scoped(ALL_HEADS[name], assigners or scope)
    for key, value in options.items():
        old = config.get(key)
        config[key] = {**old, **value} if isinstance(old, dict) and key == 'train_cfg' else value
    torch.manual_seed(0)
    head = MODELS.build(
        ConfigDict(type=f'{scope}.{name}', num_classes=CLASSES, in_channels=CHANNELS, **config)
    )
    head.init_weights()
    with torch.no_grad():
        for weight in head.parameters():
            weight += 0.05 * torch.randn(weight.shape)
    return head.train()


def scoped(node: Any, scope: str) -> Any:
    """Return a config in which a scope stands for ``{scope}``."""
    if isinstance(node, dict):
        return {key: scoped(value, scope) for key, value in node.items()}
    return node.format(scope=scope) if isinstance(node, str) else node


class Batch:
    """Feature maps, ground truth and sizes of a batch of images."""

    def __init__(
        self, counts: tuple[int, ...], mixed: bool = False, ignored: bool = False, seed: int = 3
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.features = [
            torch.randn(
                len(counts),
                CHANNELS,
                HEIGHT // stride,
                WIDTH // stride,
                generator=generator,
                requires_grad=True,
            )
            for stride in STRIDES
        ]
        self.metas, self.gts, self.ignored = [], [], []
        for image, count in enumerate(counts):
            # The first image is the largest; the batch is padded to its size.
            cut = image * mixed * 12
            height, width = HEIGHT - cut, WIDTH - 2 * cut
            self.metas.append(
                dict(img_shape=(height - 3 * mixed, width - 5 * mixed), pad_shape=(height, width))
            )
            self.gts.append(
                InstanceData(
                    bboxes=random_boxes(generator, count, width, height, 8, 70),
                    labels=torch.randint(CLASSES, (count,), generator=generator),
                )
            )
            # mmdet ignores nothing in images without boxes.
            regions = 2 if ignored and count else 0
            self.ignored.append(
                InstanceData(bboxes=random_boxes(generator, regions, width, height, 30, 80))
            )

    def losses(self, head: nn.Module) -> dict[str, Any]:
        """Compute the losses of a head on this batch."""
        return head.loss_by_feat(
            *head(self.features), self.gts, self.metas, batch_gt_instances_ignore=self.ignored
        )


def outcome(head: nn.Module, batch: Batch) -> tuple[dict[str, Any], list[Tensor | None]]:
    """Compute the losses, and the gradients of their sum at the features and all weights."""
    losses = batch.losses(head)
    total = sum(
        part.sum()
        for loss in losses.values()
        for part in (loss if isinstance(loss, list) else [loss])
    )
    weights = list(head.parameters())
    gradients = torch.autograd.grad(total, [*batch.features, *weights], allow_unused=True)
    return losses, list(gradients)


def assert_as_mmdet(ours: nn.Module, theirs: nn.Module, batch: Batch) -> dict[str, Any]:
    """Assert equal losses and gradients of both heads, and return the losses."""
    losses, gradients = outcome(ours, batch)
    their_losses, their_gradients = outcome(theirs, batch)
    torch.testing.assert_close(losses, their_losses, rtol=1e-5, atol=1e-6)
    scale = max(float(g.abs().max()) for g in their_gradients if g is not None)
    for one, other in zip(gradients, their_gradients, strict=True):
        assert (one is None) == (other is None)
        if other is not None:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * max(scale, 1.0))
    return losses


def value(losses: dict[str, Any], name: str) -> float:
    """Return a loss as a number, summed over its parts."""
    loss = losses[name]
    return float(sum(loss) if isinstance(loss, list) else loss)


def spied(assigner: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the number of images of each call of ``match``, and refuse calls of ``assign``."""
    calls: list[int] = []
    match = assigner.match

    def count(geometry: BatchGeometry, *args: Any, **kwargs: Any) -> Assignment:
        calls.append(geometry.gt_valid.shape[0])
        return match(geometry, *args, **kwargs)

    def refuse(*args: Any, **kwargs: Any) -> None:
        pytest.fail('assign was called for one image')

    monkeypatch.setattr(assigner, 'match', count)
    monkeypatch.setattr(assigner, 'assign', refuse)
    return calls


def assigner_of(head: nn.Module, number: int) -> Any:
    """Return the assigner that a head uses in an epoch."""
    late = type(head).__name__ == 'TOODHead' and number >= head.initial_epoch
    return head.alignment_assigner if late else head.assigner


BATCHES = {
    'four images': dict(counts=(5, 1, 9, 3)),
    'one image': dict(counts=(6,)),
    'some without boxes': dict(counts=(0, 4, 0)),
    'all without boxes': dict(counts=(0, 0)),
    'mixed sizes': dict(counts=(5, 4, 0, 6), mixed=True),
    'ignore regions': dict(counts=(5, 3, 0), ignored=True),
    'ignore regions in mixed sizes': dict(counts=(5, 3, 0, 4), mixed=True, ignored=True),
}


class OneByOne(BatchAssigner):
    """Batch assigner that asks an assigner of mmdet image by image, on the priors of each."""

    def __init__(self, theirs: Any, with_levels: bool) -> None:
        self.theirs = theirs
        self.with_levels = with_levels

    def match(
        self, geometry: BatchGeometry, predictions: Predictions | None = None, **own: Any
    ) -> Assignment:
        shape = (geometry.gt_valid.shape[0], len(geometry.priors))
        index = torch.full(shape, -2)
        overlap, metric = torch.zeros(shape), torch.zeros(shape)
        for image, real in enumerate(geometry.gt_valid):
            valid = torch.ones(shape[1], dtype=torch.bool)
            if geometry.prior_valid is not None:
                valid = geometry.prior_valid[image]
            pred = InstanceData(priors=geometry.priors.rows[valid])
            if predictions is not None:
                pred.scores = predictions.scores[image][valid]
                pred.bboxes = predictions.boxes[image][valid]
            levels = [int(part.sum()) for part in valid.split(geometry.priors.sizes)]
            regions = None
            if geometry.ignore_boxes is not None:
                regions = InstanceData(
                    bboxes=geometry.ignore_boxes[image][geometry.ignore_valid[image]]
                )
            gts = InstanceData(
                bboxes=geometry.gt_boxes[image][real], labels=geometry.gt_labels[image][real]
            )
            found = self.theirs.assign(
                pred, *([levels] if self.with_levels else []), gts, regions, **own
            )
            index[image, valid] = found.gt_inds - 1
            overlap[image, valid] = found.max_overlaps
            metric[image, valid] = getattr(found, 'assign_metrics', metric[image, valid])
        positive = index >= 0
        return Assignment(index, overlap * positive, metric * positive)


def with_mmdet_assigner(name: str, **options: Any) -> nn.Module:
    """Build our head with mmdet's assigner as a batch assigner, so that only targets are ours."""
    head = build(name, 'mmdet_ext', 'mmdet', **options)
    for attribute in ('assigner', 'alignment_assigner'):
        if name != 'FCOSHead' and hasattr(head, attribute):
            with_levels = head.gives_levels and attribute == 'assigner'
            setattr(head, attribute, OneByOne(getattr(head, attribute), with_levels))
    return head
