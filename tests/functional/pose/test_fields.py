"""Part affinity fields: a slow twin, facts by hand, and input without a limb."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.pose import limb_scores, paf_loss, paf_targets

LIMBS = [(0, 1), (1, 2), (0, 3)]
EDGE = 1e-4


def slow_fields(
    keypoints: Tensor,
    visible: Tensor,
    shape: tuple[int, int],
    width: float,
    overhang: float,
) -> Tensor:
    """Draw the fields person by person and pixel by pixel, after the paper's equations 8 and 9."""
    height, columns = shape
    images, people, _ = visible.shape
    fields = torch.zeros(images, len(LIMBS), 2, height, columns, dtype=torch.float64)
    for image in range(images):
        for number, (first, second) in enumerate(LIMBS):
            for y in range(height):
                for x in range(columns):
                    found = []
                    for person in range(people):
                        if not visible[image, person, [first, second]].all():
                            continue
                        a = keypoints[image, person, first].tolist()
                        b = keypoints[image, person, second].tolist()
                        length = math.dist(a, b)
                        if length == 0:
                            continue
                        vx, vy = (b[0] - a[0]) / length, (b[1] - a[1]) / length
                        along = vx * (x - a[0]) + vy * (y - a[1])
                        across = abs(vy * (x - a[0]) - vx * (y - a[1]))
                        inside = -overhang - EDGE <= along <= length + overhang + EDGE
                        if inside and across <= width + EDGE:
                            found.append((vx, vy))
                    if found:
                        mean = [sum(part) / len(found) for part in zip(*found, strict=True)]
                        fields[image, number, :, y, x] = torch.tensor(mean, dtype=torch.float64)
    return fields


@pytest.mark.parametrize('whole', [True, False])
@pytest.mark.parametrize(('width', 'overhang'), [(1.0, 0.0), (0.7, 0.5), (2.5, 1.0)])
def test_fields_are_those_of_the_paper(whole: bool, width: float, overhang: float) -> None:
    generator = torch.Generator().manual_seed(int(10 * width) + whole)
    for _ in range(3):
        keypoints = torch.rand(2, 4, 4, 2, generator=generator, dtype=torch.float64) * 24 - 5
        # Whole coordinates give limbs along the grid, and some of length 0.
        keypoints = keypoints.round() if whole else keypoints
        visible = torch.rand(2, 4, 4, generator=generator) > 0.3
        fields = paf_targets(keypoints, visible, LIMBS, (11, 14), width, overhang)
        wanted = slow_fields(keypoints, visible, (11, 14), width, overhang)
        torch.testing.assert_close(fields, wanted, atol=1e-12, rtol=0)


def test_overlapping_limbs_are_averaged() -> None:
    keypoints = torch.tensor([[[[0.0, 2.0], [4.0, 2.0]], [[2.0, 0.0], [2.0, 4.0]]]])
    fields = paf_targets(keypoints, torch.ones(1, 2, 2), [(0, 1)], (5, 5), 0.5)
    assert fields[0, 0, :, 2, 2].tolist() == [0.5, 0.5]
    assert fields[0, 0, :, 2, 1].tolist() == [1.0, 0.0]
    assert fields[0, 0, :, 3, 2].tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    'ends',
    [
        [[3.0, 3.0], [3.0, 3.0]],
        [[math.nan, 3.0], [5.0, 3.0]],
        [[3.0, 3.0], [math.inf, 3.0]],
        [[-30.0, -30.0], [-20.0, -25.0]],
        [[1e30, 1.0], [-1e30, 1.0]],
    ],
)
def test_a_limb_that_cannot_be_drawn_leaves_the_field_empty(ends: list[list[float]]) -> None:
    fields = paf_targets(torch.tensor([[ends]]), torch.ones(1, 1, 2), [(0, 1)], (8, 8))
    assert not fields.any()


def test_no_people_give_empty_fields() -> None:
    fields = paf_targets(torch.zeros(2, 0, 4, 2), torch.zeros(2, 0, 4), LIMBS, (6, 5))
    assert fields.shape == (2, 3, 2, 6, 5) and not fields.any()


@pytest.mark.parametrize('limbs', [[(0, 4)], [(1, 1)], [(0, 1), (0, 1)], [(-1, 0)], [(0, 1, 2)]])
def test_limbs_that_are_no_pairs_are_named(limbs: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r'limbs must be different pairs .* joints 0 to 3'):
        paf_targets(torch.zeros(1, 1, 4, 2), torch.ones(1, 1, 4), limbs, (4, 4))


