"""Heatmaps against mmdet's loops and against the equation."""

from __future__ import annotations

import math

import pytest
import torch
from mmdet.models.utils import gaussian_radius as mmdet_radius
from mmdet.models.utils import gen_gaussian_target
from torch import Tensor

from mmdet_ext.catalog.memory import peak_bytes
from mmdet_ext.catalog.scenes import points_as_priors, pyramid_points, scene
from mmdet_ext.functional.assignment.center_heatmap import (
    center_cells,
    center_match,
    gaussian_heatmaps,
    gaussian_radius,
    heatmap_grid,
)
from mmdet_ext.functional.assignment.claims import BACKGROUND, IGNORE
from mmdet_ext.functional.boxes.overlap import box_iou
from mmdet_ext.functional.numerics import chunks
from tests._helpers.assigners import geometry_of, indices

POINTS, _ = pyramid_points(strides=(4,))
PRIORS = points_as_priors(POINTS)
GRID = heatmap_grid(PRIORS)
CLASSES = 7


def draw(boxes: Tensor, labels: Tensor, valid: Tensor | None = None) -> Tensor:
    """Draw the heatmaps of boxes (B, G, 4) on the grid."""
    cells, inside = center_cells(GRID, boxes)
    radius = gaussian_radius((boxes[..., 2:] - boxes[..., :2]) / 4, 0.3)
    valid = inside if valid is None else valid & inside
    return gaussian_heatmaps(cells, radius, labels, valid, CLASSES, (64, 80))


def match(boxes: Tensor, valid: Tensor | None = None, **more: object) -> tuple[Tensor, Tensor]:
    shared = more.pop('shared', 'smallest')
    return indices(center_match(geometry_of(PRIORS, boxes, valid, **more), shared))


def slow_heatmaps(boxes: Tensor, labels: Tensor) -> Tensor:
    """Draw the heatmaps by mmdet's functions, in a loop over boxes."""
    heatmaps = torch.zeros(CLASSES, 64, 80)
    for box, label in zip(boxes, labels.tolist(), strict=True):
        x, y = ((box[:2] + box[2:]) / 2 / 4).floor().int().tolist()
        if 0 <= x < 80 and 0 <= y < 64:
            radius = mmdet_radius([(box[3] - box[1]) / 4, (box[2] - box[0]) / 4], 0.3)
            gen_gaussian_target(heatmaps[label], [x, y], max(0, int(radius)))
    return heatmaps


@pytest.mark.slow
def test_heatmaps_equal_the_loop_of_mmdet_on_random_images() -> None:
    drawn = 0
    for case in range(400):
        boxes, labels = scene(case)
        boxes = boxes.float()
        heatmaps = draw(boxes[None], labels[None])[0]
        expected = slow_heatmaps(boxes, labels)
        torch.testing.assert_close(heatmaps, expected, rtol=1e-6, atol=1e-6)
        assert torch.equal(heatmaps == 0, expected == 0)
        assert torch.equal(heatmaps == 1, expected == 1)
        drawn += int((expected > 0).sum())
    assert drawn > 500_000


def test_a_heatmap_equals_the_equation() -> None:
    cells = torch.tensor([[[3, 2], [6, 2], [0, 0]]])
    radius, labels = torch.tensor([[2.9, 1.0, 0.0]]), torch.tensor([[1, 1, 0]])
    heatmaps = gaussian_heatmaps(cells, radius, labels, labels >= 0, 2, (5, 9))
    for row in range(5):
        for column in range(9):
            value = 0.0
            for (x, y), r in (((3, 2), 2), ((6, 2), 1)):
                if max(abs(column - x), abs(row - y)) <= r:
                    spread = 2 * ((2 * r + 1) / 6) ** 2
                    value = max(value, math.exp(-((column - x) ** 2 + (row - y) ** 2) / spread))
            assert heatmaps[0, 1, row, column].item() == pytest.approx(value, abs=1e-6)
    assert heatmaps[0, 0].count_nonzero() == 1 and heatmaps[0, 0, 0, 0] == 1
    assert gaussian_heatmaps(cells, radius.double(), labels, labels >= 0, 2, (5, 9)).dtype == (
        torch.float64
    )


