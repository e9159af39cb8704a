"""Nearest priors and the rule of ATSS, against slow references."""

from __future__ import annotations

import itertools
import statistics

import pytest
import torch
from torch import Tensor

from mmdet_ext.catalog.synthetic import anchors_as_priors, pyramid_anchors, random_boxes
from mmdet_ext.functional.assignment.atss import atss_match
from mmdet_ext.functional.assignment.claims import BACKGROUND, IGNORE, ignored_priors_mask
from mmdet_ext.functional.assignment.grids import find_grid, nearest_priors
from mmdet_ext.functional.boxes.overlap import box_centers
from tests._helpers.assigners import geometry_of, indices


def test_a_grid_is_found_and_other_orders_are_not() -> None:
    priors, sizes = pyramid_anchors(72, 40, strides=(8, 16))
    fine, coarse = box_centers(priors).split(sizes)
    grid = find_grid(fine)
    assert grid is not None
    assert torch.equal(grid.xs, torch.arange(9) * 8.0)
    assert torch.equal(grid.ys, torch.arange(5) * 8.0)
    product = torch.stack(torch.meshgrid(grid.ys, grid.xs, indexing='ij'), -1).view(-1, 2).flip(1)
    assert torch.equal(product, fine)
    assert find_grid(coarse) is not None
    for wrong in (
        fine.flip(0),
        fine.flip(1),
        fine[1:],
        fine + torch.eye(45, 2),
        fine[:0],
        torch.full_like(fine, torch.nan),
    ):
        assert find_grid(wrong) is None
    row = fine[:9]
    assert find_grid(row) is not None  # one row is a grid of height 1


