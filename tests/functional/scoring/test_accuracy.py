"""Accuracies, compared with trying all thresholds and with scikit-learn's folds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_curve as sklearn_roc_curve
from sklearn.model_selection import KFold
from torch import Tensor

from mmdet_ext.functional.scoring.accuracy import best_accuracy, fold_accuracy
from mmdet_ext.functional.scoring.verification import count_scores
from tests.functional.scoring.scores import scored, tensors


def slow_best(similarities: np.ndarray, same: np.ndarray) -> tuple[float, float]:
    """Try every threshold between two similarities."""
    values = sorted(set(similarities.tolist()))
    cuts = [values[0], *((a + b) / 2 for a, b in zip(values, values[1:], strict=False)), math.inf]
    accuracy = [float(((similarities >= cut) == same).mean()) for cut in cuts]
    best = max(accuracy)
    return best, max(c for c, a in zip(cuts, accuracy, strict=True) if a == best)


@pytest.mark.parametrize('distinct', [3, 40, 10_000])
@pytest.mark.parametrize('seed', range(3))
def test_best_accuracy_equals_trying_all_thresholds(seed: int, distinct: int) -> None:
    similarities, same = scored(seed, distinct=distinct)
    accuracy, threshold = best_accuracy(count_scores(similarities, same))
    expected = slow_best(similarities.double().numpy(), same.numpy())
    assert (accuracy, threshold) == pytest.approx(expected, abs=1e-12)
    far, tar, _ = sklearn_roc_curve(same, similarities, drop_intermediate=False)
    balanced, _ = best_accuracy(count_scores(similarities, same), balanced=True)
    assert balanced == pytest.approx((tar - far + 1).max() / 2, abs=1e-12)


def test_best_threshold_with_few_genuine_pairs_accepts_nothing_unless_balanced() -> None:
    counts = count_scores(torch.tensor([0.5] + [0.9] + [0.1] * 98), torch.arange(100) < 1)
    assert best_accuracy(counts) == (0.99, math.inf)
    accuracy, threshold = best_accuracy(counts, balanced=True)
    assert accuracy == pytest.approx((1 + 98 / 99) / 2)
    assert 0.1 < threshold < 0.5


@pytest.mark.parametrize('count', [600, 607, 31])
@pytest.mark.parametrize('distinct', [5, 10_000])
def test_fold_accuracies_equal_those_on_scikit_learns_folds(count: int, distinct: int) -> None:
    similarities, same = scored(count, count, distinct)
    values, kinds = similarities.double().numpy(), same.numpy()
    accuracies, thresholds = [], []
    for train, test in KFold(10).split(values):
        _, threshold = slow_best(values[train], kinds[train])
        thresholds.append(threshold)
        accuracies.append(float(((values[test] >= threshold) == kinds[test]).mean()))
    found = fold_accuracy(similarities, same, folds=10)
    assert found.accuracies == pytest.approx(accuracies, abs=1e-12)
    assert found.thresholds == pytest.approx(thresholds, abs=1e-12)
    assert found.mean == pytest.approx(np.mean(accuracies), abs=1e-12)
    assert found.std == pytest.approx(np.std(accuracies, ddof=1), abs=1e-12)
    assert found.standard_error == pytest.approx(found.std / math.sqrt(10), abs=1e-12)


def test_given_folds_may_have_any_order_and_numbers() -> None:
    similarities, same = scored(3)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(1))
    fold = torch.arange(600) // 60 * 7 - 3
    found = fold_accuracy(similarities[order], same[order], folds=fold[order])
    expected = fold_accuracy(similarities, same, folds=10)
    assert found.accuracies == pytest.approx(expected.accuracies, abs=1e-12)
    assert found.thresholds == expected.thresholds


def test_threshold_lies_midway_between_the_similarities_that_it_separates() -> None:
    similarities, same = tensors([0.75, 0.25, 0.875, 0.125], 'gigi')
    assert fold_accuracy(similarities, same, folds=2).thresholds == [0.5, 0.5]


@pytest.mark.parametrize(
    ('folds', 'message'),
    [
        (1, 'folds is 1; at least 2'),
        (7, '6 pairs cannot make 7 folds'),
        (torch.zeros(6), r'folds are \[0\.0\]: at least 2'),
        (torch.zeros(5), r'one fold per pair, got \(5,\) for 6'),
        (2, r'outside of fold 0 cannot give its threshold.*3 genuine and 0 impostor'),
    ],
)
def test_folds_without_a_threshold_are_refused(folds: int | Tensor, message: str) -> None:
    similarities = torch.tensor([0.1, 0.2, 0.3, 0.7, 0.8, 0.9])
    with pytest.raises(ValueError, match=message):
        fold_accuracy(similarities, torch.arange(6) > 2, folds=folds)
