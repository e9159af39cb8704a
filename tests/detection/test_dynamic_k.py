"""SimOTA and dynamic soft label against stock's, on random pictures and on the edges."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.assigners import (
    DynamicSoftLabelAssigner as StockDynamicSoftLabelAssigner,
)
from mmdet.models.task_modules.assigners import SimOTAAssigner as StockSimOTAAssigner
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits, one_hot

from mmdet_ext.detection.assigners import DynamicSoftLabelAssigner, SimOTAAssigner
from mmdet_ext.functional.boxes import box_iou
from mmdet_ext.structures import BatchGeometry, Predictions
from mmdet_ext.testing.memory import peak_bytes
from mmdet_ext.testing.scenes import pyramid_points, scene
from mmdet_ext.testing.synthetic import random_boxes

POINTS, SIZES = pyramid_points(strides=(8, 16, 32), offset=0.0)
CLASSES = 7
PAIRS = {
    'SimOTA': (SimOTAAssigner, StockSimOTAAssigner),
    'soft label': (DynamicSoftLabelAssigner, StockDynamicSoftLabelAssigner),
}
BOTH = pytest.mark.parametrize('name', PAIRS)


def predicted(case: int, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (P, 4) about the points, part of them near to a box, and scores (P, C): logits."""
    generator = torch.Generator().manual_seed(case)
    side = POINTS[:, 2:] * (torch.randn(len(POINTS), 2, generator=generator) * 0.7 + 1).exp()
    center = POINTS[:, :2] + POINTS[:, 2:] * torch.randn(len(POINTS), 2, generator=generator)
    found = torch.cat([center - side / 2, center + side / 2], 1)
    if len(boxes):
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        near = torch.cdist(POINTS[:, :2], middle).argmin(1)
        found = torch.lerp(found, boxes[near], torch.rand(len(POINTS), 1, generator=generator))
    return found, 2 * torch.randn(len(POINTS), CLASSES, generator=generator) - 2


def call(assigner: object, name: str, case: int, boxes: Tensor, labels: Tensor,
         half: bool = False) -> AssignResult:
    found, logits = predicted(case, boxes.float())
    scores = logits.sigmoid() if name == 'SimOTA' else logits
    if half:
        found, scores = found.half(), scores.half()
    else:
        boxes = boxes.float()
    return assigner.assign(
        InstanceData(priors=POINTS, bboxes=found, scores=scores),
        InstanceData(bboxes=boxes, labels=labels),
    )


