"""ATSSAssigner against mmdet's, on random images and in edge cases."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import pytest
import torch
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.assigners import ATSSAssigner as MMDetATSSAssigner
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.catalog.synthetic import anchors_as_priors, pyramid_anchors, random_boxes
from mmdet_ext.detection.assigners import ATSSAssigner
from mmdet_ext.functional.assignment import atss
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.boxes.overlap import box_centers, box_iou
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
TOPK = 9


def call(assigner: object, boxes: Tensor, **more: object) -> AssignResult:
    labels = torch.arange(len(boxes)) % 7
    pred = InstanceData(priors=PRIORS, **{k: v for k, v in more.items() if k != 'ignore'})
    ignore = more.get('ignore')
    gt_ignore = None if ignore is None else InstanceData(bboxes=ignore)
    return assigner.assign(pred, SIZES, InstanceData(bboxes=boxes, labels=labels), gt_ignore)


class Exact(NamedTuple):
    """Outcomes of the rule for boxes (G,) and priors (P,) that rounding to float32 allows."""

    claims: Claims
    overlap: Bounds
    open: Tensor  # (G,) bool: a candidate is as near as a prior that is none


def exact(boxes: Tensor, ignored: Tensor | None = None) -> Exact:
    """Compute the rule in float64, for all pairs of box and prior."""
    centers = box_centers(PRIORS)
    gap = (box_centers(boxes)[:, None].double() - centers.double()).square().sum(-1)
    if ignored is not None:
        gap = gap.masked_fill(ignored, 1e16)
    near = [smallest(bounds(part, 8 * ROUNDING * part), TOPK, TOPK) for part in gap.split(SIZES, 1)]
    sure, possible = (torch.cat(parts, 1) for parts in zip(*near, strict=True))
    undecided = (sure != possible).any(1)
    overlap = box_iou(PRIORS.double(), boxes[:, None].double())
    number = sum(min(TOPK, size) for size in SIZES)
    # Thresholds of the boxes whose candidates are beyond doubt; others may have several.
    candidates = overlap[~undecided][sure[~undecided]].view(-1, number)
    threshold = overlap.new_zeros(len(boxes))
    if len(candidates):
        threshold[~undecided] = candidates.mean(1) + candidates.std(1)
    threshold = bounds(threshold, 32 * ROUNDING * threshold)
    least, most = bounds(overlap, IOU_ROUNDING * overlap)
    inside = torch.cat([centers - boxes[:, None, :2], boxes[:, None, 2:] - centers], -1).amin(-1)
    inside = inside > 0.01  # computed in float32, as in the rule
    sure = sure & inside & ~undecided[:, None] & (least >= threshold.most[:, None])
    possible = possible & inside & (most >= threshold.least[:, None])
    return Exact(Claims(sure, possible), Bounds(-most, -least), undecided)


def untied(boxes: Tensor, result: AssignResult, ignored: Tensor | None = None) -> list[int]:
    """List the priors whose assignment no rounding explains."""
    rule = exact(boxes.float(), ignored)
    right = follows_claims(result.gt_inds.clamp(min=0), rule.claims, rule.overlap, of_all=False)
    return (~right).nonzero().flatten().tolist()


@pytest.mark.slow
def test_indices_equal_mmdet_on_a_thousand_images_except_ties() -> None:
    ours, theirs = ATSSAssigner(topk=TOPK), MMDetATSSAssigner(topk=TOPK)
    assigned = differing = 0
    for case in range(1000):
        boxes, _ = crowded_scene(case)
        one, other = call(ours, boxes), call(theirs, boxes.float())
        assigned += int((other.gt_inds > 0).sum())
        same = one.gt_inds == other.gt_inds
        assert torch.equal(one.labels[same], other.labels[same])
        torch.testing.assert_close(
            one.max_overlaps[same], other.max_overlaps[same], rtol=1e-6, atol=0
        )
        if not same.all():
            differing += int((~same).sum())
            for whose, result in (('mmdet', other), ('ours', one)):
                wrong = untied(boxes, result)
                assert not wrong, f'image {case}: the choice of priors {wrong} by {whose} is no tie'
    print(f'{differing} of {assigned} assigned priors differ, each tied')
    assert assigned > 50_000
    assert differing < 0.01 * assigned


@pytest.mark.slow
def test_a_threshold_that_is_wrong_by_a_hundredth_is_no_tie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The check of ties detects errors that are larger than rounding."""
    right, ours = atss._mean_and_spread, ATSSAssigner(topk=TOPK)

    def wrong(quality: Tensor, valid: Tensor | None) -> Tensor:
        return right(quality, valid) * 1.01

    seen = 0
    for case in range(100):
        boxes, _ = crowded_scene(case)
        assert not untied(boxes, call(ours, boxes)), case
        with monkeypatch.context() as patch:
            patch.setattr(atss, '_mean_and_spread', wrong)
            seen += bool(untied(boxes, call(ours, boxes)))
    print(f'a wrong threshold shows in {seen} images')
    assert seen >= 5


