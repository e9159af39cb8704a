"""People from candidates: by tags, by limbs, and where candidates are missing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.pose import (
    LimbMatching,
    People,
    group_by_limbs,
    group_by_tags,
    match_limb,
    paf_targets,
)

LIMBS = [(0, 1), (1, 2), (2, 3)]


def line_of_people(count: int, seed: int) -> Tensor:
    """Place people of four joints, well apart from each other."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.tensor([[2.0, 3.0], [6.0, 4.0], [7.0, 9.0], [3.0, 12.0]])
    shift = torch.arange(count)[:, None, None] * torch.tensor([12.0, 0.0])
    return base + shift + torch.rand(count, 4, 2, generator=generator)


def shuffled(keypoints: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return the joints of people as candidates in random order, (K, M, 2), and that order."""
    generator = torch.Generator().manual_seed(seed)
    people, joints = keypoints.shape[:2]
    order = torch.stack([torch.randperm(people, generator=generator) for _ in range(joints)])
    return torch.stack([keypoints[order[joint], joint] for joint in range(joints)]), order


def as_sets(people: People) -> list[tuple[tuple[float, ...], ...]]:
    """Return the people in a form that does not depend on their order."""
    rows = people.keypoints.round(decimals=3).tolist()
    return sorted(tuple(tuple(joint) for joint in person) for person in rows)


@pytest.mark.parametrize('matching', ['optimal', 'greedy'])
def test_limbs_find_the_people(matching: LimbMatching) -> None:
    keypoints = line_of_people(4, 0)
    fields = paf_targets(keypoints[None], torch.ones(1, 4, 4), LIMBS, (16, 64), overhang=1.0)[0]
    places, _ = shuffled(keypoints, 1)
    found = group_by_limbs(torch.full((4, 4), 0.9), places, fields, LIMBS, matching=matching)
    assert as_sets(found) == as_sets(People(keypoints, found.scores))
    assert (found.scores == torch.tensor(0.9)).all()


def test_tags_find_the_people() -> None:
    keypoints = line_of_people(5, 2)
    places, order = shuffled(keypoints, 3)
    tags = order[..., None].float() * 2 + torch.rand(4, 5, 1) * 0.1
    found = group_by_tags(torch.full((4, 5), 0.8), tags, places, order=[2, 0, 3, 1])
    assert as_sets(found) == as_sets(People(keypoints, found.scores))
    limited = group_by_tags(torch.full((4, 5), 0.8), tags, places, order=[2, 0, 3, 1], most=2)
    assert torch.equal(limited.keypoints, found.keypoints[:2])


def test_a_person_whose_limb_is_missing_is_found_in_parts() -> None:
    keypoints = line_of_people(2, 4)
    visible = torch.ones(1, 2, 4)
    visible[0, 1, 1] = 0
    fields = paf_targets(keypoints[None], visible, LIMBS, (16, 32), overhang=1.0)[0]
    places, values = keypoints.transpose(0, 1), torch.full((4, 2), 0.9)
    values[1, 1] = 0.0
    found = group_by_limbs(values, places, fields, LIMBS)
    assert sorted((found.scores > 0).sum(1).tolist()) == [1, 2, 4]
    assert len(group_by_limbs(values, places, fields, LIMBS, min_joints=2).keypoints) == 2
    missing = found.scores == 0
    assert not found.keypoints[missing].any()


def test_people_are_joined_by_a_limb_between_their_parts() -> None:
    keypoints = line_of_people(1, 5)
    # The limb in the middle comes last, when both of its ends belong to somebody.
    limbs = [(0, 1), (2, 3), (1, 2)]
    fields = paf_targets(keypoints[None], torch.ones(1, 1, 4), limbs, (16, 16), overhang=1.0)[0]
    found = group_by_limbs(torch.ones(4, 1), keypoints.transpose(0, 1), fields, limbs)
    assert torch.equal(found.keypoints, keypoints)


def test_optimal_pairs_have_the_largest_sum_and_greedy_ones_the_best_first() -> None:
    score = np.array([[0.9, 0.8], [0.85, 0.1]])
    valid = np.ones((2, 2), dtype=bool)
    assert match_limb(score, valid) == [(1, 0), (0, 1)]
    assert match_limb(score, valid, 'greedy') == [(0, 0), (1, 1)]
    valid[1, 0] = False
    assert match_limb(score, valid) == [(0, 0), (1, 1)]
    assert match_limb(score, np.zeros((2, 2), dtype=bool)) == []


@pytest.mark.parametrize('seed', range(5))
def test_optimal_pairs_are_those_of_all_permutations(seed: int) -> None:
    generator = np.random.default_rng(seed)
    score = generator.random((4, 4))
    valid = generator.random((4, 4)) > 0.3
    best = max(
        sum(score[row, column] for row, column in enumerate(order) if valid[row, column])
        for order in itertools.permutations(range(4))
    )
    pairs = match_limb(score, valid)
    assert all(valid[pair] for pair in pairs)
    assert sum(score[pair] for pair in pairs) == pytest.approx(best)
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)


def test_candidates_that_are_not_finite_are_left_out() -> None:
    values = torch.tensor([[0.9, math.nan], [0.9, 0.9]])
    places = torch.tensor([[[1.0, 1.0], [2.0, 2.0]], [[3.0, 1.0], [math.inf, 1.0]]])
    tags = torch.tensor([[[0.0], [0.0]], [[math.nan], [0.0]]])
    assert len(group_by_tags(values, tags, places).keypoints) == 1
    fields = torch.zeros(1, 2, 4, 4)
    fields[:, 0] = 1.0
    found = group_by_limbs(values, places, fields, [(0, 1)])
    assert found.keypoints.tolist() == [[[1.0, 1.0], [3.0, 1.0]]]


def test_a_tag_farther_than_the_threshold_starts_a_person() -> None:
    values, places = torch.full((2, 1), 0.9), torch.zeros(2, 1, 2)
    tags = torch.tensor([[[0.0]], [[1.4]]])
    assert len(group_by_tags(values, tags, places).keypoints) == 2
    assert len(group_by_tags(values, tags, places, tag_threshold=1.5).keypoints) == 1


def test_the_better_of_two_limbs_decides_whose_a_joint_is() -> None:
    # Two candidates of joint 0, and one of each other: both may be the neighbour of joint 2, the
    # first along a weaker limb that is named first.
    places = torch.tensor([[[0.0, 0.0], [0.0, 6.0]], [[9.0, 9.0], [4.0, 6.0]], [[6.0, 0.0]] * 2])
    values = torch.tensor([[0.9, 0.9], [0.0, 0.9], [0.9, 0.0]])
    limbs = [(0, 2), (0, 1), (1, 2)]
    fields = torch.zeros(3, 2, 8, 8)
    fields[0, 0, 0] = 0.5  # along the first row, from (0, 0) to (6, 0)
    fields[1, 0, 6] = 1.0  # along the row 6, from (0, 6) to (4, 6)
    away = torch.tensor([2.0, -6.0])
    fields[2] = (away / away.norm())[:, None, None]  # from (4, 6) to (6, 0)
    found = group_by_limbs(values, places, fields, limbs)
    assert sorted((found.scores > 0).sum(1).tolist()) == [1, 3]
    assert found.keypoints[(found.scores > 0).sum(1) == 3][0].tolist() == [
        [0.0, 6.0],
        [4.0, 6.0],
        [6.0, 0.0],
    ]


def test_no_candidates_give_no_people() -> None:
    fields = torch.zeros(3, 2, 8, 8)
    for count in (0, 3):
        values, places = torch.zeros(4, count), torch.zeros(4, count, 2)
        found = group_by_limbs(values, places, fields, LIMBS)
        assert found.keypoints.shape == (0, 4, 2) and found.scores.shape == (0, 4)
        found = group_by_tags(values, torch.zeros(4, count, 1), places)
        assert found.keypoints.shape == (0, 4, 2) and found.scores.shape == (0, 4)


def test_two_candidates_with_one_tag_are_two_people() -> None:
    values, tags = torch.tensor([[0.9, 0.8]]), torch.zeros(1, 2, 1)
    places = torch.tensor([[[1.0, 1.0], [9.0, 1.0]]])
    assert len(group_by_tags(values, tags, places).keypoints) == 2


def test_wrong_arguments_are_named() -> None:
    values, places = torch.zeros(4, 2), torch.zeros(4, 2, 2)
    with pytest.raises(ValueError, match=r'tags must be \(4, 2, T\)'):
        group_by_tags(values, torch.zeros(4, 2), places)
    with pytest.raises(ValueError, match='order must hold each joint from 0 to 3 once'):
        group_by_tags(values, torch.zeros(4, 2, 1), places, order=[0, 1, 2, 2])
    with pytest.raises(ValueError, match='most must be a whole number from 1 on'):
        group_by_tags(values, torch.zeros(4, 2, 1), places, most=0)
    with pytest.raises(ValueError, match=r'places must be \(4, 2, 2\)'):
        group_by_limbs(values, places[:3], torch.zeros(3, 2, 8, 8), LIMBS)
    with pytest.raises(ValueError, match="matching must be one of .* got 'best'"):
        match_limb(np.ones((1, 1)), np.ones((1, 1), bool), 'best')  # type: ignore[arg-type]
