"""TaskAlignedAssigner against mmdet's, and its one-to-one form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.assigners import TaskAlignedAssigner as MMDetTaskAlignedAssigner
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.catalog.memory import peak_bytes
from mmdet_ext.catalog.scenes import scene
from mmdet_ext.catalog.synthetic import anchors_as_priors, pyramid_anchors, random_boxes
from mmdet_ext.detection.assigners import OneToOneTaskAlignedAssigner, TaskAlignedAssigner
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.assignment.task_aligned import power_of, task_aligned_match
from mmdet_ext.functional.boxes.overlap import box_centers, box_iou
from tests._helpers.assigners import geometry_of
from tests._helpers.ties import (
    IOU_ROUNDING,
    ROUNDING,
    Bounds,
    Claims,
    bounds,
    crowded_scene,
    follows_claims,
    smallest,
)

PRIORS, SIZES = pyramid_anchors()
CLASSES, TOPK = 7, 13
CENTER, STRIDE = box_centers(PRIORS), (PRIORS[:, 2:] - PRIORS[:, :2]) / 8


def predicted(case: int, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Draw boxes (P, 4) about the priors, some of them near a box, and probabilities (P, C).

    Both have the dtype of the boxes.
    """
    generator = torch.Generator().manual_seed(case)
    side = STRIDE * (torch.randn(len(PRIORS), 2, generator=generator) * 0.7 + 1).exp()
    center = CENTER + STRIDE * torch.randn(len(PRIORS), 2, generator=generator)
    found = torch.cat([center - side / 2, center + side / 2], 1)
    if len(boxes):
        wanted = boxes.float()
        near = torch.cdist(CENTER, box_centers(wanted)).argmin(1)
        found = torch.lerp(found, wanted[near], torch.rand(len(PRIORS), 1, generator=generator))
    scores = torch.rand(len(PRIORS), CLASSES, generator=generator)
    return found.to(boxes.dtype), scores.to(boxes.dtype)


def call(
    assigner: Any, boxes: Tensor, labels: Tensor, found: Tensor, scores: Tensor, *own: float
) -> AssignResult:
    return assigner.assign(
        InstanceData(priors=PRIORS, bboxes=found, scores=scores),
        InstanceData(bboxes=boxes, labels=labels),
        None,
        *own,
    )


def untied(
    boxes: Tensor,
    labels: Tensor,
    found: Tensor,
    scores: Tensor,
    own: tuple[float, ...],
    chosen: Tensor,
) -> list[int]:
    """List the priors whose box (P,), from 1, no rounding explains."""
    alpha, beta = own or (1, 6)
    overlap = box_iou(found.double(), boxes[:, None].double())
    alignment = scores.double().T[labels] ** alpha * overlap**beta
    # A power multiplies the relative error of its base by the exponent. The smallest numbers of
    # float32 have few digits.
    slack = alignment * (beta * IOU_ROUNDING + (4 + alpha + beta) * ROUNDING) + 1e-42
    alignment = bounds(alignment, slack)
    claims = smallest(Bounds(-alignment.most, -alignment.least), TOPK, TOPK)
    inside = torch.cat([CENTER - boxes[:, None, :2], boxes[:, None, 2:] - CENTER], -1).amin(-1)
    inside = inside > 0.01
    claims = Claims(
        claims.sure & inside & (alignment.least > 0),
        claims.possible & inside & (alignment.most > 0),
    )
    least, most = bounds(overlap, IOU_ROUNDING * overlap)
    right = follows_claims(chosen, claims, Bounds(-most, -least), of_all=False)
    return (~right).nonzero().flatten().tolist()