def test_only_ties_count_as_ties() -> None:
    symmetric = torch.tensor([[60.0, 60.0, 100.0, 100.0]])  # its centre is a prior's
    ordinary = torch.tensor([[61.3, 57.9, 103.1, 99.4]])
    assert exact(symmetric).open.all() and not exact(ordinary).open.any()


def test_ignore_regions_as_mmdet() -> None:
    generator = torch.Generator().manual_seed(5)
    ours = ATSSAssigner(topk=TOPK, ignore_iof_thr=0.4)
    theirs = MMDetATSSAssigner(topk=TOPK, ignore_iof_thr=0.4)
    ignored = 0
    for _ in range(20):
        # Small regions, so that every level keeps enough priors that are not ignored.
        boxes, ignore = random_boxes(generator, 8), random_boxes(generator, 2, max_side=160)
        one, other = call(ours, boxes, ignore=ignore), call(theirs, boxes, ignore=ignore)
        assert torch.equal(one.gt_inds == -1, other.gt_inds == -1)
        if not torch.equal(one.gt_inds, other.gt_inds):
            mask = bbox_overlaps(PRIORS, ignore, mode='iof').amax(1) > 0.4
            assert not untied(boxes, one, mask) and not untied(boxes, other, mask)
        ignored += int((other.gt_inds == -1).sum())
    assert ignored > 200
    everything = torch.tensor([[-600.0, -600.0, 900.0, 900.0]])
    assert (call(ours, boxes[:0], ignore=everything).gt_inds == -1).all()
    assert (call(theirs, boxes[:0], ignore=everything).gt_inds == 0).all()
    off = ATSSAssigner(topk=TOPK)
    assert torch.equal(call(off, boxes, ignore=ignore).gt_inds, call(off, boxes).gt_inds)


@pytest.mark.parametrize('alpha', [0.0, 0.5, 0.8])
def test_dynamic_cost_form_as_mmdet(alpha: float) -> None:
    generator = torch.Generator().manual_seed(6)
    ours, theirs = ATSSAssigner(topk=TOPK, alpha=alpha), MMDetATSSAssigner(topk=TOPK, alpha=alpha)
    total = 0
    for _ in range(20):
        boxes = random_boxes(generator, 15)
        scores = torch.randn(len(PRIORS), 7, generator=generator)
        predicted = PRIORS + torch.randn(len(PRIORS), 4, generator=generator) * 4
        one = call(ours, boxes, scores=scores, bboxes=predicted)
        other = call(theirs, boxes, scores=scores, bboxes=predicted)
        assert torch.equal(one.gt_inds, other.gt_inds)
        torch.testing.assert_close(one.max_overlaps, other.max_overlaps)
        total += int((one.gt_inds > 0).sum())
    assert total > 500


def test_dynamic_cost_form_names_missing_predictions() -> None:
    with pytest.raises(ValueError, match='needs the head to give scores and boxes'):
        call(ATSSAssigner(topk=TOPK, alpha=0.8), random_boxes(torch.Generator(), 3))
    with pytest.warns(UserWarning, match='alpha is None'):
        call(ATSSAssigner(topk=TOPK), PRIORS[:2], scores=torch.zeros(len(PRIORS), 7))


