"""Verification: are two images of one person? Exact figures from similarities of pairs.

A pair is *genuine* (of one person) or an *impostor* pair, and is accepted where its similarity is
at or above a threshold. All figures follow from how often each distinct similarity occurs among
the two kinds (`ScoreCounts`), be it counted from a list of pairs or, without storing them, over all
pairs (`mmdet_ext.functional.scoring.all_pairs`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor


class ScoreCounts(NamedTuple):
    """How often each similarity occurs.

    Attributes:
        scores: (S,) distinct similarities, ascending.
        genuine: (S,) int64, genuine pairs of that similarity.
        impostors: (S,) int64, impostor pairs of that similarity.
    """

    scores: Tensor
    genuine: Tensor
    impostors: Tensor

    def totals(self) -> tuple[int, int]:
        """Genuine pairs and impostor pairs; ValueError where either is absent."""
        genuine, impostors = int(self.genuine.sum()), int(self.impostors.sum())
        if not genuine or not impostors:
            raise ValueError(
                f'verification needs pairs of both kinds, got {genuine:,} genuine and '
                f'{impostors:,} impostor pairs'
            )
        return genuine, impostors

    def accepted(self) -> tuple[Tensor, Tensor]:
        """(S,) int64 each: genuine and impostor pairs with a similarity at or above each score."""
        return _at_or_above(self.genuine), _at_or_above(self.impostors)


class RocCurve(NamedTuple):
    """Operating points, from the strictest on; the first accepts nothing, at threshold inf.

    Attributes:
        thresholds: (T,) float64, descending.
        far: (T,) float64, accepted share of the impostor pairs.
        tar: (T,) float64, accepted share of the genuine pairs.
    """

    thresholds: Tensor
    far: Tensor
    tar: Tensor


class OperatingPoint(NamedTuple):
    """What a bound on the false acceptance rate allows.

    Attributes:
        bound: the rate asked for.
        threshold: the lowest occurring similarity that keeps to it; inf where none does.
        far: the rate at it, at most ``bound``.
        tar: accepted share of the genuine pairs.
        accepted_impostors: impostor pairs accepted at it.
    """

    bound: float
    threshold: float
    far: float
    tar: float
    accepted_impostors: int


class FoldAccuracy(NamedTuple):
    """Accuracies of a cross-validation.

    Attributes:
        mean: over the folds.
        std: their standard deviation, with k - 1 in the denominator.
        standard_error: of the mean, std / sqrt(k), as LFW reports.
        accuracies: a fold each.
        thresholds: a fold each, found on the others.
    """

    mean: float
    std: float
    standard_error: float
    accuracies: list[float]
    thresholds: list[float]


def count_scores(similarities: Tensor, same: Tensor) -> ScoreCounts:
    """Count how often each similarity occurs; equal ones are ties, none is rounded.

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
    """Receiver operating characteristic; the points of scikit-learn's with all of them kept.

    Args:
        counts: with pairs of both kinds.
        most: keep about this many points at most (and at least 8): the best ones under bounds
            even in the logarithm of the FAR, and at shares even in the TAR. Each is exact. None
            keeps all.

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
    r"""Area under the ROC: the chance that a genuine pair is more alike than an impostor pair.

    .. math:: \frac{1}{PN} \sum_s g_s \bigl(\sum_{t < s} n_t + \tfrac12 n_s\bigr)

    with :math:`g_s`, :math:`n_s` genuine and impostor pairs of similarity s, P and N all of them:
    a tie counts one half.

    Raises:
        ValueError: if a kind of pairs is absent.

    >>> roc_auc(count_scores(torch.tensor([.9, .5, .5]), torch.tensor([True, True, False])))
    0.75
    """
    genuine, impostors = counts.totals()
    # Twice the impostors below, ties once: whole numbers as long as they are added up.
    below = 2 * counts.impostors.cumsum(0) - counts.impostors
    return float((counts.genuine.double() / genuine * (below.double() / (2 * impostors))).sum())


def tar_at_far(counts: ScoreCounts, fars: Sequence[float]) -> list[OperatingPoint]:
    """True acceptance rate at bounds on the false acceptance rate.

    The threshold is the lowest occurring similarity at which no more than
    ``floor(far * impostors)`` impostor pairs are accepted, with ``far`` taken as the decimal number
    that it is written as. Where more of them than that share the highest similarity of all,
    nothing can be accepted: threshold inf, TAR 0.

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
    """How many of ``count`` a bound on an error rate lets pass, at least 1.

    The bound is the decimal number that it is written as: 0.29 of 100 are 29, although the
    product of the floating-point numbers lies below.

    Args:
        rate: in (0, 1].
        count: trials.
        name: what messages call the option.
        what: what messages call the trials.

    Raises:
        ValueError: if it is not in (0, 1], or lets not even one pass.

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
    """The rate at which false acceptances and false rejections are equally frequent.

    Between the two neighbouring operating points of the ROC at which FAR - FRR changes its sign,
    both rates are taken as linear, as where one operates at either at random; the threshold is
    interpolated likewise (beside the point that accepts nothing, it is the highest similarity).

    Returns:
        The rate and the threshold.

    Raises:
        ValueError: if a kind of pairs is absent.

    >>> rate, _ = equal_error_rate(
    ...     count_scores(torch.tensor([.9, .5, .5]), torch.tensor([True, True, False])))
    >>> round(rate, 4)
    0.3333
    """
    genuine, impostors = counts.totals()
    accepted_genuine, accepted_impostors = counts.accepted()
    # Whether FAR >= FRR, from the lowest threshold, where it holds, to the first without.
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


def best_accuracy(counts: ScoreCounts, balanced: bool = False) -> tuple[float, float]:
    """Highest share of rightly judged pairs that one threshold reaches on these very pairs.

    Args:
        counts: with pairs of both kinds.
        balanced: the mean of the shares of both kinds. With 99 impostor pairs for a genuine one,
            accepting nothing is right in 99 % of all pairs, and in 50 % by this measure.

    Returns:
        The accuracy, and a threshold midway between the two similarities that it parts. Where
        several parts are equally good, the highest. Accepting all has the lowest similarity as
        its threshold, accepting nothing inf.

    Raises:
        ValueError: if a kind of pairs is absent.

    >>> similarities = torch.tensor([.75, .25, .5])
    >>> best_accuracy(count_scores(similarities, torch.tensor([True, False, False])))
    (1.0, 0.625)
    """
    genuine, impostors = counts.totals()
    accepted_genuine, accepted_impostors = counts.accepted()
    # What is gained over accepting nothing, which stands last.
    gain = accepted_genuine - accepted_impostors
    if balanced:
        gain = accepted_genuine.double() / genuine - accepted_impostors.double() / impostors
    gain = torch.cat([gain, gain.new_zeros(1)])
    place = int((gain == gain.max()).nonzero()[-1])
    most = gain[place].item()
    accuracy = (1 + most) / 2 if balanced else (impostors + most) / (genuine + impostors)
    return accuracy, _threshold_below(counts.scores, place)


def fold_accuracy(similarities: Tensor, same: Tensor, folds: int | Tensor = 10) -> FoldAccuracy:
    """The LFW protocol: accuracy on each fold at the threshold that is best on the others.

    The threshold is that of `best_accuracy`: exact, not one of a list of guesses.

    Args:
        similarities: (K,) floating point.
        same: (K,) bool, True for genuine pairs.
        folds: a number k of folds, contiguous and as even as scikit-learn's unshuffled ``KFold``
            (the first K mod k hold one pair more); or (K,) the fold of each pair, any integers.

    Raises:
        ValueError: if shapes differ, there are fewer than 2 folds or fewer pairs than folds, or
            the other folds of one lack a kind of pairs.

    >>> similarities = torch.tensor([.9, .1, .8, .2])
    >>> fold_accuracy(similarities, similarities > .5, folds=2).mean
    1.0
    """
    fold = _contiguous(len(similarities), folds) if isinstance(folds, int) else folds
    if fold.shape != similarities.shape:
        raise ValueError(
            f'folds must tell one fold a pair, got {tuple(fold.shape)} for {len(similarities)}'
        )
    numbers = fold.unique().tolist()
    if len(numbers) < 2:
        raise ValueError(
            f'folds are {numbers}: at least 2 are needed to find a threshold on the others'
        )
    accuracies, thresholds = [], []
    for number in numbers:
        inside = (fold == number).to(similarities.device)
        others = count_scores(similarities[~inside], same[~inside])
        try:
            _, threshold = best_accuracy(others)
        except ValueError as error:
            raise ValueError(
                f'the pairs outside of fold {number} cannot give its threshold: {error}. Folds '
                'must hold pairs of both kinds: mix the list, or give the folds'
            ) from error
        judged = similarities[inside].double() >= threshold
        accuracies.append(float((judged == same[inside].bool()).double().mean()))
        thresholds.append(threshold)
    found = torch.tensor(accuracies, dtype=torch.float64)
    mean, std = float(found.mean()), float(found.std())
    return FoldAccuracy(mean, std, std / math.sqrt(len(found)), accuracies, thresholds)


def _contiguous(count: int, folds: int) -> Tensor:
    """The fold of each of ``count`` pairs."""
    if folds < 2:
        raise ValueError(f'folds is {folds}; at least 2 are needed to find a threshold on others')
    if count < folds:
        raise ValueError(f'{count} pairs cannot make {folds} folds; ask for fewer folds')
    sizes = torch.tensor([count // folds + (k < count % folds) for k in range(folds)])
    return torch.arange(folds).repeat_interleave(sizes)


def _at_or_above(counts: Tensor) -> Tensor:
    running = counts.cumsum(0)
    return counts + running[-1:] - running


def _threshold_below(scores: Tensor, place: int) -> float:
    """Midway between the score at ``place`` and the one below; in float64, so between them."""
    if place == len(scores):
        return math.inf
    return (float(scores[max(place - 1, 0)]) + float(scores[place])) / 2


def _spread(genuine: Tensor, impostors: Tensor, most: int) -> Tensor:
    """Which of many points to keep, by the pairs accepted at each: both ascending, (S,)."""
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
