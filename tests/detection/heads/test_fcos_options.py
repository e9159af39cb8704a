"""Options of FCOSHead: quality and weight of the box loss against loops over points."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from mmdet.models.dense_heads import FCOSHead as MMDetFCOSHead
from mmengine.structures import InstanceData

from mmdet_ext.detection.heads.dense.fcos import FCOSLosses
from tests._helpers.dense_heads import (
    BATCHES,
    CHANNELS,
    CLASSES,
    HEADS,
    STRIDES,
    Batch,
    build,
    outcome,
    value,
)

RANGES = HEADS['FCOSHead']['regress_ranges']
#: Options of mmdet's head that are steps of FCOS's authors.
STEPS: dict[str, dict[str, Any]] = {
    'first version': {},
    'quality on the branch of the boxes': dict(centerness_on_reg=True),
    'centre sampling': dict(center_sampling=True, center_sample_radius=1.5),
    'distances in strides': dict(norm_on_bbox=True),
    'all steps': dict(
        centerness_on_reg=True, center_sampling=True, norm_on_bbox=True, conv_bias=True
    ),
}
FORMS = list(itertools.product(['centerness', 'iou'], ['quality', None]))


def owner(x: float, y: float, level: int, gts: InstanceData, head: Any) -> int | None:
    """Find the smallest box that a point can have, by loops."""
    found, smallest = None, math.inf
    for number, (x1, y1, x2, y2) in enumerate(gts.bboxes.tolist()):
        sides = (x - x1, y - y1, x2 - x, y2 - y)
        low, high = RANGES[level]
        area = (x2 - x1) * (y2 - y1)
        near = min(sides) > 0
        if head.center_sampling:
            reach = head.center_sample_radius * STRIDES[level]
            near &= max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) < reach
        if near and low <= max(sides) <= high and area < smallest:
            found, smallest = number, area
    return found


def overlap(distances: list[float], sides: list[float]) -> float:
    """Compute the IoU of two boxes around a point, by the distances to their sides."""
    left, top, right, bottom = (min(pair) for pair in zip(distances, sides, strict=True))
    areas = [(box[0] + box[2]) * (box[1] + box[3]) for box in (distances, sides)]
    shared = (left + right) * (top + bottom)
    return shared / (sum(areas) - shared)


def slow_losses(head: Any, outputs: Any, batch: Batch, quality: str, weighted: bool) -> Any:
    """Compute the losses of boxes and quality point by point, for the IoU loss -ln IoU."""
    boxes, logits = outputs[1], outputs[2]
    losses, qualities, costs = [], [], []
    for (level, stride), (image, gts) in itertools.product(
        enumerate(STRIDES), enumerate(batch.gts)
    ):
        rows, columns = boxes[level].shape[-2:]
        for row, column in itertools.product(range(rows), range(columns)):
            x, y = (column + 0.5) * stride, (row + 0.5) * stride
            number = owner(x, y, level, gts, head)
            if number is None:
                continue
            x1, y1, x2, y2 = gts.bboxes[number].tolist()
            sides = [x - x1, y - y1, x2 - x, y2 - y]
            distances = boxes[level][image, :, row, column].tolist()
            if head.norm_on_bbox:
                distances = [stride * distance for distance in distances]
            iou = overlap(distances, sides)
            (left, top, right, bottom) = sides
            central = math.sqrt(
                min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom)
            )
            target = iou if quality == 'iou' else central
            logit = logits[level][image, 0, row, column].item()
            losses.append(-math.log(max(iou, 1e-6)))
            qualities.append(target)
            costs.append(math.log1p(math.exp(logit)) - target * logit)
    weights = qualities if weighted else [1.0] * len(losses)
    pairs = zip(losses, weights, strict=True)
    return sum(a * b for a, b in pairs) / sum(weights), sum(costs) / len(costs)


@pytest.mark.parametrize(('quality', 'box_weight'), FORMS)
@pytest.mark.parametrize('steps', STEPS.values(), ids=STEPS)
def test_losses_equal_loops_over_points(
    steps: dict[str, Any], quality: str, box_weight: str | None
) -> None:
    head = build('FCOSHead', 'mmdet_ext', quality=quality, box_weight=box_weight, **steps)
    batch = Batch((5, 0, 4))
    outputs = head(batch.features)
    losses = head.loss_by_feat(*outputs, batch.gts, batch.metas)
    box, other = slow_losses(head, outputs, batch, quality, box_weight is not None)
    assert value(losses, 'loss_bbox') == pytest.approx(box, rel=1e-4)
    assert value(losses, 'loss_centerness') == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize('options', BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize('steps', STEPS.values(), ids=STEPS)
def test_by_default_losses_and_gradients_are_those_of_mmdet_bit_by_bit(
    steps: dict[str, Any], options: dict[str, Any]
) -> None:
    config = {**HEADS['FCOSHead'], **steps}
    theirs = MMDetFCOSHead(CLASSES, CHANNELS, **config)
    ours = FCOSLosses(CLASSES, CHANNELS, **config)
    ours.load_state_dict(theirs.state_dict())
    batch = Batch(**options)
    (found, gradients), (expected, their_gradients) = outcome(ours, batch), outcome(theirs, batch)
    assert {name: float(loss) for name, loss in found.items()} == {
        name: float(loss) for name, loss in expected.items()
    }
    for one, other in zip(gradients, their_gradients, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)


def test_weights_have_the_names_of_mmdet_for_either_quality() -> None:
    names = list(build('FCOSHead', 'mmdet').state_dict())
    assert list(build('FCOSHead', 'mmdet_ext', quality='iou').state_dict()) == names


@pytest.mark.parametrize('box_weight', ['quality', None])
def test_no_gradient_passes_through_the_iou(box_weight: str | None) -> None:
    head = build('FCOSHead', 'mmdet_ext', quality='iou', box_weight=box_weight)
    batch = Batch((5, 3))
    losses = batch.losses(head)
    (pulled,) = torch.autograd.grad(
        losses['loss_centerness'], [head.conv_reg.weight], allow_unused=True, retain_graph=True
    )
    assert pulled is None
    assert torch.autograd.grad(losses['loss_bbox'], [head.conv_reg.weight])[0].any()


def single(box: list[float], **options: Any) -> tuple[Any, list[InstanceData]]:
    """Build a head of one level of stride 8, and the ground truth of one box."""
    head = build('FCOSHead', 'mmdet_ext', strides=[8], regress_ranges=((-1, 1e8),), **options)
    boxes = torch.tensor([box]).reshape(-1, 4)
    return head, [InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long))]


def test_two_points_by_hand() -> None:
    # The points (12, 4) and (20, 4) lie in the box. The first is 4, 2, 8 and 6 px from its left,
    # upper, right and lower side and predicts these; the second predicts 4 px each way.
    head, gts = single([8.0, 2.0, 20.5, 10.0], quality='iou')
    assert gts[0].bboxes.shape == (1, 4)
    scores, logits = torch.zeros(1, CLASSES, 1, 3), torch.zeros(1, 1, 1, 3)
    distances = torch.full((1, 4, 1, 3), 4.0)
    distances[0, :, 0, 1] = torch.tensor([4.0, 2.0, 8.5, 6.0])
    # The boxes share 4.5 x 6 px of 12.5 x 8 and 8 x 8 px.
    overlaps = [1.0, 27 / (100 + 64 - 27)]
    central = [math.sqrt(4 / 8.5 * 2 / 6), math.sqrt(0.5 / 12 * 2 / 6)]
    for quality, weights in (('iou', overlaps), ('centerness', central)):
        for box_weight in ('quality', None):
            head.quality, head.box_weight = quality, box_weight
            losses = head.loss_by_feat([scores], [distances], [logits], gts, [{}])
            share = weights[1] / sum(weights) if box_weight else 1 / 2
            cost = share * -math.log(overlaps[1])
            assert losses['loss_bbox'].item() == pytest.approx(cost, rel=1e-5)
            # A logit of 0 costs ln 2 whatever the target; its slope is 1 / 2 - the target.
            assert losses['loss_centerness'].item() == pytest.approx(math.log(2), rel=1e-6)


def test_the_target_of_the_quality_by_its_slope() -> None:
    head, gts = single([8.0, 2.0, 20.5, 10.0], quality='iou')
    logits = torch.zeros(1, 1, 1, 3, requires_grad=True)
    outputs = [torch.zeros(1, CLASSES, 1, 3)], [torch.full((1, 4, 1, 3), 4.0)], [logits]
    (slope,) = torch.autograd.grad(
        head.loss_by_feat(*outputs, gts, [{}])['loss_centerness'], logits
    )
    # 8 x 6 px of the first box are shared, 4.5 x 6 px of the second; a mean over two points.
    wanted = [0.0, (0.5 - 48 / (100 + 64 - 48)) / 2, (0.5 - 27 / (100 + 64 - 27)) / 2]
    assert slope.flatten().tolist() == pytest.approx(wanted, rel=1e-5)


EDGES: dict[str, list[float]] = {
    'no box': [],
    'a box without area': [8.0, 2.0, 8.0, 20.0],
    'a box of a pixel': [11.5, 3.5, 12.5, 4.5],
    'a box larger than the image': [-900.0, -800.0, 900.0, 900.0],
}


@pytest.mark.parametrize('distance', [0.0, 1e-8, 4.0, 1e4])
@pytest.mark.parametrize(('quality', 'box_weight'), FORMS)
@pytest.mark.parametrize('loss', ['IoULoss', 'mmdet_ext.GIoULoss', 'mmdet_ext.CIoULoss'])
@pytest.mark.parametrize('box', EDGES.values(), ids=EDGES)
def test_losses_and_gradients_are_finite(
    box: list[float], loss: str, quality: str, box_weight: str | None, distance: float
) -> None:
    head, gts = single(box, quality=quality, box_weight=box_weight, loss_bbox=dict(type=loss))
    outputs = [
        torch.full((1, columns, 2, 3), fill, requires_grad=True)
        for columns, fill in ((CLASSES, 0.0), (4, distance), (1, 0.0))
    ]
    losses = head.loss_by_feat(*([each] for each in outputs), gts, [{}])
    assert all(part.isfinite() and part >= 0 for part in losses.values())
    gradients = torch.autograd.grad(sum(losses.values()), outputs)
    assert all(gradient.isfinite().all() for gradient in gradients)
    if box in (EDGES['no box'], EDGES['a box without area']):
        assert losses['loss_bbox'] == losses['loss_centerness'] == 0
        assert not gradients[1].any() and not gradients[2].any()


def test_half_precision_of_the_features_gives_finite_losses() -> None:
    head, gts = single([2.0, 2.0, 20.0, 12.0], quality='iou')
    outputs = [
        torch.full((1, columns, 2, 3), fill, dtype=dtype)
        for columns, fill, dtype in (
            (CLASSES, 0.0, torch.float16),
            (4, 6.0, torch.float32),  # mmdet's head predicts boxes in float32
            (1, 0.0, torch.float16),
        )
    ]
    losses = head.loss_by_feat(*([each] for each in outputs), gts, [{}])
    assert all(part.isfinite() and part > 0 for part in losses.values())


@pytest.mark.parametrize(
    ('message', 'options'),
    [
        ("quality must be 'centerness' or 'iou', got 'ctrness'", dict(quality='ctrness')),
        ("box_weight must be 'quality' or None, got True", dict(box_weight=True)),
        (
            r'regress_ranges has 3 levels, but strides \[8, 16\] has 2. Give one range',
            dict(strides=[8, 16]),
        ),
        (
            r'regress_ranges has 2 levels, but strides \[8, 16, 32\] has 3',
            dict(regress_ranges=((-1, 64), (64, 1e8))),
        ),
    ],
)
def test_what_does_not_fit_is_named_when_the_head_is_built(
    message: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=message):
        build('FCOSHead', 'mmdet_ext', **options)