@pytest.mark.slow
@pytest.mark.parametrize('own', [(), (0.5, 4), (1, 2.5)], ids=str)
def test_equal_to_mmdet_on_a_thousand_images_except_ties(own: tuple[float, ...]) -> None:
    ours, theirs = TaskAlignedAssigner(topk=TOPK), MMDetTaskAlignedAssigner(topk=TOPK)
    assigned = differing = 0
    for case in range(1000):
        boxes, labels = crowded_scene(case)
        found, scores = predicted(case, boxes)
        single = (boxes.float(), labels, found.float(), scores.float())
        one = call(ours, boxes, labels, found, scores, *own)
        other = call(theirs, *single, *own)
        assigned += int((other.gt_inds > 0).sum())
        same = one.gt_inds == other.gt_inds
        assert torch.equal(one.labels[same], other.labels[same])
        torch.testing.assert_close(
            one.max_overlaps[same], other.max_overlaps[same], rtol=1e-6, atol=0
        )
        torch.testing.assert_close(one.assign_metrics[same], other.assign_metrics[same])
        if not same.all():
            differing += int((~same).sum())
            for whose, result in (('mmdet', other), ('ours', one)):
                wrong = untied(*single, own, result.gt_inds)
                assert not wrong, f'image {case}: the choice of priors {wrong} by {whose} is no tie'
    print(f'{differing} of {assigned} assigned priors differ, each tied')
    assert assigned > 100_000
    assert differing < 0.001 * assigned


@pytest.mark.slow
def test_an_alignment_that_is_wrong_by_a_hundredth_is_no_tie() -> None:
    """The check of ties detects errors that are larger than rounding."""
    ours = TaskAlignedAssigner(topk=TOPK)
    seen = 0
    for case in range(7, 200, 9):  # up to 500 boxes each
        boxes, labels = crowded_scene(case)
        found, scores = predicted(case, boxes)
        single = (boxes.float(), labels, found.float(), scores.float())
        assert not untied(*single, (), call(ours, boxes, labels, found, scores).gt_inds)
        scores = single[-1] * (1 + 1e-2 * (CENTER @ torch.tensor([[12.99], [78.23]])).sin())
        wrong = call(ours, *single[:-1], scores).gt_inds
        seen += bool(untied(*single, (), wrong))
    print(f'a wrong alignment shows in {seen} images')
    assert seen >= 5


def test_one_to_one_takes_the_prior_of_best_alignment() -> None:
    """The reference is a loop over boxes, from the definition."""
    assigner = OneToOneTaskAlignedAssigner(alpha=0.5, beta=6.0)
    positives = 0
    for case in range(100):
        boxes, labels = scene(case, most=20)
        boxes = boxes.float()
        found, scores = predicted(case, boxes)
        result = call(assigner, boxes, labels, found, scores)
        wanted: dict[int, list[tuple[float, int]]] = {}
        for box in range(len(boxes)):
            overlap = box_iou(found, boxes[box])
            alignment = scores[:, labels[box]].sqrt() * overlap**6
            prior = int(alignment.argmax())
            gap = torch.cat([CENTER[prior] - boxes[box, :2], boxes[box, 2:] - CENTER[prior]])
            if alignment[prior] > 0 and gap.min() > 0.01:
                wanted.setdefault(prior, []).append((float(overlap[prior]), -box))
        expected = torch.zeros(len(PRIORS), dtype=torch.int64)
        for prior, claims in wanted.items():
            expected[prior] = 1 - max(claims)[1]
        assert torch.equal(result.gt_inds, expected), case
        positives += int((expected > 0).sum())
    assert positives > 200


@pytest.mark.parametrize('exponent', [0.5, 1, 2, 3, 5, 6, 8, 9, 2.5])
def test_powers(exponent: float) -> None:
    value = torch.rand(100, generator=torch.Generator().manual_seed(0))
    power = power_of(value, exponent, torch.empty_like(value))
    torch.testing.assert_close(power, value.double().pow(exponent).float())


@pytest.mark.slow
def test_ten_thousand_boxes_in_bounded_memory() -> None:
    generator = torch.Generator().manual_seed(0)
    priors, sizes = pyramid_anchors(1344, 800)
    boxes = random_boxes(generator, 10_000, 1344, 800, 4, 60)
    labels = torch.randint(80, (10_000,), generator=generator)
    batch = BatchGeometry.from_lists(anchors_as_priors(priors, sizes), [boxes], [labels])
    scores = torch.rand(1, len(priors), 80, generator=generator)
    found = Predictions(boxes=priors[None], probabilities=scores)
    assigner = TaskAlignedAssigner(topk=13)
    assert peak_bytes(lambda: assigner.match(batch, found)) < 2**27