def test_other_overlap_measures_as_mmdet() -> None:
    boxes = random_boxes(torch.Generator().manual_seed(7), 20)
    config = {'type': 'mmdet.BboxOverlaps2D'}
    named = ATSSAssigner(topk=TOPK, iou_calculator=config)
    assert torch.equal(call(named, boxes).gt_inds, call(ATSSAssigner(topk=TOPK), boxes).gt_inds)
    ours, theirs = ATSSAssigner(topk=TOPK, iou_calculator=config), MMDetATSSAssigner(topk=TOPK)

    def squared(one: Tensor, other: Tensor, is_aligned: bool = False) -> Tensor:
        """Measure the square of the IoU, which differs from the IoU."""
        return bbox_overlaps(one, other, is_aligned=is_aligned).square()

    ours.iou_calculator = theirs.iou_calculator = squared
    one, other = call(ours, boxes), call(theirs, boxes)
    assert torch.equal(one.gt_inds, other.gt_inds)
    torch.testing.assert_close(one.max_overlaps, other.max_overlaps)
    plain = call(named, boxes).max_overlaps
    both = (one.max_overlaps > 0) & (plain > 0)
    torch.testing.assert_close(one.max_overlaps[both], plain[both].square())


def test_half_precision_boxes_are_assigned_as_their_float32_values() -> None:
    boxes = random_boxes(torch.Generator().manual_seed(8), 40).half()
    ours = ATSSAssigner(topk=TOPK)
    assert torch.equal(call(ours, boxes).gt_inds, call(ours, boxes.float()).gt_inds)


def test_options_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match='topk must be at least 1, got 0'):
        ATSSAssigner(topk=0)
    with pytest.raises(ValueError, match=r'alpha must be None or in \[0, 1\], got 1.5'):
        ATSSAssigner(topk=9, alpha=1.5)
    with pytest.raises(TypeError, match="no option 'top_k'; did you mean 'topk'"):
        ATSSAssigner(top_k=9)


def test_no_gradient_graph_and_no_warning() -> None:
    boxes = random_boxes(torch.Generator().manual_seed(9), 4).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        result = call(ATSSAssigner(topk=TOPK), boxes)
    assert not result.max_overlaps.requires_grad


@pytest.mark.parametrize('options', [{'alpha': 0.8}, {'ignore_iof_thr': 0.4}], ids=str)
def test_batch_is_the_stack_with_predictions_and_ignore_regions(options: dict[str, float]) -> None:
    generator = torch.Generator().manual_seed(10)
    counts = (7, 0, 12)
    boxes = [random_boxes(generator, count) for count in counts]
    labels = [torch.randint(5, (count,), generator=generator) for count in counts]
    ignored = [random_boxes(generator, count, max_side=160) for count in (2, 1, 0)]
    scores = torch.randn(3, len(PRIORS), 5, generator=generator)
    predicted = PRIORS + torch.randn(3, len(PRIORS), 4, generator=generator) * 4

    def match(images: slice) -> Assignment:
        geometry = BatchGeometry.from_lists(
            anchors_as_priors(PRIORS, SIZES), boxes[images], labels[images], ignored[images]
        )
        predictions = None
        if 'alpha' in options:
            predictions = Predictions(boxes=predicted[images], logits=scores[images])
        return ATSSAssigner(topk=TOPK, **options).match(geometry, predictions)

    whole = match(slice(0, 3))
    assert whole.ignore_mask.any() == ('ignore_iof_thr' in options)
    for image in range(3):
        alone = match(slice(image, image + 1))
        assert torch.equal(whole.gt_index[image], alone.gt_index[0])
        torch.testing.assert_close(whole.overlap[image], alone.overlap[0], rtol=1e-6, atol=0)


def test_a_single_candidate_is_positive_where_the_deviation_of_mmdet_is_nan() -> None:
    priors, sizes = pyramid_anchors(strides=(16,))
    box = torch.tensor([[20.0, 20, 80, 80]])
    gt = InstanceData(bboxes=box, labels=torch.tensor([0]))
    one, other = (
        cls(topk=1).assign(InstanceData(priors=priors), sizes, gt)
        for cls in (ATSSAssigner, MMDetATSSAssigner)
    )
    (place,) = (one.gt_inds > 0).nonzero(as_tuple=True)
    center = (priors[place, :2] + priors[place, 2:]) / 2
    assert len(place) == 1 and (center - 50).abs().max() <= 8
    assert (other.gt_inds == 0).all()
