"""The rules of the YOLO detectors against slow references."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from mmdet_ext.catalog.memory import peak_bytes
from mmdet_ext.catalog.scenes import YOLO_SIDES, cells_as_priors, scene, yolo_anchors
from mmdet_ext.functional.assignment.cells import find_cells
from mmdet_ext.functional.assignment.claims import BACKGROUND, IGNORE
from mmdet_ext.functional.assignment.yolo import (
    overlapping_mask,
    side_ratio,
    yolo_match,
    yolov5_match,
)
from mmdet_ext.functional.boxes.overlap import box_iou, concentric_iou
from mmdet_ext.functional.numerics import chunks
from tests._helpers.assigners import geometry_of, indices

WIDTH, HEIGHT = 320, 256
PRIORS, SIZES = yolo_anchors(WIDTH, HEIGHT)
CELL_PRIORS = cells_as_priors(PRIORS, SIZES)
CELLS = find_cells(CELL_PRIORS)
TOTAL = len(PRIORS)
BOTH = [(None, 'v3'), (0.213, 'v4')]


def match(rule: str, boxes: Tensor, **more: object) -> tuple[Tensor, Tensor]:
    valid, ignore_mask = more.pop('valid', None), more.pop('ignore_mask', None)
    geometry = geometry_of(CELL_PRIORS, boxes, valid, **more)
    if rule == 'v5':
        return indices(yolov5_match(geometry))
    return indices(yolo_match(geometry, dict(v3=None, v4=0.213)[rule], ignore_mask))


def levels() -> Iterator[tuple[int, int, tuple[tuple[int, int], ...]]]:
    """Yield the first prior, stride and anchors of each level."""
    start = 0
    for stride, anchors in YOLO_SIDES.items():
        yield start, stride, anchors
        start += (WIDTH // stride) * (HEIGHT // stride) * len(anchors)


def slow_claims(box: list[float], iou_thr: float | None) -> dict[int, float]:
    """Find the priors that a box claims by YOLOv3 or YOLOv4, with the IoU of shapes."""
    x1, y1, x2, y2 = box
    x, y, w, h = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    found = []
    for start, stride, anchors in levels():
        column, row = math.floor(x / stride), math.floor(y / stride)
        for a, (u, v) in enumerate(anchors):
            shared = min(w, u) * min(h, v)
            inside = 0 <= column < WIDTH // stride and 0 <= row < HEIGHT // stride
            prior = start + (row * (WIDTH // stride) + column) * len(anchors) + a
            found.append((shared / (w * h + u * v - shared), prior if inside else None))
    best = max(range(len(found)), key=lambda place: found[place][0])  # the first of equals
    return {
        prior: fit
        for place, (fit, prior) in enumerate(found)
        if prior is not None and (place == best or (iou_thr is not None and fit > iou_thr))
    }


def slow_claims_v5(box: list[float], ratio_thr: float = 4.0) -> dict[int, float]:
    """Find the priors that a box claims by YOLOv5, with coordinates from both borders."""
    x1, y1, x2, y2 = box
    w, h = x2 - x1, y2 - y1
    claims = {}
    for start, stride, anchors in levels():
        columns, rows = WIDTH // stride, HEIGHT // stride
        gx, gy = (x1 + x2) / 2 / stride, (y1 + y2) / 2 / stride
        if not (0 <= gx < columns and 0 <= gy < rows):
            continue
        cells = {(math.floor(gx), math.floor(gy))}
        for offset, condition in (
            ((0.5, 0), gx % 1 < 0.5 and gx > 1),
            ((0, 0.5), gy % 1 < 0.5 and gy > 1),
            ((-0.5, 0), (columns - gx) % 1 < 0.5 and columns - gx > 1),
            ((0, -0.5), (rows - gy) % 1 < 0.5 and rows - gy > 1),
        ):
            if condition:
                cells.add((math.floor(gx - offset[0]), math.floor(gy - offset[1])))
        for a, (u, v) in enumerate(anchors):
            if min(w, h) <= 0:
                continue
            ratio = max(w / u, u / w, h / v, v / h)
            if ratio < ratio_thr:
                for column, row in cells:
                    claims[start + (row * columns + column) * len(anchors) + a] = 1 / ratio
    return claims


def slow_match(rule: str, boxes: Tensor) -> tuple[dict[int, int], list[dict[int, float]]]:
    """Return the box of each prior that has one, and all claims of the boxes."""
    every = [
        slow_claims_v5(box) if rule == 'v5' else slow_claims(box, dict(v3=None, v4=0.213)[rule])
        for box in boxes.tolist()
    ]
    owner: dict[int, int] = {}
    for index, claims in enumerate(every):
        for prior, fit in claims.items():
            if prior not in owner or fit > every[owner[prior]][prior]:
                owner[prior] = index
    return owner, every


def near_a_border(box: list[float]) -> bool:
    """Return whether rounding decides for a cell, or for a half of one."""
    center = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    return any(abs(c / 4 - round(c / 4)) < 1e-4 for c in center)


@pytest.mark.slow
@pytest.mark.parametrize('rule', ['v3', 'v4', 'v5'])
def test_indices_equal_the_slow_reference_on_random_images(rule: str) -> None:
    assigned = differing = 0
    for case in range(350):
        boxes = scene(case)[0]
        index, overlap = (found[0] for found in match(rule, boxes[None]))
        owner, claims = slow_match(rule, boxes.float())
        expected = torch.full((TOTAL,), BACKGROUND)
        expected[list(owner)] = torch.tensor(list(owner.values()), dtype=torch.int64)
        for prior in (index != expected).nonzero().flatten().tolist():
            differing += 1
            pair = [int(index[prior]), int(expected[prior])]
            fits = [claims[box].get(prior) for box in pair if box >= 0]
            tied = None not in fits and len(fits) == 2 and math.isclose(*fits, rel_tol=1e-5)
            edges = [near_a_border(boxes[box].tolist()) for box in pair if box >= 0]
            assert tied or any(edges), (case, prior, pair, fits)
        same = index == expected
        wanted = torch.tensor([claims[box][prior] for prior, box in owner.items()])
        there = torch.tensor(list(owner), dtype=torch.int64)
        kept = same[there]
        torch.testing.assert_close(overlap[there][kept], wanted[kept].float(), rtol=1e-4, atol=1e-6)
        assert (overlap[index < 0] == 0).all()
        assigned += len(owner)
    print(f'{differing} of {assigned} differ, each tied')
    assert assigned > 5000
    assert differing < 0.002 * assigned


@pytest.mark.parametrize('shared', [True, False], ids=['priors', 'predictions'])
def test_overlapping_boxes_equal_the_slow_reference(shared: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    seen = 0
    for case in range(60):
        boxes = scene(case)[0]
        moved = PRIORS + (0 if shared else torch.randn(TOTAL, 4, generator=generator) * 5)
        given = moved if shared else moved[None]
        mask = overlapping_mask(given, geometry_of(CELL_PRIORS, boxes[None]), 0.5)[0]
        best = torch.zeros(TOTAL, dtype=torch.float64)
        for box in boxes.double():
            best = torch.maximum(best, box_iou(moved.double(), box))
        differ = mask != (best > 0.5)
        assert ((best - 0.5).abs()[differ] < 1e-6).all()
        assert differ.sum() <= 1
        seen += int(mask.sum())
    assert seen > 500


@pytest.mark.parametrize('rule', ['v3', 'v4', 'v5'])
def test_a_batch_is_the_stack_of_its_images_whatever_stands_in_padding(rule: str) -> None:
    images = [scene(case)[0].float() for case in (1, 10, 8, 12)]
    most = max(map(len, images)) + 5
    boxes = torch.tensor([0.0, 0.0, 320.0, 256.0]).expand(len(images), most, 4).clone()
    valid = torch.zeros(len(images), most, dtype=torch.bool)
    for image, own in enumerate(images):
        boxes[image, : len(own)] = own
        valid[image, : len(own)] = True
    boxes[1, -1] = torch.nan
    index, overlap = match(rule, boxes, valid=valid)
    mask = overlapping_mask(PRIORS, geometry_of(CELL_PRIORS, boxes, valid), 0.5)
    for image, own in enumerate(images):
        alone = match(rule, own[None])
        assert torch.equal(index[image], alone[0][0])
        assert torch.equal(overlap[image], alone[1][0])
        own_mask = overlapping_mask(PRIORS, geometry_of(CELL_PRIORS, own[None]), 0.5)
        assert torch.equal(mask[image], own_mask[0])
        assert (index[image] >= 0).any()


@pytest.mark.parametrize('rule', ['v3', 'v4', 'v5'])
def test_permuting_boxes_permutes_indices(rule: str) -> None:
    boxes = scene(28)[0].float()
    order = torch.randperm(len(boxes), generator=torch.Generator().manual_seed(0))
    (plain, _), (moved, _) = match(rule, boxes[None]), match(rule, boxes[order][None])
    assert (plain >= 0).sum() > 20
    assert torch.equal(order[moved.clamp(min=0)].where(moved >= 0, moved), plain)


@pytest.mark.parametrize('rule', ['v3', 'v4', 'v5'])
def test_absent_priors_get_no_box_and_are_ignored(rule: str) -> None:
    boxes = scene(28)[0].float()[None]
    present = torch.rand(1, TOTAL, generator=torch.Generator().manual_seed(0)) < 0.5
    (index, overlap), (full, whole) = match(rule, boxes, prior_valid=present), match(rule, boxes)
    assert (full[~present] >= 0).any()
    assert (index[~present] == IGNORE).all() and (overlap[~present] == 0).all()
    assert torch.equal(index[present], full[present])
    assert torch.equal(overlap[present], whole[present])
    nothing, _ = match(rule, boxes[:, :0], prior_valid=present)
    assert torch.equal(nothing == IGNORE, ~present) and (nothing[present] == BACKGROUND).all()


def test_priors_of_the_ignore_mask_are_ignored_unless_a_box_has_them() -> None:
    boxes = scene(28)[0].float()[None]
    mask = torch.rand(1, TOTAL, generator=torch.Generator().manual_seed(0)) < 0.5
    plain, _ = match('v3', boxes)
    index, _ = match('v3', boxes, ignore_mask=mask)
    assert torch.equal(index, plain.masked_fill(mask & (plain == BACKGROUND), IGNORE))
    assert (index[mask] >= 0).any()
    absent = torch.zeros_like(mask)
    index, _ = match('v3', boxes[:, :0], ignore_mask=mask, prior_valid=~absent)
    assert torch.equal(index == IGNORE, mask)


def test_a_box_of_the_shape_of_an_anchor_gets_that_anchor_of_its_cell() -> None:
    boxes = PRIORS[::7][None]
    centers = (boxes[0, :, :2] + boxes[0, :, 2:]) / 2
    index, overlap = match('v3', boxes)
    assert torch.equal(index[0, ::7], torch.arange(len(centers)))
    assert (overlap[0, ::7] == 1).all()
    assert (index >= 0).sum() == len(centers)


def test_neighbours_are_none_for_the_middle_and_none_beyond_the_border() -> None:
    level = CELLS[2]  # 40 x 32 cells of 8 px
    u, v = level.sides[1].tolist()

    def cells(x: float, y: float) -> list[tuple[int, int]]:
        box = torch.tensor([[[x - u / 2, y - v / 2, x + u / 2, y + v / 2]]])
        index, _ = match('v5', box)
        own = (index[0, level.start :].view(32, 40, 3)[..., 1] >= 0).nonzero().tolist()
        return [(column, row) for row, column in own]

    assert cells(84, 44) == [(10, 5)]
    assert cells(82, 47) == [(9, 5), (10, 5), (10, 6)]
    assert cells(86, 41) == [(10, 4), (10, 5), (11, 5)]
    assert cells(1, 1) == [(0, 0)]
    assert cells(319, 255) == [(39, 31)]
    assert cells(320, 255) == cells(-1, 5) == []


@pytest.mark.parametrize('rule', ['v3', 'v4', 'v5'])
def test_of_boxes_of_one_shape_the_first_wins(rule: str) -> None:
    box = torch.tensor([100.0, 100.0, 130.0, 160.0])
    index, _ = match(rule, torch.stack([box, box + 0.5, box])[None])
    assert set(index.unique().tolist()) == {BACKGROUND, 0}


def test_many_boxes_take_bounded_memory() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(1, 3000, 2, generator=generator) * 300
    boxes = torch.cat([corner, corner + 1 + 60 * torch.rand(1, 3000, 2, generator=generator)], 2)
    assert 3000 * TOTAL * 4 > 60e6  # what one table of all pairs would take
    for rule in ('v3', 'v4', 'v5'):
        assert peak_bytes(lambda rule=rule: match(rule, boxes)) < 12e6
    geometry = geometry_of(CELL_PRIORS, boxes)
    peak = peak_bytes(lambda: overlapping_mask(PRIORS, geometry, 0.5))
    assert peak < 8 * chunks.TABLE_ELEMENTS * 4


def test_chunks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    geometry = geometry_of(CELL_PRIORS, scene(28)[0].float()[None])
    whole = overlapping_mask(PRIORS, geometry, 0.3)
    monkeypatch.setattr(chunks, 'TABLE_ELEMENTS', 500)
    assert whole.any() and torch.equal(overlapping_mask(PRIORS, geometry, 0.3), whole)


def test_measures_of_shape() -> None:
    generator = torch.Generator().manual_seed(0)
    sides = torch.rand(500, 2, generator=generator) * 50
    others = torch.rand(500, 2, generator=generator) * 50 + 0.1
    laid = [torch.cat([-s / 2, s / 2], 1) for s in (sides, others)]
    torch.testing.assert_close(concentric_iou(sides, others), box_iou(*laid))
    assert (concentric_iou(sides, sides) == 1).all()
    ratio = torch.stack([sides / others, others / sides]).amax((0, 2))
    assert torch.equal(side_ratio(sides, others), ratio)
    nothing = torch.zeros(2)
    assert concentric_iou(nothing, nothing) == concentric_iou(-sides[0], others[0]) == 0
    assert side_ratio(nothing, others[0]).isinf()
