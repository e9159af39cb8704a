"""Every dense head with every assigner: it trains, or is refused when it is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from torch import Tensor, nn

from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from tests._helpers.dense_heads import CLASSES, HEADS, STRIDES, Batch, build, value
from tests.detection.heads.any_heads import (
    ANCHOR_HEADS,
    ASSIGNERS,
    PAIRS,
    POINT_HEADS,
    box_loss,
    config_of,
    head_with,
    losses_of,
    refused,
    total_of,
)

pytestmark = pytest.mark.usefixtures('epoch')


@pytest.mark.parametrize('number', [3, 5], ids=['early', 'late'])
@pytest.mark.parametrize(('name', 'assigner'), [p for p in PAIRS if not refused(*p)])
def test_two_steps_have_finite_losses_and_gradients(
    name: str, assigner: str, number: int, epoch: Callable[[int], None]
) -> None:
    if number == 3 and name != 'TOODHead':
        pytest.skip('one phase')
    epoch(number)
    head = head_with(name, assigner)
    batch = Batch((5, 0, 3), mixed=name not in ('FCOSHead', 'YOLOXHead', 'SSDHead', 'YOLOV3Head'))
    optimizer = torch.optim.SGD(head.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        losses = losses_of(head, batch)
        total = total_of(losses)
        total.backward()
        gradients = [p.grad for p in head.parameters() if p.grad is not None]
        assert total.isfinite() and box_loss(losses) > 0
        assert all(each.isfinite().all() for each in gradients)
        assert sum(bool(each.any()) for each in gradients) >= 0.7 * len(gradients)
        optimizer.step()


@pytest.mark.parametrize(('name', 'assigner'), [p for p in PAIRS if not refused(*p)])
def test_horizontal_boxes_of_mmdet_are_their_corners(name: str, assigner: str) -> None:
    """As a preprocessor with ``boxtype2tensor=False`` gives them."""
    plain, typed = Batch((5, 0, 3)), Batch((5, 0, 3))
    for gt in typed.gts:
        gt.bboxes = HorizontalBoxes(gt.bboxes)
    one, other = (losses_of(head_with(name, assigner), batch) for batch in (plain, typed))
    torch.testing.assert_close(other, one, rtol=0, atol=0)
    assert box_loss(one) > 0


@pytest.mark.parametrize(('name', 'assigner'), [p for p in PAIRS if refused(*p)])
def test_what_has_no_meaning_is_refused_when_the_head_is_built(name: str, assigner: str) -> None:
    kind = ASSIGNERS[assigner][1]['type']
    needs, has = 'anchors', 'points with strides'
    if ASSIGNERS[assigner][0] == 'one level':
        needs, has = 'the points of a single level', '3 levels'
    takes = 'SimOTAAssigner' if name in POINT_HEADS else 'ATSSAssigner, DynamicSoftLabelAssigner'
    with pytest.raises(ValueError, match=f'{name} has {has}.*, but {kind} needs {needs}') as error:
        head_with(name, assigner)
    message = str(error.value)
    assert takes in message and 'docs/assigners.md' in message
    taken = message.split(' takes ')[1].split('. docs')[0].split(', ')
    others = {ASSIGNERS[other][1]['type'] for other in ASSIGNERS if not refused(name, other)}
    assert {each.removesuffix(' with other options') for each in taken} == others
    assert (f'{kind} with other options' in taken) == (kind in others)


@pytest.mark.parametrize(
    ('name', 'assigner'),
    [
        ('GFLHead', 'soft label'),
        ('GFLHead', 'task-aligned'),
        ('NanoDetPlusHead', 'soft label'),
        ('NanoDetPlusHead', 'ATSS'),
        ('ATSSHead', 'SimOTA'),
        ('RetinaHead', 'ATSS by predictions'),
        ('FCOSHead', 'soft label'),
        ('FCOSHead', 'RFLA'),
        ('TOODHead', 'soft label'),
        ('YOLOXHead', 'task-aligned'),
        ('RTMDetHead', 'FCOS'),
        ('SSDHead', 'soft label'),
        ('YOLOV3Head', 'SimOTA'),
    ],
)
def test_losses_fall_on_a_fixed_batch(name: str, assigner: str) -> None:
    head, batch = head_with(name, assigner), Batch((4, 3))
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    course = []
    # Light branches of one convolution learn more slowly.
    for _ in range(150 if name == 'NanoDetPlusHead' else 40):
        optimizer.zero_grad()
        total = total_of(losses_of(head, batch))
        total.backward()
        optimizer.step()
        course.append(float(total.detach()))
    # GFL weighs its box losses with the scores, which have to rise first.
    assert sum(course[-5:]) / 5 < 0.8 * max(course[: len(course) // 4]), course


class Given(NamedTuple):
    """Arguments that an assigner got in one call."""

    geometry: BatchGeometry
    predictions: Predictions | None


def given_by(head: nn.Module, batch: Batch) -> Given:
    """Compute the losses, and return what the head gave its assigner in its only call."""
    calls: list[Given] = []
    match = head.assigner.match

    def keep(geometry: BatchGeometry, predictions: Predictions | None = None) -> Assignment:
        calls.append(Given(geometry, predictions))
        return match(geometry, predictions)

    head.assigner.match = keep
    losses_of(head, batch)
    (call,) = calls
    return call


def per_image(maps: list[Tensor], image: int, columns: int) -> Tensor:
    return torch.cat([m[image].permute(1, 2, 0).reshape(-1, columns) for m in maps])


@pytest.mark.parametrize(
    'name', ['ATSSHead', 'GFLHead', 'NanoDetPlusHead', 'RetinaHead', 'FCOSHead', 'SSDHead']
)
@pytest.mark.parametrize('normalised', [False, True])
def test_predictions_are_those_that_the_head_would_decode(name: str, normalised: bool) -> None:
    head, batch = head_with(name, 'soft label'), Batch((4, 3))
    if normalised and name != 'FCOSHead':
        pytest.skip('an option of FCOS')
    if name == 'FCOSHead':
        head.norm_on_bbox = normalised
    geometry, predictions = given_by(head, batch)
    outputs = head(batch.features)
    stride = torch.cat(
        [torch.full((n,), float(s)) for n, s in zip(geometry.priors.sizes, STRIDES, strict=True)]
    )
    assert torch.equal(geometry.priors.as_points()[1], stride[:, None].expand(-1, 2))
    for image in range(2):
        scores = per_image(outputs[0], image, head.cls_out_channels)
        if name == 'SSDHead':
            expected = scores.softmax(-1)[:, :CLASSES]
            torch.testing.assert_close(predictions.probabilities[image], expected)
        else:
            torch.testing.assert_close(predictions.logits[image], scores)
        distributed = name in ('GFLHead', 'NanoDetPlusHead')
        width = 4 * (head.reg_max + 1) if distributed else 4
        raw, points = per_image(outputs[1], image, width), geometry.priors.points
        if distributed:
            shares = raw.view(-1, 4, head.reg_max + 1).softmax(-1)
            sides = (shares * torch.arange(head.reg_max + 1.0)).sum(-1) * stride[:, None]
        elif name == 'FCOSHead':
            sides = raw * stride[:, None] if normalised else raw
        if distributed or name == 'FCOSHead':
            boxes = torch.cat([points - sides[:, :2], points + sides[:, 2:]], 1)
        else:
            sizes = [level.shape[-2:] for level in batch.features]
            anchors = torch.cat(head.prior_generator.grid_priors(sizes, device='cpu'))
            boxes = head.bbox_coder.decode(anchors, raw)
            torch.testing.assert_close((anchors[:, :2] + anchors[:, 2:]) / 2, points)
        torch.testing.assert_close(predictions.boxes[image], boxes)
    assert not predictions.boxes.requires_grad and not predictions.scores.requires_grad


def test_yolov3_gives_the_probability_of_class_and_object_together() -> None:
    head, batch = head_with('YOLOV3Head', 'task-aligned'), Batch((4, 3))
    _, predictions = given_by(head, batch)
    (maps,) = head(batch.features[::-1])
    for image in range(2):
        raw = per_image(maps, image, 5 + CLASSES).sigmoid()
        expected = raw[:, 5:] * raw[:, 4:5]
        torch.testing.assert_close(predictions.probabilities[image], expected)


@pytest.mark.parametrize(
    ('assigner', 'scores', 'boxes'),
    [
        ('ATSS', False, False),
        ('YOLOv3', False, True),
        ('YOLOv3 by priors', False, False),
        ('YOLOv5', False, False),
        ('FCOS', False, False),
        ('ATSS by predictions', True, True),
    ],
)
@pytest.mark.parametrize('name', ['ATSSHead', 'YOLOV3Head'])
def test_an_assigner_gets_what_it_uses_and_no_more(
    name: str, assigner: str, scores: bool, boxes: bool, recwarn: pytest.WarningsRecorder
) -> None:
    _, predictions = given_by(head_with(name, assigner), Batch((4, 3)))
    assert (predictions is not None) == (scores or boxes)
    if predictions is not None:
        assert (predictions.scores is not None) == scores
        assert (predictions.boxes is not None) == boxes
    assert not [each for each in recwarn if 'goes by priors alone' in str(each.message)]


@pytest.mark.parametrize('name', ['YOLOXHead', 'RTMDetHead'])
def test_the_target_of_a_score_is_the_iou_of_the_prediction_for_any_assigner(name: str) -> None:
    """An assigner by priors is given the overlaps that one by predictions would give."""
    head, batch = head_with(name, 'FCOS'), Batch((5, 3))
    plain = losses_of(head, batch)
    match = head.assigner.match

    def without_overlap(geometry: BatchGeometry, predictions: None = None) -> Assignment:
        found = match(geometry, predictions)
        return Assignment(found.gt_index, torch.rand(found.overlap.shape))

    head.assigner.match = without_overlap
    torch.testing.assert_close(losses_of(head, batch), plain, rtol=0, atol=0)
    assert box_loss(plain) > 0


def test_one_level_of_points_or_anchors_serves_centernet() -> None:
    for name, options in (
        ('FCOSHead', dict(strides=(8,), regress_ranges=((-1, 1e8),))),
        (
            'GFLHead',
            dict(anchor_generator={**HEADS['GFLHead']['anchor_generator'], 'strides': [8]}),
        ),
    ):
        train_cfg = dict(assigner=config_of('CenterNet'))
        head, batch = build(name, 'mmdet_ext', train_cfg=train_cfg, **options), Batch((4, 3))
        batch.features = batch.features[:1]
        losses = batch.losses(head)
        assert total_of(losses).isfinite() and box_loss(losses) > 0


def test_fcos_uses_an_assigner_of_train_cfg_if_it_is_ours() -> None:
    batch = Batch((5, 3))
    plain = losses_of(build('FCOSHead', 'mmdet_ext'), batch)
    other = losses_of(head_with('FCOSHead', 'soft label'), batch)
    assert value(plain, 'loss_cls') != value(other, 'loss_cls')
    # mmdet's head does not use an assigner at all.
    theirs = dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4))
    for scope in ('mmdet', 'mmdet_ext'):
        kept = losses_of(build('FCOSHead', scope, 'mmdet', train_cfg=theirs), batch)
        torch.testing.assert_close(kept, plain, rtol=1e-5, atol=1e-6)


def test_points_of_fcos_outside_of_their_box_learn_their_class_alone() -> None:
    """The head of mmdet takes the root of a negative number there."""
    sides = torch.tensor([[-2.0, 3.0, 5.0, 6.0], [2.0, 2.0, 2.0, 8.0]])
    theirs, ours = (
        build('FCOSHead', scope).centerness_target(sides) for scope in ('mmdet', 'mmdet_ext')
    )
    assert theirs.isnan().tolist() == [True, False]
    torch.testing.assert_close(ours, torch.tensor([0.0, 0.5]))


#: First cell of each assigner's row in the page, where it has more than the name.
OPTIONS_IN_PAGE = {
    'ATSS by predictions': '`, `alpha`',
    'YOLOv3 by priors': "`, `ignore_by='prior'`",
    'RFLA on anchors': '`, `receptive_fields=None`',
}


def test_the_table_of_the_page_is_what_heads_take() -> None:
    page = (Path(__file__).parents[3] / 'docs' / 'assigners.md').read_text()
    table = page.split('### Heads and assigners')[1].split('\n\n')[2]
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in table.splitlines()]
    found = {row[0]: row[2:] for row in rows[2:]}
    expected = {}
    for name, (kind, config) in ASSIGNERS.items():
        cell = f'`{config["type"]}{OPTIONS_IN_PAGE.get(name, "`")}'
        one_level = ['with one level'] * 2
        expected[cell] = (
            one_level if kind == 'one level' else ['yes', 'no' if kind == 'anchors' else 'yes']
        )
    assert found == expected
    for name in (*ANCHOR_HEADS, *POINT_HEADS):
        assert f'`{name}`' in page.split('Heads with anchors are')[1].split('An anchor')[0]


def test_saturated_scores_of_a_softmax_are_no_nan_in_a_cost() -> None:
    """A softmax is 1.0 exactly for logits that are 17 apart, and its logit is infinite."""
    head, batch = head_with('SSDHead', 'soft label'), Batch((4, 3))
    with torch.no_grad():
        for weight in head.parameters():
            weight *= 100
    geometry, predictions = given_by(head, batch)
    assert (predictions.probabilities == 1).any() and (predictions.probabilities == 0).any()
    found = head.assigner.match(geometry, predictions)
    assert set(found.gt_index[0].tolist()) == {-1, 0, 1, 2, 3}
    assert found.overlap.isfinite().all()


@pytest.mark.parametrize('assigner', ['soft label', 'task-aligned', 'ATSS by predictions'])
@pytest.mark.parametrize('name', ['GFLHead', 'NanoDetPlusHead', 'ATSSHead', 'RetinaHead'])
def test_half_precision_trains(name: str, assigner: str) -> None:
    head, batch = head_with(name, assigner), Batch((4, 0, 3))
    with torch.autocast('cpu', torch.bfloat16):
        losses = losses_of(head, batch)
    total = total_of(losses)
    total.backward()
    assert total.isfinite() and box_loss(losses) > 0
    assert all(p.grad.isfinite().all() for p in head.parameters() if p.grad is not None)
