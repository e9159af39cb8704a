"""Scores of boxes after each selected box has lowered those of the boxes that it overlaps.

Suppression selects the best box of the remaining ones, again and again. The order matters between
boxes that affect each other alone: a box that is better than all remaining ones that it affects is
selected before them, whatever happens elsewhere, because scores only fall. `settle_pairs` selects
all such boxes at once, from a list of pairs. Where the list would be too long, `settle_labels`
selects one box per label at once, and measures it against the others of its label.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext.functional.boxes._detections import gather, planes_of
from mmdet_ext.functional.boxes._suppression_pairs import Pairs, Rule, chosen, weighted_pairs
from mmdet_ext.functional.numerics.order import places_of

#: Most pairs that are held per box, of 12 bytes each, and about 50 while they are used.
PAIRS_PER_BOX = 64


def settle(
    boxes: Tensor, scores: Tensor, labels: Tensor | None, rule: Rule, min_score: float
) -> Tensor:
    """Compute the final scores of boxes.

    Args:
        boxes: (N, 4) corners, px.
        scores: (N,).
        labels: (N,) whole numbers; None for one label.
        rule: factor on the score of the box of a pair that is selected later.
        min_score: a box whose score is below is dropped: it lowers no other.

    Returns:
        Tensor: (N,); below ``min_score`` for dropped boxes.
    """
    if not boxes.shape[0]:
        return scores
    pairs = weighted_pairs(boxes, labels, rule, PAIRS_PER_BOX * boxes.shape[0])
    if pairs is None:
        return settle_labels(boxes, scores, labels, rule, min_score)
    return settle_pairs(scores, pairs, min_score)


def settle_pairs(scores: Tensor, pairs: Pairs, min_score: float) -> Tensor:
    """Compute the final scores, as `settle` does, from all pairs that affect each other."""
    first, second, weight = pairs
    while first.shape[0]:
        # Of equal boxes the first is selected first. Dropped boxes are worse than all others.
        later = scores.index_select(0, second) > scores.index_select(0, first)
        step = (second - first) * later  # torch.where takes several times as long
        winner, loser = first + step, second - step
        places = loser.long()
        waits = torch.zeros_like(scores, dtype=torch.bool)
        waits.scatter_(0, places, torch.ones_like(later))  # a number takes four times as long
        stays = waits.index_select(0, winner)
        scores = multiplied(scores, *chosen(~stays, places, weight))
        left = stays & (scores.index_select(0, loser) >= min_score)
        first, second, weight = chosen(left, first, second, weight)
    return scores


def multiplied(scores: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Return the scores (N,), each multiplied by all weights (E,) that have its index (E,)."""
    if scores.device.type == 'cpu':
        return scores.scatter_reduce(0, index, weight, 'prod')
    return multiplied_by_logarithms(scores, index, weight)


def multiplied_by_logarithms(scores: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Return what `multiplied` does, as sums of logarithms.

    A GPU multiplies in any order: PyTorch refuses products where a run is to be repeatable. Sums in
    float64 have the same digits in float32 in any order.
    """
    fall = torch.zeros_like(scores, dtype=torch.float64)
    fall.index_add_(0, index, weight.double().log())
    return (scores * fall.exp()).to(scores.dtype)


def settle_labels(
    boxes: Tensor, scores: Tensor, labels: Tensor | None, rule: Rule, min_score: float
) -> Tensor:
    """Compute the final scores, as `settle` does, in memory that grows with N alone."""
    scores = scores.clone()
    total = scores.shape[0]
    if labels is None:
        labels = torch.zeros_like(scores, dtype=torch.int64)
    kinds, group = labels.unique(return_inverse=True)
    planes = planes_of(boxes)
    rest = places_of(scores >= min_score)
    while rest.shape[0]:
        own, score = group.index_select(0, rest), scores.index_select(0, rest)
        best = score.new_full(kinds.shape, -torch.inf).scatter_reduce_(0, own, score, 'amax')
        leads = rest.masked_fill(score < best.index_select(0, own), total)
        pick = rest.new_full(kinds.shape, total).scatter_reduce_(0, own, leads, 'amin')
        leader = pick.index_select(0, own)
        left = places_of(rest != leader)
        rest, leader = rest.index_select(0, left), leader.index_select(0, left)
        score = score.index_select(0, left)
        score = score * rule.factor(gather(planes, leader), gather(planes, rest))
        scores.index_copy_(0, rest, score)
        rest = rest.index_select(0, places_of(score >= min_score))
    return scores