def test_the_radius_equals_that_of_mmdet_and_keeps_the_overlap() -> None:
    generator = torch.Generator().manual_seed(0)
    sides = torch.rand(500, 2, generator=generator) * 60
    for overlap in (0.1, 0.3, 0.7):
        radius = gaussian_radius(sides, overlap)
        expected = [float(mmdet_radius([h, w], overlap)) for w, h in sides]
        torch.testing.assert_close(radius, torch.tensor(expected), rtol=1e-6, atol=1e-6)
        box = torch.cat([torch.zeros_like(sides), sides], 1)
        r = radius[:, None]
        # Both corners inwards, outwards, and moved the same way.
        moves = [
            torch.cat([a * r, b * r], 1).repeat_interleave(2, 1)
            for a, b in (
                (1, -1),
                (-1, 1),
                (1, 1),
            )
        ]
        overlaps = torch.stack([box_iou(box, box + move) for move in moves]).amin(0)
        assert ((overlaps - overlap).abs() < 1e-3).all()
    flat = torch.tensor([[0.0, 5.0], [-3.0, 5.0]])
    assert torch.equal(gaussian_radius(flat, 0.3), torch.zeros(2))
    huge = gaussian_radius(torch.tensor([2e3, 1e3]).half(), 0.3)
    assert huge.dtype == torch.float32 and huge.isfinite()


def slow_match(boxes: Tensor, shared: str) -> dict[int, int]:
    """Return the box of each cell that has one."""
    owner: dict[int, int] = {}
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in boxes.tolist()]
    for index, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        column, row = math.floor((x1 + x2) / 8), math.floor((y1 + y2) / 8)
        if not (0 <= column < 80 and 0 <= row < 64):
            continue
        cell = row * 80 + column
        if shared == 'last' or cell not in owner or areas[index] < areas[owner[cell]]:
            owner[cell] = index
    return owner


@pytest.mark.parametrize('shared', ['smallest', 'last'])
def test_indices_equal_the_slow_reference_on_random_images(shared: str) -> None:
    assigned = differing = 0
    for case in range(400):
        boxes = scene(case)[0].float()
        index, overlap = (found[0] for found in match(boxes[None], shared=shared))
        owner = slow_match(boxes, shared)
        expected = torch.full((len(POINTS),), BACKGROUND)
        expected[list(owner)] = torch.tensor(list(owner.values()), dtype=torch.int64)
        center = (boxes[:, :2].double() + boxes[:, 2:].double()) / 8
        on_border = (center - center.round()).abs().amin(1) < 1e-5
        area = (boxes[:, 2:] - boxes[:, :2]).double().prod(1)
        for one, other in zip(
            *((i[index != expected]).tolist() for i in (index, expected)), strict=True
        ):
            differing += 1
            found = [box for box in (one, other) if box >= 0]
            same_area = len(found) == 2 and math.isclose(*area[found].tolist(), rel_tol=1e-6)
            assert same_area or on_border[found].any(), (case, one, other)
        assert torch.equal(overlap, (index >= 0).float())
        assigned += len(owner)
    print(f'{differing} of {assigned} differ, each tied')
    assert assigned > 5000
    assert differing < 0.002 * assigned


def test_a_batch_is_the_stack_of_its_images_whatever_stands_in_padding() -> None:
    images = [scene(case) for case in (1, 10, 8, 12)]
    most = max(len(boxes) for boxes, _ in images) + 5
    boxes = torch.tensor([0.0, 0.0, 320.0, 256.0]).expand(len(images), most, 4).clone()
    labels = torch.full((len(images), most), -9)
    valid = torch.zeros(len(images), most, dtype=torch.bool)
    for image, (own, own_labels) in enumerate(images):
        boxes[image, : len(own)] = own
        labels[image, : len(own)] = own_labels
        valid[image, : len(own)] = True
    boxes[1, -1] = torch.nan
    index, _ = match(boxes, valid)
    heatmaps = draw(boxes, labels, valid)
    for image, (own, own_labels) in enumerate(images):
        assert torch.equal(index[image], match(own.float()[None])[0][0])
        assert torch.equal(heatmaps[image], draw(own.float()[None], own_labels[None])[0])
        assert (index[image] >= 0).any() and (heatmaps[image] == 1).any()


