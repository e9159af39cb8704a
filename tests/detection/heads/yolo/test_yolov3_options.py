"""Options of YOLOV3Head: each part of the loss against loops over priors, edges and messages."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.functional.boxes.overlap import box_iou
from tests.detection.heads.yolo.yolov3_loops import (
    CIOU,
    CLASSES,
    GTS,
    META,
    SIDES,
    SQUARED,
    STRIDES,
    build,
    maps,
    owners,
    slow_losses,
    total,
    truth,
)

V4 = dict(type='mmdet_ext.YOLOv4Assigner', iou_thr=0.3, ignore_iou_thr=0.3)
#: Options of the head, and what they mean in the loops.
PARTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    'as in mmdet': ({}, {}),
    '2 - w h': (dict(size_weight=True), dict(size_weight=True)),
    'squared centres': (dict(loss_xy=SQUARED), dict(xy='squared')),
    'squared objectness': (dict(loss_conf=SQUARED), dict(conf='squared')),
    'squared classes': (dict(loss_cls=SQUARED), dict(cls='squared')),
    'background of less weight': (dict(lambda_noobj=0.3), dict(lambda_noobj=0.3)),
    'softmax': (
        dict(loss_cls=dict(type='CrossEntropyLoss', reduction='sum')),
        dict(cls='softmax'),
    ),
    'our softmax': (
        dict(loss_cls=dict(type='mmdet_ext.CrossEntropyLoss', reduction='sum')),
        dict(cls='softmax'),
    ),
    'label smoothing': (dict(one_hot_smoother=0.1), dict(smooth=0.1)),
    'several anchors': (dict(assigner=V4), dict(iou_thr=0.3)),
    'grid sensitivity': (dict(scale_x_y=1.4), dict(scales=(1.4, 1.4))),
    'grid sensitivity per level': (dict(scale_x_y=[1.1, 1.3]), dict(scales=(1.1, 1.3))),
    'CIoU': (dict(loss_bbox=CIOU), dict(box='ciou')),
    'squared errors throughout': (
        dict(
            size_weight=True,
            loss_xy=SQUARED,
            loss_conf=SQUARED,
            loss_cls=SQUARED,
            lambda_noobj=0.5,
        ),
        dict(size_weight=True, xy='squared', conf='squared', cls='squared', lambda_noobj=0.5),
    ),
    'YOLOv4': (
        dict(
            assigner=V4,
            one_hot_smoother=0.1,
            scale_x_y=(1.05, 1.2),
            loss_bbox=CIOU,
            size_weight=True,
        ),
        dict(iou_thr=0.3, smooth=0.1, scales=(1.05, 1.2), box='ciou', size_weight=True),
    ),
}


@pytest.mark.parametrize(('options', 'kinds'), PARTS.values(), ids=PARTS)
def test_losses_and_gradients_equal_loops_over_priors(
    options: dict[str, Any], kinds: dict[str, Any]
) -> None:
    pred = maps()
    exact = [each.detach().double().requires_grad_() for each in pred]
    found = total(build(**options).loss_by_feat(pred, GTS, [META] * 3))
    expected = slow_losses(exact, GTS, **kinds)
    assert list(found) == list(expected)
    for name, loss in expected.items():
        assert loss > 0, name
        torch.testing.assert_close(found[name].double(), loss, rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(sum(found.values()), pred)
    wanted = torch.autograd.grad(sum(expected.values()), exact)
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', [name for name in PARTS if name != 'as in mmdet'])
def test_each_part_changes_the_losses(name: str) -> None:
    usual = total(build().loss_by_feat(maps(), GTS, [META] * 3))
    changed = total(build(**PARTS[name][0]).loss_by_feat(maps(), GTS, [META] * 3))
    assert sum(usual.values()).item() != pytest.approx(sum(changed.values()).item(), rel=1e-4)


@pytest.mark.parametrize(('options', 'kinds'), PARTS.values(), ids=PARTS)
def test_targets_image_by_image_give_the_same_losses(
    options: dict[str, Any], kinds: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = options.get('assigner', dict(type='mmdet_ext.YOLOv3Assigner'))
    head = build(**{**options, 'assigner': {**rule, 'ignore_by': 'prior'}})
    found = head.loss_by_feat(maps(), GTS, [META] * 3)
    monkeypatch.setattr(head, 'takes_batches', lambda assigner: False)
    torch.testing.assert_close(head.loss_by_feat(maps(), GTS, [META] * 3), found)


def test_a_mean_of_the_overlap_loss_is_over_the_positives_of_a_level() -> None:
    options = dict(loss_bbox=CIOU | dict(reduction='mean'), assigner=V4)
    sums = build(loss_bbox=CIOU, assigner=V4).loss_by_feat(maps(), GTS, [META] * 3)
    means = build(**options).loss_by_feat(maps(), GTS, [META] * 3)
    priors = [prior for gt in GTS for prior in owners(gt.bboxes, 0.3)]
    for level in range(2):
        count = sum(prior[0] == level for prior in priors)
        assert count > 1
        torch.testing.assert_close(means['loss_bbox'][level] * count, sums['loss_bbox'][level])


EDGES = {
    'no boxes': truth([], [], []),
    'boxes without area': truth([[5, 5, 5, 20]], [[9, 9, 9, 9]], [[8, 8, 4, 4], [1, 1, 9, 9]]),
    'boxes of a pixel': truth([[8, 8, 9, 9]], [[0, 0, 1, 1]], [[47, 31, 48, 32]]),
    'a box larger than the image': truth([[-50, -60, 200, 300]], [], []),
    'centres outside of the image': truth([[40, 20, 90, 60]], [[-30, -30, 4, 5]], []),
}


@pytest.mark.parametrize('gts', EDGES.values(), ids=EDGES)
@pytest.mark.parametrize('scale', [1.0, 50.0, 1e4])
@pytest.mark.parametrize('name', PARTS)
def test_losses_and_gradients_are_finite(name: str, scale: float, gts: list[InstanceData]) -> None:
    pred = maps(scale=scale)
    losses = total(build(**PARTS[name][0]).loss_by_feat(pred, gts, [META] * 3))
    gradients = torch.autograd.grad(sum(losses.values()), pred)
    assert all(loss.isfinite() and loss >= 0 for loss in losses.values())
    assert all(gradient.isfinite().all() for gradient in gradients)
    boxes = losses.get('loss_bbox', losses.get('loss_wh'))
    if gts is EDGES['no boxes']:
        assert boxes == 0
    elif gts is EDGES['boxes of a pixel']:
        assert boxes > 0


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('name', PARTS)
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    pred = [each.detach().to(dtype).requires_grad_() for each in maps()]
    head = build(**PARTS[name][0])
    losses = total(head.loss_by_feat(pred, GTS, [META] * 3))
    wanted = total(head.loss_by_feat([each.detach().float() for each in pred], GTS, [META] * 3))
    torch.testing.assert_close(losses, wanted)
    gradients = torch.autograd.grad(sum(losses.values()), pred)
    assert all(each.dtype == dtype and each.isfinite().all() for each in gradients)


def test_a_centre_outside_of_the_image_stops_mmdet_alone() -> None:
    gts = EDGES['centres outside of the image']
    assert total(build().loss_by_feat(maps(), gts, [META] * 3))['loss_wh'] == 0
    head = build(assigner=dict(type='GridAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5))
    with pytest.raises(IndexError):
        head.loss_by_feat(maps(), gts, [META] * 3)


def test_mmdet_gives_logits_to_a_squared_error() -> None:
    """Its head learns a logit of 1 for an object, which a test reads as a probability of 0.73."""
    pred = [torch.full_like(each, -20.0) for each in maps(1)]
    losses = {}
    for scope in ('mmdet', 'mmdet_ext'):
        rule = dict(type='mmdet_ext.YOLOv3Assigner', ignore_by='prior')
        head = build(scope, loss_conf=SQUARED, assigner=rule)
        losses[scope] = total(head.loss_by_feat(pred, truth([]), [META]))['loss_conf'].item()
    priors = sum(2 * each.shape[-1] * each.shape[-2] for each in pred)
    assert losses['mmdet'] == pytest.approx(400 * priors, rel=1e-5)
    assert losses['mmdet_ext'] == pytest.approx(0, abs=1e-12)


def detections(head: Any, pred: list[Tensor]) -> InstanceData:
    cfg = ConfigDict(
        score_thr=0.0, nms_pre=-1, min_bbox_size=-1, nms=dict(type='nms', iou_threshold=1.0)
    )
    cfg.max_per_img = 1000
    (found,) = head.predict_by_feat([each.detach() for each in pred], [META], cfg=cfg)
    return found


@pytest.mark.parametrize('softmax', [False, True])
def test_scores_in_a_test_are_those_that_the_loss_trains(softmax: bool) -> None:
    loss = dict(type='CrossEntropyLoss', use_sigmoid=not softmax, reduction='sum')
    pred = maps(images=1, scale=3.0)
    found = detections(build(loss_cls=loss), pred)
    rows = torch.cat([each.detach()[0].unflatten(0, (2, -1)).flatten(2) for each in pred], 2)
    classes = rows[:, 5:].softmax(1) if softmax else rows[:, 5:].sigmoid()
    scores = (classes * rows[:, 4:5].sigmoid()).flatten().sort(descending=True).values
    torch.testing.assert_close(found.scores, scores[: len(found)], rtol=1e-5, atol=1e-7)
    assert len(found) > 50


@pytest.mark.slow
@pytest.mark.parametrize(
    'name', ['as in mmdet', 'squared errors throughout', 'softmax', 'grid sensitivity', 'YOLOv4']
)
def test_the_lowest_loss_detects_the_ground_truth(name: str) -> None:
    # From 0, so that priors that are ignored stay unsure; of two boxes, which share no prior.
    pred, gts, head = maps(images=1, scale=0.0), GTS[2:], build(**PARTS[name][0])
    optimizer = torch.optim.Adam(pred, lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        sum(total(head.loss_by_feat(pred, gts, [META])).values()).backward()
        optimizer.step()
    found, truth_boxes = detections(head, pred), gts[0].bboxes
    sure = found[found.scores > 0.5]
    overlap = box_iou(sure.bboxes[:, None], truth_boxes)
    # Each detection is a box, with its class; each box is detected.
    assert overlap.amax(1).min() > 0.8 and overlap.amax(0).min() > 0.8
    assert torch.equal(sure.labels, gts[0].labels[overlap.argmax(1)])


def test_an_assigner_that_uses_scores_gets_those_of_the_softmax() -> None:
    rule = dict(type='mmdet_ext.SimOTAAssigner')
    head = build(assigner=rule, loss_cls=dict(type='CrossEntropyLoss', reduction='sum'))
    match, got = head.assigner.match, []
    head.assigner.match = lambda geometry, given: (got.append(given), match(geometry, given))[1]
    pred = maps()
    head.loss_by_feat(pred, GTS, [META] * 3)
    rows = pred[0].detach()[0].unflatten(0, (2, -1))[0, :, 0, 0]
    wanted = rows[5:].softmax(0) * rows[4].sigmoid()
    torch.testing.assert_close(got[0].scores[0, 0], wanted)


def test_a_centre_on_the_border_of_a_cell_has_finite_logits_with_grid_sensitivity() -> None:
    scale = 1.5
    pred = [torch.full_like(each, -20.0) for each in maps(images=1)]
    table = pred[1].unflatten(1, (2, -1))
    table[0, 0, :6, 1, 2] = torch.tensor([0.0, 0.0, 0.0, 0.0, 20.0, 20.0])
    table[0, 0, 0, 1, 2] = math.log(5)  # a share of 5 / 6: 1.5 * 5 / 6 - 0.25 is one cell
    pred[1] = table.flatten(1, 2)
    found = detections(build(scale_x_y=scale), pred)
    # The cell begins at (16, 8), its centre ends at x = 24, y = 12; the anchor is 8 x 10.
    torch.testing.assert_close(found.bboxes[0], torch.tensor([20.0, 7.0, 28.0, 17.0]))
    plain = detections(build(), pred)
    assert plain.bboxes[0, 0] == pytest.approx(16 + 8 * 5 / 6 - 4, abs=1e-4)


def test_the_prediction_of_a_target_is_the_ground_truth() -> None:
    head = build(scale_x_y=[1.05, 1.2])
    box, anchor = torch.tensor([[17.0, 5.0, 31.0, 27.0]]), torch.tensor([[14.0, 0.0, 34.0, 34.0]])
    for stride, scale in zip(STRIDES, (1.05, 1.2), strict=True):
        target = head.bbox_coder.encode(anchor, box, torch.tensor([stride]))
        torch.testing.assert_close(head.bbox_coder.decode(anchor, target, stride), box)
        assert target[0, 1].item() == pytest.approx((16 - 17) / stride / scale + 0.5, rel=1e-6)


WRONG = {
    'lambda_noobj must be at least 0 and finite, got -1': dict(lambda_noobj=-1),
    'scale_x_y must be at least 1 and finite, got 0.5: 1 is': dict(scale_x_y=0.5),
    r'scale_x_y must be one number, or one per level, of which there are 2, got \[1.1\]': dict(
        scale_x_y=[1.1]
    ),
    'needs the coder YOLOBBoxCoder, got DeltaXYWHBBoxCoder': dict(
        scale_x_y=1.1, bbox_coder=dict(type='DeltaXYWHBBoxCoder')
    ),
    'loss_conf is a softmax loss': dict(loss_conf=dict(type='CrossEntropyLoss')),
    'loss_xy is a softmax loss': dict(loss_xy=dict(type='CrossEntropyLoss')),
    'one_hot_smoother=0.1 smooths targets of a sigmoid': dict(
        one_hot_smoother=0.1, loss_cls=dict(type='CrossEntropyLoss')
    ),
    r'in_channels has 3 levels, but featmap_strides \[16, 8\] has 2': dict(in_channels=[4] * 3),
    r'out_channels has 1 levels, but featmap_strides \[16, 8\] has 2': dict(out_channels=[4]),
    r'anchor_generator.base_sizes has 1 levels, but featmap_strides \[16, 8\] has 2': dict(
        anchor_generator=dict(type='YOLOAnchorGenerator', strides=[16, 8], base_sizes=SIDES[:1])
    ),
    r'anchor_generator.strides \[8, 16\] are not featmap_strides \[16, 8\]': dict(
        anchor_generator=dict(type='YOLOAnchorGenerator', strides=[8, 16], base_sizes=SIDES)
    ),
    r'base_sizes has \[2, 1\] anchors in its levels': dict(
        anchor_generator=dict(
            type='YOLOAnchorGenerator', strides=[16, 8], base_sizes=[SIDES[0], SIDES[1][:1]]
        )
    ),
}


@pytest.mark.parametrize(('message', 'options'), WRONG.items(), ids=WRONG)
def test_what_does_not_fit_is_named_when_the_head_is_built(
    message: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_what_mmdet_asserts_stays_an_assertion() -> None:
    with pytest.raises(AssertionError, match='in_channels has 3 levels'):
        build(in_channels=[4] * 3)


def test_maps_of_other_levels_are_named() -> None:
    with pytest.raises(ValueError, match='YOLOV3Head has 2 levels, .* feature maps of 3 levels'):
        build()([torch.zeros(1, 4, 2, 3)] * 3)


def test_a_label_that_no_class_has_is_named() -> None:
    gts = truth([], [[1, 1, 20, 20]])
    gts[1].labels[0] = CLASSES
    with pytest.raises(ValueError, match=r'in \[0, 3\).*got 3 for box 0 of image 1'):
        build().loss_by_feat(maps(2), gts, [META] * 2)
