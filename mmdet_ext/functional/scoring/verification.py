"""Verification of image pairs: exact operating points from counted similarities.

Verification decides whether two images show one identity. A *genuine* pair is of one identity, an
*impostor* pair is of two. A pair is accepted if its similarity is at or above a threshold. All
results follow from the number of genuine and of impostor pairs at each distinct similarity
(`ScoreCounts`). Those are counted either from a list of pairs (`count_scores`) or over all pairs of
a set, without storing them (`mmdet_ext.functional.scoring.all_pairs`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    'OperatingPoint',
    'RocCurve',
    'ScoreCounts',
    'allowed_errors',
    'count_scores',
    'equal_error_rate',
    'roc_auc',
    'roc_curve',
    'tar_at_far',
]


class ScoreCounts(NamedTuple):
    """Number of genuine and impostor pairs at each distinct similarity.

    Attributes:
        scores: (S,) distinct similarities, ascending.
        genuine: (S,) int64, genuine pairs of that similarity.
        impostors: (S,) int64, impostor pairs of that similarity.
    """

    scores: Tensor
    genuine: Tensor
    impostors: Tensor

    def totals(self) -> tuple[int, int]:
        """Return the number of genuine pairs and of impostor pairs.

        Raises:
            ValueError: if there are no genuine or no impostor pairs.
        """
        genuine, impostors = int(self.genuine.sum()), int(self.impostors.sum())
        if not genuine or not impostors:
            raise ValueError(
                f'verification needs pairs of both kinds, got {genuine:,} genuine and '
                f'{impostors:,} impostor pairs'
            )
        return genuine, impostors

    def accepted(self) -> tuple[Tensor, Tensor]:
        """Count the genuine and the impostor pairs at or above each score: (S,) int64 each."""
        return _at_or_above(self.genuine), _at_or_above(self.impostors)


class RocCurve(NamedTuple):
    """Operating points from the strictest on; the first accepts nothing, at threshold inf.

    Attributes:
        thresholds: (T,) float64, descending.
        far: (T,) float64, false acceptance rate: accepted share of the impostor pairs.
        tar: (T,) float64, true acceptance rate: accepted share of the genuine pairs.
    """

    thresholds: Tensor
    far: Tensor
    tar: Tensor


class OperatingPoint(NamedTuple):
    """Best operating point under a bound on the false acceptance rate.

    Attributes:
        bound: the largest false acceptance rate allowed.
        threshold: the lowest occurring similarity that keeps to the bound; inf if there is none.
        far: false acceptance rate at the threshold, at most ``bound``.
        tar: accepted share of the genuine pairs.
        accepted_impostors: number of accepted impostor pairs.
    """

    bound: float
    threshold: float
    far: float
    tar: float
    accepted_impostors: int


def count_scores(similarities: Tensor, same: Tensor) -> ScoreCounts:
    """Count the pairs of each kind at each similarity; only equal similarities are merged.

    Args:
        similarities: (K,) floating point, no NaN.
        same: (K,) bool, True for genuine pairs.

    Raises:
        ValueError: if the shapes differ, or a similarity is NaN.

    >>> count_scores(torch.tensor([.5, .1, .5]), torch.tensor([True, False, False]))[1:]
    (tensor([0, 1]), tensor([1, 1]))
    """
    if similarities.ndim != 1 or similarities.shape != same.shape:
        raise ValueError(
            'similarities and same must both be (K,), got '
            f'{tuple(similarities.shape)} and {tuple(same.shape)}'
        )
    broken = int(similarities.isnan().sum())
    if broken:
        raise ValueError(f'similarities: {broken} of {len(similarities)} are NaN')
    scores, place = similarities.detach().unique(return_inverse=True)
    same = same.bool()
    genuine, impostors = (torch.bincount(place[k], minlength=len(scores)) for k in (same, ~same))
    return ScoreCounts(scores, genuine, impostors)


def roc_curve(counts: ScoreCounts, most: int | None = None) -> RocCurve:
    """Compute the receiver operating characteristic.

    The points are those of scikit-learn's ``roc_curve`` with ``drop_intermediate=False``.

    Args:
        counts: with pairs of both kinds.
        most: largest number of points, about, at least 8. Half of the points are the best ones
            under bounds that are evenly spaced in the logarithm of the FAR. The other half are
            the first to reach evenly spaced shares of the TAR. Each point is exact. None keeps
            all points.

    Raises:
        ValueError: if a kind of pairs is absent, or ``most`` is below 8.

    >>> counts = count_scores(torch.tensor([.9, .5, .5]), torch.tensor([True, True, False]))
    >>> [points.tolist() for points in roc_curve(counts)[1:]]
    [[0.0, 0.0, 1.0], [0.0, 0.5, 1.0]]
    """
    if most is not None and most < 8:
        raise ValueError(f'most is {most}; a curve has at least 8 points')
    genuine, impostors = counts.totals()
    accepted_genuine, accepted_impostors = (x.flip(0) for x in counts.accepted())
    scores = counts.scores.flip(0)
    if most is not None and len(scores) + 1 > most:
        kept = _spread(accepted_genuine, accepted_impostors, most)
        scores, accepted_genuine, accepted_impostors = (
            x[kept] for x in (scores, accepted_genuine, accepted_impostors)
        )
    nothing = scores.new_zeros(1, dtype=torch.float64)
    return RocCurve(
        torch.cat([nothing + math.inf, scores.double()]),
        torch.cat([nothing, accepted_impostors.double() / impostors]),
        torch.cat([nothing, accepted_genuine.double() / genuine]),
    )


def roc_auc(counts: ScoreCounts) -> float:
    r"""Compute the area under the ROC curve.

    This is the probability that a genuine pair is more similar than an impostor pair, where a tie
    counts one half:

    .. math:: \frac{1}{PN} \sum_s g_s \bigl(\sum_{t < s} n_t + \tfrac12 n_s\bigr)

    with :math:`g_s` and :math:`n_s` the genuine and impostor pairs of similarity s, and P and N
    the numbers of all genuine and all impostor pairs.

    Raises:
        ValueError: if a kind of pairs is absent.

    >>> roc_auc(count_scores(torch.tensor([.9, .5, .5]), torch.tensor([True, True, False])))
    0.75
    """
    genuine, impostors = counts.totals()
    # Twice the impostor pairs below plus once the ties: the sums stay whole numbers.
    below = 2 * counts.impostors.cumsum(0) - counts.impostors
    return float((counts.genuine.double() / genuine * (below.double() / (2 * impostors))).sum())


def tar_at_far(counts: ScoreCounts, fars: Sequence[float]) -> list[OperatingPoint]:
    """Compute the true acceptance rate at bounds on the false acceptance rate.

    The threshold is the lowest occurring similarity that accepts at most
    ``floor(far * impostors)`` impostor pairs. ``far`` counts as the decimal number that it is
    written as. If more impostor pairs than that share the highest similarity of all, nothing can
    be accepted: the threshold is inf and the TAR is 0.

    Args:
        counts: with pairs of both kinds.
        fars: bounds in (0, 1].

    Returns:
        list[OperatingPoint]: in the order of ``fars``.

    Raises:
        ValueError: if a kind of pairs is absent, a bound is not in (0, 1], or it is below 1 /
            impostors: it would have to be extrapolated.

    >>> similarities = torch.tensor([.9, .6, .7, .3, .2, .1])
    >>> same = torch.tensor([True, True, False, False, False, False])
    >>> [(round(p.threshold, 3), p.tar) for p in tar_at_far(count_scores(similarities, same),
    ...                                                     [.25, .5])]
    [(0.6, 1.0), (0.3, 1.0)]
    """
    genuine, impostors = counts.totals()
    accepted_genuine, accepted_impostors = counts.accepted()
    points = []
    for far in fars:
        most = allowed_errors(far, impostors, 'fars', 'impostor pairs')
        first = int(torch.searchsorted(-accepted_impostors, -most))
        threshold, wrong, right = math.inf, 0, 0
        if first < len(counts.scores):
            threshold = float(counts.scores[first])
            wrong, right = int(accepted_impostors[first]), int(accepted_genuine[first])
        points.append(
            OperatingPoint(float(far), threshold, wrong / impostors, right / genuine, wrong)
        )
    return points


def allowed_errors(rate: float, count: int, name: str, what: str) -> int:
    """Compute how many of ``count`` trials may fail under a bound on the error rate.

    The bound counts as the decimal number that it is written as: 0.29 of 100 are 29, although the
    product of the floating-point numbers lies below 29.

    Args:
        rate: bound in (0, 1].
        count: number of trials.
        name: name of the option, for messages.
        what: name of the trials, for messages.

    Returns:
        int: at least 1.

    Raises:
        ValueError: if ``rate`` is not in (0, 1], or does not even allow one error.

    >>> allowed_errors(0.29, 100, 'fars', 'impostor pairs')
    29
    """
    if not 0 < rate <= 1:
        raise ValueError(f'{name} holds {rate}; a rate lies in (0, 1]')
    allowed = math.floor(Fraction(str(float(rate))) * count)
    if allowed < 1:
        raise ValueError(
            f'{name} holds {rate:g}, below 1 / {count:,}: {count:,} {what} cannot show it. '
            f'Ask for at least {1 / max(1, count):.3g}, or evaluate more'
        )
    return allowed


def equal_error_rate(counts: ScoreCounts) -> tuple[float, float]:
    """Compute the rate at which false acceptances and false rejections are equally frequent.

    FAR - FRR changes its sign between two neighbouring operating points of the ROC. Both rates,
    and the threshold, are interpolated linearly between these two. (The rates are those of a
    system that picks one of the two points at random.) Beside the point that accepts nothing, the
    threshold is the highest similarity.

    Returns:
        tuple: the rate and the threshold.

    Raises:
        ValueError: if a kind of pairs is absent.

    >>> rate, _ = equal_error_rate(
    ...     count_scores(torch.tensor([.9, .5, .5]), torch.tensor([True, True, False])))
    >>> round(rate, 4)
    0.3333
    """
    genuine, impostors = counts.totals()
    accepted_genuine, accepted_impostors = counts.accepted()
    # FAR - FRR: at least 0 at the lowest threshold, and falling from there.
    gap = accepted_impostors.double() / impostors + accepted_genuine.double() / genuine - 1
    last = int((gap >= 0).sum()) - 1
    far, over = float(accepted_impostors[last]) / impostors, float(gap[last])
    threshold = float(counts.scores[last])
    if last + 1 < len(gap):
        next_far, under = float(accepted_impostors[last + 1]) / impostors, float(gap[last + 1])
        next_threshold = float(counts.scores[last + 1])
    else:
        next_far, under, next_threshold = 0.0, -1.0, threshold
    way = over / (over - under)
    return far + way * (next_far - far), threshold + way * (next_threshold - threshold)


def _at_or_above(counts: Tensor) -> Tensor:
    """Sum the counts from each place to the end."""
    running = counts.cumsum(0)
    return counts + running[-1:] - running


def _spread(genuine: Tensor, impostors: Tensor, most: int) -> Tensor:
    """Choose about ``most`` points of a curve, evenly spread.

    Args:
        genuine: (S,) accepted genuine pairs at each point, ascending.
        impostors: (S,) accepted impostor pairs, ascending.
        most: as in `roc_curve`.

    Returns:
        Indices of the points, ascending.
    """
    half = (most - 4) // 2
    device = genuine.device
    steps = torch.logspace(0, math.log10(int(impostors[-1])), half, dtype=torch.float64)
    by_far = torch.cat([steps.new_zeros(1), steps]).round().long().to(device)
    by_tar = torch.linspace(0, int(genuine[-1]), half, dtype=torch.float64).round().long()
    found = torch.cat(
        [
            # The last point that keeps to each bound, and the first that reaches each share.
            torch.searchsorted(impostors, by_far, right=True) - 1,
            torch.searchsorted(genuine, by_tar.to(device)),
            torch.tensor([0, len(genuine) - 1], device=device),
        ]
    )
    kept: Tensor = found.clamp_(0, len(genuine) - 1).unique()
    return kept