def test_permuting_boxes_permutes_indices_and_leaves_heatmaps() -> None:
    boxes, labels = scene(28)
    order = torch.randperm(len(boxes), generator=torch.Generator().manual_seed(0))
    (plain, _), (moved, _) = match(boxes[None]), match(boxes[order][None])
    assert (plain >= 0).sum() > 15
    assert torch.equal(order[moved.clamp(min=0)].where(moved >= 0, moved), plain)
    one, other = draw(boxes[None], labels[None]), draw(boxes[order][None], labels[order][None])
    assert torch.equal(one, other)


def test_a_shared_cell_goes_to_the_smallest_box_or_to_the_last() -> None:
    box = torch.tensor([100.0, 100.0, 120.0, 120.0])
    larger = box + torch.tensor([-2.0, -2.0, 2.0, 2.0])
    boxes = torch.stack([larger, box, box, larger])[None]
    assert match(boxes)[0].amax() == 1
    assert match(boxes, shared='last')[0].amax() == 3


def test_absent_cells_get_no_box_and_are_ignored() -> None:
    boxes = scene(28)[0][None]
    present = torch.rand(1, len(POINTS), generator=torch.Generator().manual_seed(0)) < 0.5
    (index, overlap), (full, _) = match(boxes, prior_valid=present), match(boxes)
    assert (full[~present] >= 0).any()
    assert (index[~present] == IGNORE).all() and (overlap[~present] == 0).all()
    assert torch.equal(index[present], full[present])
    nothing, _ = match(boxes[:, :0], prior_valid=present)
    assert torch.equal(nothing == IGNORE, ~present) and (nothing[present] == BACKGROUND).all()
    assert not draw(boxes[:, :0], torch.zeros(1, 0, dtype=torch.int64)).any()


def test_chunks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, labels = scene(28)
    whole = draw(boxes[None], labels[None])
    monkeypatch.setattr(chunks, 'TABLE_ELEMENTS', 300)
    assert torch.equal(draw(boxes[None], labels[None]), whole)


def test_many_boxes_take_bounded_memory() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(1, 3000, 2, generator=generator) * 250
    boxes = torch.cat([corner, corner + 300 * torch.rand(1, 3000, 2, generator=generator)], 2)
    labels = torch.randint(CLASSES, (1, 3000), generator=generator)
    assert 3000 * len(POINTS) * 4 > 60e6  # what a table of all pairs would take
    result = CLASSES * len(POINTS) * 4
    assert peak_bytes(lambda: draw(boxes, labels)) < result + 10 * chunks.TABLE_ELEMENTS * 4
    assert peak_bytes(lambda: match(boxes)) < 4e6


def test_points_form_cells_or_are_refused() -> None:
    for offset in (0.0, 0.5):
        grid = heatmap_grid(points_as_priors(pyramid_points(strides=(4,), offset=offset)[0]))
        assert grid[:2] == (80, 64)
        assert grid.stride.tolist() == [4, 4] and grid.first.tolist() == [0, 0]
    part = heatmap_grid(points_as_priors(POINTS.view(64, 80, 4)[5:, 7:].reshape(-1, 4)))
    assert part[:2] == (73, 59) and part.first.tolist() == [7, 5]
    for wrong in (pyramid_points()[0], POINTS[:-1], POINTS.flip(0), POINTS[:0], POINTS * 0):
        with pytest.raises(ValueError, match=f'of one level, .* got {len(wrong)} that are not'):
            heatmap_grid(points_as_priors(wrong))


def test_a_label_out_of_range_is_named() -> None:
    boxes, labels = scene(28)
    with pytest.raises(ValueError, match=r'labels must be in \[0, 7\), got 5 to 11'):
        draw(boxes[None], labels[None].clamp(min=5) + (labels[None] == 6) * 5)
