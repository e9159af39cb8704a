"""YOLOv2: decoding, encoding, passthrough and the loss, against loops over every prior."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.yolo.v2 import (
    YOLOV2Losses,
    YOLOV2Scales,
    decode_yolov2,
    encode_yolov2,
    passthrough,
    yolov2_loss,
)

STRIDE = 16.0
CLASSES = 3
#: Anchors of two cells, side by side, with two shapes each.
PRIORS = torch.tensor(
    [[x - w / 2, 8 - h / 2, x + w / 2, 8 + h / 2] for x in (8, 24) for w, h in ((10, 20), (30, 12))]
)


def make_batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return predictions, ground truth of each prior, boxes and labels of two images."""
    generator = torch.Generator().manual_seed(seed)
    pred = torch.randn(2, 4, 5 + CLASSES, generator=generator)
    index = torch.tensor([[0, -1, -2, 1], [-1, 0, -1, -2]])
    boxes = torch.tensor(
        [
            [[2.0, 3.0, 12.0, 15.0], [14.0, 1.0, 30.0, 11.0]],
            [[1.0, 5.0, 29.0, 16.0], [0.0, 0.0, 0.0, 0.0]],
        ]
    )
    return pred, index, boxes, torch.tensor([[2, 0], [1, 0]])


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def slow_loss(
    pred: Tensor, index: Tensor, boxes: Tensor, labels: Tensor, scales: YOLOV2Scales
) -> list[list[float]]:
    """Compute the six sums of each image, prior by prior, as Darknet's deltas squared."""
    result = []
    for image in range(len(pred)):
        sums = dict.fromkeys(YOLOV2Losses._fields, 0.0)
        for prior, row, own in zip(
            PRIORS.tolist(), pred[image].tolist(), index[image].tolist(), strict=True
        ):
            tx, ty, tw, th, to, *logits = row
            middle = (prior[0] + prior[2]) / 2, (prior[1] + prior[3]) / 2
            sides = prior[2] - prior[0], prior[3] - prior[1]
            if own >= 0:
                gt = boxes[image, own].tolist()
                x = ((gt[0] + gt[2]) / 2 - (middle[0] - STRIDE / 2)) / STRIDE
                y = ((gt[1] + gt[3]) / 2 - (middle[1] - STRIDE / 2)) / STRIDE
                w, h = math.log((gt[2] - gt[0]) / sides[0]), math.log((gt[3] - gt[1]) / sides[1])
                sums['center'] += ((sigmoid(tx) - x) ** 2 + (sigmoid(ty) - y) ** 2) / 2
                sums['size'] += ((tw - w) ** 2 + (th - h) ** 2) / 2
                center = [
                    middle[0] + (sigmoid(tx) - 0.5) * STRIDE,
                    middle[1] + (sigmoid(ty) - 0.5) * STRIDE,
                ]
                half = [sides[0] * math.exp(tw) / 2, sides[1] * math.exp(th) / 2]
                box = [c - s for c, s in zip(center, half, strict=True)]
                box += [c + s for c, s in zip(center, half, strict=True)]
                shared = max(min(box[2], gt[2]) - max(box[0], gt[0]), 0)
                shared *= max(min(box[3], gt[3]) - max(box[1], gt[1]), 0)
                union = 4 * half[0] * half[1] + (gt[2] - gt[0]) * (gt[3] - gt[1]) - shared
                sums['object'] += (sigmoid(to) - shared / union) ** 2 / 2
                total = sum(math.exp(logit) for logit in logits)
                sums['classes'] -= math.log(math.exp(logits[labels[image, own]]) / total)
            else:
                near = (sigmoid(tx) - 0.5) ** 2 + (sigmoid(ty) - 0.5) ** 2 + tw**2 + th**2
                sums['prior'] += near / 2
                if own == -1:
                    sums['no_object'] += sigmoid(to) ** 2 / 2
        weights = (scales.coord, scales.coord, *scales[1:])
        result.append([w * s for w, s in zip(weights, sums.values(), strict=True)])
    return result


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('scales', [YOLOV2Scales(), YOLOV2Scales(2.0, 3.0, 0.25, 0.5, 1.0)])
def test_losses_equal_a_loop_over_priors(seed: int, scales: YOLOV2Scales) -> None:
    pred, index, boxes, labels = make_batch(seed)
    losses = yolov2_loss(pred.double(), PRIORS, STRIDE, index, boxes, labels, scales)
    expected = torch.tensor(slow_loss(pred, index, boxes, labels, scales), dtype=torch.float64)
    torch.testing.assert_close(torch.stack(losses, 1), expected, rtol=1e-5, atol=1e-7)
    assert (expected[0] > 0).all()


def test_gradients_are_the_deltas_of_the_authors_code() -> None:
    """Delta of each output: scale times (target - output), through a sigmoid where there is one."""
    pred, index, boxes, labels = make_batch()
    pred.requires_grad_()
    losses = yolov2_loss(pred, PRIORS, STRIDE, index, boxes, labels)
    total = sum(term.sum() for term in losses[:5])
    (grad,) = torch.autograd.grad(total, pred)
    row, share = pred[0, 0].detach(), pred[0, 0].detach().sigmoid()
    target = encode_yolov2(boxes[0, 0], PRIORS[0], STRIDE)
    slope = share * (1 - share)
    torch.testing.assert_close(grad[0, 0, :2], (share[:2] - target[:2]) * slope[:2])
    torch.testing.assert_close(grad[0, 0, 2:4], row[2:4] - target[2:])
    wanted = row[5:].softmax(0) - torch.tensor([0.0, 0.0, 1.0])
    torch.testing.assert_close(grad[0, 0, 5:], wanted)
    ignored = grad[0, 2]
    assert not ignored.any()
    background = pred[0, 1, 4].detach().sigmoid()
    torch.testing.assert_close(grad[0, 1, 4], background * background * (1 - background))


