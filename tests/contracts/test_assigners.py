"""What every registered assigner does, whatever its rule."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData

from mmdet_ext.detection.assigners import BatchAssigner
from mmdet_ext.functional import matching
from mmdet_ext.structures import Assignment, BatchGeometry
from mmdet_ext.testing.cases import ASSIGNERS, AssignerCase
from mmdet_ext.testing.synthetic import random_geometry

pytestmark = pytest.mark.parametrize('case', ASSIGNERS, ids=lambda case: case.name)

COUNTS = (5, 0, 17, 1)


def build(case: AssignerCase, scope: str = 'mmdet_ext') -> BatchAssigner:
    return TASK_UTILS.build({'type': f'{scope}.{case.name}', **case.options})


def geometry(counts: tuple[int, ...] = COUNTS, seed: int = 0) -> BatchGeometry:
    return random_geometry(torch.Generator().manual_seed(seed), counts)


def single(batch: BatchGeometry, image: int) -> BatchGeometry:
    valid = batch.gt_valid[image]
    return BatchGeometry.from_lists(
        batch.priors,
        batch.level_sizes,
        [batch.gt_boxes[image][valid]],
        [batch.gt_labels[image][valid]],
    )


def assert_same(one: Assignment, other: Assignment) -> None:
    assert torch.equal(one.gt_index, other.gt_index)
    assert torch.equal(one.overlap, other.overlap)


def test_a_batch_is_the_stack_of_its_images(case: AssignerCase) -> None:
    assigner, batch = build(case), geometry()
    whole = assigner.match(batch)
    assert (whole.positive_mask.sum(1) > 0).tolist() == [count > 0 for count in COUNTS]
    for image in range(len(COUNTS)):
        alone = assigner.match(single(batch, image))
        assert torch.equal(whole.gt_index[image], alone.gt_index[0])
        assert torch.equal(whole.overlap[image], alone.overlap[0])


def test_padding_changes_nothing_whatever_stands_in_it(case: AssignerCase) -> None:
    assigner, batch = build(case), geometry()
    junk = torch.tensor([0.0, 0.0, 320.0, 256.0]).expand(len(COUNTS), 6, 4)
    padded = BatchGeometry(
        batch.priors,
        batch.level_sizes,
        torch.cat([batch.gt_boxes, junk], 1),
        torch.cat([batch.gt_labels, torch.full((len(COUNTS), 6), 3)], 1),
        torch.cat([batch.gt_valid, torch.zeros(len(COUNTS), 6, dtype=torch.bool)], 1),
    )
    assert_same(assigner.match(padded), assigner.match(batch))


def test_permuting_boxes_permutes_indices(case: AssignerCase) -> None:
    assigner, batch = build(case), geometry((30, 30))
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    permuted = BatchGeometry(
        batch.priors,
        batch.level_sizes,
        batch.gt_boxes[:, order],
        batch.gt_labels[:, order],
        batch.gt_valid,
    )
    plain, shuffled = assigner.match(batch), assigner.match(permuted)
    back = order[shuffled.gt_index.clamp(min=0)].where(shuffled.positive_mask, shuffled.gt_index)
    assert torch.equal(back, plain.gt_index)


def test_no_boxes_make_all_background(case: AssignerCase) -> None:
    result = build(case).match(geometry((0, 0)))
    assert torch.equal(result.gt_index, torch.full_like(result.gt_index, matching.BACKGROUND))
    assert torch.equal(result.overlap, torch.zeros_like(result.overlap))


def test_chunks_of_boxes_give_the_same(case: AssignerCase, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = geometry((40, 3))
    # Priors off any grid, so that the table of distances is taken at all.
    shift = torch.rand(batch.priors.shape[0], 2, generator=torch.Generator().manual_seed(2))
    moved = BatchGeometry(
        batch.priors + shift.repeat(1, 2),
        batch.level_sizes,
        batch.gt_boxes,
        batch.gt_labels,
        batch.gt_valid,
    )
    assigner = build(case)
    whole = assigner.match(moved)
    monkeypatch.setattr(matching, 'TABLE_ELEMENTS', 3000)
    assert_same(assigner.match(moved), whole)


def test_inputs_are_left_alone(case: AssignerCase) -> None:
    batch = geometry()
    before = batch.priors.clone(), batch.gt_boxes.clone(), batch.gt_valid.clone()
    build(case).match(batch)
    for tensor, kept in zip((batch.priors, batch.gt_boxes, batch.gt_valid), before, strict=True):
        assert torch.equal(tensor, kept)


@pytest.mark.parametrize('named', [False, True], ids=['by position', 'by name'])
def test_stocks_call_with_levels_is_the_batch_of_one(case: AssignerCase, named: bool) -> None:
    assigner, batch = build(case), geometry((12,))
    pred = InstanceData(priors=batch.priors)
    gt = InstanceData(bboxes=batch.gt_boxes[0], labels=batch.gt_labels[0])
    if named:
        result = assigner.assign(
            pred_instances=pred, num_level_priors=list(batch.level_sizes), gt_instances=gt
        )
    else:
        result = assigner.assign(pred, list(batch.level_sizes), gt)
    expected = assigner.match(batch)
    assert torch.equal(result.gt_inds, expected.gt_index[0] + 1)
    assert torch.equal(result.labels, expected.labels(batch.gt_labels)[0])
    assert result.num_gts == 12


def test_stocks_call_without_levels(case: AssignerCase) -> None:
    assigner, batch = build(case), geometry((12,))
    pred = InstanceData(priors=batch.priors)
    gt = InstanceData(bboxes=batch.gt_boxes[0], labels=batch.gt_labels[0])
    if assigner.needs_levels:
        with pytest.raises(TypeError, match=f'{case.name} goes by pyramid level'):
            assigner.assign(pred, gt)
        return
    result = assigner.assign(pred, gt)
    assert torch.equal(result.gt_inds, assigner.match(batch).gt_index[0] + 1)


def test_the_stock_twin_answers_alike_without_boxes(case: AssignerCase) -> None:
    if case.twin is None:
        pytest.skip(f'{case.name} has no stock twin')
    batch = geometry((0,))
    pred = InstanceData(priors=batch.priors)
    gt = InstanceData(bboxes=batch.gt_boxes[0], labels=batch.gt_labels[0])
    ours, stock = (
        build(case, scope).assign(pred, list(batch.level_sizes), gt)
        for scope in ('mmdet_ext', 'mmdet')
    )
    assert torch.equal(ours.gt_inds, stock.gt_inds)
    assert torch.equal(ours.max_overlaps, stock.max_overlaps)
    assert torch.equal(ours.labels, stock.labels)
    assert ours.num_gts == stock.num_gts == 0


def test_bad_calls_are_named(case: AssignerCase) -> None:
    assigner, batch = build(case), geometry((2,))
    pred = InstanceData(priors=batch.priors)
    gt = InstanceData(bboxes=batch.gt_boxes[0], labels=batch.gt_labels[0])
    with pytest.raises(TypeError, match='lacks its argument .gt_instances.'):
        assigner.assign(pred, list(batch.level_sizes))
    with pytest.raises(TypeError, match='unknown or repeated argument .gt_boxes.'):
        assigner.assign(pred, list(batch.level_sizes), gt, gt_boxes=gt)
    with pytest.raises(ValueError, match='num_level_priors .* sum to 7'):
        assigner.assign(pred, [3, 4], gt)
