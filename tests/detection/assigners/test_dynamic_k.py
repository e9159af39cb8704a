"""SimOTA and dynamic soft label against mmdet's, on random images and in edge cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.assigners import (
    DynamicSoftLabelAssigner as MMDetDynamicSoftLabelAssigner,
)
from mmdet.models.task_modules.assigners import SimOTAAssigner as MMDetSimOTAAssigner
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.functional import softplus

from mmdet_ext.catalog.memory import peak_bytes
from mmdet_ext.catalog.scenes import points_as_priors, pyramid_points, scene
from mmdet_ext.catalog.synthetic import random_boxes
from mmdet_ext.detection.assigners import DynamicSoftLabelAssigner, SimOTAAssigner
from mmdet_ext.functional.assignment.dynamic_k import PairCosts
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.assignment.simota import SimOTACosts
from mmdet_ext.functional.assignment.soft_label import SoftLabelCosts
from mmdet_ext.functional.boxes.overlap import box_centers, box_iou
from tests._helpers.assigners import with_area
from tests._helpers.ties import (
    IOU_ROUNDING,
    ROUNDING,
    bounds,
    crowded_scene,
    follows_claims,
    smallest,
)

POINTS, SIZES = pyramid_points(strides=(8, 16, 32), offset=0.0)
CLASSES = 7
PAIRS = {
    'SimOTA': (SimOTAAssigner, MMDetSimOTAAssigner),
    'soft label': (DynamicSoftLabelAssigner, MMDetDynamicSoftLabelAssigner),
}
BOTH = pytest.mark.parametrize('name', PAIRS)


def predicted(name: str, case: int, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Draw boxes (P, 4) about the points, some of them near a box, and scores (P, C).

    Scores are probabilities for SimOTA, logits otherwise. All have the dtype of the boxes.
    """
    generator = torch.Generator().manual_seed(case)
    side = POINTS[:, 2:] * (torch.randn(len(POINTS), 2, generator=generator) * 0.7 + 1).exp()
    center = POINTS[:, :2] + POINTS[:, 2:] * torch.randn(len(POINTS), 2, generator=generator)
    found = torch.cat([center - side / 2, center + side / 2], 1)
    if len(boxes):
        wanted = boxes.float()
        near = torch.cdist(POINTS[:, :2], box_centers(wanted)).argmin(1)
        found = torch.lerp(found, wanted[near], torch.rand(len(POINTS), 1, generator=generator))
    scores = 2 * torch.randn(len(POINTS), CLASSES, generator=generator) - 2
    scores = scores.sigmoid() if name == 'SimOTA' else scores
    return found.to(boxes.dtype), scores.to(boxes.dtype)


def call(
    assigner: Any, boxes: Tensor, labels: Tensor, found: Tensor, scores: Tensor
) -> AssignResult:
    return assigner.assign(
        InstanceData(priors=POINTS, bboxes=found, scores=scores),
        InstanceData(bboxes=boxes, labels=labels),
    )


class Pairs(NamedTuple):
    """Pairs of G boxes and the N priors that take part, by the formula in float64.

    The slack bounds the error of a cost in float32: some roundings of each term.
    """

    used: Tensor  # (P,) bool, N of them True
    overlap: Tensor
    cost: Tensor
    slack: Tensor