def exact_costs(name: str, case: int, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Costs and overlaps of all pairs (P, G) in float64, by the formula."""
    found, logits = (part.double() for part in predicted(case, boxes))
    overlap = box_iou(found[:, None], boxes.double())
    onehot = one_hot(labels, CLASSES).double().expand(len(POINTS), -1, -1)
    each = logits[:, None].expand_as(onehot)
    center = (boxes[:, :2] + boxes[:, 2:]).double() / 2
    away = POINTS[:, None, :2].double() - center
    if name == 'SimOTA':
        cost = binary_cross_entropy(each.sigmoid(), onehot, reduction='none').sum(-1)
        point = POINTS[:, None, :2].double()
        gap = torch.cat([point - boxes[:, :2], boxes[:, 2:] - point], -1).amin(-1)
        reach = 2.5 * POINTS[:, None, 2].double() - away.abs().amax(-1)
        cost = cost + 1e5 * (torch.minimum(gap, reach) <= 0)
    else:
        soft = onehot * overlap[..., None]
        entropy = binary_cross_entropy_with_logits(each, soft, reduction='none')
        cost = (entropy * (soft - each.sigmoid()).square()).sum(-1)
        cost = cost + 10 ** (away.norm(dim=-1) / POINTS[:, None, 2].double() - 3)
    cost = cost - 3 * (overlap + 1e-7).log()
    return cost.clamp(max=torch.finfo(torch.float32).max), overlap


@BOTH
def test_indices_equal_stocks_on_a_thousand_pictures_ties_apart(name: str) -> None:
    ours, stock = (cls() for cls in PAIRS[name])
    assigned = differing = 0
    for case in range(1000):
        boxes, labels = scene(case, most=500 if case % 50 == 7 else 25)
        boxes = boxes.float()
        one, other = (call(a, name, case, boxes, labels) for a in (ours, stock))
        assigned += int((other.gt_inds > 0).sum())
        place = (one.gt_inds != other.gt_inds).nonzero().flatten()
        if len(place) == 0:
            assert torch.equal(one.labels, other.labels)
            torch.testing.assert_close(one.max_overlaps, other.max_overlaps, rtol=1e-6, atol=0)
            continue
        differing += len(place)
        assert_tied(name, case, boxes, labels, one, other, place)
    print(f'{name}: {differing} of {assigned} assigned priors differ, each tied')
    assert assigned > 30_000
    assert differing < 0.005 * assigned


def assert_tied(name: str, case: int, boxes: Tensor, labels: Tensor, one: AssignResult,
                other: AssignResult, place: Tensor) -> None:
    """Where two assignments differ, the boxes concerned have candidates of one cost.

    Costs near 1e5 are rounded to 0.008 in float32, so that what lies outside is mostly tied.
    """
    cost, overlap = exact_costs(name, case, boxes, labels)
    points = POINTS[:, None, :2]
    used = torch.cat([points - boxes[:, :2], boxes[:, 2:] - points], -1).amin(-1) > 0
    if name == 'soft label':  # points in no box take no part
        cost = cost.where(used.any(1, keepdim=True), torch.inf)
    boxes_concerned = torch.cat([one.gt_inds[place], other.gt_inds[place]]).unique()
    for box in (boxes_concerned[boxes_concerned > 0] - 1).tolist():
        ranked = cost[:, box].sort().values
        slack = 1e-5 * ranked.abs().clamp(min=1) + 0.01 * (ranked > 9e4)
        near = (ranked[1:] - ranked[:-1]) <= slack[1:]
        near &= ranked[1:] < torch.inf
        top = overlap[:, box].topk(13).values
        sums = torch.stack([top[:10].sum(), top.sum()])
        whole = ((sums - sums.round()).abs() < 1e-5).any()
        twin = (cost - cost[:, box : box + 1]).abs()[place] <= 1e-4 * cost[place].abs().clamp(min=1)
        assert near[:30].any() or whole or twin.sum() > len(place), (case, box)


@BOTH
def test_half_precision_is_the_float32_of_the_rounded_inputs(name: str) -> None:
    ours = PAIRS[name][0]()
    for case in range(40):
        boxes, labels = scene(case, most=25)
        found, logits = predicted(case, boxes.float())
        scores = (logits.sigmoid() if name == 'SimOTA' else logits).half()
        results = [
            ours.assign(
                InstanceData(priors=POINTS, bboxes=found.half().to(dtype), scores=scores.to(dtype)),
                InstanceData(bboxes=boxes, labels=labels),
            )
            for dtype in (torch.float16, torch.float32)
        ]
        assert torch.equal(results[0].gt_inds, results[1].gt_inds)


@pytest.mark.parametrize('options', [
    dict(center_radius=1.0), dict(candidate_topk=3), dict(iou_weight=1.0, cls_weight=2.0),
    dict(candidate_topk=2000),
])  # fmt: skip
def test_options_of_simota_as_stock(options: dict[str, Any]) -> None:
    ours, stock = SimOTAAssigner(**options), StockSimOTAAssigner(**options)
    same = total = 0
    for case in (1, 5, 9, 13, 60, 65):
        boxes, labels = scene(case, most=25)
        one, other = (call(a, 'SimOTA', case, boxes, labels) for a in (ours, stock))
        same += int((one.gt_inds == other.gt_inds).sum())
        total += len(POINTS)
    assert same >= 0.999 * total


@pytest.mark.parametrize('options', [
    dict(soft_center_radius=1.0), dict(topk=3), dict(iou_weight=1.0),
])  # fmt: skip
def test_options_of_soft_label_as_stock(options: dict[str, Any]) -> None:
    ours = DynamicSoftLabelAssigner(**options)
    stock = StockDynamicSoftLabelAssigner(**options)
    for case in (1, 5, 9, 13, 60, 65):
        boxes, labels = scene(case, most=25)
        one, other = (call(a, 'soft label', case, boxes, labels) for a in (ours, stock))
        assert torch.equal(one.gt_inds, other.gt_inds)


def test_centres_of_masks_as_stock() -> None:
    boxes = torch.tensor([[20.0, 20, 200, 180], [60, 60, 280, 220]])
    masks = torch.zeros(2, 256, 320)
    masks[0, 30:60, 30:60] = 1
    masks[1, 100:210, 200:270] = 1
    found, logits = predicted(3, boxes)
    results = []
    for gt in (
        InstanceData(bboxes=boxes, labels=torch.tensor([1, 2]), masks=masks),
        InstanceData(bboxes=boxes, labels=torch.tensor([1, 2])),
    ):
        pred = InstanceData(priors=POINTS, bboxes=found, scores=logits)
        one = DynamicSoftLabelAssigner().assign(pred, gt)
        other = StockDynamicSoftLabelAssigner().assign(pred, gt)
        assert torch.equal(one.gt_inds, other.gt_inds)
        results.append(one.gt_inds)
    assert not torch.equal(*results)


@BOTH
def test_other_measures_as_stock(name: str) -> None:
    calculator = dict(type='mmdet_ext.NWDCalculator', constant=30.0)
    ours, stock = (cls(iou_calculator=calculator) for cls in PAIRS[name])
    for case in (1, 5, 61):
        boxes, labels = scene(case, most=25)
        one, other = (call(a, name, case, boxes, labels) for a in (ours, stock))
        assert (one.gt_inds == other.gt_inds).float().mean() > 0.999
        assert (one.gt_inds > 0).any()


@BOTH
def test_ten_thousand_boxes_in_bounded_memory(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    points, sizes = pyramid_points(640, 640, (8, 16, 32), 0.0)
    boxes = random_boxes(generator, 10_000, 640, 640, 4, 60)
    labels = torch.randint(80, (10_000,), generator=generator)
    batch = BatchGeometry.from_lists(points, sizes, [boxes], [labels])
    half = points[:, 2:] * 2
    found = torch.cat([points[:, :2] - half, points[:, :2] + half], 1)[None]
    scores = torch.rand(1, len(points), 80, generator=generator)
    assigner = PAIRS[name][0]()
    held = peak_bytes(lambda: assigner.match(batch, Predictions(scores, found)))
    assert held < 2**27


def test_bad_options() -> None:
    with pytest.raises(ValueError, match='candidate_topk must be at least 1, got 0'):
        SimOTAAssigner(candidate_topk=0)
    with pytest.raises(ValueError, match='topk must be at least 1, got 0'):
        DynamicSoftLabelAssigner(topk=0)