def test_loss_is_the_mean_squared_error_of_what_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    fields, targets = torch.randn(2, 2, 3, 2, 4, 5, generator=generator, dtype=torch.float64)
    fields.requires_grad_()
    weights = torch.tensor([[1.0, 0.0, 2.0], [1.0, 1.0, 0.5]])
    mask = torch.rand(2, 4, 5, generator=generator) > 0.3
    loss = paf_loss(fields, targets, weights, mask)
    for image in range(2):
        for limb in range(3):
            square = (fields - targets)[image, limb].square() * mask[image]
            wanted = weights[image, limb] * square.mean()
            torch.testing.assert_close(loss[image, limb], wanted.to(loss.dtype))
    assert torch.autograd.gradcheck(lambda x: paf_loss(x, targets, weights, mask), (fields,))


def test_what_does_not_count_may_be_infinite() -> None:
    fields = torch.zeros(1, 1, 2, 2, 2)
    fields[..., 0, 0] = math.nan
    fields.requires_grad_()
    mask = torch.tensor([[[0, 1], [1, 1]]])
    loss = paf_loss(fields, torch.ones_like(fields), mask=mask)
    loss.sum().backward()
    assert loss.item() == pytest.approx(0.75)
    assert fields.grad is not None and fields.grad.isfinite().all()


def test_shapes_that_do_not_fit_are_named() -> None:
    field = torch.zeros(1, 2, 2, 4, 4)
    with pytest.raises(ValueError, match=r'fields and targets must be \(B, C, 2, H, W\)'):
        paf_loss(field, field[:, :1])
    with pytest.raises(ValueError, match=r'weights must be \(1, 2\)'):
        paf_loss(field, field, torch.ones(1, 3))
    with pytest.raises(ValueError, match=r'mask must be \(1, 4, 4\)'):
        paf_loss(field, field, mask=torch.ones(1, 1, 4, 4))


def test_scores_are_means_along_the_connections() -> None:
    generator = torch.Generator().manual_seed(3)
    fields = torch.randn(3, 2, 9, 12, generator=generator)
    candidates = torch.rand(4, 5, 2, generator=generator) * torch.tensor([11.0, 8.0])
    found = limb_scores(fields, candidates, LIMBS, points=7, threshold=0.2, longest=6.0)
    for number, (first, second) in enumerate(LIMBS):
        for i in range(5):
            for j in range(5):
                a, b = candidates[first, i], candidates[second, j]
                length = float((b - a).norm())
                along = []
                for step in range(7):
                    x, y = (a + (b - a) * (step / 6)).add(0.5).floor().long().tolist()
                    along.append(float(fields[number, :, y, x] @ ((b - a) / length)))
                score = sum(along) / 7 + min(6.0 / length - 1, 0)
                share = sum(value > 0.2 for value in along) / 7
                assert found.score[number, i, j].item() == pytest.approx(score, abs=1e-5)
                assert found.share[number, i, j].item() == pytest.approx(share, abs=1e-6)
                assert found.length[number, i, j].item() == pytest.approx(length, abs=1e-5)


def test_candidates_at_one_place_and_a_field_of_nan_score_zero() -> None:
    fields = torch.full((1, 2, 4, 4), math.nan)
    candidates = torch.tensor([[[1.0, 1.0]], [[1.0, 1.0]]])
    for longest in (None, 2.0):
        found = limb_scores(fields, candidates, [(0, 1)], longest=longest)
        assert all(float(value) == 0 for value in found)
    found = limb_scores(fields, torch.tensor([[[1.0, 1.0]], [[3.0, 1.0]]]), [(0, 1)])
    assert float(found.score) == 0 and float(found.share) == 0


def test_options_out_of_range_are_named() -> None:
    fields, candidates = torch.zeros(1, 2, 4, 4), torch.zeros(2, 1, 2)
    with pytest.raises(ValueError, match='points must be a whole number from 2 on'):
        limb_scores(fields, candidates, [(0, 1)], points=1)
    with pytest.raises(ValueError, match='longest must be above 0'):
        limb_scores(fields, candidates, [(0, 1)], longest=0)
    with pytest.raises(ValueError, match=r'fields must be \(1, 2, H, W\)'):
        limb_scores(fields[:, :1], candidates, [(0, 1)])
    with pytest.raises(ValueError, match=r'candidates must be \(K, M, 2\)'):
        limb_scores(fields, candidates[0], [(0, 1)])
    with pytest.raises(ValueError, match='width must be above 0'):
        paf_targets(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2), [(0, 1)], (4, 4), 0)
    with pytest.raises(ValueError, match='overhang must be at least 0'):
        paf_targets(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2), [(0, 1)], (4, 4), 1, -1)