@pytest.mark.parametrize(
    ('total', 'number', 'topk'), [(5, 3, 13), (50, 8, 4), (333, 20, 13), (1500, 40, 1)]
)
def test_blocks_give_what_all_pairs_do(total: int, number: int, topk: int) -> None:
    """Cases: few and many priors, partial blocks, scores of 0 or above 1, absent priors."""
    positives = 0
    for case in range(24):
        generator = torch.Generator().manual_seed(case)
        boxes = random_boxes(generator, 2 * number, 200, 200, 4, 150).view(2, number, 4)
        found = random_boxes(generator, 2 * total, 200, 200, 4, 150).view(2, total, 4)
        near = torch.randint(number, (2, total // 2, 1), generator=generator).expand(-1, -1, 4)
        found[:, : total // 2] = torch.lerp(found[:, : total // 2], boxes.gather(1, near), 0.8)
        scores = torch.rand(2, total, CLASSES, generator=generator)
        if case % 3 == 0:  # most priors have no class, so that no block gives a bound
            scores *= torch.rand(scores.shape, generator=generator) < 0.05
        if case % 4 == 0:
            scores[1] *= 30
        labels = torch.randint(CLASSES, (2, number), generator=generator)
        valid = torch.rand(2, number, generator=generator) < 0.9
        taking_part = torch.rand(2, total, generator=generator) < 0.8 if case % 2 else None
        own = ((1, 6), (0.5, 2.5), (0, 3))[case // 2 % 3]
        priors = anchors_as_priors(found[0])
        geometry = BatchGeometry(priors, boxes, labels, valid, prior_valid=taking_part)
        given = (geometry, Predictions(boxes=found, probabilities=scores), topk, *own)
        blocks = task_aligned_match(*given)
        pairs = task_aligned_match(*given, lambda box, other: box_iou(box[:, None], other))
        for name in ('gt_index', 'overlap', 'metric'):
            assert torch.equal(getattr(blocks, name), getattr(pairs, name)), case
        positives += int(blocks.positive_mask.sum())
    assert positives > 10


def test_boxes_that_touch_no_prediction() -> None:
    found = torch.tensor([[0.0, 0, 10, 10], [90, 90, 100, 100]])[None]
    boxes = torch.tensor(
        [[[40.0, 40, 50, 50], [5, 50, 95, 60]]]
    )  # the second touches the rectangle around them
    geometry = geometry_of(anchors_as_priors(found[0]), boxes)
    predictions = Predictions(boxes=found, probabilities=torch.ones(1, 2, 1))
    result = task_aligned_match(geometry, predictions)
    assert result.gt_index.tolist() == [[-1, -1]]
    assert result.overlap.tolist() == result.metric.tolist() == [[0, 0]]


def test_bad_options() -> None:
    for error in (ValueError, AssertionError):  # mmdet raises the latter
        with pytest.raises(error, match='topk must be at least 1, got 0'):
            TaskAlignedAssigner(topk=0)


def test_absent_priors_are_ignored_with_any_exponent() -> None:
    """With alpha 0, a score of 0 counts as 1."""
    boxes, labels = torch.tensor([[20.0, 20, 120, 120]]), torch.tensor([1])
    found, scores = predicted(4, boxes)
    assigner = TaskAlignedAssigner(topk=13)
    predictions = Predictions(boxes=found[None], probabilities=scores[None])
    batch = BatchGeometry.from_lists(anchors_as_priors(PRIORS, SIZES), [boxes], [labels])
    chosen = assigner.match(batch, predictions, alpha=0, beta=6).positive_mask
    assert chosen.any()
    batch = replace(batch, prior_valid=~chosen)
    result = assigner.match(batch, predictions, alpha=0, beta=6)
    assert (result.gt_index[chosen] == -2).all()
