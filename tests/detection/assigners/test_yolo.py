"""The YOLO assigners on mmdet's priors, with predictions and without."""

from __future__ import annotations

import pytest
import torch
from mmdet.models.dense_heads import YOLOV3Head
from mmdet.models.task_modules.assigners import GridAssigner
from mmdet.models.task_modules.prior_generators import YOLOAnchorGenerator
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.catalog.memory import peak_bytes
from mmdet_ext.catalog.scenes import YOLO_SIDES, cells_as_priors, scene, yolo_anchors
from mmdet_ext.detection.assigners.yolo import YOLOv3Assigner, YOLOv4Assigner, YOLOv5Assigner
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.boxes.overlap import box_iou

PRIORS, SIZES = yolo_anchors()
ASSIGNERS = [YOLOv3Assigner, YOLOv4Assigner, YOLOv5Assigner]
IGNORING = ASSIGNERS[:2]


def geometry(boxes: list[Tensor], **more: object) -> BatchGeometry:
    labels = [torch.zeros(len(own), dtype=torch.int64) for own in boxes]
    return BatchGeometry.from_lists(cells_as_priors(PRIORS, SIZES), boxes, labels, **more)


def predicted(images: int, seed: int = 0) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    return Predictions(boxes=PRIORS + torch.randn(images, len(PRIORS), 4, generator=generator) * 6)


def test_priors_are_those_of_the_generator_of_mmdet() -> None:
    sides = [list(level) for level in YOLO_SIDES.values()]
    generator = YOLOAnchorGenerator(list(YOLO_SIDES), sides)
    shapes = [(256 // stride, 320 // stride) for stride in YOLO_SIDES]
    assert torch.equal(torch.cat(generator.grid_priors(shapes, device='cpu')), PRIORS)


@pytest.mark.parametrize('kind', IGNORING)
def test_overlapping_predictions_are_ignored_and_nothing_else_is(kind: type) -> None:
    ignored = 0
    for case in range(60):
        boxes = scene(case)[0]
        predictions = predicted(1, case)
        result = kind(ignore_iou_thr=0.4).match(geometry([boxes]), predictions)
        best = torch.zeros(len(PRIORS))
        for box in boxes.float():
            best = torch.maximum(best, box_iou(predictions.boxes[0], box))
        expected = (best > 0.4) & ~result.positive_mask[0]
        assert torch.equal(result.ignore_mask[0], expected)
        # The box of a prior does not depend on the predictions.
        alone = kind(ignore_iou_thr=1).match(geometry([boxes]), predictions)
        assert torch.equal(alone.positive_mask, result.positive_mask)
        assert not alone.ignore_mask.any()
        ignored += int(result.ignore_mask.sum())
    assert ignored > 200


@pytest.mark.slow
def test_ignoring_by_priors_equals_the_grid_assigner_of_mmdet() -> None:
    theirs = GridAssigner(pos_iou_thr=0.5, neg_iou_thr=0.5)
    ours, ignored = YOLOv3Assigner(ignore_by='prior'), 0
    head = YOLOV3Head(
        7,
        (1, 1, 1),
        (1, 1, 1),
        anchor_generator={
            'type': 'YOLOAnchorGenerator',
            'strides': list(YOLO_SIDES),
            'base_sizes': [list(sides) for sides in YOLO_SIDES.values()],
        },
    )
    shapes = [(256 // stride, 320 // stride) for stride in YOLO_SIDES]
    for case in range(120):
        boxes = scene(case)[0].float()
        center = (boxes[:, :2] + boxes[:, 2:]) / 2
        # In mmdet, a centre outside the image falls into a cell of another row.
        boxes = boxes[((center > 0) & (center < torch.tensor([320.0, 256.0]))).all(1)]
        flags = torch.cat(head.responsible_flags(shapes, boxes, 'cpu'))
        gt = InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.int64))
        pred = InstanceData(priors=PRIORS, responsible_flags=flags)
        other = theirs.assign(pred, gt).gt_inds
        one = ours.assign(pred, gt).gt_inds
        either = (one > 0) | (other > 0)
        assert torch.equal(one[~either], other[~either])
        # Priors with a box lie in a responsible cell, by either assigner.
        assert flags[one > 0].all() and flags[other > 0].all()
        ignored += int((one == -1).sum())
    assert ignored > 200


@pytest.mark.parametrize('kind', ASSIGNERS)
def test_batch_and_call_of_mmdet_agree_with_levels_or_without(kind: type) -> None:
    images = [scene(case)[0].float() for case in (3, 20, 12)]
    predictions, assigner = predicted(3), kind()
    whole = assigner.match(geometry(images), predictions)
    for image, boxes in enumerate(images):
        pred = InstanceData(priors=PRIORS, bboxes=predictions.boxes[image])
        gt = InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.int64))
        for levels in ([], [SIZES]):
            result = assigner.assign(pred, *levels, gt)
            assert torch.equal(result.gt_inds, whole.gt_index[image] + 1)
            assert torch.equal(result.max_overlaps, whole.overlap[image])


