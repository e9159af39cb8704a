"""Verification by InsightFace's protocol: thresholds from a grid, and a TAR at an interpolated FAR.

It is facenet's protocol on LFW. Its figures differ from the exact ones of this package by idiom:
see `grid_verification`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_number

__all__ = ['GridFigures', 'grid_verification']

#: Largest squared distance of two vectors of length 1.
_MOST = 4.0
_STEPS = 400
_FINE_STEPS = 4000


class GridFigures(NamedTuple):
    """Figures of InsightFace's protocol.

    Attributes:
        accuracy: mean over the folds.
        accuracy_std: standard deviation over the folds, with the number of folds in the
            denominator.
        accuracies: of each fold.
        thresholds: squared distance below which a pair is accepted, found on the other folds.
        tar: mean over the folds of the accepted share of genuine pairs ('val').
        tar_std: standard deviation of it, with the number of folds in the denominator.
        far: mean over the folds of the accepted share of impostor pairs: what was reached, not what
            was asked for.
    """

    accuracy: float
    accuracy_std: float
    accuracies: list[float]
    thresholds: list[float]
    tar: float
    tar_std: float
    far: float


def grid_verification(
    similarities: Tensor, same: Tensor, folds: int = 10, far: float = 1e-3
) -> GridFigures:
    r"""Compute accuracy and TAR at a FAR as InsightFace's evaluation of ``.bin`` files does.

    The squared distance of a pair of cosine c is :math:`d = 2 - 2c`, and a pair is accepted if
    :math:`d < t`. On the pairs outside of a fold,

    1. the threshold of the accuracy is the lowest t of 0, 0.01, ..., 3.99 with the most right
       decisions;
    2. with the FAR :math:`f_i` at :math:`t_i` of 0, 0.001, ..., 3.999, and i the last index with
       :math:`f_i \le` ``far``, the threshold of the TAR is
       :math:`t_i + (t_{i+1} - t_i) (\mathrm{far} - f_i) / (f_{i+1} - f_i)`; 0 where no FAR of the
       grid reaches ``far``.

    Both are then applied to the fold. Folds are contiguous, the first ones one pair longer.

    `fold_accuracy` takes the exact best threshold, midway between two pairs, in place of the grid,
    and k - 1 in the deviation. `tar_at_far` takes all pairs at once, and a threshold whose FAR
    keeps to the bound. Here the FAR reached on the folds may lie above the one asked for, and a
    rate that the pairs cannot show is interpolated: of 300 impostor pairs, 1e-3 is a third of one.

    Args:
        similarities: (K,) cosines, floating point.
        same: (K,) bool, True for genuine pairs.
        folds: number of folds, at least 2.
        far: false acceptance rate, in (0, 1).

    Raises:
        ValueError: if the shapes differ, an option is out of range, there are fewer pairs than
            folds, or a fold or the pairs outside of it lack a kind of pairs.

    References:
        InsightFace, ``recognition/arcface_torch/eval/verification.py``, ``evaluate``.

    >>> cosines = torch.tensor([.9, .1, .9, .2])
    >>> grid_verification(cosines, cosines > .5, folds=2).accuracies
    [1.0, 1.0]
    """
    check_number('folds', folds, least=2)
    if similarities.ndim != 1 or similarities.shape != same.shape:
        raise ValueError(
            'similarities and same must both be (K,), got '
            f'{tuple(similarities.shape)} and {tuple(same.shape)}'
        )
    if not 0 < far < 1:
        raise ValueError(f'far must be in (0, 1), got {far}')
    if len(same) < folds:
        raise ValueError(f'{len(same)} pairs cannot make {folds} folds; ask for fewer folds')
    distance = 2 - 2 * similarities.detach().double().cpu()
    genuine = same.bool().cpu()
    # Multiples of the step, as NumPy's arange gives them: a sum of steps would drift.
    grid = torch.arange(_STEPS, dtype=torch.float64) * (_MOST / _STEPS)
    fine = torch.arange(_FINE_STEPS, dtype=torch.float64) * (_MOST / _FINE_STEPS)
    sizes = [len(same) // folds + (k < len(same) % folds) for k in range(folds)]
    fold = torch.arange(folds).repeat_interleave(torch.tensor(sizes))
    accuracies, thresholds, tars, fars = [], [], [], []
    for number in range(folds):
        inside = fold == number
        _check_kinds(genuine, inside, number)
        right, wrong = _accepted(distance, genuine, ~inside, grid)
        # Right decisions, but for the number of impostor pairs; the first of equals is the lowest.
        threshold = float(grid[int((right - wrong).argmax())])
        judged = distance[inside] < threshold
        accuracies.append(float((judged == genuine[inside]).double().mean()))
        thresholds.append(threshold)
        _, wrong = _accepted(distance, genuine, ~inside, fine)
        rates = wrong.double() / int((~genuine & ~inside).sum())
        accepted = distance[inside] < _at_rate(rates, fine, far)
        tars.append(float(accepted[genuine[inside]].double().mean()))
        fars.append(float(accepted[~genuine[inside]].double().mean()))
    accuracy, tar = (torch.tensor(x, dtype=torch.float64) for x in (accuracies, tars))
    return GridFigures(
        float(accuracy.mean()),
        float(accuracy.std(unbiased=False)),
        accuracies,
        thresholds,
        float(tar.mean()),
        float(tar.std(unbiased=False)),
        sum(fars) / folds,
    )


def _accepted(
    distance: Tensor, genuine: Tensor, chosen: Tensor, grid: Tensor
) -> tuple[Tensor, Tensor]:
    """Count the genuine and the impostor pairs below each threshold: (T,) int64 each."""
    right, wrong = (
        torch.searchsorted(distance[chosen & kind].sort().values, grid)
        for kind in (genuine, ~genuine)
    )
    return right, wrong


def _at_rate(rates: Tensor, grid: Tensor, far: float) -> float:
    """Interpolate the threshold at a FAR, from the last of equal rates to the first higher one."""
    if float(rates.max()) < far:
        return 0.0
    last = int(torch.searchsorted(rates, far, right=True)) - 1
    if last + 1 == len(grid):
        return float(grid[last])
    low, high = float(rates[last]), float(rates[last + 1])
    way = (far - low) / (high - low)
    return float(grid[last]) + way * float(grid[last + 1] - grid[last])


def _check_kinds(genuine: Tensor, inside: Tensor, number: int) -> None:
    for where, mask in (('in', inside), ('outside of', ~inside)):
        kinds = genuine[mask]
        if not kinds.any() or kinds.all():
            raise ValueError(
                f'the pairs {where} fold {number} are of one kind: folds must hold pairs of both '
                'kinds. Mix the list, or ask for fewer folds'
            )
