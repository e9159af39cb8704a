"""Distance of Gaussians as an overlap measure, in mmdet's assigners and in ours."""

from __future__ import annotations

import math

import pytest
import torch
from mmdet.models.task_modules.assigners import BboxOverlaps2D, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from mmdet_ext.catalog.memory import peak_bytes
from mmdet_ext.catalog.scenes import scene
from mmdet_ext.catalog.synthetic import pyramid_anchors
from mmdet_ext.detection.assigners.atss import ATSSAssigner
from mmdet_ext.detection.assigners.iou_calculators import NWDCalculator
from mmdet_ext.functional.boxes.overlap import box_nwd
from mmdet_ext.functional.numerics import chunks
from tests._helpers.tolerances import assert_equal_but_rounding

PRIORS, SIZES = pyramid_anchors(96, 80, (8, 16, 32), scale=2)
NWD = {'type': 'mmdet_ext.NWDCalculator', 'constant': 20.0}


def slow_nwd(box: list[float], other: list[float], constant: float) -> float:
    """Compute the measure from centres and sides, as in the paper."""
    (x, y, w, h), (p, q, u, v) = (
        ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2, b[2] - b[0], b[3] - b[1]) for b in (box, other)
    )
    square = (x - p) ** 2 + (y - q) ** 2 + ((w - u) ** 2 + (h - v) ** 2) / 4
    return math.exp(-math.sqrt(square) / constant)


def test_all_pairs_equal_the_slow_reference() -> None:
    calculator = NWDCalculator()
    pairs = 0
    for case in range(40):
        boxes, others = scene(case, most=12)[0], scene(case + 100, most=12)[0]
        table = calculator(boxes, others)
        assert table.dtype == torch.float32
        expected = [
            [slow_nwd(one, other, 12.8) for other in others.tolist()] for one in boxes.tolist()
        ]
        expected = torch.tensor(expected).view(len(boxes), len(others))
        torch.testing.assert_close(table, expected, rtol=2e-4, atol=1e-7)
        pairs += table.numel()
    assert pairs > 1000


def test_aligned_pairs_are_the_diagonal_and_batches_the_stack() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes, others = (torch.rand(3, 7, 4, generator=generator) * 30 for _ in range(2))
    calculator = NWDCalculator()
    for mode in ('iou', 'iof'):
        table = calculator(boxes, others, mode)
        assert table.shape == (3, 7, 7)
        aligned = calculator(boxes, others, mode, is_aligned=True)
        assert_equal_but_rounding(aligned, table.diagonal(dim1=1, dim2=2))
        for image in range(3):
            assert_equal_but_rounding(calculator(boxes[image], others[image], mode), table[image])
    assert torch.equal(calculator(boxes, boxes, is_aligned=True), torch.ones(3, 7))
    assert torch.equal(calculator(boxes, others, is_aligned=True), box_nwd(boxes, others))


