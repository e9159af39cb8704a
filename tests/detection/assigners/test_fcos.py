"""FCOSAssigner against mmdet's FCOSHead, on random images and in edge cases."""

from __future__ import annotations

import pytest
import torch
from mmdet.models.dense_heads import FCOSHead
from mmdet.models.task_modules.prior_generators import MlvlPointGenerator
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.catalog.scenes import points_as_priors, pyramid_points, scene
from mmdet_ext.detection.assigners.fcos import FCOSAssigner
from mmdet_ext.functional.assignment.geometry import BatchGeometry

POINTS, SIZES = pyramid_points()
STRIDES = (8, 16, 32, 64, 128)
#: Ranges for which an image of 320 x 256 uses all levels.
RANGES = ((-1, 32), (32, 64), (64, 128), (128, 200), (200, 1e8))
MODES = [
    {'center_sampling': False},
    {'center_sampling': True},
    {'center_sampling': True, 'center_sample_radius': 0.8},
]


def geometry(boxes: list[Tensor], sizes: list[int] = SIZES, **more: object) -> BatchGeometry:
    labels = [torch.zeros(len(own), dtype=torch.int64) for own in boxes]
    return BatchGeometry.from_lists(points_as_priors(POINTS, sizes), boxes, labels, **more)


def mmdet_indices(boxes: Tensor, mode: dict[str, object]) -> Tensor:
    """Return the box that each point learns in mmdet's head, -1 for none."""
    # Each box is its own class, so that labels identify boxes.
    head = FCOSHead(
        len(boxes) or 1,
        1,
        feat_channels=1,
        norm_cfg=None,
        strides=STRIDES,
        regress_ranges=RANGES,
        **mode,
    )
    gt = InstanceData(bboxes=boxes, labels=torch.arange(len(boxes)))
    labels, _ = head.get_targets([level[:, :2] for level in POINTS.split(SIZES)], [gt])
    found = torch.cat(labels)
    return found.where(found < head.num_classes, -1)


def test_points_are_those_of_the_generator_of_mmdet() -> None:
    generator = MlvlPointGenerator(STRIDES)
    shapes = [(-(-256 // stride), -(-320 // stride)) for stride in STRIDES]
    theirs = generator.grid_priors(shapes, device='cpu', with_stride=True)
    assert torch.equal(torch.cat(theirs), POINTS)


@pytest.mark.slow
@pytest.mark.parametrize('mode', MODES, ids=str)
def test_indices_equal_mmdet_on_random_images(mode: dict[str, object]) -> None:
    assigner, assigned = FCOSAssigner(RANGES, **mode), 0
    for case in range(300):
        boxes, _ = scene(case)
        index = assigner.match(geometry([boxes])).gt_index[0]
        # They agree for equal areas too: both take the first box.
        assert torch.equal(index, mmdet_indices(boxes.float(), mode)), case
        assigned += int((index >= 0).sum())
    print(f'{assigned} points assigned')
    assert assigned > 10_000


def test_half_precision_areas_do_not_overflow() -> None:
    boxes = torch.tensor([[0.0, 0.0, 318.0, 254.0], [2.0, 2.0, 302.0, 242.0]]).half()
    index = FCOSAssigner(RANGES).match(geometry([boxes])).gt_index
    assert torch.equal(index, FCOSAssigner(RANGES).match(geometry([boxes.float()])).gt_index)
    assert (index == 1).sum() > (index == 0).sum() >= 0
    assert (boxes[:, 2] - boxes[:, 0]).mul(boxes[:, 3] - boxes[:, 1]).isinf().all()


def test_a_box_of_more_than_a_hundred_million_pixels_still_counts() -> None:
    boxes = torch.tensor([[-9000.0, -9000.0, 9000.0, 9000.0]])
    index = FCOSAssigner(RANGES).match(geometry([boxes])).gt_index[0]
    assert torch.equal(index >= 0, POINTS[:, 2] == 128)


def test_batch_and_call_of_mmdet_agree_with_levels_or_without() -> None:
    images = [scene(case)[0].float() for case in (3, 20, 12)]
    assigner = FCOSAssigner(RANGES, center_sampling=True)
    whole = assigner.match(geometry(images))
    for image, boxes in enumerate(images):
        pred = InstanceData(priors=POINTS)
        gt = InstanceData(bboxes=boxes, labels=torch.arange(len(boxes)))
        for levels in ([], [SIZES]):
            result = assigner.assign(pred, *levels, gt)
            assert torch.equal(result.gt_inds, whole.gt_index[image] + 1)
            assert torch.equal(result.max_overlaps, whole.overlap[image])


def test_permuting_boxes_permutes_indices() -> None:
    boxes = scene(4)[0].float()
    order = torch.randperm(len(boxes), generator=torch.Generator().manual_seed(0))
    assigner = FCOSAssigner(RANGES)
    plain, moved = (assigner.match(geometry([b])).gt_index for b in (boxes, boxes[order]))
    assert (plain >= 0).any()
    assert torch.equal(order[moved.clamp(min=0)].where(moved >= 0, moved), plain)


def test_absent_points_are_ignored_and_inputs_unchanged() -> None:
    boxes = scene(4)[0].float()
    present = torch.rand(1, len(POINTS), generator=torch.Generator().manual_seed(0)) < 0.5
    batch = geometry([boxes], prior_valid=present)
    kept = POINTS.clone(), batch.gt_boxes.clone(), present.clone()
    result = FCOSAssigner(RANGES).match(batch)
    assert torch.equal(result.ignore_mask, ~present)
    for tensor, before in zip((POINTS, batch.gt_boxes, present), kept, strict=True):
        assert torch.equal(tensor, before)


def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match=r'regress_ranges must be pairs .* got \(64, 64\)'):
        FCOSAssigner(((-1, 64), (64, 64)))
    with pytest.raises(ValueError, match='center_sample_radius must be above 0, got 0'):
        FCOSAssigner(center_sample_radius=0)
    with pytest.raises(ValueError, match='5 levels are expected, but level_sizes has 2'):
        FCOSAssigner().match(geometry([scene(4)[0]], [len(POINTS) - 7, 7]))
    with pytest.raises(TypeError, match="no option 'radius'"):
        FCOSAssigner(radius=1)
