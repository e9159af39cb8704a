"""Tests of confusion matrices: counts by hand and by loops, scikit-learn's figures, bad values."""

from __future__ import annotations

import itertools

import pytest
import torch
from sklearn import metrics
from torch import Tensor

from mmdet_ext.functional.scoring import confusion as module
from mmdet_ext.functional.scoring.confusion import (
    class_scores,
    confusion_matrix,
    present_mean,
)

NAN = float('nan')


def labels(
    seed: int, classes: int, size: tuple[int, ...] = (37, 23), ignored: float = 0.1
) -> tuple[Tensor, Tensor]:
    """Make predictions that are right for half of the pixels, and ground truth with 255."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(classes, size, generator=generator)
    other = torch.randint(classes, size, generator=generator)
    right = torch.rand(size, generator=generator) < 0.5
    target[torch.rand(size, generator=generator) < ignored] = 255
    return torch.where(right & (target != 255), target, other), target


def counted_by_loops(predicted: Tensor, target: Tensor, classes: int, ignore: int | None) -> Tensor:
    table = torch.zeros(classes, classes, dtype=torch.int64)
    for guess, truth in zip(predicted.flatten().tolist(), target.flatten().tolist(), strict=True):
        if truth != ignore:
            table[truth, guess] += 1
    return table


@pytest.mark.parametrize('classes', [1, 2, 7, 60])
def test_counts_are_those_of_a_loop(classes: int) -> None:
    predicted, target = labels(classes, classes)
    expected = counted_by_loops(predicted, target, classes, 255)
    assert confusion_matrix(predicted, target, classes).equal(expected)
    assert expected.sum() == (target != 255).sum() < target.numel()


@pytest.mark.parametrize('pixels', [1, 7, 850, 851, 852])
def test_any_size_of_blocks_gives_the_same_counts(
    pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted, target = labels(0, 3)
    expected = counted_by_loops(predicted, target, 3, 255)
    monkeypatch.setattr(module, 'CPU_PIXELS', pixels)
    assert target.numel() == 851
    assert confusion_matrix(predicted, target, 3).equal(expected)


@pytest.mark.parametrize(
    'dtype', [torch.uint8, torch.int16, torch.int32, torch.int64], ids=lambda d: str(d)[6:]
)
def test_integers_of_all_types_count_alike(dtype: torch.dtype) -> None:
    predicted, target = labels(1, 200)  # 200 * 200 does not fit 8 or 15 bits
    expected = confusion_matrix(predicted, target, 200)
    for a, b in itertools.product((dtype, torch.int64), repeat=2):
        assert confusion_matrix(predicted.to(a), target.to(b), 200).equal(expected)


def test_any_prediction_is_allowed_where_the_ground_truth_is_ignored() -> None:
    target = torch.tensor([0, 1, 255, 255])
    predicted = torch.tensor([0, 0, -7, 255])
    assert confusion_matrix(predicted, target, 2).tolist() == [[1, 0], [1, 0]]


def test_the_ignored_label_may_be_a_class_or_none() -> None:
    predicted, target = torch.tensor([0, 1, 1, 0]), torch.tensor([0, 0, 1, 1])
    assert confusion_matrix(predicted, target, 2, ignore_index=0).tolist() == [[0, 0], [1, 1]]
    assert confusion_matrix(predicted, target, 2, ignore_index=-1).tolist() == [[1, 1], [1, 1]]
    assert confusion_matrix(predicted, target, 2, ignore_index=None).tolist() == [[1, 1], [1, 1]]


def test_nothing_to_count_gives_zeros() -> None:
    empty = torch.zeros(0, 5, dtype=torch.int64)
    assert confusion_matrix(empty, empty, 3).tolist() == [[0] * 3] * 3
    ignored = torch.full((4, 4), 255)
    assert confusion_matrix(torch.zeros_like(ignored), ignored, 3).tolist() == [[0] * 3] * 3


@pytest.mark.slow
def test_counts_above_the_integers_of_float32_are_exact() -> None:
    """In mmseg, counts are of float32, where one thread cannot count beyond 2 ** 24."""
    pixels = 2**24 + 1001
    target = torch.zeros(pixels, dtype=torch.uint8)
    predicted = target.clone()
    predicted[-3:] = 1
    assert confusion_matrix(predicted, target, 2).tolist() == [[pixels - 3, 3], [0, 0]]


@pytest.mark.parametrize(
    ('predicted', 'target', 'message'),
    [
        ([0, 3], [0, 1], r'predicted must be in \[0, 3\), got 3'),
        ([0, -1], [0, 1], r'predicted must be in \[0, 3\), got -1'),
        ([0, 1], [0, 3], r'target must be in \[0, 3\) or 255 \(ignored\), got 3'),
        ([0, 1, 1], [254, 254, -1], r'target must be in .*, got 254'),
    ],
)
def test_values_that_are_no_class_are_named(
    predicted: list[int], target: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        confusion_matrix(torch.tensor(predicted), torch.tensor(target), 3)


def test_unfit_tensors_are_refused() -> None:
    zeros = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r'one shape, got \(2, 3\) and \(3, 2\)'):
        confusion_matrix(zeros, zeros.T, 2)
    with pytest.raises(ValueError, match='predicted must hold integers, got torch.float32'):
        confusion_matrix(zeros.float(), zeros, 2)
    with pytest.raises(ValueError, match='num_classes must be at least 1, got 0'):
        confusion_matrix(zeros, zeros, 0)
    with pytest.raises(ValueError, match=r'confusion must be \(C, C\), got \(2, 3\)'):
        class_scores(zeros)
    with pytest.raises(ValueError, match='beta must be above 0'):
        class_scores(torch.eye(2), beta=0)


def test_figures_by_hand() -> None:
    # Class 0: 6 of 8 found, and 2 of class 1 taken for it. Class 2 is absent, class 3 is predicted
    # for one pixel of class 0 and has no pixel itself, class 4 is never found.
    table = torch.tensor(
        [[6, 1, 0, 1, 0], [2, 3, 0, 0, 0], [0] * 5, [0] * 5, [0, 2, 0, 0, 0]], dtype=torch.int64
    )
    scores = class_scores(table)
    expected = {
        'iou': [6 / 10, 3 / 8, NAN, 0, 0],
        'recall': [6 / 8, 3 / 5, NAN, NAN, 0],
        'precision': [6 / 8, 3 / 6, NAN, 0, NAN],
        'dice': [12 / 16, 6 / 11, NAN, 0, 0],
        'f_score': [12 / 16, 6 / 11, NAN, NAN, NAN],
        'share': [8 / 15, 5 / 15, 0, 0, 2 / 15],
        'accuracy': 9 / 15,
    }
    for name, values in expected.items():
        torch.testing.assert_close(
            getattr(scores, name), torch.tensor(values, dtype=torch.float64), equal_nan=True
        )
    assert float(scores.weighted_iou) == pytest.approx(8 / 15 * 0.6 + 5 / 15 * 3 / 8)
    assert float(present_mean(scores.iou)) == pytest.approx((0.6 + 0.375) / 4)
    assert present_mean(torch.tensor([NAN, NAN])).isnan()


@pytest.mark.parametrize('beta', [1.0, 0.5, 3.0])
def test_figures_are_those_of_scikit_learn(beta: float) -> None:
    predicted, target = labels(3, 5)
    scores = class_scores(confusion_matrix(predicted, target, 5), beta)
    kept = target != 255
    truth, guess = target[kept].numpy(), predicted[kept].numpy()
    precision, recall, f_score, count = metrics.precision_recall_fscore_support(
        truth, guess, beta=beta
    )
    assert scores.precision.tolist() == pytest.approx(precision, abs=1e-12)
    assert scores.recall.tolist() == pytest.approx(recall, abs=1e-12)
    assert scores.f_score.tolist() == pytest.approx(f_score, abs=1e-12)
    assert scores.share.tolist() == pytest.approx(count / count.sum(), abs=1e-12)
    jaccard = metrics.jaccard_score(truth, guess, average=None)
    assert scores.iou.tolist() == pytest.approx(jaccard, abs=1e-12)
    assert float(scores.weighted_iou) == pytest.approx(
        metrics.jaccard_score(truth, guess, average='weighted'), abs=1e-12
    )
    assert float(scores.accuracy) == pytest.approx(metrics.accuracy_score(truth, guess), abs=1e-12)


def test_f_score_of_beta_1_is_dice_and_iou_follows_from_it() -> None:
    predicted, target = labels(4, 6)
    scores = class_scores(confusion_matrix(predicted, target, 6))
    torch.testing.assert_close(scores.f_score, scores.dice)
    torch.testing.assert_close(scores.iou, scores.dice / (2 - scores.dice))
