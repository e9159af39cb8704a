"""Measures at thresholds, against loops over thresholds, scikit-learn and values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from mmdet_ext.analysis.detection.bootstrap import resampled_weights
from mmdet_ext.analysis.detection.points import (
    best_f1_point,
    log_average_miss_rate,
    precisions_at_recalls,
    recalls_at_fppi,
    wished_point,
)
from mmdet_ext.analysis.detection.ranking import (
    Curve,
    Ranking,
    counts_at,
    curve_of,
    image_counts,
    resampled_counts_at,
    resampled_curve,
)


def made_ranking(seed: int, size: int = 80, images: int = 10, ties: bool = True) -> Ranking:
    rng = np.random.default_rng(seed)
    score = np.sort(np.round(rng.random(size), 1 if ties else 9))[::-1]
    hit = rng.random(size) < 0.2 + 0.7 * score
    boxes = np.bincount(rng.integers(0, images, int(hit.sum()) + 9), minlength=images)
    return Ranking(score, rng.integers(0, images, size), hit, boxes, 0)


def slow_measures(ranking: Ranking) -> list[tuple[float, float, float, float, float]]:
    """Threshold, precision, recall, F1 and FPPI at each score, by counting anew."""
    rows = []
    for threshold in sorted(set(ranking.score.tolist()), reverse=True):
        kept = ranking.score >= threshold
        hits = int((kept & ranking.hit).sum())
        precision, recall = hits / kept.sum(), hits / ranking.boxes.sum()
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        rows.append((threshold, precision, recall, f1, (kept.sum() - hits) / len(ranking.boxes)))
    return rows


@pytest.mark.parametrize('seed', range(3))
def test_curves_are_those_of_counting_at_every_threshold(seed: int) -> None:
    curve = curve_of(made_ranking(seed))
    ours = [curve.threshold, curve.precision, curve.recall, curve.f1, curve.fppi]
    np.testing.assert_allclose(np.stack(ours, 1), slow_measures(made_ranking(seed)), rtol=1e-12)


@pytest.mark.parametrize('ties', [False, True])
def test_precision_and_recall_are_those_of_scikit_learn(ties: bool) -> None:
    ranking = made_ranking(4, ties=ties)
    curve = curve_of(ranking)
    precision, recall, threshold = precision_recall_curve(ranking.hit, ranking.score)
    np.testing.assert_allclose(curve.threshold, threshold[::-1])
    np.testing.assert_allclose(curve.precision, precision[:-1][::-1])
    # scikit-learn knows no boxes that were never found.
    found = ranking.hit.sum() / ranking.boxes.sum()
    np.testing.assert_allclose(curve.recall, found * recall[:-1][::-1])


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize(
    ('wish', 'value'),
    [('precision', 0.75), ('precision', 0.5), ('recall', 0.4), ('recall', 0.0), ('fppi', 1.0)]
    + [('fppi', math.inf), ('recall', 1.0), ('precision', 1.0), ('fppi', 0.0)],
)
def test_the_threshold_of_a_wish_is_that_of_a_search(wish: str, value: float, seed: int) -> None:
    ranking = made_ranking(seed)
    column = {'precision': 1, 'recall': 2, 'fppi': 4}[wish]
    rows = slow_measures(ranking)
    fits = [
        row
        for row in rows
        if row[2] > 0 and (row[column] <= value if wish == 'fppi' else row[column] >= value)
    ]
    curve = curve_of(ranking).where_hits_grow()
    point = int(wished_point(curve, wish, value))  # type: ignore[arg-type]
    if not fits:
        assert point == -1
        return
    if wish == 'recall':
        expected = max(row[0] for row in fits)
    else:
        most = max(row[2] for row in fits)
        expected = max(row[0] for row in fits if row[2] == most)
    assert curve.threshold[point] == expected


@pytest.mark.parametrize('seed', range(6))
def test_the_best_f1_is_that_of_a_search(seed: int) -> None:
    ranking = made_ranking(seed)
    curve = curve_of(ranking).where_hits_grow()
    point = int(best_f1_point(curve))
    best = max(row[3] for row in slow_measures(ranking))
    assert curve.f1[point] == pytest.approx(best, rel=1e-12)
    assert curve.threshold[point] == max(
        row[0] for row in slow_measures(ranking) if row[3] >= best - 1e-12
    )


def test_recall_at_fppi_and_precision_at_recall_are_those_of_a_search() -> None:
    ranking = made_ranking(7)
    rows = slow_measures(ranking)
    curve = curve_of(ranking)
    limits = [0.0, 0.1, 0.5, 1.0, 3.0, 100.0]
    recalls = [max([0.0, *(row[2] for row in rows if row[4] <= limit)]) for limit in limits]
    for each in (curve, curve.where_hits_grow()):
        np.testing.assert_allclose(recalls_at_fppi(each, limits), recalls)
        wanted = [0.0, 0.3, 0.6, 0.8, 1.0]
        precisions = [max([0.0, *(r[1] for r in rows if r[2] >= want)]) for want in wanted]
        np.testing.assert_allclose(precisions_at_recalls(each, wanted), precisions)


def test_miss_rate_of_a_worked_example() -> None:
    # 100 images and 4 boxes: one hit without a false detection, one after one (FPPI 0.01).
    ranking = Ranking(
        np.array([0.9, 0.8, 0.7]),
        np.array([0, 1, 2]),
        np.array([True, False, True]),
        np.array([4] + 99 * [0]),
        0,
    )
    curve = curve_of(ranking)
    assert log_average_miss_rate(curve) == pytest.approx(0.5)
    # Where FPPI 0.01 is reached, at the false detection, one of four boxes is found. 0.0178 and
    # all further points are not reached, and there the last recall counts.
    expected = math.exp((math.log(0.75) + 8 * math.log(0.5)) / 9)
    assert log_average_miss_rate(curve, 'crowdhuman') == pytest.approx(expected)


def test_a_perfect_detector_misses_next_to_nothing() -> None:
    ranking = Ranking(np.array([0.9]), np.array([0]), np.array([True]), np.array([1]), 0)
    assert log_average_miss_rate(curve_of(ranking)) == pytest.approx(1e-10)
    assert log_average_miss_rate(curve_of(ranking), 'crowdhuman') == 0


def test_resamples_count_as_repeated_images_do() -> None:
    ranking = made_ranking(8)
    weights = resampled_weights(10, 5, seed=2)
    drawn = resampled_curve(ranking, weights)
    thresholds = np.array([0.5, 0.9, 0.15, 2.0, -1.0])
    counted = resampled_counts_at(ranking, thresholds, weights)
    for row, counts in enumerate(weights):
        times = counts[ranking.image]
        repeated = Ranking(
            np.repeat(ranking.score, times),
            np.repeat(ranking.image, times),
            np.repeat(ranking.hit, times),
            ranking.boxes * counts,
            0,
        )
        for name, curve in (('hits', counts_at(repeated, drawn.threshold)),):
            np.testing.assert_array_equal(getattr(drawn, name)[row], getattr(curve, name))
        at = counts_at(repeated, drawn.threshold)
        np.testing.assert_array_equal(drawn.false[row], at.false)
        assert drawn.boxes[row] == repeated.boxes.sum()
        slow = counts_at(repeated, thresholds)
        np.testing.assert_array_equal(counted.hits[row], slow.hits)
        np.testing.assert_array_equal(counted.false[row], slow.false)
        one = resampled_curve(ranking, weights[row : row + 1])
        own = curve_of(repeated).where_hits_grow()
        for value in (0.3, 0.7):
            np.testing.assert_allclose(
                precisions_at_recalls(drawn, [value])[row], precisions_at_recalls(own, [value])
            )
            np.testing.assert_allclose(
                recalls_at_fppi(one, [value])[0], recalls_at_fppi(own, [value])
            )
        np.testing.assert_allclose(log_average_miss_rate(drawn)[row], log_average_miss_rate(own))
        assert drawn.f1[row, best_f1_point(drawn)[row]] == own.f1[best_f1_point(own)]


def test_counts_per_image_sum_up_to_those_of_all() -> None:
    ranking = made_ranking(9)
    thresholds = np.array([0.3, 0.8, 0.5])
    hits, false = image_counts(ranking, thresholds)
    whole = counts_at(ranking, thresholds)
    np.testing.assert_array_equal(hits.sum(axis=0), whole.hits)
    np.testing.assert_array_equal(false.sum(axis=0), whole.false)
    for image in range(len(ranking.boxes)):
        kept = (ranking.image == image) & (ranking.score >= 0.8)
        assert hits[image, 1] == (kept & ranking.hit).sum()


def empty_curve(boxes: int) -> Curve:
    none = np.zeros(0)
    return Curve(none, none.astype(int), none.astype(int), np.asarray(boxes), 3)


def test_without_detections_no_wish_is_reached_and_without_boxes_nothing_is_defined() -> None:
    curve = empty_curve(2)
    assert best_f1_point(curve) == -1 and wished_point(curve, 'recall', 0.5) == -1
    assert recalls_at_fppi(curve, [1.0]) == 0 and precisions_at_recalls(curve, [0.5]) == 0
    assert log_average_miss_rate(curve) == 1
    assert np.isnan(recalls_at_fppi(empty_curve(0), [1.0])).all()
    assert np.isnan(precisions_at_recalls(empty_curve(0), [0.5])).all()


@pytest.mark.parametrize(
    ('wish', 'value', 'message'),
    [
        ('f2', 0.5, 'wish must be one of'),
        ('precision', 1.5, 'precision must be from 0 to 1, got 1.5'),
        ('recall', float('nan'), 'recall must be from 0 to 1, got nan'),
        ('fppi', -1, 'fppi must be 0 or more, got -1'),
    ],
)
def test_a_wish_out_of_range_is_refused(wish: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wished_point(empty_curve(1), wish, value)  # type: ignore[arg-type]


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(ValueError, match=r"miss rate must be one of \('dollar', 'crowdhuman'\)"):
        log_average_miss_rate(empty_curve(1), 'coco')  # type: ignore[arg-type]
