"""Candidates for joints grouped into people, by their tags or by the limbs between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_number, check_one_of, check_whole
from mmdet_ext.functional.pose.fields import LimbScores, check_limbs, limb_scores

__all__ = ['LimbMatching', 'People', 'group_by_limbs', 'group_by_tags', 'match_limb']

#: How the candidates of a limb's ends are paired.
LimbMatching = Literal['optimal', 'greedy']

# Cost of a joint that starts a person of its own, above that of every pair.
_OWN_PERSON = 1e10


class People(NamedTuple):
    """People found in an image.

    Attributes:
        keypoints: x and y of each joint, (N, K, 2); 0 where a joint is missing.
        scores: value of each joint, (N, K); 0 where a joint is missing.
    """

    keypoints: Tensor
    scores: Tensor


def group_by_tags(
    values: Tensor,
    tags: Tensor,
    places: Tensor,
    order: Sequence[int] | None = None,
    *,
    value_threshold: float = 0.1,
    tag_threshold: float = 1.0,
    most: int | None = None,
) -> People:
    r"""Group candidates for joints into people whose tags are alike.

    Joint by joint, candidates are matched to the people so far, so that the sum of

    .. math:: 100 \, \text{round}(|t - \bar t_n|) - s

    is least, with t and s the tag and the value of a candidate, and :math:`\bar t_n` the mean tag
    of a person's joints so far. Pairs whose tags are farther apart than the threshold are no
    matches: as many candidates as possible are matched, and those left over start new people. The
    authors' code takes any pairs and drops far ones afterwards. The sums of their distances often
    tie, as tags are numbers on a line: a candidate then loses its own person to a far one.

    Args:
        values: heatmap's value of M candidates for each of K joints, (K, M).
        tags: (K, M, T).
        places: x and y, (K, M, 2).
        order: joints in the order of matching, such as head and trunk first; None for 0 to K - 1.
        value_threshold: candidates up to this value are left out, and those that are not finite.
        tag_threshold: largest distance of tags within a person.
        most: number of people to keep, in the order in which they were started; None for all.

    Returns:
        People: on the CPU, in the precision of ``places``.

    Raises:
        ValueError: for shapes that do not fit, or an order that does not hold each joint once.
        ModuleNotFoundError: without SciPy.

    References:
        Newell et al., Associative Embedding: End-to-End Learning for Joint Detection and Grouping,
        2017, section 3.3; the cost is that of their code.

    >>> values = torch.tensor([[0.9, 0.8], [0.7, 0.9]])
    >>> tags = torch.tensor([[[0.0], [5.0]], [[5.1], [0.2]]])
    >>> places = torch.tensor([[[1.0, 1.0], [8.0, 1.0]], [[8.0, 4.0], [1.0, 4.0]]])
    >>> group_by_tags(values, tags, places).keypoints
    tensor([[[1., 1.],
             [1., 4.]],
    <BLANKLINE>
            [[8., 1.],
             [8., 4.]]])
    """
    joints, count = values.shape
    if places.shape != (joints, count, 2) or tags.dim() != 3 or tags.shape[:2] != values.shape:
        raise ValueError(
            f'tags must be ({joints}, {count}, T) and places ({joints}, {count}, 2) for values '
            f'({joints}, {count}), got {tuple(tags.shape)} and {tuple(places.shape)}'
        )
    order = list(range(joints)) if order is None or not len(order) else list(order)
    if sorted(order) != list(range(joints)):
        raise ValueError(f'order must hold each joint from 0 to {joints - 1} once, got {order}')
    if most is not None:
        check_whole('most', most)
    value, tag, place = (item.detach().cpu().numpy() for item in (values, tags, places))
    kept = (value > value_threshold) & np.isfinite(value)
    kept &= np.isfinite(tag).all(-1) & np.isfinite(place).all(-1)
    people = _Groups(joints, tag.shape[2], kept.sum(), tag.dtype)
    for joint in order:
        people.add(joint, np.flatnonzero(kept[joint]), tag[joint], value[joint], tag_threshold)
    return people.collect(place, value, places, most)


class _Groups:
    """People under construction: for each, the candidate of each joint, and the sum of tags."""

    def __init__(self, joints: int, dimension: int, most: int, dtype: Any) -> None:
        self.candidate = np.full((most, joints), -1)
        self.tags = np.zeros((most, dimension), dtype)
        self.members = np.zeros((most, 1), dtype)
        self.count = 0

    def add(
        self, joint: int, found: np.ndarray, tag: np.ndarray, value: np.ndarray, limit: float
    ) -> None:
        """Match the candidates ``found`` of a joint to the people so far."""
        new, old = len(found), self.count
        place = np.full(new, -1)
        if new and old:
            mean = self.tags[:old] / self.members[:old]
            distance = np.linalg.norm(tag[found][:, None] - mean, axis=2)
            cost = np.full((new, max(new, old)), _OWN_PERSON, np.float64)
            near = distance < limit
            cost[:, :old][near] = (np.round(distance) * 100 - value[found][:, None])[near]
            row, column = _assignment()(cost)
            near = column < old
            row, column = row[near], column[near]
            near = distance[row, column] < limit
            place[row[near]] = column[near]
        own = place < 0
        place[own] = np.arange(old, old + own.sum())
        self.count = old + int(own.sum())
        self.candidate[place, joint] = found
        self.tags[place] += tag[found]
        self.members[place] += 1

    def collect(
        self, place: np.ndarray, value: np.ndarray, like: Tensor, most: int | None
    ) -> People:
        """Return the people."""
        candidate = self.candidate[: self.count][:most]
        joint = np.arange(candidate.shape[1])
        missing = candidate < 0
        keypoints = np.where(missing[..., None], 0, place[joint, candidate])
        scores = np.where(missing, 0, value[joint, candidate])
        return People(
            torch.from_numpy(keypoints).to(like.dtype), torch.from_numpy(scores).to(like.dtype)
        )


def match_limb(
    score: np.ndarray, valid: np.ndarray, matching: LimbMatching = 'optimal'
) -> list[tuple[int, int]]:
    """Pair the candidates of both ends of a limb, each with at most one.

    Args:
        score: how well they fit, (M, M).
        valid: pairs that may be taken, (M, M), bool.
        matching: 'optimal' makes the sum of scores the largest; 'greedy' takes the best pair, then
            the best of those left, as OpenPose does.

    Returns:
        list: pairs, the best first.

    Raises:
        ModuleNotFoundError: for 'optimal' without SciPy.
    """
    check_one_of('matching', matching, LimbMatching)
    if not valid.any():
        return []
    if matching == 'optimal':
        rows, columns = valid.any(1).nonzero()[0], valid.any(0).nonzero()[0]
        part = np.where(valid, score, 0)[np.ix_(rows, columns)]
        row, column = _assignment()(part, maximize=True)
        pairs = zip(rows[row].tolist(), columns[column].tolist(), strict=True)
        taken = [pair for pair in pairs if valid[pair]]
        return sorted(taken, key=lambda pair: (-score[pair], pair))
    place = np.flatnonzero(valid)
    ranked = place[np.argsort(-score.ravel()[place], kind='stable')]
    pairs_taken: list[tuple[int, int]] = []
    starts: set[int] = set()
    ends: set[int] = set()
    for flat in ranked.tolist():
        start, end = divmod(flat, score.shape[1])
        if start not in starts and end not in ends:
            pairs_taken.append((start, end))
            starts.add(start)
            ends.add(end)
    return pairs_taken


def group_by_limbs(
    values: Tensor,
    places: Tensor,
    fields: Tensor,
    limbs: Sequence[Sequence[int]],
    *,
    matching: LimbMatching = 'optimal',
    points: int = 10,
    threshold: float = 0.05,
    min_share: float = 0.8,
    longest: float | None = None,
    min_joints: int = 1,
    value_threshold: float = 0.1,
) -> People:
    """Group candidates for joints into people along the limbs between them.

    1. Integrate the field of each limb between all candidates for its ends (`limb_scores`).
    2. Pair the candidates of each limb, each with at most one, by their scores.
    3. Take the pairs, limb by limb and the best first. A pair starts a person, adds a joint to
       one, or joins two people who have no joint in common. A pair that would give a person two
       candidates for one joint is dropped.
    4. Candidates without any pair are people of one joint.

    Args:
        values: heatmap's value of M candidates for each of K joints, (K, M).
        places: x and y, in cells of the fields, (K, M, 2).
        fields: of one image, (C, 2, H, W).
        limbs: C pairs of joints, those of a tree first.
        matching: as in `match_limb`.
        points: points along a connection.
        threshold: on the product of field and direction at a point.
        min_share: smallest share of points above the threshold. The score has to be above 0.
        longest: in cells, as in `limb_scores`.
        min_joints: people with fewer joints are left out.
        value_threshold: candidates up to this value are left out, and those that are not finite.

    Returns:
        People: on the CPU, in the precision of ``places``.

    Raises:
        ValueError: for shapes that do not fit.
        ModuleNotFoundError: for optimal matching without SciPy.

    References:
        Cao et al., Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields, 2017,
        section 2.3 and 2.4.
    """
    joints, count = values.shape
    if places.shape != (joints, count, 2):
        raise ValueError(
            f'places must be ({joints}, {count}, 2) for values ({joints}, {count}), got '
            f'{tuple(places.shape)}'
        )
    check_number('min_share', min_share, least=0, most=1)
    check_whole('min_joints', min_joints)
    pairs = check_limbs(limbs, joints)
    kept = (values > value_threshold) & values.isfinite() & places.isfinite().all(-1)
    # Candidates that are left out are not scored.
    most = int(kept.sum(1).max()) if joints and count else 0
    chosen = torch.argsort(kept.to(values.dtype), dim=1, descending=True, stable=True)[:, :most]
    own = kept.gather(1, chosen)
    place = places.gather(1, chosen[..., None].expand(-1, -1, 2)).where(own[..., None], 0)
    fit = limb_scores(fields, place, pairs, points=points, threshold=threshold, longest=longest)
    people = _assemble(fit, own, pairs, matching, min_share)
    rows = [row for row in people if joints - row.count(-1) >= min_joints]
    table = torch.tensor(rows, dtype=torch.long, device=place.device).view(-1, joints)
    joint, missing = torch.arange(joints, device=place.device), table < 0
    value = values.gather(1, chosen)
    keypoints = place[joint, table].masked_fill(missing[..., None], 0)
    scores = value[joint, table].masked_fill(missing, 0)
    return People(keypoints.detach().cpu(), scores.detach().cpu())


def _assemble(
    fit: LimbScores,
    kept: Tensor,
    limbs: list[tuple[int, int]],
    matching: LimbMatching,
    min_share: float,
) -> list[list[int]]:
    """Join the pairs of all limbs; return the candidate of each joint of each person, or -1."""
    score, share = (item.detach().cpu().numpy() for item in (fit.score, fit.share))
    own = kept.cpu().numpy()
    connections = []
    for number, (first, second) in enumerate(limbs):
        valid = (share[number] >= min_share - 1e-6) & (score[number] > 0)
        valid &= own[first][:, None] & own[second]
        for start, end in match_limb(score[number], valid, matching):
            connections.append((-float(score[number][start, end]), number, start, end))
    joined = _Joined(*own.shape)
    for _, number, start, end in sorted(connections):
        joined.connect((limbs[number][0], start), (limbs[number][1], end))
    for joint, candidate in np.argwhere(own).tolist():
        if joined.owner[joint][candidate] < 0:
            joined.open((joint, candidate))
    return [person for person in joined.people if person is not None]


class _Joined:
    """People under construction from pairs, in lists: single values of arrays take longer.

    Attributes:
        people: the candidate of each joint, or -1; None for one who has been joined to another.
        owner: the person of each candidate of each joint, or -1.
    """

    def __init__(self, joints: int, count: int) -> None:
        self.joints = joints
        self.people: list[list[int] | None] = []
        self.owner = [[-1] * count for _ in range(joints)]

    def open(self, *ends: tuple[int, int]) -> None:
        """Start a person with these joints."""
        person = [-1] * self.joints
        for joint, candidate in ends:
            person[joint] = candidate
            self.owner[joint][candidate] = len(self.people)
        self.people.append(person)

    def connect(self, first: tuple[int, int], second: tuple[int, int]) -> None:
        """Take a pair: start a person, add a joint to one, or join two."""
        one, other = (self.owner[joint][candidate] for joint, candidate in (first, second))
        if one < 0 and other < 0:
            self.open(first, second)
        elif one >= 0 and other >= 0:
            self.join(one, other)
        else:
            number = max(one, other)
            joint, candidate = second if other < 0 else first
            person = self.people[number]
            assert person is not None
            if person[joint] < 0:
                person[joint] = candidate
                self.owner[joint][candidate] = number

    def join(self, one: int, other: int) -> None:
        """Make two people one, unless both have a joint."""
        person, added = self.people[one], self.people[other]
        assert person is not None
        assert added is not None
        if one == other or any(a >= 0 and b >= 0 for a, b in zip(person, added, strict=True)):
            return
        for joint, candidate in enumerate(added):
            if candidate >= 0:
                person[joint] = candidate
                self.owner[joint][candidate] = one
        self.people[other] = None


def _assignment() -> Any:
    """Return SciPy's optimal assignment."""
    try:
        from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'grouping joints into people needs SciPy: pip install scipy'
        ) from error
    return linear_sum_assignment
