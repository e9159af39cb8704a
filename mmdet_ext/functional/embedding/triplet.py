"""Triplet loss that chooses its triplets within the batch and counts all of them."""

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
from mmdet_ext.functional.numerics.checks import check_number, check_one_of
from mmdet_ext.functional.numerics.derivative import with_derivative

__all__ = ['Mining', 'TripletResult', 'check_triplet_options', 'triplet_loss']

Mining = Literal['batch_hard', 'semi_hard', 'batch_all']


class TripletResult(NamedTuple):
    """Loss of a batch, with counts of its triplets (anchor, positive, negative) by difficulty.

    Let p and n be the distances of the anchor to the positive and to the negative, and m the
    margin. Every triplet of the batch is counted once, whatever the mining.

    Attributes:
        loss: scalar.
        easy: number of triplets with n >= p + m that are not hard, integer scalar.
        semi_hard: number of triplets with p < n < p + m, integer scalar.
        hard: number of triplets with n <= p, integer scalar.
    """

    loss: Tensor
    easy: Tensor
    semi_hard: Tensor
    hard: Tensor


class _Ranked(NamedTuple):
    """Negatives of each anchor, ranked by their distance to it.

    Attributes:
        order: for each anchor, the indices of its negatives from near to far, then those of the
            other samples, (N, N).
        nearer: for each anchor and sample p, the number of negatives that are not farther than p,
            (N, N).
        active: for each anchor and sample p, the number of negatives nearer than the distance of p
            plus the margin, (N, N).
        negatives: number of negatives of each anchor, (N, 1).
    """

    order: Tensor
    nearer: Tensor
    active: Tensor
    negatives: Tensor


def check_triplet_options(margin: float, mining: Mining, distance: Distance) -> None:
    """Raise ValueError, naming the option, unless `triplet_loss` accepts all options."""
    why = '0 will do as well; it is how much farther than a positive a negative is'
    check_number('margin', margin, 'above 0 and finite', least=0, finite=True, why=why)
    check_one_of('mining', mining, Mining)
    check_one_of('distance', distance, Distance)


def triplet_loss(
    features: Tensor,
    labels: Tensor,
    margin: float = 0.3,
    mining: Mining = 'batch_hard',
    distance: Distance = 'euclidean',
    normalize: bool = False,
    soft_margin: bool = False,
) -> TripletResult:
    r"""Compute the triplet loss over triplets chosen in the batch.

    .. math:: L = \frac1T \sum_{(a, p, n)} \max(0,\; D_{ap} - D_{an} + m)

    The sum is over T triplets of an anchor a, a positive p of the same identity other than a, and
    a negative n of another identity. ``mining`` chooses them:

    - batch_hard: the farthest positive and the nearest negative of each anchor. T is the number of
      anchors that have both.
    - semi_hard: each pair (a, p) with the nearest negative that is farther than p. If that one
      lies beyond the margin, the pair costs nothing. If no negative is farther than p, the
      farthest negative is taken, which is the least hard. T is the number of pairs whose anchor
      has a negative.
    - batch_all: all triplets. T is the number of triplets whose loss is above 0, or of all
      triplets with ``soft_margin``.

    Args:
        features: (N, D); half precision is computed in float32.
        labels: (N,) integers, any values.
        margin: m, at least 0, in units of the distance.
        mining: 'batch_hard', 'semi_hard' or 'batch_all'. No gradient flows through the choice.
        distance: D, as `pairwise_distance` defines it. FaceNet uses 'squared_euclidean' with
            ``normalize``.
        normalize: as `pairwise_distance` defines it.
        soft_margin: use log(1 + exp(D_ap - D_an)) instead of the hinge. The margin then only
            separates easy from semi-hard triplets in the counts. With batch_all the loss can then
            be differentiated once only.

    Returns:
        TripletResult: scalars. Without a triplet, as in a batch of one identity or of all
        different ones, the loss is a zero that keeps the graph. No table larger than N x N is
        kept: triplets are counted by ranks, which is exact.

    Raises:
        TypeError, ValueError: as `check_feature_batch` raises them; for an option out of range.

    >>> x = torch.tensor([[0.], [1.], [3.]])
    >>> triplet_loss(x, torch.tensor([0, 0, 1]), margin=2)
    TripletResult(loss=tensor(0.5000), easy=tensor(1), semi_hard=tensor(1), hard=tensor(0))

    The anchor at 0 costs 1 - 3 + 2 = 0, the anchor at 1 costs 1 - 2 + 2 = 1, and the anchor at 3
    has no positive.

    References:
        Schroff, Kalenichenko and Philbin, FaceNet, CVPR 2015, equations 3 and 4.
        Hermans, Beyer and Leibe, In Defense of the Triplet Loss for Person Re-Identification,
        2017, equations 5 (batch hard) and 6 (batch all), sections 2 (soft margin) and 3.
    """
    check_triplet_options(margin, mining, distance)
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
    """Rank the negatives of each anchor by a table of distances (N, N) in double precision."""
    ordered, order = table.masked_fill(~negative, math.inf).sort(dim=1)
    count = negative.sum(1, keepdim=True)
    nearer = torch.searchsorted(ordered, table, right=True).minimum(count)
    active = torch.searchsorted(ordered, table + margin).minimum(count)
    return _Ranked(order, nearer, active, count)


