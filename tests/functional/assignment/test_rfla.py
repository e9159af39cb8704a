"""The hierarchical assignment of receptive fields against a slow reference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from mmdet_ext.catalog.memory import peak_bytes
from mmdet_ext.catalog.scenes import points_as_priors, pyramid_points, scene
from mmdet_ext.functional.assignment.claims import BACKGROUND, IGNORE
from mmdet_ext.functional.assignment.geometry import Priors
from mmdet_ext.functional.assignment.rfla import (
    RESNET50_FPN_FIELDS,
    effective_fields,
    field_similarity,
    hierarchical_match,
)
from mmdet_ext.functional.boxes.overlap import box_wasserstein
from mmdet_ext.functional.numerics import chunks
from tests._helpers.assigners import geometry_of, indices
from tests._helpers.tolerances import assert_equal_but_rounding

POINTS, SIZES = pyramid_points()
PRIORS = points_as_priors(POINTS, SIZES)
LEVELS = PRIORS.level_index(5)
FIELD_PRIORS = effective_fields(PRIORS, RESNET50_FPN_FIELDS[1:])
FIELDS = FIELD_PRIORS.as_corners()


def match(boxes: Tensor, **more: object) -> tuple[Tensor, Tensor]:
    valid, present = more.pop('valid', None), more.pop('prior_valid', None)
    geometry = geometry_of(FIELD_PRIORS, boxes, valid, prior_valid=present)
    return indices(hierarchical_match(geometry, **more))


def slow_similarity(box: Tensor, scale: float, distance: str) -> Tensor:
    """Compute the similarity of one box with all fields by the formula, in float64."""
    fields = FIELDS.double()
    x, y = ((fields[:, i] + fields[:, i + 2]) / 2 for i in (0, 1))
    w, h = ((fields[:, i + 2] - fields[:, i]) * scale for i in (0, 1))
    x1, y1, x2, y2 = box.double().tolist()
    u, v = max(x2 - x1, 1.0), max(y2 - y1, 1.0)
    dx, dy = x - (x1 + x2) / 2, y - (y1 + y2) / 2
    if distance == 'wasserstein':
        return 1 / (1 + dx**2 + dy**2 + ((w - u) ** 2 + (h - v) ** 2) / 4)
    trace = w**2 / u**2 + h**2 / v**2
    shift = 4 * dx**2 / u**2 + 4 * dy**2 / v**2
    return 1 / (1 + (trace + shift + (u**2 / w**2).log() + (v**2 / h**2).log() - 2) / 2)


@dataclass
class Ranking:
    """One ranking of the fields by each box."""

    similarity: Tensor  # (G, P)
    claimed: Tensor  # (G, P) bool
    open_choice: Tensor  # (G,) bool: the last claimed is as near as the first one that is not

    @classmethod
    def of(cls, boxes: Tensor, scale: float, k: int, distance: str) -> Ranking:
        table = torch.stack([slow_similarity(box, scale, distance) for box in boxes])
        order = table.sort(1, descending=True).values
        claimed = table >= order[:, k - 1 : k]
        below = table.masked_fill(claimed, -1).amax(1)
        # Within the precision that float32 keeps of D in 1 + D.
        near = (1 / below - 1) <= (1 / order[:, k - 1] - 1) * (1 + 1e-5) + 1e-6
        near |= claimed.sum(1) > k
        return cls(table, claimed, near)

    def owner(self, prior: int, shared: str) -> int:
        boxes = self.claimed[:, prior].nonzero().flatten().tolist()
        if not boxes:
            return -1
        if shared == 'last':
            return boxes[-1]
        return max(boxes, key=lambda box: float(self.similarity[box, prior]))


def slow_match(boxes: Tensor, k: int, distance: str, shared: str) -> tuple[Tensor, list[Ranking]]:
    """Assign as the authors' code does, box by box and prior by prior."""
    result = torch.full((len(FIELDS),), BACKGROUND)
    if len(boxes) == 0:
        return result, []
    ranked = [Ranking.of(boxes, 1.0, k, distance), Ranking.of(boxes, 0.9, 1, distance)]
    result[ranked[1].similarity.amax(0) >= 0.8] = IGNORE
    for ranking in reversed(ranked):
        for prior in ranking.claimed.any(0).nonzero().flatten().tolist():
            result[prior] = ranking.owner(prior, shared)
    return result, ranked


