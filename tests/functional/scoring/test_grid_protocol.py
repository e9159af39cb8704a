"""InsightFace's protocol of verification, against loops over its steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.scoring import (
    count_scores,
    fold_accuracy,
    grid_verification,
    tar_at_far,
)


def pairs(count: int, seed: int = 0, spread: float = 0.3) -> tuple[Tensor, Tensor]:
    """Draw cosines of pairs, genuine and impostor in turn as a ``.bin`` has them by blocks."""
    generator = torch.Generator().manual_seed(seed)
    same = (torch.arange(count) // max(1, count // 20)) % 2 == 0
    cosines = torch.where(same, 0.6, 0.1) + spread * torch.randn(count, generator=generator)
    return cosines.clamp(-1, 1).double(), same


def interpolated(rates: list[float], grid: list[float], far: float) -> float:
    """Walk along a broken line of rates, and return where it leaves a rate for good."""
    if max(rates) < far:
        return 0.0
    for place in reversed(range(len(rates))):
        if rates[place] <= far:
            if place + 1 == len(rates):
                return grid[place]
            share = (far - rates[place]) / (rates[place + 1] - rates[place])
            return grid[place] * (1 - share) + grid[place + 1] * share
    raise AssertionError('the first rate is 0')


def slow(cosines: Tensor, same: Tensor, folds: int, far: float) -> dict[str, object]:
    """Follow the protocol with loops over folds and thresholds."""
    distance, kind = [2 - 2 * float(c) for c in cosines], [bool(s) for s in same]
    accuracies, tars, fars = [], [], []
    for test in np.array_split(np.arange(len(kind)), folds):
        train = [k for k in range(len(kind)) if k not in set(test.tolist())]

        def share(index: list[int], t: float, wanted: bool) -> float:
            chosen = [k for k in index if kind[k] == wanted]
            return sum(distance[k] < t for k in chosen) / len(chosen)

        def right(index: list[int], t: float) -> float:
            return sum((distance[k] < t) == kind[k] for k in index) / len(index)

        grid = [0.01 * step for step in range(400)]
        best = max(grid, key=lambda t: (right(train, t), -t))
        accuracies.append(right(test.tolist(), best))
        fine = [0.001 * step for step in range(4000)]
        t = interpolated([share(train, one, False) for one in fine], fine, far)
        tars.append(share(test.tolist(), t, True))
        fars.append(share(test.tolist(), t, False))
    return {
        'accuracy': np.mean(accuracies),
        'accuracy_std': np.std(accuracies),
        'accuracies': accuracies,
        'tar': np.mean(tars),
        'tar_std': np.std(tars),
        'far': np.mean(fars),
    }


@pytest.mark.parametrize(
    ('count', 'folds', 'far'), [(100, 5, 0.05), (103, 5, 0.3), (60, 3, 0.001), (61, 2, 0.9)]
)
def test_figures_equal_loops_over_the_protocol(count: int, folds: int, far: float) -> None:
    for seed in range(2):
        cosines, same = pairs(count, seed)
        found = grid_verification(cosines, same, folds, far)._asdict()
        for name, value in slow(cosines, same, folds, far).items():
            assert found[name] == pytest.approx(value, abs=1e-12), name


def test_a_far_is_interpolated_from_the_last_of_equal_rates() -> None:
    # Impostor pairs at d = 1.0005 and 1.5005, two of each per fold: the FAR is 0 up to t = 1.000,
    # 1/2 from 1.001 to 1.500, 1 from 1.501 on. At 1/4 the threshold is 1.0005, at 1/2 it is 1.5,
    # the last threshold of that rate.
    cosine = [1 - d / 2 for d in (1.0005, 1.5005, 0.2, 1.0004, 1.2, 1.4999)]
    cosines = torch.tensor(cosine * 4, dtype=torch.float64)
    same = torch.tensor([False, False, True, True, True, True] * 4)
    quarter = grid_verification(cosines, same, 2, far=0.25)
    assert quarter.tar == 0.5
    half = grid_verification(cosines, same, 2, far=0.5)
    assert (half.tar, half.far) == (1.0, 0.5)


def test_a_pair_at_the_threshold_is_refused() -> None:
    # d = 1 for genuine pairs and 1.5 for others: 1.01 is the first threshold that is right.
    cosines = torch.tensor([0.5, 0.25] * 4, dtype=torch.float64)
    same = torch.tensor([True, False] * 4)
    found = grid_verification(cosines, same, 2)
    assert found.thresholds == pytest.approx([1.01, 1.01]) and found.accuracy == 1


def test_idioms_differ_from_the_exact_figures() -> None:
    # Genuine and impostor pairs differ by less than a step of the grid: it cannot tell them apart.
    cosines = torch.tensor([0.9012, 0.9008] * 10, dtype=torch.float64)
    same = torch.tensor([True, False] * 10)
    assert fold_accuracy(cosines, same, 5).mean == 1.0
    assert grid_verification(cosines, same, 5).accuracy == 0.5
    # An exact FAR that the pairs cannot show is refused; here it is interpolated.
    with pytest.raises(ValueError, match='cannot show it'):
        tar_at_far(count_scores(cosines, same), [1e-3])
    assert 0 <= grid_verification(cosines, same, 5, far=1e-3).tar <= 1


def test_deviation_divides_by_the_number_of_folds() -> None:
    cosines, same = pairs(200, 3)
    exact, grid = fold_accuracy(cosines, same, 10), grid_verification(cosines, same, 10)
    values = np.array(grid.accuracies)
    assert grid.accuracy_std == pytest.approx(np.sqrt(((values - values.mean()) ** 2).mean()))
    assert exact.std == pytest.approx(np.array(exact.accuracies).std(ddof=1))


@pytest.mark.parametrize(
    ('cosines', 'same', 'options', 'message'),
    [
        ([0.1, 0.2], [True], {}, 'must both be'),
        ([0.1, 0.2], [True, False], {'folds': 1}, 'folds'),
        ([0.1, 0.2], [True, False], {'folds': 3}, '2 pairs cannot make 3 folds'),
        ([0.1] * 4, [True, False] * 2, {'folds': 2, 'far': 0.0}, 'far must be in'),
        ([0.1] * 4, [True, True, False, False], {'folds': 2}, 'in fold 0 are of one kind'),
    ],
)
def test_what_cannot_be_evaluated_is_named(
    cosines: list[float], same: list[bool], options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        grid_verification(torch.tensor(cosines), torch.tensor(same), **options)  # type: ignore
