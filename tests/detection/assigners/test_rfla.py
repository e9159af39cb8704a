"""RFLAAssigner on points, on anchors and in mmdet's call."""

from __future__ import annotations

import pytest
import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.catalog.scenes import points_as_priors, pyramid_points, scene
from mmdet_ext.detection.assigners.rfla import RFLAAssigner
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Priors
from mmdet_ext.functional.assignment.rfla import effective_fields, hierarchical_match
from mmdet_ext.functional.boxes.overlap import pairwise_box_iof
from tests._helpers.assigners import with_area

POINTS, SIZES = pyramid_points()
PRIORS = points_as_priors(POINTS, SIZES)
FIELD_PRIORS = effective_fields(PRIORS, (91, 267, 427, 555, 811))
FIELDS = FIELD_PRIORS.as_corners()


def geometry(boxes: list[Tensor], priors: Priors = PRIORS, **more: object) -> BatchGeometry:
    labels = [torch.zeros(len(own), dtype=torch.int64) for own in boxes]
    return BatchGeometry.from_lists(priors, boxes, labels, **more)


def test_points_and_the_corners_of_their_fields_are_assigned_alike() -> None:
    for case in range(30):
        boxes = with_area(*scene(case))[0]
        one = RFLAAssigner().match(geometry([boxes]))
        other = RFLAAssigner(receptive_fields=None).match(geometry([boxes], FIELD_PRIORS))
        rule = hierarchical_match(geometry([boxes], FIELD_PRIORS))
        for result in (one, other):
            assert torch.equal(result.gt_index, rule.gt_index)
            assert torch.equal(result.overlap, rule.overlap)


@pytest.mark.parametrize(
    'options',
    [
        {'topk': 5},
        {'topk_decayed': 4},
        {'decay': 0.5, 'topk': 1},
        {'distance': 'wasserstein'},
        {'shared': 'last'},
        {'ignore_thr': None},
        {'ignore_thr': 0.6},
    ],
    ids=str,
)
def test_each_option_reaches_the_rule_and_matters(options: dict[str, object]) -> None:
    boxes = scene(28)[0]
    boxes = torch.cat([boxes, scene(2)[0].float()])
    found = RFLAAssigner(**options).match(geometry([boxes]))
    rule = hierarchical_match(geometry([boxes], FIELD_PRIORS), **options)
    assert torch.equal(found.gt_index, rule.gt_index)
    assert not torch.equal(found.gt_index, RFLAAssigner().match(geometry([boxes])).gt_index)


def test_the_size_of_fields_reaches_the_rule() -> None:
    assigner = RFLAAssigner((35, 91, 267, 427, 555), fraction=1 / 3)
    sides = assigner.fields(PRIORS).as_corners()
    sides = sides[:, 2:] - sides[:, :2]
    torch.testing.assert_close(sides[0], torch.full((2,), 35 / 3))
    torch.testing.assert_close(sides[-1], torch.full((2,), 185.0))


def test_batch_and_call_of_mmdet_agree_with_levels_or_without() -> None:
    images = [scene(case)[0].float() for case in (3, 20, 12)]
    assigner = RFLAAssigner()
    whole = assigner.match(geometry(images))
    for image, boxes in enumerate(images):
        gt = InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.int64))
        for levels in ([], [SIZES]):
            result = assigner.assign(InstanceData(priors=POINTS), *levels, gt)
            assert torch.equal(result.gt_inds, whole.gt_index[image] + 1)
            assert torch.equal(result.max_overlaps, whole.overlap[image])


def test_half_precision_boxes_are_assigned_as_their_float32_values() -> None:
    boxes = scene(28)[0].half()
    one, other = (RFLAAssigner().match(geometry([b])) for b in (boxes, boxes.float()))
    assert torch.equal(one.gt_index, other.gt_index) and one.overlap.dtype == torch.float32


@pytest.mark.parametrize('receptive_fields', [None, (91, 267, 427, 555, 811)])
def test_absent_priors_empty_images_and_unchanged_inputs(
    receptive_fields: tuple[float, ...] | None,
) -> None:
    boxes = scene(28)[0]
    present = torch.rand(2, len(POINTS), generator=torch.Generator().manual_seed(0)) < 0.5
    priors = PRIORS if receptive_fields else FIELD_PRIORS
    batch = geometry([boxes, boxes[:0]], priors, prior_valid=present)
    kept = [tensor.clone() for tensor in (batch.priors.rows, batch.gt_boxes, present)]
    result = RFLAAssigner(receptive_fields).match(batch)
    assert result.ignore_mask[~present].all()
    assert result.positive_mask.any(1).tolist() == [True, False]
    assert (result.gt_index[1][present[1]] == -1).all()
    after = (batch.priors.rows, batch.gt_boxes, present)
    # The authors' code shrinks the priors that it gets.
    assert all(torch.equal(one, other) for one, other in zip(after, kept, strict=True))


def test_fields_in_ignore_regions_are_ignored() -> None:
    boxes, region = scene(28)[0], torch.tensor([[0.0, 0.0, 160.0, 256.0]])
    inside = pairwise_box_iof(FIELDS, region)[:, 0] > 0.7
    assert inside.any()
    batch = geometry([boxes], ignore_boxes=[region])
    result = RFLAAssigner(ignore_iof_thr=0.7).match(batch)
    assert result.ignore_mask[0, inside].all() and result.positive_mask.any()
    off = RFLAAssigner().match(batch)
    assert torch.equal(off.gt_index, RFLAAssigner().match(geometry([boxes])).gt_index)


def test_bad_options_and_levels_are_named() -> None:
    for options, message in (
        ({'topk': 0}, 'topk must be at least 1, got 0'),
        ({'topk_decayed': 0}, 'topk_decayed must be at least 1, got 0'),
        ({'fraction': 0}, 'fraction and receptive_fields must be above 0, got 0'),
        ({'receptive_fields': (5, 0)}, r'above 0, got 0.5 and \(5, 0\)'),
        ({'decay': 1.1}, 'decay must be above 0 and at most 1, got 1.1'),
        ({'distance': 'kld'}, "'kl' or 'wasserstein', got 'kld'"),
        ({'shared': 'first'}, "'nearest' or 'last', got 'first'"),
        ({'ignore_thr': 2}, r'ignore_thr must be None or in \[0, 1\], got 2'),
    ):
        with pytest.raises(ValueError, match=message):
            RFLAAssigner(**options)
    with pytest.raises(ValueError, match='2 levels are expected, but level_sizes has 5'):
        RFLAAssigner((91, 267)).match(geometry([scene(28)[0]]))
