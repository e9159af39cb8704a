"""ROC, TAR at FAR and equal error rate, compared with scikit-learn and with slow references."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve
from torch import Tensor

from mmdet_ext.functional.scoring.accuracy import best_accuracy
from mmdet_ext.functional.scoring.verification import (
    ScoreCounts,
    allowed_errors,
    count_scores,
    equal_error_rate,
    roc_auc,
    roc_curve,
    tar_at_far,
)
from tests.functional.scoring.scores import scored, tensors


@pytest.mark.parametrize('distinct', [3, 40, 10_000])
@pytest.mark.parametrize('seed', range(5))
def test_roc_and_auc_equal_scikit_learn(seed: int, distinct: int) -> None:
    similarities, same = scored(seed, distinct=distinct)
    counts = count_scores(similarities, same)
    far, tar, thresholds = sklearn_roc_curve(same, similarities, drop_intermediate=False)
    curve = roc_curve(counts)
    np.testing.assert_array_equal(curve.thresholds.numpy(), thresholds)
    np.testing.assert_allclose(curve.far.numpy(), far, rtol=0, atol=1e-15)
    np.testing.assert_allclose(curve.tar.numpy(), tar, rtol=0, atol=1e-15)
    assert roc_auc(counts) == pytest.approx(roc_auc_score(same, similarities), abs=1e-14)


def test_auc_counts_ties_one_half() -> None:
    assert roc_auc(count_scores(*tensors([0.5] * 6, 'ggiiii'))) == 0.5
    assert roc_auc(count_scores(*tensors([0.9, 0.5, 0.5, 0.1], 'ggii'))) == 0.875
    assert roc_auc(count_scores(*tensors([0.1, 0.9], 'gi'))) == 0.0


def test_auc_of_more_pairs_than_int64_can_multiply() -> None:
    billions = torch.tensor([2_500_000_000, 2_500_000_000])
    counts = ScoreCounts(
        torch.tensor([0.0, 1.0]),
        billions.flip(0) * torch.tensor([0, 1]),
        billions * torch.tensor([1, 0]),
    )
    assert roc_auc(counts) == 1.0
    assert roc_auc(ScoreCounts(counts.scores, billions, billions)) == 0.5


def test_thinned_roc_keeps_exact_points_and_the_ends() -> None:
    similarities, same = scored(0, count=20_000, distinct=100_000)
    counts = count_scores(similarities, same)
    whole, some = roc_curve(counts), roc_curve(counts, most=60)
    place = {t: k for k, t in enumerate(whole.thresholds.tolist())}
    kept = [place[t] for t in some.thresholds.tolist()]
    assert 40 < len(kept) <= 60 and kept[0] == 0 and kept[-1] == len(place) - 1
    torch.testing.assert_close(whole.far[kept], some.far, rtol=0, atol=0)
    torch.testing.assert_close(whole.tar[kept], some.tar, rtol=0, atol=0)
    # The best point without a false acceptance is among those kept.
    best = float(whole.tar[whole.far == 0].max())
    assert best in some.tar[some.far == 0].tolist()
    with pytest.raises(ValueError, match='most is 7'):
        roc_curve(counts, most=7)


def slow_tar(similarities: Tensor, same: Tensor, far: str) -> tuple[float, float, int]:
    """Try every occurring similarity, from the lowest on."""
    values, kinds = similarities.double().tolist(), same.tolist()
    impostors = [v for v, kind in zip(values, kinds, strict=True) if not kind]
    genuine = [v for v, kind in zip(values, kinds, strict=True) if kind]
    for threshold in [*sorted(set(values)), math.inf]:
        wrong = sum(v >= threshold for v in impostors)
        if wrong <= math.floor(Decimal(far) * len(impostors)):
            return threshold, sum(v >= threshold for v in genuine) / len(genuine), wrong
    raise AssertionError


@pytest.mark.parametrize('distinct', [3, 40, 10_000])
@pytest.mark.parametrize('seed', range(3))
def test_tar_at_far_equals_trying_all_thresholds(seed: int, distinct: int) -> None:
    similarities, same = scored(seed, distinct=distinct)
    fars = ['0.005', '0.01', '0.07', '0.1', '0.29', '0.5', '1']
    points = tar_at_far(count_scores(similarities, same), [float(far) for far in fars])
    for point, far in zip(points, fars, strict=True):
        assert point.bound == float(far)
        found = (point.threshold, point.tar, point.accepted_impostors)
        assert found == slow_tar(similarities, same, far)
        assert point.far == point.accepted_impostors / int((~same).sum())


def test_nothing_is_accepted_if_too_many_impostors_share_the_highest_similarity() -> None:
    counts = count_scores(*tensors([0.8, 0.8, 0.8, 0.8, 0.1, 0.1], 'gigiii'))
    (point,) = tar_at_far(counts, [0.25])
    assert point == (0.25, math.inf, 0.0, 0.0, 0)
    assert tar_at_far(counts, [0.5])[0].threshold == pytest.approx(0.8)
    assert tar_at_far(counts, [0.5])[0].tar == 1.0


def test_far_below_one_impostor_pair_is_refused_with_the_number_of_pairs() -> None:
    counts = count_scores(torch.linspace(0, 1, 102), torch.arange(102) < 2)
    assert tar_at_far(counts, [0.01])[0].accepted_impostors == 1
    with pytest.raises(ValueError, match=r'fars holds 0\.009, below 1 / 100: 100 impostor pairs'):
        tar_at_far(counts, [0.1, 0.009])
    for wrong in (0.0, -0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match='a rate lies in'):
            tar_at_far(counts, [wrong])


@pytest.mark.parametrize(
    ('rate', 'count', 'allowed'),
    [
        (0.1, 30, 3),
        (0.29, 100, 29),
        (0.07, 100, 7),
        (1e-6, 10**6, 1),
        (1e-05, 10**5 + 1, 1),
        (0.57, 100, 57),
        (1.0, 7, 7),
    ],
)
def test_allowed_errors_follow_the_number_as_it_is_written(
    rate: float, count: int, allowed: int
) -> None:
    assert allowed_errors(rate, count, 'fars', 'pairs') == allowed


def slow_eer(similarities: Tensor, same: Tensor) -> float:
    """Follow scikit-learn's curve to the point where FAR exceeds FRR."""
    far, tar, _ = sklearn_roc_curve(same, similarities, drop_intermediate=False)
    gap = far - (1 - tar)
    k = next(k for k in range(len(gap)) if gap[k] >= 0)
    way = -gap[k - 1] / (gap[k] - gap[k - 1])
    return float(far[k - 1] + way * (far[k] - far[k - 1]))


