"""Verification figures against scikit-learn and slow twins; all pairs against brute force."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve
from sklearn.model_selection import KFold
from torch import Tensor

from mmdet_ext.functional.scoring.all_pairs import AllPairs, count_all_pairs
from mmdet_ext.functional.scoring.similarity import (
    GRID,
    NARROW,
    comparable,
    on_grid,
    pair_similarities,
    unit_embeddings,
)
from mmdet_ext.functional.scoring.verification import (
    ScoreCounts,
    allowed_errors,
    best_accuracy,
    count_scores,
    equal_error_rate,
    fold_accuracy,
    roc_auc,
    roc_curve,
    tar_at_far,
)


def scored(seed: int, count: int = 600, distinct: int = 40) -> tuple[Tensor, Tensor]:
    """Similarities of random pairs with many ties, within and across the kinds."""
    generator = torch.Generator().manual_seed(seed)
    same = torch.rand(count, generator=generator) < 0.3
    values = torch.randn(count, generator=generator) * 0.2 + 0.25 * same
    return (values * distinct).round() / distinct, same


def tensors(similarities: list[float], same: str) -> tuple[Tensor, Tensor]:
    return torch.tensor(similarities), torch.tensor([kind == 'g' for kind in same])


# ROC, AUC


@pytest.mark.parametrize('distinct', [3, 40, 10_000])
@pytest.mark.parametrize('seed', range(5))
def test_roc_and_auc_are_those_of_scikit_learn(seed: int, distinct: int) -> None:
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
    # Under every tenth of a decade, the best point that keeps to it is there.
    best = float(whole.tar[whole.far == 0].max())
    assert best in some.tar[some.far == 0].tolist()
    with pytest.raises(ValueError, match='most is 7'):
        roc_curve(counts, most=7)


# TAR at FAR


def slow_tar(similarities: Tensor, same: Tensor, far: str) -> tuple[float, float, int]:
    """Try every occurring similarity from the lowest on."""
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
def test_tar_at_far_is_that_of_trying_all_thresholds(seed: int, distinct: int) -> None:
    similarities, same = scored(seed, distinct=distinct)
    fars = ['0.005', '0.01', '0.07', '0.1', '0.29', '0.5', '1']
    points = tar_at_far(count_scores(similarities, same), [float(far) for far in fars])
    for point, far in zip(points, fars, strict=True):
        assert point.bound == float(far)
        found = (point.threshold, point.tar, point.accepted_impostors)
        assert found == slow_tar(similarities, same, far)
        assert point.far == point.accepted_impostors / int((~same).sum())


def test_impostors_tied_at_the_top_leave_nothing_to_accept() -> None:
    counts = count_scores(*tensors([0.8, 0.8, 0.8, 0.8, 0.1, 0.1], 'gigiii'))
    (point,) = tar_at_far(counts, [0.25])
    assert point == (0.25, math.inf, 0.0, 0.0, 0)
    assert tar_at_far(counts, [0.5])[0].threshold == pytest.approx(0.8)
    assert tar_at_far(counts, [0.5])[0].tar == 1.0


def test_a_far_the_pairs_cannot_show_is_refused_with_their_number() -> None:
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
def test_allowed_errors_go_by_the_written_number(rate: float, count: int, allowed: int) -> None:
    assert allowed_errors(rate, count, 'fars', 'pairs') == allowed


# EER


def slow_eer(similarities: Tensor, same: Tensor) -> float:
    """Walk along scikit-learn's curve to where FAR passes FRR."""
    far, tar, _ = sklearn_roc_curve(same, similarities, drop_intermediate=False)
    gap = far - (1 - tar)
    k = next(k for k in range(len(gap)) if gap[k] >= 0)
    way = -gap[k - 1] / (gap[k] - gap[k - 1])
    return float(far[k - 1] + way * (far[k] - far[k - 1]))


@pytest.mark.parametrize('distinct', [3, 40, 10_000])
@pytest.mark.parametrize('seed', range(5))
def test_eer_is_where_the_curve_crosses(seed: int, distinct: int) -> None:
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


def test_eer_threshold_of_separated_kinds_accepts_the_genuine() -> None:
    rate, threshold = equal_error_rate(count_scores(*tensors([0.9, 0.7, 0.2, 0.1], 'ggii')))
    assert rate == 0 and 0.2 < threshold <= 0.7


# Accuracy


def slow_best(similarities: np.ndarray, same: np.ndarray) -> tuple[float, float]:
    values = sorted(set(similarities.tolist()))
    cuts = [values[0], *((a + b) / 2 for a, b in zip(values, values[1:], strict=False)), math.inf]
    accuracy = [float(((similarities >= cut) == same).mean()) for cut in cuts]
    best = max(accuracy)
    return best, max(c for c, a in zip(cuts, accuracy, strict=True) if a == best)