@pytest.mark.parametrize('k', [1, 2, 9, 13, 60])
def test_nearest_on_a_grid_are_the_nearest_of_all(k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    for width, height in ((72, 40), (8, 200), (300, 16), (40, 40)):
        priors, sizes = pyramid_anchors(width, height, strides=(8, 16, 32))
        centers = box_centers(priors)
        points = (torch.rand(200, 2, generator=generator) * 3 - 1) * torch.tensor([width, height])
        on_grid = nearest_priors(points, centers, sizes, k)
        of_all = nearest_priors(points, centers, sizes, k, grids=[None] * 3)
        for fast, slow in zip(
            on_grid.split([min(k, n) for n in sizes], 1),
            of_all.split([min(k, n) for n in sizes], 1),
            strict=True,
        ):
            assert torch.equal(fast.sort(1).values, slow.sort(1).values)


def test_excluded_priors_come_last() -> None:
    centers = torch.tensor([[0.0, 0.0], [8.0, 0.0], [16.0, 0.0]])
    mask = torch.tensor([[True, False, False]])
    nearest = nearest_priors(torch.zeros(1, 2), centers, [3], 2, excluded_mask=mask)
    assert nearest.tolist() == [[1, 2]]
    everything = nearest_priors(torch.zeros(1, 2), centers, [3], 3, excluded_mask=mask)
    assert everything.tolist() == [[1, 2, 0]]


def test_excluded_rows_belong_to_equal_runs_of_points(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    centers = torch.rand(50, 2, generator=generator)
    points = torch.rand(12, 2, generator=generator)
    mask = torch.rand(3, 50, generator=generator) < 0.5
    whole = nearest_priors(points, centers, [30, 20], 4, excluded_mask=mask)
    assert not mask.repeat_interleave(4, 0).gather(1, whole).any()
    for image in range(3):
        run = slice(4 * image, 4 * image + 4)
        alone = nearest_priors(points[run], centers, [30, 20], 4, excluded_mask=mask[image, None])
        assert torch.equal(whole[run], alone)
    monkeypatch.setattr('mmdet_ext.functional.numerics.chunks.TABLE_ELEMENTS', 90)
    assert torch.equal(nearest_priors(points, centers, [30, 20], 4, excluded_mask=mask), whole)


def test_the_ignore_mask_is_the_share_computed_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    priors, _ = pyramid_anchors(96, 72, strides=(8, 16))
    regions = random_boxes(generator, 6, 96, 72).view(2, 3, 4)
    valid = torch.tensor([[True, True, False], [True, False, False]])
    mask = ignored_priors_mask(priors, regions, valid, 0.5)
    for image, prior in itertools.product(range(2), range(len(priors))):
        x1, y1, x2, y2 = priors[prior].tolist()
        shares = []
        for rx1, ry1, rx2, ry2 in regions[image][valid[image]].tolist():
            w = max(0.0, min(x2, rx2) - max(x1, rx1))
            h = max(0.0, min(y2, ry2) - max(y1, ry1))
            shares.append(w * h / ((x2 - x1) * (y2 - y1)))
        assert mask[image, prior].item() == (max(shares) > 0.5)
    monkeypatch.setattr('mmdet_ext.functional.numerics.chunks.TABLE_ELEMENTS', 50)
    assert torch.equal(ignored_priors_mask(priors, regions, valid, 0.5), mask)


def match(
    priors: Tensor, sizes: list[int], boxes: Tensor, ignore_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    geometry = geometry_of(anchors_as_priors(priors, sizes), boxes)
    return indices(atss_match(geometry, ignore_mask=ignore_mask))


def slow_atss(priors: Tensor, sizes: list[int], gts: Tensor, topk: int) -> list[int]:
    """Compute the paper's algorithm 1 with loops over boxes, levels and candidates."""
    anchors, boxes = priors.double().tolist(), gts.double().tolist()

    def center(box: list[float]) -> tuple[float, float]:
        return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2

    def iou(a: list[float], b: list[float]) -> float:
        w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
        return w * h / (sum(areas) - w * h)

    best: dict[int, tuple[float, int]] = {}
    for g, box in enumerate(boxes):
        gx, gy = center(box)
        candidates: list[int] = []
        start = 0
        for size in sizes:
            level = range(start, start + size)
            gaps = {
                p: sum((u - v) ** 2 for u, v in zip(center(anchors[p]), (gx, gy), strict=True))
                for p in level
            }
            candidates += sorted(level, key=gaps.__getitem__)[:topk]
            start += size
        overlaps = [iou(anchors[p], box) for p in candidates]
        threshold = statistics.mean(overlaps) + statistics.stdev(overlaps)
        for p, overlap in zip(candidates, overlaps, strict=True):
            x, y = center(anchors[p])
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            if overlap >= threshold and inside and overlap > best.get(p, (-1.0, 0))[0]:
                best[p] = (overlap, g)
    return [best[p][1] if p in best else BACKGROUND for p in range(len(anchors))]


@pytest.mark.parametrize('count', [1, 4, 30])
@pytest.mark.parametrize('topk', [1, 3, 9])
def test_atss_equals_the_slow_reference(count: int, topk: int) -> None:
    priors, sizes = pyramid_anchors(160, 120, strides=(8, 16, 32))
    generator = torch.Generator().manual_seed(count * 10 + topk)
    for _ in range(3):
        boxes = random_boxes(generator, count, 160, 120, 6, 90)
        geometry = geometry_of(anchors_as_priors(priors, sizes), boxes[None])
        index, overlap = indices(atss_match(geometry, topk))
        assert index[0].tolist() == slow_atss(priors, sizes, boxes, topk)
        assert torch.equal(overlap[0] > 0, index[0] >= 0)


def test_a_prior_claimed_twice_goes_to_the_larger_overlap_then_to_the_first() -> None:
    priors, sizes = pyramid_anchors(64, 64, strides=(8,), scale=4)
    box = torch.tensor([16.0, 16.0, 49.0, 49.0])
    smaller = torch.tensor([24.0, 24.0, 44.0, 44.0])
    index, _ = match(priors, sizes, torch.stack([smaller, box, box])[None])
    claimed = set(index[0].tolist())
    assert 1 in claimed and 2 not in claimed


def test_ignored_priors_are_marked_unless_a_box_claims_them() -> None:
    priors, sizes = pyramid_anchors(64, 64, strides=(8,), scale=4)
    ignore = torch.zeros(1, len(priors), dtype=torch.bool)
    ignore[0, :20] = True
    box = torch.tensor([[[30.0, 30.0, 60.0, 60.0]]])
    index, overlap = match(priors, sizes, box, ignore)
    assert (index[0, :20] == IGNORE).all()
    assert (index[0, 20:] != IGNORE).all() and (index[0] == 0).any()
    assert torch.equal(overlap > 0, index >= 0)
    few, few_sizes = pyramid_anchors(24, 24, strides=(8,), scale=2)  # all are candidates
    whole = torch.ones(1, 9, dtype=torch.bool)
    free, _ = match(few, few_sizes, box - 25)
    claimed, _ = match(few, few_sizes, box - 25, whole)
    assert (free == 0).any() and torch.equal(claimed == 0, free == 0)
    assert torch.equal(claimed == IGNORE, free != 0)
    none, _ = match(priors, sizes, box[:, :0], ignore)
    assert torch.equal(none == IGNORE, ignore)


def test_a_single_candidate_is_its_own_threshold() -> None:
    prior = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    box = torch.tensor([[[1.0, 1.0, 9.0, 9.0]]])
    index, overlap = match(prior, [1], box)
    assert index.tolist() == [[0]] and overlap.item() == pytest.approx(0.64)