def choice_is_open(prior: int, pair: list[int], ranked: list[Ranking]) -> bool:
    """Return whether rounding decides between two boxes for a prior."""
    for ranking in ranked:
        claimers = ranking.claimed[:, prior].nonzero().flatten().tolist()
        involved = {box for box in (*pair, *claimers) if box >= 0}
        if any(bool(ranking.open_choice[box]) for box in involved):
            return True
        found = ranking.similarity[claimers, prior].sort(descending=True).values.tolist()
        if len(found) > 1 and math.isclose(found[0], found[1], rel_tol=1e-5):
            return True
    return abs(float(ranked[1].similarity[:, prior].max()) - 0.8) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ('k', 'distance', 'shared'),
    [(3, 'kl', 'nearest'), (3, 'kl', 'last'), (3, 'wasserstein', 'nearest'), (1, 'kl', 'last')],
)
def test_indices_equal_the_slow_reference_on_random_images(
    k: int, distance: str, shared: str
) -> None:
    assigned = differing = ignored = 0
    for case in range(210):
        boxes = scene(case, most=60)[0]
        index, _ = match(boxes[None], topk=k, distance=distance, shared=shared)
        expected, ranked = slow_match(boxes.float(), k, distance, shared)
        for prior in (index[0] != expected).nonzero().flatten().tolist():
            differing += 1
            pair = [int(index[0, prior]), int(expected[prior])]
            assert choice_is_open(prior, pair, ranked), (case, prior, pair)
        assigned += int((expected >= 0).sum())
        ignored += int((expected == IGNORE).sum())
    print(f'{differing} of {assigned} differ, each tied; {ignored} ignored')
    assert assigned > 2000 and (ignored > 50 or distance != 'kl')
    assert differing < 0.03 * assigned


@pytest.mark.parametrize('distance', ['kl', 'wasserstein'])
def test_similarity_equals_the_slow_reference(distance: str) -> None:
    for case in range(20):
        for box in scene(case, most=10)[0].float():
            table = field_similarity(FIELDS, box, distance)
            expected = slow_similarity(box, 1.0, distance).float()
            torch.testing.assert_close(table, expected, rtol=3e-4, atol=1e-7)


def test_similarity_of_equal_boxes_is_one_and_wasserstein_is_the_boxes() -> None:
    boxes = scene(28)[0]
    ones = torch.ones(len(boxes))
    torch.testing.assert_close(field_similarity(boxes, boxes), ones, rtol=1e-6, atol=0)
    others = boxes.roll(1, 0)
    torch.testing.assert_close(
        field_similarity(boxes, others, 'wasserstein'),
        1 / (1 + box_wasserstein(boxes, others).square()),
        rtol=1e-4,
        atol=1e-9,
    )
    half = field_similarity(boxes.half(), others.half())
    assert half.dtype == torch.float32
    assert torch.equal(half, field_similarity(boxes.half().float(), others.half().float()))


def test_fields_are_half_the_theoretical_ones_around_the_points() -> None:
    sides = FIELDS[:, 2:] - FIELDS[:, :2]
    for level, expected in enumerate((91, 267, 427, 555, 811)):
        torch.testing.assert_close(
            sides[LEVELS == level], torch.full_like(sides[LEVELS == level], expected / 2)
        )
    torch.testing.assert_close((FIELDS[:, :2] + FIELDS[:, 2:]) / 2, POINTS[:, :2])
    # 7 x 7 of stride 2, 3 x 3 of stride 2, then 3, 3, 5 and 2 convolutions and strides between.
    field, jump, found = 7 + 2 * 2, 4, []
    for convolutions in (3, 3, 5, 2):
        field += 2 * jump * convolutions if not found else 2 * jump // 2 + 2 * jump * convolutions
        found.append(field)
        jump *= 2
    found += [found[-1] + 2 * 64, found[-1] + 2 * 64 + 2 * 128]
    assert tuple(found) == RESNET50_FPN_FIELDS


def test_every_box_alone_has_its_fields_however_tiny() -> None:
    for side in (0.0, 0.3, 2.0, 40.0, 900.0):
        box = torch.tensor([[[101.3, 77.9, 101.3 + side, 77.9 + side]]])
        index, overlap = match(box)
        assert 3 <= (index == 0).sum() <= 4
        assert (overlap[index == 0] > 0).all() and (overlap[index != 0] == 0).all()


