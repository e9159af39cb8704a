"""YOLOv5Head: losses by loops over boxes, anchors and cells; detections; other assigners."""

from __future__ import annotations

import math

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torchvision.ops import complete_box_iou

from mmdet_ext.functional.yolo.v5 import encode_yolov5
from tests.detection.heads.yolo.yolov5_loops import (
    ANCHORS,
    CLASSES,
    HEIGHT,
    META,
    STRIDES,
    TEST,
    WIDTH,
    batch,
    head,
    maps,
    ratio,
    slow_detections,
    slow_losses,
)


@pytest.mark.parametrize('classes', [CLASSES, 1])
@pytest.mark.parametrize('counts', [(5, 0, 9), (0, 0), (1,)])
def test_losses_and_gradients_are_those_of_loops(counts: tuple[int, ...], classes: int) -> None:
    model = head(num_classes=classes)
    gts = batch(*counts, classes=classes)
    ours, theirs = ([each.requires_grad_() for each in maps(len(counts), classes)] for _ in '12')
    losses = model.loss_by_feat(ours, gts, [META] * len(counts))
    assert list(losses) == ['loss_cls', 'loss_bbox', 'loss_obj']
    expected = slow_losses(theirs, gts, classes)
    torch.testing.assert_close(torch.stack(list(losses.values())), expected, rtol=1e-5, atol=1e-6)
    sum(losses.values()).backward()
    expected.sum().backward()
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-7)


def test_losses_are_sums_over_the_images() -> None:
    model, pred_maps, gts = head(), maps(1), batch(6)
    one = model.loss_by_feat(pred_maps, gts, [META])
    twice = model.loss_by_feat([each.repeat(2, 1, 1, 1) for each in pred_maps], gts * 2, [META] * 2)
    for name, value in one.items():
        torch.testing.assert_close(twice[name], 2 * value)