@pytest.mark.parametrize('distinct', [3, 40, 10_000])
@pytest.mark.parametrize('seed', range(3))
def test_best_accuracy_is_that_of_trying_all_thresholds(seed: int, distinct: int) -> None:
    similarities, same = scored(seed, distinct=distinct)
    accuracy, threshold = best_accuracy(count_scores(similarities, same))
    expected = slow_best(similarities.double().numpy(), same.numpy())
    assert (accuracy, threshold) == pytest.approx(expected, abs=1e-12)
    far, tar, _ = sklearn_roc_curve(same, similarities, drop_intermediate=False)
    balanced, _ = best_accuracy(count_scores(similarities, same), balanced=True)
    assert balanced == pytest.approx((tar - far + 1).max() / 2, abs=1e-12)


def test_best_accuracy_of_few_genuine_pairs_accepts_nothing_but_not_the_balanced() -> None:
    counts = count_scores(torch.tensor([0.5] + [0.9] + [0.1] * 98), torch.arange(100) < 1)
    assert best_accuracy(counts) == (0.99, math.inf)
    accuracy, threshold = best_accuracy(counts, balanced=True)
    assert accuracy == pytest.approx((1 + 98 / 99) / 2)
    assert 0.1 < threshold < 0.5


@pytest.mark.parametrize('count', [600, 607, 31])
@pytest.mark.parametrize('distinct', [5, 10_000])
def test_fold_accuracies_are_those_of_scikit_learns_folds(count: int, distinct: int) -> None:
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


def test_given_folds_are_taken_in_any_order_and_numbering() -> None:
    similarities, same = scored(3)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(1))
    fold = torch.arange(600) // 60 * 7 - 3
    found = fold_accuracy(similarities[order], same[order], folds=fold[order])
    expected = fold_accuracy(similarities, same, folds=10)
    assert found.accuracies == pytest.approx(expected.accuracies, abs=1e-12)
    assert found.thresholds == expected.thresholds


def test_threshold_lies_midway_between_what_it_parts() -> None:
    similarities, same = tensors([0.75, 0.25, 0.875, 0.125], 'gigi')
    assert fold_accuracy(similarities, same, folds=2).thresholds == [0.5, 0.5]


@pytest.mark.parametrize(
    ('folds', 'message'),
    [
        (1, 'folds is 1; at least 2'),
        (7, '6 pairs cannot make 7 folds'),
        (torch.zeros(6), r'folds are \[0\.0\]: at least 2'),
        (torch.zeros(5), r'one fold a pair, got \(5,\) for 6'),
        (2, r'outside of fold 0 cannot give its threshold.*3 genuine and 0 impostor'),
    ],
)
def test_folds_that_give_no_threshold_are_refused(folds: int | Tensor, message: str) -> None:
    similarities = torch.tensor([0.1, 0.2, 0.3, 0.7, 0.8, 0.9])
    with pytest.raises(ValueError, match=message):
        fold_accuracy(similarities, torch.arange(6) > 2, folds=folds)


# What is refused


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