def log_overlap_cost(overlap: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    cost = -weight * (overlap + 1e-7).log()
    return cost, weight * IOU_ROUNDING + 4 * ROUNDING * cost.abs()


def simota_pairs(
    theirs: MMDetSimOTAAssigner, boxes: Tensor, labels: Tensor, found: Tensor, scores: Tensor
) -> Pairs:
    # The signs of differences decide what lies inside, in float32 as in mmdet.
    point, reach = POINTS[:, :2], theirs.center_radius * POINTS[:, 2:]
    center = box_centers(boxes)[:, None]
    gap = torch.cat([point - boxes[:, None, :2], boxes[:, None, 2:] - point], -1).amin(-1)
    near = torch.cat([point - (center - reach), center + reach - point], -1).amin(-1)
    used = ((gap > 0) | (near > 0)).any(0)
    inside = (torch.minimum(gap, near) > 0)[:, used]
    scores = scores[used].double()
    yes, no = (-part.log().clamp(min=-100) for part in (scores, 1 - scores))
    label_cost = yes.T[labels] + (no.sum(1) - no.T[labels])
    overlap = box_iou(found[used].double(), boxes[:, None].double())
    overlap_cost, slack = log_overlap_cost(overlap, theirs.iou_weight)
    slack = slack + 4 * ROUNDING * theirs.cls_weight * (label_cost + no.sum(1))
    cost = theirs.cls_weight * label_cost + overlap_cost + 1e5 * ~inside
    return Pairs(used, overlap, cost, slack)


def soft_label_pairs(
    theirs: MMDetDynamicSoftLabelAssigner,
    boxes: Tensor,
    labels: Tensor,
    found: Tensor,
    scores: Tensor,
) -> Pairs:
    point = POINTS[:, :2]
    gap = torch.cat([point - boxes[:, None, :2], boxes[:, None, 2:] - point], -1).amin(-1)
    used = (gap > 0).any(0)
    scores = scores[used].double()
    overlap = box_iou(found[used].double(), boxes[:, None].double())
    entropy, sigmoid = softplus(scores), scores.sigmoid()
    as_no, logit = entropy * sigmoid.square(), scores.T[labels]
    as_label = (entropy.T[labels] - overlap * logit) * (overlap - sigmoid.T[labels]).square()
    class_cost = as_label + as_no.sum(1) - as_no.T[labels]
    slack = 8 * ROUNDING * (as_no.sum(1) + entropy.T[labels] + logit.abs())
    overlap_cost, more = log_overlap_cost(overlap, theirs.iou_weight)
    away = (point[used] - box_centers(boxes)[:, None]).double().norm(dim=-1) / POINTS[used, 2]
    center_cost = 10 ** (away - theirs.soft_center_radius)
    slack = slack + more + ROUNDING * center_cost * (10 + 10 * away)
    return Pairs(used, overlap, class_cost + overlap_cost + center_cost, slack)


def untied(
    theirs: Any,
    boxes: Tensor,
    labels: Tensor,
    found: Tensor,
    scores: Tensor,
    chosen: Tensor,
) -> list[int]:
    """List the priors whose box (P,), from 1, no rounding explains."""
    exact, topk = (
        (simota_pairs, getattr(theirs, 'candidate_topk', 0))
        if isinstance(theirs, MMDetSimOTAAssigner)
        else (soft_label_pairs, getattr(theirs, 'topk', 0))
    )
    pairs = exact(theirs, boxes, labels, found, scores)
    cost = bounds(pairs.cost, pairs.slack)
    top = pairs.overlap.topk(min(topk, pairs.overlap.shape[1]), dim=1).values
    total, loose = top.sum(1), ROUNDING * (8 + top.shape[1] / 2) * top.sum(1)
    fewest, most = ((total + part).floor().clamp(min=1) for part in (-loose, loose))
    right = chosen == 0
    claims = smallest(cost, fewest, most)
    right[pairs.used] = follows_claims(chosen[pairs.used], claims, cost, of_all=True)
    return (~right).nonzero().flatten().tolist()


def compare(
    ours: Any, theirs: Any, name: str, case: int, boxes: Tensor, labels: Tensor
) -> tuple[int, int]:
    """Compare both assigners except for ties; count priors that mmdet assigns and that differ."""
    boxes, labels = with_area(boxes, labels)
    given = (boxes, labels, *predicted(name, case, boxes))
    single = (given[0].float(), labels, given[2].float(), given[3].float())
    one, other = call(ours, *given), call(theirs, *single)
    same = one.gt_inds == other.gt_inds
    assert torch.equal(one.labels[same], other.labels[same])
    torch.testing.assert_close(one.max_overlaps[same], other.max_overlaps[same], rtol=1e-6, atol=0)
    if not same.all():
        for whose, result in (('mmdet', other), ('ours', one)):
            wrong = untied(theirs, *single, result.gt_inds)
            assert not wrong, f'image {case}: the choice of priors {wrong} by {whose} is no tie'
    return int((other.gt_inds > 0).sum()), int((~same).sum())


@pytest.mark.slow
@BOTH
def test_indices_equal_mmdet_on_a_thousand_images_except_ties(name: str) -> None:
    ours, theirs = (cls() for cls in PAIRS[name])
    assigned = differing = 0
    for case in range(1000):
        total, differ = compare(ours, theirs, name, case, *crowded_scene(case))
        assigned, differing = assigned + total, differing + differ
    print(f'{name}: {differing} of {assigned} assigned priors differ, each tied')
    assert assigned > 100_000
    assert differing < 0.001 * assigned


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'costs'),
    [
        ('SimOTA', SimOTACosts),
        ('soft label', SoftLabelCosts),
    ],
)
def test_a_cost_that_is_wrong_by_three_thousandths_is_detected(
    name: str, costs: type[PairCosts], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of ties detects errors that are larger than rounding."""
    right: Callable[..., Tensor] = costs.cost

    def wrong(self: PairCosts, part: slice, overlap: Tensor) -> Tensor:
        x, y, _ = self.priors.points
        phase = x * 12.99 + y * 78.23 + self.boxes[:, part, :1] * 3.7
        return right(self, part, overlap).add_(phase.sin() * 3e-3)

    monkeypatch.setattr(costs, 'cost', wrong)
    ours, theirs = (cls() for cls in PAIRS[name])
    seen = 0
    for case in range(180):
        boxes, labels = crowded_scene(case)
        if len(boxes) == 0:
            continue
        given = (boxes.float(), labels, *predicted(name, case, boxes.float()))
        seen += bool(untied(theirs, *given, call(ours, *given).gt_inds))
    print(f'{name}: a wrong cost shows in {seen} images')
    assert seen >= 2


@BOTH
def test_half_precision_is_the_float32_of_the_rounded_inputs(name: str) -> None:
    ours = PAIRS[name][0]()
    for case in range(40):
        boxes, labels = scene(case, most=25)
        found, scores = predicted(name, case, boxes.half())
        one = call(ours, boxes, labels, found, scores)
        other = call(ours, boxes, labels, found.float(), scores.float())
        assert torch.equal(one.gt_inds, other.gt_inds)


@pytest.mark.parametrize(
    'options',
    [
        dict(center_radius=1.0),
        dict(candidate_topk=3),
        dict(iou_weight=1.0, cls_weight=2.0),
        dict(candidate_topk=2000),
    ],
)
def test_options_of_simota_as_mmdet(options: dict[str, Any]) -> None:
    ours, theirs = SimOTAAssigner(**options), MMDetSimOTAAssigner(**options)
    for case in (1, 5, 9, 13, 60, 65):
        compare(ours, theirs, 'SimOTA', case, *scene(case, most=25))


@pytest.mark.parametrize(
    'options',
    [
        dict(soft_center_radius=1.0),
        dict(topk=3),
        dict(iou_weight=1.0),
    ],
)
def test_options_of_soft_label_as_mmdet(options: dict[str, Any]) -> None:
    ours = DynamicSoftLabelAssigner(**options)
    theirs = MMDetDynamicSoftLabelAssigner(**options)
    for case in (1, 5, 9, 13, 60, 65):
        compare(ours, theirs, 'soft label', case, *scene(case, most=25))


@pytest.mark.parametrize('options', [{}, dict(topk=3), dict(iou_weight=1.0)])
def test_without_the_cost_of_the_centre(options: dict[str, Any]) -> None:
    """With a radius of 1000 strides mmdet's cost of the centre is below any float32."""
    ours = DynamicSoftLabelAssigner(soft_center_radius=None, **options)
    theirs = MMDetDynamicSoftLabelAssigner(soft_center_radius=1e3, **options)
    usual = DynamicSoftLabelAssigner(**options)
    moved = 0
    for case in (1, 5, 9, 13, 60, 65):
        boxes, labels = scene(case, most=25)
        compare(ours, theirs, 'soft label', case, boxes, labels)
        given = (boxes, labels, *predicted('soft label', case, boxes))
        one, other = (call(assigner, *given).gt_inds for assigner in (ours, usual))
        moved += int((one != other).sum())
    assert moved > 0


def test_centres_of_masks_as_mmdet() -> None:
    boxes = torch.tensor([[20.0, 20, 200, 180], [60, 60, 280, 220]])
    masks = torch.zeros(2, 256, 320)
    masks[0, 30:60, 30:60] = 1
    masks[1, 100:210, 200:270] = 1
    found, logits = predicted('soft label', 3, boxes)
    results = []
    for gt in (
        InstanceData(bboxes=boxes, labels=torch.tensor([1, 2]), masks=masks),
        InstanceData(bboxes=boxes, labels=torch.tensor([1, 2])),
    ):
        pred = InstanceData(priors=POINTS, bboxes=found, scores=logits)
        one = DynamicSoftLabelAssigner().assign(pred, gt)
        other = MMDetDynamicSoftLabelAssigner().assign(pred, gt)
        assert torch.equal(one.gt_inds, other.gt_inds)
        results.append(one.gt_inds)
    assert not torch.equal(*results)


@BOTH
def test_other_measures_as_mmdet(name: str) -> None:
    calculator = dict(type='mmdet_ext.NWDCalculator', constant=30.0)
    ours, theirs = (cls(iou_calculator=calculator) for cls in PAIRS[name])
    for case in (1, 5, 61):
        boxes, labels = scene(case, most=25)
        given = (boxes.float(), labels, *predicted(name, case, boxes.float()))
        one, other = (call(assigner, *given) for assigner in (ours, theirs))
        assert (one.gt_inds == other.gt_inds).float().mean() > 0.999
        assert (one.gt_inds > 0).any()


@pytest.mark.slow
@BOTH
def test_ten_thousand_boxes_in_bounded_memory(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    points, sizes = pyramid_points(640, 640, (8, 16, 32), 0.0)
    boxes = random_boxes(generator, 10_000, 640, 640, 4, 60)
    labels = torch.randint(80, (10_000,), generator=generator)
    batch = BatchGeometry.from_lists(points_as_priors(points, sizes), [boxes], [labels])
    half = points[:, 2:] * 2
    found = torch.cat([points[:, :2] - half, points[:, :2] + half], 1)[None]
    scores = torch.rand(1, len(points), 80, generator=generator)
    assigner = PAIRS[name][0]()
    predictions = Predictions(boxes=found, **{assigner.score_form: scores})
    held = peak_bytes(lambda: assigner.match(batch, predictions))
    assert held < 2**27


def test_bad_options() -> None:
    with pytest.raises(ValueError, match='candidate_topk must be at least 1, got 0'):
        SimOTAAssigner(candidate_topk=0)
    with pytest.raises(ValueError, match='topk must be at least 1, got 0'):
        DynamicSoftLabelAssigner(topk=0)
