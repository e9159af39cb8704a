"""CenterNetAssigner against mmdet's CenterNetHead."""

from __future__ import annotations

import pytest
import torch
from mmdet.models.dense_heads import CenterNetHead
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.catalog.scenes import points_as_priors, pyramid_points, scene
from mmdet_ext.detection.assigners.centernet import CenterNetAssigner
from mmdet_ext.functional.assignment.geometry import BatchGeometry
from tests._helpers.assigners import with_area

POINTS, SIZES = pyramid_points(strides=(4,))
PRIORS = points_as_priors(POINTS, SIZES)


def geometry(boxes: list[Tensor], labels: list[Tensor], **more: object) -> BatchGeometry:
    return BatchGeometry.from_lists(PRIORS, boxes, labels, **more)


def inner_scene(case: int) -> tuple[Tensor, Tensor]:
    """Draw boxes whose centres lie in the image, as mmdet needs them."""
    boxes, labels = with_area(*scene(case))
    boxes = boxes.float()
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((center > 0) & (center < torch.tensor([320.0, 256.0]))).all(1)
    return boxes[inside], labels[inside]


@pytest.mark.slow
def test_targets_equal_the_head_of_mmdet_on_random_images() -> None:
    head = CenterNetHead(1, 1, 7)
    assigner, positives = CenterNetAssigner(shared='last'), 0
    for first in range(0, 300, 3):
        images = [inner_scene(case) for case in range(first, first + 3)]
        boxes, labels = (list(part) for part in zip(*images, strict=True))
        theirs, _ = head.get_targets(boxes, labels, (3, 7, 64, 80), (256, 320))
        batch = geometry(boxes, labels)
        heatmaps = assigner.heatmaps(batch, 7)
        expected = theirs['center_heatmap_target']
        torch.testing.assert_close(heatmaps, expected, rtol=1e-6, atol=1e-6)
        result = assigner.match(batch)
        there = theirs['wh_offset_target_weight'][:, 0].flatten(1) == 1
        assert torch.equal(result.positive_mask, there)
        # Sides and offset of the centre identify the box of each cell.
        index = result.gt_index.clamp(min=0)[..., None].expand(-1, -1, 4)
        if batch.gt_boxes.shape[1] == 0:
            continue
        own = batch.gt_boxes.gather(1, index)[there]
        sides = theirs['wh_target'].flatten(2).transpose(1, 2)[there]
        offset = theirs['offset_target'].flatten(2).transpose(1, 2)[there]
        torch.testing.assert_close((own[:, 2:] - own[:, :2]) / 4, sides)
        center = (own[:, :2] + own[:, 2:]) / 8
        torch.testing.assert_close(center - center.floor(), offset)
        positives += int(there.sum())
    assert positives > 3000


def test_batch_and_call_of_mmdet_agree_with_levels_or_without() -> None:
    images = [scene(case) for case in (3, 20, 12)]
    boxes, labels = (list(part) for part in zip(*images, strict=True))
    assigner = CenterNetAssigner()
    whole = assigner.match(geometry(boxes, labels))
    for image in range(3):
        gt = InstanceData(bboxes=boxes[image], labels=labels[image])
        for levels in ([], [SIZES]):
            result = assigner.assign(InstanceData(priors=POINTS), *levels, gt)
            assert torch.equal(result.gt_inds, whole.gt_index[image] + 1)
            assert torch.equal(result.max_overlaps, whole.overlap[image])
            own = labels[image].gather(0, whole.gt_index[image].clamp(min=0))
            assert torch.equal(result.labels, own.where(whole.positive_mask[image], -1))


def test_half_precision_empty_images_and_absent_priors() -> None:
    boxes, labels = scene(28)
    assigner = CenterNetAssigner()
    half = geometry([boxes.half()], [labels])
    full = geometry([boxes.half().float()], [labels])
    assert torch.equal(assigner.match(half).gt_index, assigner.match(full).gt_index)
    assert torch.equal(assigner.heatmaps(half, 7), assigner.heatmaps(full, 7))
    assert assigner.heatmaps(half, 7).dtype == torch.float32

    present = torch.rand(2, len(POINTS), generator=torch.Generator().manual_seed(0)) < 0.5
    batch = geometry([boxes, boxes[:0]], [labels, labels[:0]], prior_valid=present)
    kept = [tensor.clone() for tensor in (POINTS, batch.gt_boxes, present)]
    result = assigner.match(batch)
    assert torch.equal(result.ignore_mask, ~present)
    assert result.positive_mask.any(1).tolist() == [True, False]
    heatmaps = assigner.heatmaps(batch, 7)
    assert heatmaps.flatten(1).any(1).tolist() == [True, False]
    after = (POINTS, batch.gt_boxes, present)
    assert all(torch.equal(one, other) for one, other in zip(after, kept, strict=True))


def test_a_larger_overlap_makes_smaller_peaks() -> None:
    batch = geometry(*([part] for part in scene(28)))
    areas = [(CenterNetAssigner(o).heatmaps(batch, 7) > 0).sum() for o in (0.1, 0.3, 0.7)]
    assert areas[0] > areas[1] > areas[2]


def test_bad_options_and_priors_are_named() -> None:
    with pytest.raises(ValueError, match='min_overlap must be above 0 and below 1, got 1'):
        CenterNetAssigner(min_overlap=1)
    with pytest.raises(ValueError, match="'smallest' or 'last', got 'first'"):
        CenterNetAssigner(shared='first')
    points, sizes = pyramid_points()
    boxes, labels = scene(28)
    with pytest.raises(ValueError, match='priors must be the points .* of one level'):
        CenterNetAssigner().match(
            BatchGeometry.from_lists(points_as_priors(points, sizes), [boxes], [labels])
        )