def test_ignored_priors_do_not_count_in_the_objectness() -> None:
    # YOLOv3's rule ignores priors whose predicted box overlaps a ground truth.
    model = head(
        train_cfg=ConfigDict(assigner=dict(type='mmdet_ext.YOLOv3Assigner', ignore_iou_thr=0.2))
    )
    pred_maps, gts = maps(1), batch(1)
    (priors,) = (
        model.prior_generator.grid_priors([m.shape[-2:] for m in pred_maps], device='cpu'),
    )
    gts[0].bboxes = priors[1][20:21] + torch.tensor([[2.0, 1.0, 2.0, 1.0]])
    place = (20 % 2) * (5 + CLASSES), *divmod(20 // 2, WIDTH // 16)
    raw = encode_yolov5(gts[0].bboxes[0], priors[1][20], 16.0)
    other = priors[1][22]
    far = (22 % 2) * (5 + CLASSES), *divmod(22 // 2, WIDTH // 16)
    near = encode_yolov5(other, other, 16.0)
    for (first, row, column), values in ((place, raw), (far, near)):
        pred_maps[1][0, first : first + 4, row, column] = values
    changed = [each.clone() for each in pred_maps]
    changed[1][0, far[0] + 4, far[1], far[2]] += 5
    overlap = complete_box_iou(other[None], gts[0].bboxes).item()
    assert overlap > 0.2
    before, after = (
        model.loss_by_feat(each, gts, [META])['loss_obj'] for each in (pred_maps, changed)
    )
    torch.testing.assert_close(before, after)
    plain = head()
    assert (
        plain.loss_by_feat(changed, batch(0), [META])['loss_obj']
        > plain.loss_by_feat(pred_maps, batch(0), [META])['loss_obj']
    )


@pytest.mark.parametrize(
    'assigner',
    ['ATSSAssigner', 'FCOSAssigner', 'SimOTAAssigner', 'TaskAlignedAssigner', 'YOLOv4Assigner'],
)
def test_other_assigners_of_ours_train_it(assigner: str) -> None:
    options = dict(type=f'mmdet_ext.{assigner}')
    if assigner in ('ATSSAssigner', 'TaskAlignedAssigner'):
        options['topk'] = 9
    if assigner == 'FCOSAssigner':
        options['regress_ranges'] = [(-1, 32), (32, 64), (64, 1e8)]
    model = head(train_cfg=ConfigDict(assigner=options))
    pred_maps = [each.requires_grad_() for each in maps(2)]
    losses = model.loss_by_feat(pred_maps, batch(4, 3), [META] * 2)
    assert all(value.isfinite() for value in losses.values()) and losses['loss_bbox'] > 0
    sum(losses.values()).backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in pred_maps)


def test_detections_are_those_of_loops() -> None:
    every = ConfigDict({**TEST, 'nms_pre': -1, 'max_per_img': 5000, 'score_thr': 0.4})
    model, pred_maps = head(test_cfg=every), maps(2)
    for image, found in enumerate(model.predict_by_feat(pred_maps, [META] * 2)):
        expected = slow_detections(pred_maps, image, 0.4)
        assert len(found) == len(expected) > 30
        torch.testing.assert_close(found.scores, torch.tensor([each[0] for each in expected]))
        assert found.labels.tolist() == [each[1] for each in expected]
        torch.testing.assert_close(found.bboxes, torch.tensor([each[2] for each in expected]))


def test_a_prior_may_be_left_its_best_class_alone() -> None:
    pred_maps = [torch.full_like(each, -9.0) for each in maps(1)]
    pred_maps[1][0, 4:8, 2, 3] = torch.tensor([9.0, 1.0, 3.0, 3.0])
    many = head().predict_by_feat(pred_maps, [META])[0]
    assert many.labels.tolist() == [1, 2, 0]
    cfg = ConfigDict({**TEST, 'multi_label': False})
    (one,) = head().predict_by_feat(pred_maps, [META], cfg=cfg)
    assert one.labels.tolist() == [1]
    torch.testing.assert_close(one.scores, many.scores[:1])


def test_boxes_of_the_image_before_its_resize_are_clipped_to_it() -> None:
    pred_maps = [torch.full_like(each, -9.0) for each in maps(1)]
    pred_maps[2][0, :8, 0, 0] = torch.tensor([0.0, 0.0, 9.0, 9.0, 9.0, 9.0, 9.0, -9.0])
    meta = {**META, 'img_shape': (90, 120), 'scale_factor': (2.0, 0.5)}
    found = head().predict_by_feat(pred_maps, [meta], rescale=True)[0]
    assert found.bboxes[0].tolist() == [0, 0, 60, 180]


def test_exact_predictions_are_found_again() -> None:
    model, gts = head(), batch(4, seed=5)
    pred_maps = [torch.full_like(each, -12.0) for each in maps(1)]
    levels = model.prior_generator.grid_priors([m.shape[-2:] for m in pred_maps], device='cpu')
    for box, label in zip(gts[0].bboxes, gts[0].labels, strict=True):
        fits = [
            (ratio((box[2:] - box[:2]).tolist(), anchor), level, place)
            for level in range(3)
            for place, anchor in enumerate(ANCHORS[level])
        ]
        _, level, number = min(fits)
        stride = STRIDES[level]
        column, row = ((box[:2] + box[2:]) / 2 / stride).long().tolist()
        prior = levels[level][(row * (WIDTH // stride) + column) * 2 + number]
        first = number * (5 + CLASSES)
        own = pred_maps[level][0, :, row, column]
        own[first : first + 4] = encode_yolov5(box, prior, stride)
        own[first + 4], own[first + 5 + label] = 9.0, 9.0
    (found,) = model.predict_by_feat(pred_maps, [META])
    inside = torch.minimum(gts[0].bboxes.clamp(min=0), torch.tensor([WIDTH, HEIGHT] * 2))
    order, wanted = found.bboxes.sum(1).argsort(), inside.sum(1).argsort()
    torch.testing.assert_close(found.bboxes[order], inside[wanted], rtol=0, atol=1e-3)
    assert torch.equal(found.labels[order], gts[0].labels[wanted])


def test_a_head_learns_an_image() -> None:
    model = head(in_channels=(2, 2, 48))
    features = [torch.zeros(1, 2, 12, 16), torch.zeros(1, 2, 6, 8), torch.zeros(1, 48, 3, 4)]
    features[2][0, :12] = torch.eye(12).view(12, 3, 4)  # one channel per cell
    gts = InstanceData(
        bboxes=torch.tensor([[4.0, 4.0, 60.0, 60.0], [50.0, 10.0, 126.0, 80.0]]),
        labels=torch.tensor([0, 2]),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        sum(model.loss_by_feat(*model(features), [gts], [META]).values()).backward()
        optimizer.step()
    (found,) = model.predict_by_feat(*model(features), [META])
    found = found[:2]
    assert sorted(found.labels.tolist()) == [0, 2] and found.scores.min() > 0.3
    torch.testing.assert_close(found.bboxes[found.labels.argsort()], gts.bboxes, rtol=0, atol=3.0)


def test_first_biases_expect_few_objects() -> None:
    model = head(num_classes=20)
    for layer, stride in zip(model.convs_pred, STRIDES, strict=True):
        rows = layer.bias.view(2, 25)
        assert rows[:, 4].tolist() == pytest.approx([math.log(8 * stride**2 / 640**2)] * 2)
        torch.testing.assert_close(rows[:, 5:].exp(), torch.full((2, 20), 0.6 / 19.00001))


def test_export_gets_the_levels_of_what_is_predicted() -> None:
    model, pred_maps = head(), maps(2)
    levels = model.decode_for_export(pred_maps)
    boxes, scores = model.decoded(pred_maps)
    assert [level.boxes.shape[1] for level in levels] == [2 * 192, 2 * 48, 2 * 12]
    assert torch.equal(torch.cat([level.boxes for level in levels], 1), boxes)
    assert torch.equal(torch.cat([level.scores for level in levels], 1), scores)


def test_half_precision_is_computed_in_float32() -> None:
    model, gts = head(), batch(4)
    pred_maps = [each * 3 for each in maps(1)]
    wanted = model.loss_by_feat([each.half().float() for each in pred_maps], gts, [META])
    found = model.loss_by_feat([each.half() for each in pred_maps], gts, [META])
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)