@pytest.mark.parametrize('kind', ASSIGNERS)
def test_half_precision_boxes_are_assigned_as_their_float32_values(kind: type) -> None:
    boxes = scene(28)[0].half()
    half = Predictions(boxes=predicted(1).boxes.half())
    full = Predictions(boxes=half.boxes.float())
    one = kind().match(geometry([boxes]), half)
    other = kind().match(geometry([boxes.float()]), full)
    assert torch.equal(one.gt_index, other.gt_index)
    assert one.overlap.dtype == torch.float32


@pytest.mark.parametrize('kind', ASSIGNERS)
def test_empty_images_absent_priors_and_unchanged_inputs(kind: type) -> None:
    boxes, predictions = scene(28)[0], predicted(2)
    present = torch.rand(2, len(PRIORS), generator=torch.Generator().manual_seed(0)) < 0.5
    batch = geometry([boxes, boxes[:0]], prior_valid=present)
    kept = [t.clone() for t in (PRIORS, batch.gt_boxes, present, predictions.boxes)]
    result: Assignment = kind().match(batch, predictions)
    assert result.ignore_mask[~present].all()
    assert torch.equal(result.ignore_mask[1], ~present[1])
    assert not result.positive_mask[1].any() and result.positive_mask[0].any()
    after = (PRIORS, batch.gt_boxes, present, predictions.boxes)
    assert all(torch.equal(one, other) for one, other in zip(after, kept, strict=True))
    nothing = kind().match(geometry([boxes[:0], boxes[:0]]), predictions)
    assert (nothing.gt_index == -1).all() and (nothing.overlap == 0).all()


def test_v4_has_the_priors_of_v3_and_more_for_a_single_box() -> None:
    box = scene(28)[0][:1]
    three, four = (
        kind(ignore_by='prior').match(geometry([box])).positive_mask for kind in IGNORING
    )
    assert (three & ~four).sum() == 0 and four.sum() > three.sum() == 1


@pytest.mark.parametrize('kind', ASSIGNERS)
def test_many_boxes_take_bounded_memory(kind: type) -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(3000, 2, generator=generator) * 300
    boxes = torch.cat([corner, corner + 1 + 60 * torch.rand(3000, 2, generator=generator)], 1)
    batch, predictions = geometry([boxes]), predicted(1)
    assert 3000 * len(PRIORS) * 4 > 60e6  # what one table of all pairs would take
    assert peak_bytes(lambda: kind().match(batch, predictions)) < 20e6


def test_missing_predictions_and_bad_options_are_named() -> None:
    batch = geometry([scene(28)[0]])
    for kind in IGNORING:
        message = f"{kind.__name__} goes by what the head predicts.* ignore_by='prior'"
        with pytest.raises(ValueError, match=message):
            kind().match(batch)
        with pytest.raises(ValueError, match=r'ignore_iou_thr must be in \[0, 1\], got 1.5'):
            kind(ignore_iou_thr=1.5)
        with pytest.raises(ValueError, match="'prediction' or 'prior', got 'boxes'"):
            kind(ignore_by='boxes')
    with pytest.raises(ValueError, match=r'iou_thr must be in \[0, 1\], got -1'):
        YOLOv4Assigner(iou_thr=-1)
    with pytest.raises(ValueError, match='ratio_thr must be above 1, got 0.25'):
        YOLOv5Assigner(ratio_thr=0.25)
    assert YOLOv5Assigner().match(batch).positive_mask.any()


@pytest.mark.parametrize('kind', ASSIGNERS)
def test_cells_in_bfloat16_are_found_or_the_dtype_is_named(kind: type) -> None:
    boxes = torch.tensor([[20.0, 20, 60, 50]])
    assigner = kind() if kind is YOLOv5Assigner else kind(ignore_by='prior')

    def match(priors: Tensor, sizes: list[int]) -> Tensor:
        batch = BatchGeometry.from_lists(
            cells_as_priors(priors, sizes), [boxes], [torch.tensor([0])]
        )
        return assigner.match(batch).gt_index

    small, small_sizes = yolo_anchors(64, 64)
    small, small_sizes = small[-192:], small_sizes[-1:]  # all of its corners are exact
    assert torch.equal(small.bfloat16().float(), small)
    assert torch.equal(match(small.bfloat16(), small_sizes), match(small, small_sizes))
    large, sizes = yolo_anchors(640, 640)
    with pytest.raises(ValueError, match='do not form cells: level 0 .* give priors in float32'):
        match(large.bfloat16(), sizes)
    assert (match(large.half(), sizes) >= 0).any()