@pytest.mark.parametrize('distinct', [3, 40, 10_000])
@pytest.mark.parametrize('seed', range(5))
def test_eer_is_where_far_equals_frr(seed: int, distinct: int) -> None:
    similarities, same = scored(seed, distinct=distinct)
    rate, threshold = equal_error_rate(count_scores(similarities, same))
    assert rate == pytest.approx(slow_eer(similarities, same), abs=1e-12)
    far = float((similarities[~same] >= threshold).double().mean())
    frr = float((similarities[same] < threshold).double().mean())
    if distinct == 10_000:
        assert abs(far - rate) < 0.01 and abs(frr - rate) < 0.01


@pytest.mark.parametrize(
    ('similarities', 'same', 'rate'),
    [
        ([0.9, 0.8, 0.2, 0.1], 'ggii', 0.0),
        ([0.9, 0.8, 0.2, 0.1], 'iigg', 1.0),
        ([0.9, 0.7, 0.5, 0.3], 'gigi', 0.5),
        ([0.5, 0.5, 0.5], 'gii', 0.5),
        ([0.5, 0.9, 0.5], 'ggi', 1 / 3),
    ],
)
def test_eer_by_hand(similarities: list[float], same: str, rate: float) -> None:
    found, _ = equal_error_rate(count_scores(*tensors(similarities, same)))
    assert found == pytest.approx(rate, abs=1e-12)


def test_eer_threshold_accepts_all_genuine_pairs_if_the_kinds_are_separated() -> None:
    rate, threshold = equal_error_rate(count_scores(*tensors([0.9, 0.7, 0.2, 0.1], 'ggii')))
    assert rate == 0 and 0.2 < threshold <= 0.7


@pytest.mark.parametrize(
    'figure',
    [
        roc_curve,
        roc_auc,
        equal_error_rate,
        best_accuracy,
        lambda counts: tar_at_far(counts, [0.1]),
    ],
)
def test_pairs_of_one_kind_are_refused(figure: object) -> None:
    counts = count_scores(torch.tensor([0.5, 0.7]), torch.tensor([True, True]))
    with pytest.raises(ValueError, match='2 genuine and 0 impostor pairs'):
        figure(counts)  # type: ignore[operator]


def test_nan_and_wrong_shapes_of_similarities_are_refused() -> None:
    with pytest.raises(ValueError, match='1 of 2 are NaN'):
        count_scores(torch.tensor([0.5, math.nan]), torch.tensor([True, False]))
    with pytest.raises(ValueError, match=r'\(2,\) and \(3,\)'):
        count_scores(torch.zeros(2), torch.zeros(3, dtype=torch.bool))
