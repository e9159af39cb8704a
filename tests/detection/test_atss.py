"""ATSSAssigner against stock's, on random pictures and on the edges."""

from __future__ import annotations

import warnings

import pytest
import torch
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.assigners import ATSSAssigner as StockATSSAssigner
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.detection.assigners import ATSSAssigner
from mmdet_ext.functional.boxes import box_centers, box_iou
from mmdet_ext.functional.matching import nearest_priors
from mmdet_ext.structures import Assignment, BatchGeometry, Predictions
from mmdet_ext.testing.synthetic import pyramid_anchors, random_boxes

PRIORS, SIZES = pyramid_anchors()
TOPK = 9


def call(assigner: object, boxes: Tensor, **more: object) -> AssignResult:
    labels = torch.arange(len(boxes)) % 7
    pred = InstanceData(priors=PRIORS, **{k: v for k, v in more.items() if k != 'ignore'})
    ignore = more.get('ignore')
    gt_ignore = None if ignore is None else InstanceData(bboxes=ignore)
    return assigner.assign(pred, SIZES, InstanceData(bboxes=boxes, labels=labels), gt_ignore)


def scene(case: int) -> Tensor:
    """0 to 300 boxes: usual, tiny, giant, crowded, repeated, on whole pixels, outside."""
    generator = torch.Generator().manual_seed(case)
    count = int(torch.randint(301, (), generator=generator)) if case % 10 else case // 10 % 4
    low, high = ((4, 200), (1, 8), (150, 900), (20, 30))[case % 4]
    boxes = random_boxes(generator, count, 320, 256, low, high)
    kind = case % 7
    if kind == 1:
        boxes = boxes.round()
    elif kind == 2:
        boxes = boxes[torch.arange(count) // 3]  # each box three times
    elif kind == 3:
        boxes = boxes + torch.tensor([400.0, -300.0, 400.0, -300.0]) * (case % 2)
    elif kind == 4:
        boxes = boxes * 0.2 + 100  # a crowd in one corner
    return boxes


def tied_boxes(boxes: Tensor) -> Tensor:
    """Boxes for which the rule itself leaves a choice, by float64.

    That is: the last candidate of a level is as near as the first one left out, or a candidate's
    overlap stands on the threshold (to 1e-6), where rounding decides.
    """
    centers, points = box_centers(PRIORS).double(), box_centers(boxes).double()
    tied = torch.zeros(len(boxes), dtype=torch.bool)
    for level in centers.split(SIZES):
        if len(level) > TOPK:
            gap = (points[:, None] - level).square().sum(-1).sort(1).values
            tied |= (gap[:, TOPK] - gap[:, TOPK - 1]) <= 1e-5 * gap[:, TOPK]
    candidate = nearest_priors(points, centers, SIZES, TOPK)
    overlap = box_iou(PRIORS.double()[candidate], boxes.double()[:, None])
    threshold = overlap.mean(1) + overlap.std(1)
    return tied | ((overlap - threshold[:, None]).abs() <= 1e-6).any(1)


def test_indices_equal_stocks_on_a_thousand_pictures_ties_apart() -> None:
    ours, stock = ATSSAssigner(topk=TOPK), StockATSSAssigner(topk=TOPK)
    assigned = differing = 0
    for case in range(1000):
        boxes = scene(case)
        one, other = call(ours, boxes), call(stock, boxes)
        assigned += int((other.gt_inds > 0).sum())
        place = (one.gt_inds != other.gt_inds).nonzero().flatten()
        if len(place) == 0:
            assert torch.equal(one.labels, other.labels)
            torch.testing.assert_close(one.max_overlaps, other.max_overlaps, rtol=1e-6, atol=0)
            continue
        differing += len(place)
        tied = torch.cat([torch.tensor([False]), tied_boxes(boxes)])
        same_overlap = (one.max_overlaps - other.max_overlaps)[place].abs() <= 1e-6
        explained = tied[one.gt_inds[place]] | tied[other.gt_inds[place]] | same_overlap
        assert explained.all(), f'picture {case}: priors {place[~explained].tolist()} differ untied'
    print(f'{differing} of {assigned} assigned priors differ, each tied')
    assert assigned > 200_000
    assert differing < 0.01 * assigned


def test_ties_are_seen_as_ties_and_nothing_else_is() -> None:
    symmetric = torch.tensor([[60.0, 60.0, 100.0, 100.0]])  # its centre is a prior's
    ordinary = torch.tensor([[61.3, 57.9, 103.1, 99.4]])
    assert tied_boxes(symmetric).all() and not tied_boxes(ordinary).any()


def test_ignore_regions_as_stock() -> None:
    generator = torch.Generator().manual_seed(5)
    ours = ATSSAssigner(topk=TOPK, ignore_iof_thr=0.4)
    stock = StockATSSAssigner(topk=TOPK, ignore_iof_thr=0.4)
    ignored = 0
    for _ in range(20):
        # Small regions, so that every level keeps enough priors that are not ignored.
        boxes, ignore = random_boxes(generator, 8), random_boxes(generator, 2, max_side=160)
        one, other = call(ours, boxes, ignore=ignore), call(stock, boxes, ignore=ignore)
        tied = torch.cat([torch.tensor([False]), tied_boxes(boxes)])
        differ = one.gt_inds != other.gt_inds
        assert not (differ & ~tied[one.gt_inds.clamp(min=0)]).any()
        ignored += int((other.gt_inds == -1).sum())
    assert ignored > 200
    everything = torch.tensor([[-600.0, -600.0, 900.0, 900.0]])
    assert (call(ours, boxes[:0], ignore=everything).gt_inds == -1).all()
    assert (call(stock, boxes[:0], ignore=everything).gt_inds == 0).all()
    off = ATSSAssigner(topk=TOPK)
    assert torch.equal(call(off, boxes, ignore=ignore).gt_inds, call(off, boxes).gt_inds)


@pytest.mark.parametrize('alpha', [0.0, 0.5, 0.8])
def test_dynamic_cost_form_as_stock(alpha: float) -> None:
    generator = torch.Generator().manual_seed(6)
    ours, stock = ATSSAssigner(topk=TOPK, alpha=alpha), StockATSSAssigner(topk=TOPK, alpha=alpha)
    total = 0
    for _ in range(20):
        boxes = random_boxes(generator, 15)
        scores = torch.randn(len(PRIORS), 7, generator=generator)
        predicted = PRIORS + torch.randn(len(PRIORS), 4, generator=generator) * 4
        one = call(ours, boxes, scores=scores, bboxes=predicted)
        other = call(stock, boxes, scores=scores, bboxes=predicted)
        assert torch.equal(one.gt_inds, other.gt_inds)
        torch.testing.assert_close(one.max_overlaps, other.max_overlaps)
        total += int((one.gt_inds > 0).sum())
    assert total > 500


def test_dynamic_cost_form_says_what_it_lacks() -> None:
    with pytest.raises(ValueError, match='needs the head to give scores and boxes'):
        call(ATSSAssigner(topk=TOPK, alpha=0.8), random_boxes(torch.Generator(), 3))
    with pytest.warns(UserWarning, match='alpha is None'):
        call(ATSSAssigner(topk=TOPK), PRIORS[:2], scores=torch.zeros(len(PRIORS), 7))


def test_another_overlap_measure() -> None:
    boxes = random_boxes(torch.Generator().manual_seed(7), 20)
    config = {'type': 'mmdet.BboxOverlaps2D'}
    named = ATSSAssigner(topk=TOPK, iou_calculator=config)
    assert torch.equal(call(named, boxes).gt_inds, call(ATSSAssigner(topk=TOPK), boxes).gt_inds)
    ours, stock = ATSSAssigner(topk=TOPK, iou_calculator=config), StockATSSAssigner(topk=TOPK)

    def squared(one: Tensor, other: Tensor, is_aligned: bool = False) -> Tensor:
        """Tells itself from the IoU by its values."""
        return bbox_overlaps(one, other, is_aligned=is_aligned).square()

    ours.iou_calculator = stock.iou_calculator = squared
    one, other = call(ours, boxes), call(stock, boxes)
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


def test_nothing_is_computed_with_a_graph_or_warned_of() -> None:
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
            PRIORS, SIZES, boxes[images], labels[images], ignored[images]
        )
        predictions = Predictions(scores[images], predicted[images]) if 'alpha' in options else None
        return ATSSAssigner(topk=TOPK, **options).match(geometry, predictions)

    whole = match(slice(0, 3))
    assert whole.ignore_mask.any() == ('ignore_iof_thr' in options)
    for image in range(3):
        alone = match(slice(image, image + 1))
        assert torch.equal(whole.gt_index[image], alone.gt_index[0])
        torch.testing.assert_close(whole.overlap[image], alone.overlap[0], rtol=1e-6, atol=0)
