"""YOLOV3Head: losses equal to mmdet's, and priors ignored by the boxes predicted for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.catalog.synthetic import random_boxes
from mmdet_ext.functional.boxes.overlap import box_iou

STRIDES = (32, 16, 8)
HEIGHT, WIDTH = 128, 160


def head(scope: str, assigner: dict[str, Any], **options: Any) -> Any:
    """Build a small head of three levels."""
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type=f'{scope}.YOLOV3Head',
            num_classes=7,
            in_channels=[8, 8, 8],
            out_channels=[8, 8, 8],
            anchor_generator=dict(
                type='YOLOAnchorGenerator',
                strides=list(STRIDES),
                base_sizes=[
                    [(60, 45), (78, 99), (110, 90)],
                    [(30, 31), (42, 25), (39, 49)],
                    [(10, 13), (16, 20), (23, 13)],
                ],
            ),
            bbox_coder=dict(type='YOLOBBoxCoder'),
            featmap_strides=list(STRIDES),
            train_cfg=ConfigDict(assigner=assigner),
            **options,
        )
    )


def batch(count: int) -> tuple[list[InstanceData], list[dict[str, Any]]]:
    """Make the ground truth and meta information of some images."""
    gts = []
    generator = torch.Generator().manual_seed(2)
    edges = torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    for number in range(count):
        boxes = random_boxes(generator, 5 * number + 3, WIDTH, HEIGHT, 8, 100)
        # Boxes lie within the image, as mmdet's head fails on centres outside of it.
        boxes = boxes.clamp(min=0).minimum(edges)
        labels = torch.randint(7, (len(boxes),), generator=generator)
        gts.append(InstanceData(bboxes=boxes, labels=labels))
    return gts, [dict(img_shape=(HEIGHT, WIDTH))] * count


def maps(model: Any, count: int) -> tuple[Tensor, ...]:
    """Return a head's predictions for random features."""
    generator = torch.Generator().manual_seed(1)
    features = tuple(
        torch.randn(count, 8, HEIGHT // s, WIDTH // s, generator=generator) for s in STRIDES
    )
    (pred_maps,) = model(features)
    return pred_maps


@pytest.mark.parametrize(
    'assigner',
    [
        dict(type='mmdet_ext.YOLOv3Assigner', ignore_by='prior'),
        dict(type='mmdet_ext.YOLOv4Assigner', ignore_by='prior'),
        dict(type='mmdet_ext.YOLOv5Assigner'),
        dict(type='GridAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0),
    ],
    ids=lambda config: config['type'],
)
@pytest.mark.parametrize('smooth', [None, 0.1])
def test_losses_and_gradients_equal_mmdet(assigner: dict[str, Any], smooth: float | None) -> None:
    """Mmdet's head asks the same assigner image by image."""
    options = {} if smooth is None else {'one_hot_smoother': smooth}
    results = []
    for scope in ('mmdet', 'mmdet_ext'):
        model = head(scope, assigner, **options)
        gts, metas = batch(3)
        losses = model.loss_by_feat(maps(model, 3), gts, metas)
        total = sum(sum(part) for part in losses.values())
        total.backward()
        results.append((losses, [p.grad for p in model.parameters()]))
    (theirs, their_gradients), (ours, gradients) = results
    for name, parts in theirs.items():
        torch.testing.assert_close(list(ours[name]), list(parts), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients, their_gradients, rtol=1e-5, atol=1e-6)


def test_priors_are_ignored_by_the_boxes_predicted_for_them() -> None:
    model = head('mmdet_ext', dict(type='mmdet_ext.YOLOv3Assigner', ignore_iou_thr=0.3))
    gts, metas = batch(2)
    pred_maps = tuple(each.detach() for each in maps(model, 2))
    targets, backgrounds = zip(*model.batch_targets(pred_maps, gts, metas), strict=True)
    priors = torch.cat(
        model.prior_generator.grid_priors([m.shape[-2:] for m in pred_maps], device='cpu')
    )
    strides = torch.cat(
        [
            torch.full((3 * m.shape[-2] * m.shape[-1],), float(s))
            for m, s in zip(pred_maps, STRIDES, strict=True)
        ]
    )
    for image in range(2):
        rows = torch.cat(
            [
                m[image].view(3, -1, *m.shape[-2:]).permute(2, 3, 0, 1).flatten(0, 2)
                for m in pred_maps
            ]
        )
        offset = (rows[:, :2].sigmoid() - 0.5) * strides[:, None]
        middle = (priors[:, :2] + priors[:, 2:]) / 2 + offset
        half = (priors[:, 2:] - priors[:, :2]) / 2 * rows[:, 2:4].exp()
        found = torch.cat([middle - half, middle + half], 1)
        overlap = box_iou(found[:, None], gts[image].bboxes).amax(1)
        positive = targets[image][:, 4] == 1
        assert torch.equal(backgrounds[image] == 1, ~positive & (overlap <= 0.3))
        assert ((backgrounds[image] == 0) & ~positive).sum() > 20
        assert positive.sum() > 0


def test_an_assigner_that_does_not_say_what_it_uses_gets_scores_and_boxes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = head('mmdet_ext', dict(type='mmdet_ext.YOLOv3Assigner'))
    monkeypatch.setattr(type(model.assigner), 'predictions_used', None)
    match, got = model.assigner.match, []
    model.assigner.match = lambda geometry, given: (got.append(given), match(geometry, given))[1]
    model.loss_by_feat(maps(model, 2), *batch(2))
    (given,) = got
    assert given.scores.shape == (*given.boxes.shape[:2], 7)
    assert given.boxes.shape[2] == 4
