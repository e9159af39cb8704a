"""Triplet loss, with its triplets chosen in the batch and all of them counted."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mmdet_ext.functional.embedding.distances import (
    CHUNK_ELEMENTS,
    Distance,
    check_feature_batch,
    pairwise_distance,
)
from mmdet_ext.functional.numerics.checks import check_not_negative, check_one_of
from mmdet_ext.functional.numerics.derivative import with_derivative

Mining = Literal['batch_hard', 'semi_hard', 'batch_all']


class TripletResult(NamedTuple):
    """The loss of a batch, and how its triplets (anchor, positive, negative) lie.

    With the distances p and n to the positive and the negative, and the margin m, each triplet of
    the batch is one of three, whatever the mining:

    Attributes:
        loss: scalar.
        easy: triplets with n >= p + m, unless they are hard. Integer scalar.
        semi_hard: triplets with p < n < p + m. Likewise.
        hard: triplets with n <= p. Likewise.
    """

    loss: Tensor
    easy: Tensor
    semi_hard: Tensor
    hard: Tensor


class _Ranked(NamedTuple):
    """Negatives of each anchor in order of their distance, all (N, N) but ``negatives``.

    Attributes:
        order: index of the anchor's nearest negative, the next, and so on; then the others.
        nearer: for each sample p, the anchor's negatives that are not farther than p.
        active: likewise, those at less than the distance of p plus the margin.
        negatives: how many the anchor has, (N, 1).
    """

    order: Tensor
    nearer: Tensor
    active: Tensor
    negatives: Tensor


def triplet_loss(
    features: Tensor,
    labels: Tensor,
    margin: float = 0.3,
    mining: Mining = 'batch_hard',
    distance: Distance = 'euclidean',
    normalize: bool = False,
    soft_margin: bool = False,
) -> TripletResult:
    r"""Triplet loss with triplets chosen in the batch.

    .. math:: L = \frac1T \sum_{(a, p, n)} \max(0,\; D_{ap} - D_{an} + m)

    over T triplets of an anchor a, a positive p of its identity other than a itself, and a
    negative n of another identity:

    - batch_hard: each anchor's farthest positive and nearest negative; T is the anchors that have
      both.
    - semi_hard: each pair (a, p) with the nearest negative that is farther than p. It lies within
      the margin if any does; otherwise the pair costs nothing. If no negative is farther than p,
      it is taken with the farthest of them, the least hard. T is the pairs that have negatives.
    - batch_all: all triplets; T is those whose loss is not 0, or all of them for a soft margin.

    Args:
        features: (N, D); half precision is computed in float32.
        labels: (N,) integers, any values.
        margin: m, at least 0, in units of the distance.
        mining: as above. No gradient flows through the choice.
        distance: D, as `pairwise_distance` has it. FaceNet's is 'squared_euclidean' with
            ``normalize``.
        normalize: likewise.
        soft_margin: log(1 + exp(D_ap - D_an)) instead of the hinge. The margin then only tells
            easy triplets from others. Can be differentiated once with batch_all.

    Returns:
        TripletResult: scalars. Without any triplet, as in a batch of one identity or of all
        different ones, the loss is a zero that keeps the graph. No table larger than N x N is
        kept: triplets are counted by ranks, which is exact.

    Raises:
        TypeError, ValueError: as `check_feature_batch`; for an option out of range.

    >>> x = torch.tensor([[0.], [1.], [3.]])
    >>> triplet_loss(x, torch.tensor([0, 0, 1]), margin=2)
    TripletResult(loss=tensor(0.5000), easy=tensor(1), semi_hard=tensor(1), hard=tensor(0))

    (The anchor at 0 has 1 - 3 + 2 = 0, that at 1 has 1 - 2 + 2 = 1; the third has no positive.)

    References:
        Schroff, Kalenichenko and Philbin, FaceNet, CVPR 2015, equations 3 and 4.
        Hermans, Beyer and Leibe, In Defense of the Triplet Loss for Person Re-Identification,
        2017, equations 5 (batch hard) and 6 (batch all), sections 2 (soft margin) and 3.
    """
    check_not_negative('margin', margin, 'it is how much farther than a positive a negative is')
    check_one_of('mining', mining, Mining)
    check_feature_batch(features, labels)
    table = pairwise_distance(features, distance, normalize)
    same = labels[:, None] == labels
    positive = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    ranked = _ranked_negatives(table.detach().double(), ~same, margin)
    if not len(features):
        loss = table.sum() + features.sum().to(table.dtype)
    elif mining == 'batch_all':
        total = _all_soft if soft_margin else _all_hinges
        loss = total(table, positive, ~same, ranked, margin)
    else:
        chosen = _batch_hard if mining == 'batch_hard' else _semi_hard
        gap, valid = chosen(table, positive, ~same, ranked)
        each = F.softplus(gap) if soft_margin else F.relu(gap + margin)
        loss = torch.where(valid, each, 0).sum() / valid.sum().clamp(min=1)
    hard = (ranked.nearer * positive).sum()
    semi_hard = ((ranked.active - ranked.nearer).clamp(min=0) * positive).sum()
    triplets = (ranked.negatives * positive).sum()
    return TripletResult(loss, triplets - semi_hard - hard, semi_hard, hard)


def _ranked_negatives(table: Tensor, negative: Tensor, margin: float) -> _Ranked:
    """Rank the negatives of each anchor by a table of distances in double precision."""
    ordered, order = table.masked_fill(~negative, math.inf).sort(dim=1)
    count = negative.sum(1, keepdim=True)
    nearer = torch.searchsorted(ordered, table, right=True).minimum(count)
    active = torch.searchsorted(ordered, table + margin).minimum(count)
    return _Ranked(order, nearer, active, count)


def _batch_hard(
    table: Tensor, positive: Tensor, negative: Tensor, ranked: _Ranked
) -> tuple[Tensor, Tensor]:
    """D_ap - D_an of each anchor, (N,), 0 where it has none, and which have one."""
    farthest = table.masked_fill(~positive, -math.inf).amax(1)
    nearest = table.masked_fill(~negative, math.inf).amin(1)
    valid = positive.any(1) & negative.any(1)
    return torch.where(valid, farthest - nearest, 0), valid


def _semi_hard(
    table: Tensor, positive: Tensor, negative: Tensor, ranked: _Ranked
) -> tuple[Tensor, Tensor]:
    """D_ap - D_an of each pair, (N, N), 0 where there is none, and which are pairs."""
    # The first that is farther than p comes after those that are not; the last is the farthest.
    place = ranked.nearer.minimum(ranked.negatives - 1).clamp(min=0)
    chosen = table.gather(1, ranked.order.gather(1, place))
    valid = positive & (ranked.negatives > 0)
    return torch.where(valid, table - chosen, 0), valid


def _all_hinges(
    table: Tensor, positive: Tensor, negative: Tensor, ranked: _Ranked, margin: float
) -> Tensor:
    """The mean over all triplets above 0, from how often each distance occurs in them."""
    wide = table.double()
    reach = (wide.detach() + margin).masked_fill(~positive, math.inf).sort(dim=1).values
    as_positive = ranked.active * positive
    # Positives that reach beyond the negative: all but those that do not.
    behind = torch.searchsorted(reach, wide.detach(), right=True)
    as_negative = (positive.sum(1, keepdim=True) - behind).clamp(min=0) * negative
    triplets = as_positive.sum().double()
    # Sums of many distances cancel here: in double precision nothing is lost.
    total = ((as_positive - as_negative) * wide).sum() + margin * triplets
    return (total / triplets.clamp(min=1)).to(table.dtype)


def _all_soft(
    table: Tensor, positive: Tensor, negative: Tensor, ranked: _Ranked, margin: float
) -> Tensor:
    """The mean of log(1 + exp(D_ap - D_an)), with its derivative, by blocks of pairs (a, p)."""
    plain = table.detach()
    value, slope = plain.new_zeros(()), torch.zeros_like(plain)
    # Few of the N x N are positive pairs: worth waiting for the device to tell them.
    for pairs in positive.nonzero().split(max(1, CHUNK_ELEMENTS // len(plain))):
        anchor, other = pairs.unbind(1)
        gap = plain[anchor, other][:, None] - plain[anchor]
        use = negative[anchor]
        value = value + torch.where(use, F.softplus(gap), 0).sum()
        share = torch.where(use, gap.sigmoid(), 0)
        slope.index_put_((anchor, other), share.sum(1), accumulate=True)
        slope.index_add_(0, anchor, -share)
    triplets = (ranked.negatives * positive).sum().clamp(min=1)
    return with_derivative(table, value / triplets, slope / triplets)
