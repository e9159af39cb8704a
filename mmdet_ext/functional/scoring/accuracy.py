"""Accuracy of verification at one threshold, and its cross-validation over folds."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.scoring.verification import ScoreCounts, count_scores

__all__ = ['FoldAccuracy', 'best_accuracy', 'fold_accuracy']


class FoldAccuracy(NamedTuple):
    """Accuracies of a cross-validation.

    Attributes:
        mean: mean over the folds.
        std: standard deviation over the k folds, with k - 1 in the denominator.
        standard_error: standard error of the mean, std / sqrt(k), as LFW reports it.
        accuracies: one per fold.
        thresholds: one per fold, found on the other folds.
    """

    mean: float
    std: float
    standard_error: float
    accuracies: list[float]
    thresholds: list[float]


def best_accuracy(counts: ScoreCounts, balanced: bool = False) -> tuple[float, float]:
    """Compute the highest share of correctly judged pairs that one threshold reaches.

    The threshold is chosen on the pairs that it is measured on, so the share is optimistic.

    Args:
        counts: with pairs of both kinds.
        balanced: average the shares of the two kinds. With 99 impostor pairs per genuine pair,
            accepting nothing is right for 99 % of all pairs, and for 50 % by this measure.

    Returns:
        tuple: the accuracy, and a threshold midway between the two similarities that it
        separates. The highest of equally good thresholds is returned. If accepting all pairs is
        best, it is the lowest similarity; if accepting none is best, it is inf.

    Raises:
        ValueError: if a kind of pairs is absent.

    >>> similarities = torch.tensor([.75, .25, .5])
    >>> best_accuracy(count_scores(similarities, torch.tensor([True, False, False])))
    (1.0, 0.625)
    """
    genuine, impostors = counts.totals()
    accepted_genuine, accepted_impostors = counts.accepted()
    # Gain over accepting nothing, which is the last entry.
    gain = accepted_genuine - accepted_impostors
    if balanced:
        gain = accepted_genuine.double() / genuine - accepted_impostors.double() / impostors
    gain = torch.cat([gain, gain.new_zeros(1)])
    place = int((gain == gain.max()).nonzero()[-1])
    most = gain[place].item()
    accuracy = (1 + most) / 2 if balanced else (impostors + most) / (genuine + impostors)
    return accuracy, _threshold_below(counts.scores, place)


def fold_accuracy(similarities: Tensor, same: Tensor, folds: int | Tensor = 10) -> FoldAccuracy:
    """Compute the accuracy on each fold at the threshold that is best on the other folds.

    This is the protocol of LFW. The threshold is that of `best_accuracy`: exact, not chosen from a
    grid.

    Args:
        similarities: (K,) floating point.
        same: (K,) bool, True for genuine pairs.
        folds: a number k of folds, contiguous and as even as those of scikit-learn's unshuffled
            ``KFold`` (the first K mod k hold one pair more); or (K,) the fold of each pair, any
            integers.

    Raises:
        ValueError: if shapes differ, there are fewer than 2 folds or fewer pairs than folds, or
            a kind of pairs is absent outside of a fold.

    References:
        Huang et al., Labeled Faces in the Wild, UMass Amherst TR 07-49, 2007, section IV.

    >>> similarities = torch.tensor([.9, .1, .8, .2])
    >>> fold_accuracy(similarities, similarities > .5, folds=2).mean
    1.0
    """
    fold = _contiguous(len(similarities), folds) if isinstance(folds, int) else folds
    if fold.shape != similarities.shape:
        raise ValueError(
            f'folds must give one fold per pair, got {tuple(fold.shape)} for {len(similarities)}'
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
    """Return the fold of each of ``count`` pairs, in contiguous runs."""
    if folds < 2:
        raise ValueError(f'folds is {folds}; at least 2 are needed to find a threshold on others')
    if count < folds:
        raise ValueError(f'{count} pairs cannot make {folds} folds; ask for fewer folds')
    sizes = torch.tensor([count // folds + (k < count % folds) for k in range(folds)])
    return torch.arange(folds).repeat_interleave(sizes)


def _threshold_below(scores: Tensor, place: int) -> float:
    """Return the middle of the score at ``place`` and the one below.

    It is computed in float64, so that it lies between two neighbouring float32 scores.
    """
    if place == len(scores):
        return math.inf
    return (float(scores[max(place - 1, 0)]) + float(scores[place])) / 2