def _batch_hard(
    table: Tensor, positive: Tensor, negative: Tensor, ranked: _Ranked
) -> tuple[Tensor, Tensor]:
    """Return D_ap - D_an of each anchor, (N,), and a mask of the anchors that have a triplet."""
    farthest = table.masked_fill(~positive, -math.inf).amax(1)
    nearest = table.masked_fill(~negative, math.inf).amin(1)
    valid = positive.any(1) & negative.any(1)
    return torch.where(valid, farthest - nearest, 0), valid


def _semi_hard(
    table: Tensor, positive: Tensor, negative: Tensor, ranked: _Ranked
) -> tuple[Tensor, Tensor]:
    """Return D_ap - D_an of each pair (a, p), (N, N), and a mask of the pairs that count."""
    # In the ranking, the first negative farther than p follows those that are not farther. The
    # last negative is the farthest.
    place = ranked.nearer.minimum(ranked.negatives - 1).clamp(min=0)
    chosen = table.gather(1, ranked.order.gather(1, place))
    valid = positive & (ranked.negatives > 0)
    return torch.where(valid, table - chosen, 0), valid


def _all_hinges(
    table: Tensor, positive: Tensor, negative: Tensor, ranked: _Ranked, margin: float
) -> Tensor:
    """Return the mean over all triplets with a loss above 0.

    The sum over triplets is a sum over distances, each times how often it occurs in them.
    """
    wide = table.double()
    reach = (wide.detach() + margin).masked_fill(~positive, math.inf).sort(dim=1).values
    as_positive = ranked.active * positive
    # Positives whose distance plus the margin exceeds that of the negative: all but those behind.
    behind = torch.searchsorted(reach, wide.detach(), right=True)
    as_negative = (positive.sum(1, keepdim=True) - behind).clamp(min=0) * negative
    triplets = as_positive.sum().double()
    # Large sums of distances cancel here, which loses digits in float32.
    total = ((as_positive - as_negative) * wide).sum() + margin * triplets
    return (total / triplets.clamp(min=1)).to(table.dtype)


def _all_soft(
    table: Tensor, positive: Tensor, negative: Tensor, ranked: _Ranked, margin: float
) -> Tensor:
    """Return the mean of log(1 + exp(D_ap - D_an)), with its derivative, in blocks of pairs."""
    plain = table.detach()
    value, slope = plain.new_zeros(()), torch.zeros_like(plain)
    # Few of the N x N pairs are positive. Listing them waits for the device, and is worth it.
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