def test_a_batch_is_the_stack_of_its_images_whatever_stands_in_padding() -> None:
    images = [scene(case)[0].float() for case in (1, 10, 8, 12)]
    most = max(map(len, images)) + 5
    boxes = torch.tensor([0.0, 0.0, 320.0, 256.0]).expand(len(images), most, 4).clone()
    valid = torch.zeros(len(images), most, dtype=torch.bool)
    for image, own in enumerate(images):
        boxes[image, : len(own)] = own
        valid[image, : len(own)] = True
    boxes[1, -1] = torch.nan
    index, overlap = match(boxes, valid=valid)
    for image, own in enumerate(images):
        alone = match(own[None])
        assert torch.equal(index[image], alone[0][0])
        assert_equal_but_rounding(overlap[image], alone[1][0])
        assert (index[image] >= 0).any()
    assert (match(boxes, valid=valid & False, ignore_thr=0.0)[0] == BACKGROUND).all()


def test_permuting_boxes_permutes_indices() -> None:
    boxes = scene(28)[0]
    order = torch.randperm(len(boxes), generator=torch.Generator().manual_seed(0))
    (plain, _), (moved, _) = match(boxes[None]), match(boxes[order][None])
    assert (plain >= 0).sum() > 100
    assert torch.equal(order[moved.clamp(min=0)].where(moved >= 0, moved), plain)


@pytest.mark.parametrize('shared', ['nearest', 'last'])
def test_chunks_of_boxes_give_the_same(shared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = torch.stack([scene(28)[0], scene(28)[0].flip(0)])
    whole = match(boxes, shared=shared)
    monkeypatch.setattr(chunks, 'TABLE_ELEMENTS', 3000)
    for one, other in zip(match(boxes, shared=shared), whole, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize('shared', ['nearest', 'last'])
def test_of_equal_boxes_the_first_wins_or_the_last(shared: str) -> None:
    boxes = scene(28)[0][:1].expand(3, 4)[None]
    index, _ = match(boxes, shared=shared)
    assert index.amax() == (0 if shared == 'nearest' else 2)
    assert set(index[index >= 0].tolist()) == {int(index.amax())}


def test_absent_fields_are_ignored_and_boxes_take_others() -> None:
    boxes = scene(28)[0][None]
    present = torch.rand(1, len(FIELDS), generator=torch.Generator().manual_seed(0)) < 0.5
    index, overlap = match(boxes, prior_valid=present)
    assert (index[~present] == IGNORE).all() and (overlap[~present] == 0).all()
    geometry = geometry_of(Priors(corners=FIELDS[present[0]]), boxes)
    fewer, fewer_overlap = indices(hierarchical_match(geometry))
    assert torch.equal(index[present], fewer[0])
    assert_equal_but_rounding(overlap[present], fewer_overlap[0])
    both = match(boxes, ignore_mask=~present)
    assert torch.equal(both[0], index)
    nothing, _ = match(boxes[:, :0], prior_valid=present)
    assert torch.equal(nothing == IGNORE, ~present) and (nothing[present] == BACKGROUND).all()
    nowhere, _ = match(boxes, prior_valid=present & False)
    assert (nowhere == IGNORE).all()


def test_without_a_threshold_nothing_is_ignored() -> None:
    boxes = scene(2)[0].float()[None]  # giant boxes, near many of the coarse fields
    index, _ = match(boxes)
    assert (index == IGNORE).any()
    plain, _ = match(boxes, ignore_thr=None)
    assert torch.equal(plain, index.masked_fill(index == IGNORE, BACKGROUND))


@pytest.mark.slow
def test_many_boxes_take_bounded_memory() -> None:
    generator = torch.Generator().manual_seed(0)
    points, sizes = pyramid_points(640, 512)
    fields = effective_fields(points_as_priors(points, sizes), RESNET50_FPN_FIELDS[1:])
    corner = torch.rand(1, 3000, 2, generator=generator) * 600
    boxes = torch.cat([corner, corner + 1 + 20 * torch.rand(1, 3000, 2, generator=generator)], 2)
    geometry = geometry_of(fields, boxes)
    assert 3000 * len(points) * 4 > 70e6  # what one table of all pairs would take
    peak = peak_bytes(lambda: hierarchical_match(geometry))
    assert peak < 8 * chunks.TABLE_ELEMENTS * 4
