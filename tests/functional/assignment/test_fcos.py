"""The rule of FCOS against a slow reference, and the properties of its parts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmdet_ext.catalog.memory import peak_bytes
from mmdet_ext.catalog.scenes import points_as_priors, pyramid_points, scene
from mmdet_ext.functional.assignment.claims import BACKGROUND, IGNORE
from mmdet_ext.functional.assignment.fcos import centerness, fcos_match
from mmdet_ext.functional.numerics import chunks
from tests._helpers.assigners import geometry_of, indices

POINTS, SIZES = pyramid_points(96, 80)
RANGES = ((-1, 16), (16, 32), (32, 64), (64, 128), (128, 1e8))
PRIORS = points_as_priors(POINTS, SIZES)
LEVELS = PRIORS.level_index(5)


def match(boxes: Tensor, valid: Tensor | None = None, **more: object) -> tuple[Tensor, Tensor]:
    radius = more.pop('center_radius', None)
    return indices(fcos_match(geometry_of(PRIORS, boxes, valid, **more), RANGES, radius))


def slow_match(boxes: Tensor, radius: float | None) -> list[int]:
    """Compute the rule point by point and box by box, in float64."""
    result = []
    for (x, y, stride, _), level in zip(POINTS.tolist(), LEVELS.tolist(), strict=True):
        best, best_area = BACKGROUND, math.inf
        for index, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
            sides = (x - x1, y - y1, x2 - x, y2 - y)
            if min(sides) <= 0 or not RANGES[level][0] <= max(sides) <= RANGES[level][1]:
                continue
            if radius is not None:
                away = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2))
                if away >= radius * stride:
                    continue
            if (x2 - x1) * (y2 - y1) < best_area:
                best, best_area = index, (x2 - x1) * (y2 - y1)
        result.append(best)
    return result


def choice_is_open(point: int, boxes: Tensor, found: list[int], radius: float | None) -> bool:
    """Return whether rounding decides for a point: by equal areas, or a distance on its limit."""
    areas = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).double()
    if min(found) >= 0 and math.isclose(*areas[found].tolist(), rel_tol=1e-6):
        return True
    x, y, stride, _ = POINTS[point].tolist()
    for x1, y1, x2, y2 in boxes[[index for index in found if index >= 0]].tolist():
        sides = (x - x1, y - y1, x2 - x, y2 - y)
        gaps = [min(sides), *(max(sides) - end for end in RANGES[LEVELS[point]])]
        if radius is not None:
            away = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2))
            gaps.append(away - radius * stride)
        if min(map(abs, gaps)) < 1e-3:
            return True
    return False


@pytest.mark.parametrize('radius', [None, 1.5, 0.7])
def test_indices_equal_the_slow_reference_on_random_images(radius: float | None) -> None:
    assigned = differing = 0
    for case in range(210):
        boxes, _ = scene(case, most=30, width=96, height=80)
        index = match(boxes[None], center_radius=radius)[0][0].tolist()
        expected = slow_match(boxes.float(), radius)
        for point, found in enumerate(zip(index, expected, strict=True)):
            if found[0] != found[1]:
                differing += 1
                assert choice_is_open(point, boxes.float(), list(found), radius)
        assigned += sum(box >= 0 for box in expected)
    print(f'{differing} of {assigned} differ, each tied')
    assert assigned > 500
    assert differing < 0.005 * assigned


def test_a_batch_is_the_stack_of_its_images_whatever_stands_in_padding() -> None:
    images = [scene(case, most=40, width=96, height=80)[0].float() for case in (1, 10, 8, 12)]
    most = max(map(len, images)) + 5
    boxes = torch.tensor([0.0, 0.0, 96.0, 80.0]).expand(len(images), most, 4).clone()
    valid = torch.zeros(len(images), most, dtype=torch.bool)
    for image, own in enumerate(images):
        boxes[image, : len(own)] = own
        valid[image, : len(own)] = True
    index, overlap = match(boxes, valid, center_radius=1.5)
    for image, own in enumerate(images):
        alone = match(own[None], center_radius=1.5)
        assert torch.equal(index[image], alone[0][0])
        assert torch.equal(overlap[image], alone[1][0])
    assert (index >= 0).any(1).tolist() == [True, True, True, True]


def test_chunks_of_boxes_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = torch.stack([scene(case, width=96, height=80)[0][:30].float() for case in (7, 8)])
    whole = match(boxes)
    monkeypatch.setattr(chunks, 'TABLE_ELEMENTS', 500)
    for one, other in zip(match(boxes), whole, strict=True):
        assert torch.equal(one, other)


def test_the_smallest_box_wins_and_of_equal_ones_the_first() -> None:
    box = torch.tensor([[10.0, 10.0, 30.0, 30.0]])
    larger = torch.tensor([[9.0, 9.0, 31.0, 31.0]])
    index, _ = match(torch.cat([larger, box, box])[None])
    inside = (POINTS[:, 0] > 10) & (POINTS[:, 0] < 30) & (POINTS[:, 1] > 10) & (POINTS[:, 1] < 30)
    inside &= index[0] >= 0
    assert inside.any()
    assert (index[0][inside] == 1).all()


def test_absent_points_get_no_box_and_are_ignored() -> None:
    boxes = scene(5, width=96, height=80)[0].float()[None]
    present = torch.rand(1, len(POINTS), generator=torch.Generator().manual_seed(0)) < 0.5
    (index, overlap), (full, full_overlap) = match(boxes, prior_valid=present), match(boxes)
    assert (full[~present] >= 0).any()
    assert (index[~present] == IGNORE).all() and (overlap[~present] == 0).all()
    assert torch.equal(index[present], full[present])
    assert torch.equal(overlap[present], full_overlap[present])
    nothing, _ = match(boxes[:, :0], prior_valid=present)
    assert torch.equal(nothing == IGNORE, ~present) and (nothing[present] == BACKGROUND).all()


def test_many_boxes_take_bounded_memory() -> None:
    points, sizes = pyramid_points(640, 480)
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(1, 3000, 2, generator=generator) * 600
    boxes = torch.cat([corner, corner + 1 + 60 * torch.rand(1, 3000, 2, generator=generator)], 2)
    geometry = geometry_of(points_as_priors(points, sizes), boxes)
    peak = peak_bytes(lambda: fcos_match(geometry, RANGES, 1.5))
    assert 3000 * len(points) * 4 > 70e6  # what one table of all pairs would take
    assert peak < 20 * chunks.TABLE_ELEMENTS * 4


def test_levels_follow_the_sizes_or_the_strides() -> None:
    assert torch.equal(points_as_priors(POINTS).level_index(5), LEVELS)
    assert torch.equal(LEVELS.bincount(), torch.tensor(SIZES))
    shuffled = torch.randperm(len(POINTS), generator=torch.Generator().manual_seed(0))
    assert torch.equal(points_as_priors(POINTS[shuffled]).level_index(5), LEVELS[shuffled])
    assert points_as_priors(POINTS[:0]).level_index(5).shape == (0,)
    assert not points_as_priors(POINTS).level_index(1).any()
    with pytest.raises(ValueError, match=r'3 levels are expected, but level_sizes has 5'):
        PRIORS.level_index(3)
    with pytest.raises(ValueError, match=r'3 levels are expected.* 5 distinct strides: \[8.0'):
        points_as_priors(POINTS).level_index(3)


def test_centerness_is_one_at_the_centre_and_nothing_outside() -> None:
    box = torch.tensor([0.0, 0.0, 8.0, 4.0])
    points = torch.tensor([[4.0, 2.0], [1.0, 2.0], [0.0, 2.0], [-1.0, 2.0], [4.0, 9.0]])
    expected = torch.tensor([1.0, math.sqrt(1 / 7), 0.0, 0.0, 0.0])
    assert torch.equal(centerness(points, box), expected)
    assert torch.equal(centerness(points, torch.zeros(4)), torch.zeros(5))
