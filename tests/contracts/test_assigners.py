"""Behaviour of every registered assigner, whatever its rule."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.cases import cases_of
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.claims import BACKGROUND, IGNORE
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.numerics import chunks
from tests._helpers.assigners import build, random_batch, random_predictions
from tests._helpers.tolerances import assert_equal_but_rounding

pytestmark = pytest.mark.parametrize('case', cases_of('assigner'), ids=lambda case: case.name)

COUNTS = (5, 0, 17, 1)


def geometry(case: Case, counts: tuple[int, ...] = COUNTS) -> BatchGeometry:
    return random_batch(case, counts)


def predictions(case: Case, batch: BatchGeometry) -> Predictions | None:
    return random_predictions(batch) if case.predicts else None


def of_priors(found: Predictions | None, images: slice, priors: Tensor) -> Predictions | None:
    """Return the predictions of some images for some priors (N,)."""
    if found is None:
        return None
    return Predictions(
        boxes=found.boxes[images][:, priors], probabilities=found.probabilities[images][:, priors]
    )


def of_image(found: Predictions | None, image: int) -> Predictions | None:
    if found is None:
        return None
    return of_priors(found, slice(image, image + 1), torch.arange(found.boxes.shape[1]))


def match(case: Case, batch: BatchGeometry) -> Assignment:
    return build(case).match(batch, predictions(case, batch))


def instances(case: Case, batch: BatchGeometry) -> tuple[InstanceData, InstanceData]:
    """Return the only image as mmdet's heads give it."""
    pred, found = InstanceData(priors=batch.priors.rows), predictions(case, batch)
    if found is not None:
        form = build(case).score_form
        pred.scores = (found.as_logits() if form == 'logits' else found.as_probabilities())[0]
        pred.bboxes = found.boxes[0]
    return pred, InstanceData(bboxes=batch.gt_boxes[0], labels=batch.gt_labels[0])


def single(batch: BatchGeometry, image: int) -> BatchGeometry:
    valid = batch.gt_valid[image]
    return BatchGeometry.from_lists(
        batch.priors,
        [batch.gt_boxes[image][valid]],
        [batch.gt_labels[image][valid]],
        prior_valid=None if batch.prior_valid is None else batch.prior_valid[image : image + 1],
    )


def assert_same(one: Assignment, other: Assignment) -> None:
    assert torch.equal(one.gt_index, other.gt_index)
    assert torch.equal(one.overlap, other.overlap)
    assert (one.metric is None) == (other.metric is None)
    assert one.metric is None or torch.equal(one.metric, other.metric)


def test_a_batch_is_the_stack_of_its_images(case: Case) -> None:
    batch = geometry(case)
    whole = match(case, batch)
    found = whole.positive_mask.any(1).tolist()
    assert found[0] and found[2] and not found[1]
    if case.every_box:
        claimed = [set(row[row >= 0].tolist()) for row in whole.gt_index]
        assert all(len(boxes) >= 0.7 * count for boxes, count in zip(claimed, COUNTS, strict=True))
    for image in range(len(COUNTS)):
        alone = build(case).match(single(batch, image), of_image(predictions(case, batch), image))
        assert torch.equal(whole.gt_index[image], alone.gt_index[0])
        assert_equal_but_rounding(whole.overlap[image], alone.overlap[0])


def test_padding_changes_nothing_whatever_stands_in_it(case: Case) -> None:
    batch = geometry(case)
    junk = torch.tensor([0.0, 0.0, 320.0, 256.0]).expand(len(COUNTS), 6, 4)
    padded = replace(
        batch,
        gt_boxes=torch.cat([batch.gt_boxes, junk], 1),
        gt_labels=torch.cat([batch.gt_labels, torch.full((len(COUNTS), 6), 3)], 1),
        gt_valid=torch.cat([batch.gt_valid, torch.zeros(len(COUNTS), 6, dtype=torch.bool)], 1),
    )
    assert_same(match(case, padded), match(case, batch))


def test_permuting_boxes_permutes_indices(case: Case) -> None:
    if case.later_wins:
        pytest.skip(f'{case.name} matches of low quality in the order of the boxes, as mmdet does')
    batch = geometry(case, (30, 30))
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    permuted = replace(
        batch, gt_boxes=batch.gt_boxes[:, order], gt_labels=batch.gt_labels[:, order]
    )
    plain, shuffled = match(case, batch), match(case, permuted)
    back = order[shuffled.gt_index.clamp(min=0)].where(shuffled.positive_mask, shuffled.gt_index)
    assert torch.equal(back, plain.gt_index)


def test_images_without_boxes_are_all_background(case: Case) -> None:
    result = match(case, geometry(case, (0, 0)))
    assert torch.equal(result.gt_index, torch.full_like(result.gt_index, BACKGROUND))
    assert torch.equal(result.overlap, torch.zeros_like(result.overlap))


