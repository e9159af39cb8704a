"""Formulas of YOLOv5: slow references, closed forms, bounds."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmdet_ext.catalog.synthetic import random_boxes
from mmdet_ext.functional.boxes.iou_losses import ciou_loss
from mmdet_ext.functional.yolo.anchors import anchor_recall
from mmdet_ext.functional.yolo.v5 import (
    decode_yolov5,
    encode_yolov5,
    level_means,
    objectness_target,
    yolov5_scales,
)


def slow_decode(raw: list[float], prior: list[float], stride: float) -> list[float]:
    """Decode one box in Python numbers, from the corner of its cell as the formula has it."""
    sigmoid = [1 / (1 + math.exp(-number)) for number in raw]
    pw, ph = prior[2] - prior[0], prior[3] - prior[1]
    column = (prior[0] + prior[2]) / 2 / stride - 0.5
    row = (prior[1] + prior[3]) / 2 / stride - 0.5
    x = stride * (column + 2 * sigmoid[0] - 0.5)
    y = stride * (row + 2 * sigmoid[1] - 0.5)
    w, h = pw * (2 * sigmoid[2]) ** 2, ph * (2 * sigmoid[3]) ** 2
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def anchors(generator: torch.Generator, count: int, stride: float) -> Tensor:
    """Make anchors in the middle of cells."""
    center = (torch.randint(0, 9, (count, 2), generator=generator) + 0.5) * stride
    half = torch.rand(count, 2, generator=generator) * 40 + 2
    return torch.cat([center - half, center + half], 1)


def test_boxes_are_those_of_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    for stride in (8.0, 32.0):
        priors = anchors(generator, 200, stride).double()
        raw = torch.randn(200, 4, generator=generator, dtype=torch.float64) * 3
        expected = [
            slow_decode(*row, stride) for row in zip(raw.tolist(), priors.tolist(), strict=True)
        ]
        torch.testing.assert_close(
            decode_yolov5(raw, priors, stride), torch.tensor(expected, dtype=torch.float64)
        )


def test_encoding_is_the_inverse_and_infinite_at_the_end_of_the_range() -> None:
    generator = torch.Generator().manual_seed(1)
    priors = anchors(generator, 300, 16.0).double()
    raw = torch.randn(300, 4, generator=generator, dtype=torch.float64)
    boxes = decode_yolov5(raw, priors, 16.0)
    torch.testing.assert_close(encode_yolov5(boxes, priors, 16.0), raw)
    prior = torch.tensor([4.0, 4.0, 12.0, 12.0])
    largest = torch.tensor([-8.0, -8.0, 24.0, 24.0])  # four times as wide and high
    assert torch.isinf(encode_yolov5(largest, prior, 16.0)[2:]).all()
    assert torch.isnan(encode_yolov5(largest * 1.5, prior, 16.0)[2:]).all()


def test_boxes_stay_within_reach_for_any_number() -> None:
    prior = torch.tensor([4.0, 4.0, 12.0, 12.0])
    raw = torch.tensor([[1e4] * 4, [-1e4] * 4], requires_grad=True)
    boxes = decode_yolov5(raw, prior, 16.0)
    assert boxes[0].tolist() == [24 - 16, 24 - 16, 24 + 16, 24 + 16]
    assert boxes[1].tolist() == [-8, -8, -8, -8]
    boxes.sum().backward()
    assert raw.grad is not None and raw.grad.isfinite().all()
    assert decode_yolov5(raw.half(), prior.half(), 16.0).dtype == torch.float32


@pytest.mark.parametrize(
    ('classes', 'levels', 'side', 'expected'),
    [
        (80, 3, 640, (1.0, 1.0, 1.0)),
        (20, 3, 320, (1.0, 0.25, 0.25)),
        (40, 4, 1280, (0.75, 0.375, 3.0)),
        (1, 3, 640, (1.0, 0.0, 1.0)),
    ],
)
def test_scales_follow_classes_levels_and_size(
    classes: int, levels: int, side: float, expected: tuple[float, ...]
) -> None:
    assert tuple(yolov5_scales(classes, levels, side)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((0, 3, 640), 'num_classes must be at least 1'),
        ((3, 0, 640), 'levels must be at least 1'),
        ((3, 3, 0), 'image_size must be above 0'),
        ((3, 3, float('inf')), 'image_size must be'),
    ],
)
def test_scales_out_of_range_are_named(arguments: tuple[int, int, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        yolov5_scales(*arguments)


def test_objectness_is_the_overlap_without_gradient() -> None:
    generator = torch.Generator().manual_seed(2)
    target = random_boxes(generator, 200, 100, 100, 5, 40)
    boxes = (target + torch.randn(200, 4, generator=generator) * 8).requires_grad_()
    found = objectness_target(boxes, target)
    assert not found.requires_grad
    plain = 1 - ciou_loss(boxes, target, aspect_thr=None)
    assert torch.equal(found, plain.detach().clamp(min=0))
    assert (found == 0).any() and (found > 0.5).any() and (found <= 1).all()
    assert objectness_target(target, target).tolist() == [1.0] * 200


def slow_means(values: Tensor, level: Tensor, levels: int, counted: Tensor) -> list[float]:
    sums, counts = [0.0] * levels, [0.0] * levels
    for image in range(len(values)):
        for place, number in enumerate(level.tolist()):
            weight = float(counted[image, place])
            sums[number] += float(values[image, place]) * weight
            counts[number] += weight
    return [total / count if count else 0.0 for total, count in zip(sums, counts, strict=True)]


def test_means_are_those_of_a_loop() -> None:
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(4, 50, generator=generator, dtype=torch.float64)
    level = torch.randint(4, (50,), generator=generator)
    level[level == 2] = 1  # no value in level 2
    counted = torch.rand(4, 50, generator=generator) > 0.3
    found = level_means(values, level, 4, counted)
    expected = torch.tensor(slow_means(values, level, 4, counted), dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    every = level_means(values[0], level, 4)
    expected = torch.tensor(slow_means(values[:1], level, 4, torch.ones(1, 50)))
    torch.testing.assert_close(every, expected.double())


def test_means_of_nothing_keep_the_graph() -> None:
    values = torch.zeros(0, requires_grad=True)
    found = level_means(values, torch.zeros(0, dtype=torch.long), 3)
    assert found.tolist() == [0, 0, 0]
    found.sum().backward()
    ignored = torch.ones(2, 3, requires_grad=True)
    found = level_means(ignored, torch.tensor([0, 0, 1]), 2, torch.zeros(2, 3))
    assert found.tolist() == [0, 0]
    found.sum().backward()
    assert ignored.grad is not None and not ignored.grad.any()


@pytest.mark.parametrize(
    ('level', 'counted', 'message'),
    [
        (torch.zeros(4, dtype=torch.long), None, r'level must be of the shape of values, \(2, 3\)'),
        (torch.zeros(3, dtype=torch.long), torch.ones(3), 'counted must be of the shape of values'),
    ],
)
def test_shapes_that_do_not_fit_are_named(
    level: Tensor, counted: Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        level_means(torch.ones(2, 3), level, 2, counted)


def test_recall_of_anchors_is_that_of_a_loop() -> None:
    generator = torch.Generator().manual_seed(4)
    sides = torch.rand(300, 2, generator=generator) * 100 + 1
    table = torch.rand(5, 2, generator=generator) * 60 + 5
    fits = [
        [max(w / a, a / w, h / b, b / h) < 2.5 for a, b in table.tolist()]
        for w, h in sides.tolist()
    ]
    found = anchor_recall(sides, table, 2.5)
    assert found.recall == pytest.approx(sum(map(any, fits)) / 300)
    assert found.per_box == pytest.approx(sum(map(sum, fits)) / 300)
    assert 0 < found.recall < 1
    with pytest.raises(ValueError, match='ratio_thr must be above 1'):
        anchor_recall(sides, table, 1.0)
    with pytest.raises(ValueError, match='sides must be above 0'):
        anchor_recall(torch.zeros(2, 2), table)