def test_the_optimum_costs_nothing() -> None:
    _, index, boxes, labels = make_batch()
    pred = torch.zeros(2, 4, 5 + CLASSES)
    pred[..., 4] = -50  # no object, but for the positives
    for image, prior in ((0, 0), (0, 3), (1, 1)):
        own = index[image, prior]
        target = encode_yolov2(boxes[image, own], PRIORS[prior], STRIDE)
        pred[image, prior, :2] = target[:2].logit()
        pred[image, prior, 2:4] = target[2:]
        pred[image, prior, 4] = 50
        pred[image, prior, 5 + labels[image, own]] = 50
    losses = yolov2_loss(pred, PRIORS, STRIDE, index, boxes, labels)
    torch.testing.assert_close(torch.stack(losses), torch.zeros(6, 2), rtol=0, atol=1e-6)


def test_the_target_of_the_confidence_has_no_gradient() -> None:
    pred, *truth = make_batch()
    pred.requires_grad_()
    (grad,) = torch.autograd.grad(yolov2_loss(pred, PRIORS, STRIDE, *truth).object.sum(), pred)
    assert grad[..., 4].any()
    assert not grad[..., [0, 1, 2, 3, 5, 6, 7]].any()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize('value', [-100.0, 0.0, 100.0])
def test_any_finite_prediction_has_finite_losses(dtype: torch.dtype, value: float) -> None:
    _, *truth = make_batch()
    pred = torch.full((2, 4, 5 + CLASSES), value, dtype=dtype, requires_grad=True)
    losses = yolov2_loss(pred, PRIORS, STRIDE, *truth)
    assert all(term.dtype == torch.float32 and term.isfinite().all() for term in losses)
    (grad,) = torch.autograd.grad(sum(term.sum() for term in losses), pred)
    assert grad.isfinite().all()


def test_without_boxes_and_for_boxes_without_area_losses_are_finite() -> None:
    pred = make_batch()[0]
    none = torch.full((2, 4), -1)
    losses = yolov2_loss(
        pred, PRIORS, STRIDE, none, torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.long)
    )
    torch.testing.assert_close(losses.no_object, pred[..., 4].sigmoid().square().sum(1) / 2)
    assert not any(getattr(losses, n).any() for n in ('center', 'size', 'object', 'classes'))
    flat = yolov2_loss(
        pred,
        PRIORS,
        STRIDE,
        torch.zeros(2, 4, dtype=torch.long),
        torch.zeros(2, 1, 4),
        torch.zeros(2, 1, dtype=torch.long),
    )
    assert all(term.isfinite().all() for term in flat)


def test_decoding_inverts_encoding() -> None:
    generator = torch.Generator().manual_seed(0)
    center = PRIORS[:, :2] / 2 + PRIORS[:, 2:] / 2 + 14 * torch.rand(4, 2, generator=generator) - 7
    half = 1 + 10 * torch.rand(4, 2, generator=generator)
    boxes = torch.cat([center - half, center + half], 1)
    target = encode_yolov2(boxes, PRIORS, STRIDE)
    raw = torch.cat([target[:, :2].logit(), target[:, 2:]], 1)
    torch.testing.assert_close(decode_yolov2(raw, PRIORS, STRIDE), boxes, rtol=1e-4, atol=1e-4)


def test_decoding_equals_mmdet() -> None:
    coders = pytest.importorskip('mmdet.models.task_modules.coders')
    raw = torch.randn(5, 4, 4, generator=torch.Generator().manual_seed(0))
    theirs = coders.YOLOBBoxCoder().decode(
        PRIORS, torch.cat([raw[..., :2].sigmoid(), raw[..., 2:]], -1), STRIDE
    )
    torch.testing.assert_close(decode_yolov2(raw, PRIORS, STRIDE), theirs)


def test_a_center_of_another_cell_gives_the_nearest_point() -> None:
    box = torch.tensor([40.0, -20.0, 44.0, -16.0])
    assert encode_yolov2(box, PRIORS[0], STRIDE)[:2].tolist() == [1, 0]


def test_passthrough_stacks_blocks() -> None:
    features = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    stacked = passthrough(features)
    assert stacked.shape == (2, 12, 2, 3)
    for channel in range(3):
        for i in range(2):
            for j in range(2):
                expected = features[:, channel, i::2, j::2]
                assert torch.equal(stacked[:, channel * 4 + i * 2 + j], expected)
    assert torch.equal(passthrough(features, 1), features)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: passthrough(torch.zeros(1, 1, 5, 4)), 'multiples of stride=2, got .*5 x 4'),
        (lambda: passthrough(torch.zeros(1, 1, 4, 4), 0), 'stride must be a whole number'),
        (
            lambda: yolov2_loss(
                make_batch()[0], PRIORS, STRIDE, *make_batch()[1:], YOLOV2Scales(object=-1)
            ),
            'scales.object must be at least 0 and finite, got -1',
        ),
    ],
)
def test_wrong_arguments_are_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