@pytest.mark.parametrize('is_aligned', [False, True])
def test_iof_equals_mmdet(is_aligned: bool) -> None:
    shared = 0
    for case in range(60):
        # Sides of at least a pixel, and boxes without area, whose share is 0 in both.
        boxes, others = scene(case)[0].float(), scene(case + 7)[0].float()
        if is_aligned:
            count = min(len(boxes), len(others))
            boxes, others = boxes[:count], others[:count]
        ours, theirs = (
            calculator(boxes, others, 'iof', is_aligned)
            for calculator in (NWDCalculator(), BboxOverlaps2D())
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
        shared += int((ours > 0).sum())
    assert shared > 100


def test_scores_box_types_and_half_precision() -> None:
    boxes, others = scene(2)[0], scene(3)[0]
    calculator = NWDCalculator()
    table = calculator(boxes, others)
    scored = torch.cat([boxes, torch.rand(len(boxes), 1)], 1)
    assert torch.equal(calculator(scored, others), table)
    assert torch.equal(calculator(HorizontalBoxes(boxes), HorizontalBoxes(others)), table)
    half = calculator(boxes.half(), others.half())
    assert half.dtype == torch.float32
    assert torch.equal(half, calculator(boxes.half().float(), others.half().float()))
    for mode in ('iou', 'iof'):
        for one, other in ((boxes[:0], others), (boxes, others[:0]), (boxes[:0], others[:0])):
            assert calculator(one, other, mode).shape == (len(one), len(other))
        assert calculator(boxes[:0], boxes[:0], mode, is_aligned=True).shape == (0,)


def test_an_assigner_of_mmdet_takes_it() -> None:
    config = {'pos_iou_thr': 0.6, 'neg_iou_thr': 0.4, 'min_pos_iou': 0.3, 'ignore_iof_thr': 0.5}
    assigner = MaxIoUAssigner(**config, iou_calculator=NWD)
    boxes = scene(12, width=96, height=80)[0]
    ignore = torch.tensor([[0.0, 0.0, 60.0, 30.0]])
    result = assigner.assign(
        InstanceData(priors=PRIORS),
        InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.int64)),
        InstanceData(bboxes=ignore),
    )
    assert (result.gt_inds > 0).any() and (result.gt_inds == 0).any()
    inside = BboxOverlaps2D()(PRIORS, ignore, 'iof')[:, 0] > 0.5
    assert inside.any() and (result.gt_inds[inside] == -1).all()
    best = box_nwd(boxes[:, None], PRIORS, 20.0).amax(0)
    torch.testing.assert_close(result.max_overlaps[~inside], best[~inside])
    assert (result.gt_inds[~inside & (best >= 0.6)] > 0).all()


def test_our_atss_takes_it_and_equals_mmdet() -> None:
    found = []
    boxes = scene(12, width=96, height=80)[0]
    gt = InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.int64))
    for assigner in (
        ATSSAssigner(4, iou_calculator=NWD),
        TASK_UTILS.build({'type': 'mmdet.ATSSAssigner', 'topk': 4, 'iou_calculator': NWD}),
    ):
        found.append(assigner.assign(InstanceData(priors=PRIORS), SIZES, gt))
    assert (found[0].gt_inds > 0).any()
    assert torch.equal(found[0].gt_inds, found[1].gt_inds)


@pytest.mark.slow
def test_memory_is_little_more_than_the_result() -> None:
    boxes = torch.rand(3000, 4, generator=torch.Generator().manual_seed(0)) * 100
    others = torch.rand(5000, 4, generator=torch.Generator().manual_seed(1)) * 100
    for mode in ('iou', 'iof'):
        peak = peak_bytes(lambda mode=mode: NWDCalculator()(boxes, others, mode))
        table = NWDCalculator()(boxes, others, mode)
        assert peak < table.numel() * 4 + 8 * chunks.TABLE_ELEMENTS * 4 < 2 * table.numel() * 4
        # Chunks of rows give the same as all rows at once.
        assert torch.equal(table[::500], NWDCalculator()(boxes[::500], others, mode))


def test_bad_options_and_arguments_are_named() -> None:
    boxes = torch.rand(3, 4)
    with pytest.raises(ValueError, match='constant must be above 0, got 0'):
        NWDCalculator(constant=0)
    with pytest.raises(ValueError, match="modes 'iou' and 'iof', got 'giou'"):
        NWDCalculator()(boxes, boxes, 'giou')
    with pytest.raises(ValueError, match=r'bboxes2 must be .* got \(3, 2\)'):
        NWDCalculator()(boxes, boxes[:, :2])
    with pytest.raises(ValueError, match=r'boxes of one shape, got \(3, 4\) and \(2, 4\)'):
        NWDCalculator()(boxes, boxes[:2], is_aligned=True)
    assert repr(NWDCalculator()) == 'NWDCalculator(constant=12.8)'