def test_nan_and_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match='1 of 2 are NaN'):
        count_scores(torch.tensor([0.5, math.nan]), torch.tensor([True, False]))
    with pytest.raises(ValueError, match=r'\(2,\) and \(3,\)'):
        count_scores(torch.zeros(2), torch.zeros(3, dtype=torch.bool))
    with pytest.raises(ValueError, match='2 of 3 rows hold NaN or infinite'):
        unit_embeddings(torch.tensor([[1.0, math.nan], [0.0, 1.0], [math.inf, 0.0]]))
    with pytest.raises(ValueError, match=r'\(N, D\) with D >= 1, got \(3, 0\)'):
        unit_embeddings(torch.zeros(3, 0))
    with pytest.raises(TypeError, match='torch.int64'):
        unit_embeddings(torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(IndexError, match='rows -1 to 2, but there are 3'):
        pair_similarities(torch.zeros(3, 2), torch.tensor([[0, -1], [1, 2]]))


def test_lengths_of_embeddings_do_not_matter() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[0.6, 0.8], [0.0, 0.0], [-1.0, 0.0]])
    for scale in (1e-300, 1e-42, 1.0, 1e38, 1e300):
        unit = unit_embeddings(rows * scale)
        torch.testing.assert_close(unit, expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(unit_embeddings(rows.half() * 1e4), expected, rtol=0, atol=1e-3)


def test_grid_moves_similarities_by_half_a_step_at_most_and_keeps_their_order() -> None:
    values = torch.rand(10_000, generator=torch.Generator().manual_seed(0)).sort().values * 2 - 1
    found = on_grid(values)
    assert float((found - values).abs().max()) <= 0.5 / GRID + 2**-25
    assert bool((found.diff() >= 0).all())
    assert torch.equal((found * GRID).frac(), torch.zeros_like(found))


# All pairs


def brute_force(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Index, similarity and kind of every pair."""
    index = torch.combinations(torch.arange(len(embeddings)))
    same = labels[index[:, 0]] == labels[index[:, 1]]
    return index, pair_similarities(unit_embeddings(embeddings), index), same


def exact_embeddings(seed: int, count: int = 300) -> Tensor:
    """Embeddings whose cosines have no rounding, so that products of any blocks agree.

    Four entries of +-1 each: length 2, and cosines in quarters, so of heavy ties.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.zeros(count, 16)
    for row in rows:
        places = torch.randperm(16, generator=generator)[:4]
        row[places] = torch.randint(2, (4,), generator=generator).float() * 2 - 1
    return rows


def assert_same_counts(found: ScoreCounts, expected: ScoreCounts) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


BLOCKS = [1, 7, 64, 299, 300, 1000]


@pytest.mark.parametrize('block', BLOCKS[1:])
def test_all_pairs_are_those_of_brute_force(block: int) -> None:
    embeddings = exact_embeddings(0)
    labels = torch.randint(40, (300,), generator=torch.Generator().manual_seed(1))
    found = count_all_pairs(embeddings, labels, block=block)
    _, similarities, same = brute_force(embeddings, labels)
    assert_same_counts(found.counts, count_scores(similarities, same))
    assert len(found.counts.scores) == 8  # quarters from -0.75 to 1: ties without end
    assert roc_auc(found.counts) == pytest.approx(roc_auc_score(same, similarities), abs=1e-14)


@pytest.mark.parametrize('identities', [1, 2, 300])
def test_all_pairs_of_few_large_or_of_single_identities(identities: int) -> None:
    embeddings = exact_embeddings(2)
    labels = torch.arange(300) % identities
    _, similarities, same = brute_force(embeddings, labels)
    for block in (64, 300):
        found = count_all_pairs(embeddings, labels, block=block)
        assert_same_counts(found.counts, count_scores(similarities, same))


@pytest.mark.parametrize('block', BLOCKS)
def test_products_of_any_blocks_agree_to_steps_of_the_grid(block: int) -> None:
    generator = torch.Generator().manual_seed(4)
    labels = torch.randint(12, (300 if block > 1 else 60,), generator=generator)
    embeddings = torch.randn(12, 64, generator=generator)[labels]
    embeddings = embeddings + 2 * torch.randn(embeddings.shape, generator=generator)
    counts = count_all_pairs(embeddings, labels, block=block).counts
    _, similarities, same = brute_force(embeddings, labels)
    for kind, chosen in ((counts.genuine, same), (counts.impostors, ~same)):
        listed = counts.scores.repeat_interleave(kind)
        gap = (listed - similarities[chosen].sort().values).abs().max()
        assert float(gap) <= 1 / GRID
    expected = count_scores(similarities, same)
    assert roc_auc(counts) == pytest.approx(roc_auc_score(same, similarities), abs=1e-6)
    assert equal_error_rate(counts)[0] == pytest.approx(equal_error_rate(expected)[0], abs=1e-3)


def test_equal_embeddings_tie_in_blocks_of_any_size() -> None:
    for seed, size in enumerate((2, 33, 128, 500)):
        row = torch.randn(1, size, generator=torch.Generator().manual_seed(seed))
        labels = torch.arange(200) // 2
        for block in (8, 64, 512):
            counts = count_all_pairs(row.expand(200, size) * 3, labels, block=block).counts
            assert counts.scores.tolist() == [1.0]
            assert counts.genuine.tolist() == [100] and counts.impostors.tolist() == [19_800]
            assert roc_auc(counts) == 0.5


def collapsed(factor: float, count: int = 200) -> tuple[Tensor, Tensor]:
    """Embeddings around one direction, the closer the larger the factor; and labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(20, (count,), generator=generator)
    own = torch.randn(20, 32, generator=generator)[labels]
    noise = torch.randn(count, 32, generator=generator)
    return factor * torch.randn(1, 32, generator=generator) + own + 2 * noise, labels


@pytest.mark.parametrize('factor', [0.0, 3.0, 30.0, 300.0, 3e3, 3e4])
def test_pairs_are_told_apart_however_narrow_their_cosines(factor: float) -> None:
    embeddings, labels = collapsed(factor)
    index = torch.combinations(torch.arange(len(labels)))
    unit = torch.nn.functional.normalize(embeddings.double())
    apart = (unit[index[:, 0]] - unit[index[:, 1]]).square().sum(1) / 2
    same = labels[index[:, 0]] == labels[index[:, 1]]
    auc = roc_auc_score(same, -apart)
    found = count_all_pairs(embeddings, labels, hardest=5, block=64)
    listed = pair_similarities(embeddings, index)
    for counts in (found.counts, count_scores(listed, same)):
        assert roc_auc(counts) == pytest.approx(auc, abs=2e-5)
    # To a step of the ordinary grid, or of one that is as fine as the spread.
    reach = float(apart.max())
    step = (1 if reach > 2 * NARROW else 8 * reach) / GRID
    assert float((1 - listed.double() - apart).abs().max()) <= 2 * step
    for extreme, kind, sign in ((found.impostors, ~same, 1), (found.genuine, same, -1)):
        values = extreme.similarity.double()
        expected = (1 - apart[kind]).topk(5, largest=sign > 0).values
        assert float((values - expected).abs().max()) <= 2 * step


def test_ordinary_embeddings_are_compared_as_they_are() -> None:
    embeddings, _ = collapsed(3.0)
    ready = comparable(embeddings)
    assert ready.left is ready.right and ready.scale == 1
    assert torch.equal(ready.left, unit_embeddings(embeddings))
    # Rows of zeros are like nobody, and two rows are no set that has collapsed unless alike.
    close = torch.tensor([[1.0, 0.0], [1.0, 1e-3], [0.0, 0.0]])
    assert comparable(close).scale == 1 and comparable(close[:2]).scale < NARROW
    assert pair_similarities(close, torch.tensor([[0, 2]])).tolist() == [0.0]


def test_zero_embeddings_have_similarity_zero() -> None:
    embeddings = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    counts = count_all_pairs(embeddings, torch.tensor([0, 1, 0])).counts
    assert counts.scores.tolist() == [0.0]
    assert (counts.genuine.tolist(), counts.impostors.tolist()) == ([1], [2])


def hardest_by_sorting(
    embeddings: Tensor, labels: Tensor, count: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Of all pairs, listed by label and row."""
    order = labels.argsort(stable=True)
    index, similarities, same = brute_force(embeddings[order], labels[order])
    index = order[index].sort(dim=1).values
    most = (-similarities[~same]).argsort(stable=True)[:count]
    least = similarities[same].argsort(stable=True)[:count]
    return index[~same][most].tolist(), index[same][least].tolist()


@pytest.mark.parametrize('block', BLOCKS[1:])
@pytest.mark.parametrize('count', [1, 5, 20, 2000])
def test_hardest_pairs_are_those_of_sorting_all_with_ties_by_place(block: int, count: int) -> None:
    embeddings = exact_embeddings(7)
    labels = torch.randint(30, (300,), generator=torch.Generator().manual_seed(8))
    found = count_all_pairs(embeddings, labels, hardest=count, block=block)
    impostors, genuine = hardest_by_sorting(embeddings, labels, count)
    assert found.impostors.pairs.tolist() == impostors
    assert found.genuine.pairs.tolist() == genuine
    unit = unit_embeddings(embeddings)
    for extreme in (found.impostors, found.genuine):
        assert torch.equal(extreme.similarity, pair_similarities(unit, extreme.pairs))


def test_progress_ends_at_all_pairs() -> None:
    seen: list[tuple[int, int]] = []
    count_all_pairs(
        exact_embeddings(0, 100), torch.arange(100), block=30, progress=lambda *x: seen.append(x)
    )
    assert seen[-1] == (4950, 4950) and len(seen) == 10
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_wrong_options_of_all_pairs_are_named() -> None:
    def call(count: int = 3, labels: int = 3, **options: Any) -> AllPairs:
        return count_all_pairs(torch.eye(count), torch.arange(labels), **options)

    with pytest.raises(ValueError, match='at least 2 embeddings, got 1'):
        call(1, 1)
    with pytest.raises(ValueError, match=r'labels must be \(3,\).*got \(2,\)'):
        call(3, 2)
    with pytest.raises(ValueError, match='block is 0'):
        call(block=0)
    with pytest.raises(ValueError, match='hardest is -1'):
        call(hardest=-1)


def test_autocast_around_the_call_changes_nothing() -> None:
    embeddings = torch.randn(50, 16, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(50) // 5
    expected = count_all_pairs(embeddings, labels)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = count_all_pairs(embeddings, labels)
    assert_same_counts(found.counts, expected.counts)