def test_priors_that_an_image_lacks_are_ignored(case: Case) -> None:
    """The other priors get the boxes that they get without the absent ones."""
    batch = geometry(case, (12, 3))
    center = batch.priors.centers
    valid = torch.stack([(center < torch.tensor([230.0, 190.0])).all(1), center[:, 0] > -1e9])
    batch = replace(batch, prior_valid=valid)
    result = match(case, batch)
    assert (result.gt_index[~valid] == IGNORE).all()
    assert result.positive_mask[0].any()
    if case.priors in ('heatmap', 'cells'):
        return  # these rules need all cells of a level
    kept = valid[0]
    sizes = tuple(int(level.sum()) for level in kept.split(batch.priors.sizes))
    priors = replace(
        batch.priors,
        level_sizes=sizes,
        **{
            name: table[kept]
            for name in ('corners', 'points', 'strides')
            if (table := getattr(batch.priors, name)) is not None
        },
    )
    fewer = BatchGeometry.from_lists(priors, [batch.gt_boxes[0]], [batch.gt_labels[0]])
    found = of_priors(predictions(case, batch), slice(0, 1), kept)
    alone = build(case).match(fewer, found)
    assert torch.equal(result.gt_index[0][kept], alone.gt_index[0])


def test_chunks_of_boxes_give_the_same(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = geometry(case, (40, 3))
    if case.priors == 'anchors':
        # Not on a grid, so that the table of all distances is computed.
        shift = torch.rand(len(batch.priors), 2, generator=torch.Generator().manual_seed(2))
        corners = batch.priors.as_corners() + shift.repeat(1, 2)
        batch = replace(batch, priors=replace(batch.priors, corners=corners))
    whole = match(case, batch)
    monkeypatch.setattr(chunks, 'TABLE_ELEMENTS', 3000)
    assert_same(match(case, batch), whole)


def test_inputs_are_unchanged(case: Case) -> None:
    batch = geometry(case)
    found = predictions(case, batch)
    inputs = [batch.priors.rows, batch.gt_boxes, batch.gt_labels, batch.gt_valid]
    inputs += [] if found is None else [found.scores, found.boxes]
    before = [tensor.clone() for tensor in inputs]
    build(case).match(batch, found)
    for tensor, kept in zip(inputs, before, strict=True):
        assert torch.equal(tensor, kept)


@pytest.mark.parametrize('named', [False, True], ids=['by position', 'by name'])
def test_the_call_of_mmdet_with_levels_is_a_batch_of_one(case: Case, named: bool) -> None:
    assigner, batch = build(case), geometry(case, (12,))
    pred, gt = instances(case, batch)
    if named:
        result = assigner.assign(
            pred_instances=pred, num_level_priors=list(batch.priors.sizes), gt_instances=gt
        )
    else:
        result = assigner.assign(pred, list(batch.priors.sizes), gt)
    expected = match(case, batch)
    assert torch.equal(result.gt_inds, expected.gt_index[0] + 1)
    assert torch.equal(result.labels, expected.labels(batch.gt_labels)[0])
    assert result.num_gts == 12


def test_the_call_of_mmdet_without_levels(case: Case) -> None:
    assigner, batch = build(case), geometry(case, (12,))
    pred, gt = instances(case, batch)
    if assigner.needs_levels:
        with pytest.raises(TypeError, match=f'{case.name} goes by pyramid level'):
            assigner.assign(pred, gt)
        return
    result = assigner.assign(pred, gt)
    assert torch.equal(result.gt_inds, match(case, batch).gt_index[0] + 1)


def test_the_assigner_of_mmdet_gives_the_same_without_boxes(case: Case) -> None:
    if case.twin is None:
        pytest.skip(f'{case.name} replaces no assigner of mmdet')
    pred, gt = instances(case, geometry(case, (0,)))
    ours, theirs = build(case), build(case, 'mmdet')
    levels = [list(geometry(case, (0,)).priors.sizes)] * ours.needs_levels
    one, other = (assigner.assign(pred, *levels, gt) for assigner in (ours, theirs))
    assert torch.equal(one.gt_inds, other.gt_inds)
    assert torch.equal(one.max_overlaps, other.max_overlaps)
    assert torch.equal(one.labels, other.labels)
    assert one.num_gts == other.num_gts == 0


def test_bad_calls_are_named(case: Case) -> None:
    assigner, batch = build(case), geometry(case, (2,))
    pred, gt = instances(case, batch)
    with pytest.raises(TypeError, match='lacks its argument .gt_instances.'):
        assigner.assign(pred, list(batch.priors.sizes))
    with pytest.raises(TypeError, match='unknown or repeated argument .gt_boxes.'):
        assigner.assign(pred, list(batch.priors.sizes), gt, gt_boxes=gt)
    with pytest.raises(ValueError, match='num_level_priors .* sum to 7'):
        assigner.assign(pred, [3, 4], gt)
    if case.predicts:
        with pytest.raises(ValueError, match=f'{case.name} goes by what the head predicts'):
            assigner.assign(InstanceData(priors=batch.priors.rows), list(batch.priors.sizes), gt)


#: Boxes without area: no width, no height, neither, and corners in the wrong order.
FLAT = torch.tensor(
    [[60.0, 40, 60, 90], [60, 40, 150, 40], [100, 100, 100, 100], [150, 60, 90, 120]]
)


def test_boxes_without_area_get_no_prior_and_change_nothing(case: Case) -> None:
    """They stand among the others, so that those keep their own indices."""
    boxes, labels = (
        [part[image] for image in range(2)]
        for part in (geometry(case, (6, 6)).gt_boxes, geometry(case, (6, 6)).gt_labels)
    )
    priors, count = geometry(case).priors, len(FLAT)
    plain = BatchGeometry.from_lists(priors, [*boxes, boxes[0][:0]], [*labels, labels[0][:0]])
    order = torch.tensor([0, 6, 1, 7, 2, 3, 8, 4, 5, 9])
    mixed = BatchGeometry.from_lists(
        priors,
        [*(torch.cat([each, FLAT])[order] for each in boxes), FLAT],
        [*(torch.cat([each, each[:count]])[order] for each in labels), labels[0][:count]],
    )
    found = predictions(case, plain)
    expected = build(case).match(plain, found)
    with pytest.warns(UserWarning, match='ground-truth box without area .* gets no prior'):
        result = build(case).match(mixed, found)
    own = order[result.gt_index.clamp(min=0)].where(result.positive_mask, result.gt_index)
    assert_same(replace(result, gt_index=own), expected)
    assert expected.positive_mask[:2].any(1).all() and not result.positive_mask[2].any()


def test_mmdet_gives_priors_to_boxes_without_area(case: Case) -> None:
    """By max-IoU with low-quality matches a single box takes all priors; ours has none."""
    if case.name != 'MaxIoUAssigner' or case.twin is None:
        pytest.skip('one rule of mmdet that does so suffices')
    batch = geometry(case, (1,))
    pred = InstanceData(priors=batch.priors.rows)
    gt = InstanceData(bboxes=FLAT[:1], labels=torch.zeros(1, dtype=torch.int64))
    options = {**case.options, 'min_pos_iou': 0, 'match_low_quality': True}
    ours, theirs = (
        build(Case('assigner', case.name, options, twin=True), scope).assign(pred, gt).gt_inds
        for scope in ('mmdet_ext', 'mmdet')
    )
    assert (theirs == 1).all() and (ours == 0).all()


@pytest.mark.parametrize('odd', [torch.nan, torch.inf, -torch.inf])
def test_boxes_that_are_not_finite_are_named_also_beside_boxes_without_area(
    case: Case, odd: float
) -> None:
    batch = geometry(case, (3, 4))
    boxes = batch.gt_boxes.clone()
    boxes[0, 1, 2] = boxes[0, 1, 0]
    boxes[1, 2, 0] = odd
    broken = replace(batch, gt_boxes=boxes)
    with pytest.raises(ValueError, match=r'must be finite, got 1 .* box 2 of image 1'):
        match(case, broken)


@pytest.mark.parametrize('odd', [torch.nan, torch.inf])
def test_padding_is_no_box_without_area(
    case: Case, odd: float, recwarn: pytest.WarningsRecorder
) -> None:
    batch = geometry(case, (3, 1))
    boxes = batch.gt_boxes.where(batch.gt_valid[..., None], odd)
    assert_same(match(case, replace(batch, gt_boxes=boxes)), match(case, batch))
    assert not [each for each in recwarn if 'without area' in str(each.message)]


def test_it_says_what_it_uses_of_the_predictions(case: Case) -> None:
    """Heads of ours compute no more than this; a rule that said less would lack it."""
    batch, assigner = geometry(case, (5,)), build(case)
    used = assigner.predictions_used
    assert used is not None and bool(used) == case.predicts
    found = random_predictions(batch)
    part = Predictions(
        boxes=found.boxes if 'boxes' in used else None,
        probabilities=found.probabilities if 'scores' in used else None,
    )
    assert_same(assigner.match(batch, part if used else None), match(case, batch))
    for name in used:
        field = {'scores': 'probabilities'}.get(name, name)
        with pytest.raises(ValueError, match=f'{case.name} goes by what the head predicts'):
            assigner.match(batch, replace(part, **{field: None}))
