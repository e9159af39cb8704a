"""Average precision: pycocotools' value, and in resamples that of a set with repeated images."""

from __future__ import annotations

import numpy as np
import pytest

from mmdet_ext.analysis.detection import bootstrap
from mmdet_ext.analysis.detection.average_precision import (
    average_precision,
    resampled_average_precisions,
)
from mmdet_ext.analysis.detection.bootstrap import percentiles, resampled_weights
from mmdet_ext.analysis.detection.columns import Detections, GroundTruth, TruthSet
from mmdet_ext.analysis.detection.matching import match_detections
from mmdet_ext.analysis.detection.ranking import Ranking, Rankings
from tests._helpers.results.detections import coco_eval, made_set

THRESHOLDS = (0.5, 0.75)


def rankings_of(data: TruthSet, found: Detections) -> Rankings:
    matches = match_detections(data.truth, found, THRESHOLDS)
    return Rankings(data.truth, found, matches, len(data.image_ids))


def repeated(data: TruthSet, found: Detections, counts: np.ndarray) -> tuple[TruthSet, Detections]:
    """Make the data set that has each image so many times."""
    truth = data.truth
    places = np.repeat(np.arange(len(counts)), counts)
    boxes = [np.flatnonzero(truth.image == place) for place in places]
    rows = [np.flatnonzero(found.image == place) for place in places]
    box, row = np.concatenate(boxes), np.concatenate(rows)
    new_truth = GroundTruth(
        np.repeat(np.arange(len(places)), [len(each) for each in boxes]),
        truth.label[box],
        truth.box[box],
        truth.area[box],
        truth.crowd[box],
    )
    new_found = Detections(
        np.repeat(np.arange(len(places)), [len(each) for each in rows]),
        found.label[row],
        found.box[row],
        found.score[row],
    )
    return TruthSet(list(range(len(places))), data.classes, new_truth, []), new_found


@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('seed', range(4))
def test_average_precision_is_that_of_pycocotools(seed: int, ties: bool) -> None:
    data, found = made_set(seed, images=15, classes=5, ties=ties)
    rankings = rankings_of(data, found)
    precision = coco_eval(data, found, THRESHOLDS).eval['precision'][..., 0, 0]
    for label in range(len(data.classes)):
        for t in range(len(THRESHOLDS)):
            assert average_precision(rankings.of(t, label)) == precision[t, :, label].mean()


@pytest.mark.parametrize('crowds', [0.0, 0.2])
def test_a_resample_has_the_average_precision_of_its_images(
    crowds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, found = made_set(3, images=8, classes=2, crowds=crowds)
    rankings = rankings_of(data, found)
    weights = resampled_weights(8, 6, seed=1)
    monkeypatch.setattr(bootstrap, 'CELLS_AT_ONCE', 100)
    monkeypatch.setattr(bootstrap, 'CELLS_IN_CACHE', 100)
    for label in range(2):
        ours = resampled_average_precisions([rankings.of(t, label) for t in (0, 1)], weights)
        theirs = [
            [average_precision(rankings_of(*each).of(t, label)) for each in drawn]
            for t, drawn in ((t, [repeated(data, found, row) for row in weights]) for t in (0, 1))
        ]
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def made_ranking(
    rng: np.random.Generator, images: int, boxes: int, size: int, ignored: int
) -> Ranking:
    """Make a ranking that finds each box at most once, with detections that are ignored."""
    per_image = np.full(images, boxes)
    left = per_image.copy()
    image, hit = rng.integers(0, images, size + ignored), np.zeros(size + ignored, bool)
    place = np.sort(rng.permutation(size + ignored)[:size])
    for row in place[rng.random(size) < 0.6]:
        hit[row] = left[image[row]] > 0
        left[image[row]] -= hit[row]
    score = np.linspace(1, 0, size)
    return Ranking(score, image[place], hit[place], per_image, ignored, place if ignored else None)


@pytest.mark.parametrize('boxes', [1, 5, 7])
@pytest.mark.parametrize('ignored', [0, 9])
def test_recalls_that_hits_just_reach_count_in_resamples(boxes: int, ignored: int) -> None:
    # With 20 images of 5 boxes, every recall of COCO's is a whole number of boxes.
    ranking = made_ranking(np.random.default_rng(boxes), 20, boxes, 150, ignored)
    weights = resampled_weights(20, 40, seed=2)
    expected = []
    for row in weights:
        times = row[ranking.image]
        image, hit = np.repeat(ranking.image, times), np.repeat(ranking.hit, times)
        boxes_drawn = ranking.boxes * row
        expected.append(average_precision(Ranking(np.zeros(0), image, hit, boxes_drawn, 0)))
    drawn = resampled_average_precisions([ranking], weights)
    np.testing.assert_allclose(drawn, [expected], rtol=1e-12)


def test_thresholds_together_are_each_alone_in_any_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    data, found = made_set(6, images=20, classes=1, crowds=0.3)
    matches = match_detections(data.truth, found, (0.3, 0.5, 0.6, 0.9))
    rankings = [Rankings(data.truth, found, matches, 20).of(t) for t in range(4)]
    assert len({ranking.ignored for ranking in rankings}) > 1
    weights = resampled_weights(20, 30, seed=3)
    alone = [resampled_average_precisions([ranking], weights)[0] for ranking in rankings]
    monkeypatch.setattr(bootstrap, 'CELLS_AT_ONCE', 200)
    for order in ('C', 'F'):
        together = resampled_average_precisions(rankings, np.array(weights, order=order))
        np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_rankings_of_other_detections_are_refused() -> None:
    rankings = [made_ranking(np.random.default_rng(0), 3, 2, size, 0) for size in (5, 6)]
    with pytest.raises(ValueError, match=r'the same detections, got \[5, 6\] of them'):
        resampled_average_precisions(rankings, resampled_weights(3, 2))
    assert resampled_average_precisions([], resampled_weights(3, 2)).shape == (0, 2)


def test_without_boxes_there_is_no_average_precision_and_without_hits_it_is_0() -> None:
    empty = np.zeros(0)
    places = empty.astype(int)
    none = Ranking(empty, places, empty.astype(bool), np.array([0, 0]), 0)
    assert np.isnan(average_precision(none))
    lost = Ranking(empty, places, empty.astype(bool), np.array([0, 2]), 0)
    assert average_precision(lost) == 0
    drawn = resampled_average_precisions([lost], np.array([[2, 0], [1, 1]]))
    np.testing.assert_array_equal(drawn, [[np.nan, 0.0]])


def test_resamples_have_as_many_images_and_repeat_with_their_seed() -> None:
    weights = resampled_weights(40, 300, seed=5)
    assert weights.shape == (300, 40)
    assert (weights.sum(axis=1) == 40).all()
    # Each image comes once on average, with the variance (1 - 1 / 40) of a binomial count.
    assert weights.mean() == 1
    assert weights.var() == pytest.approx(1 - 1 / 40, abs=0.05)
    np.testing.assert_array_equal(weights, resampled_weights(40, 300, seed=5))
    assert (weights != resampled_weights(40, 300, seed=6)).any()


def test_an_interval_of_the_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    means = resampled_weights(400, 2000) @ values / 400
    low, high = percentiles(means, 0.95)
    error = values.std() / 20
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.08)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.2 * error)


@pytest.mark.parametrize(('images', 'resamples'), [(0, 5), (5, -1)])
def test_resamples_of_nothing_are_refused(images: int, resamples: int) -> None:
    with pytest.raises(ValueError, match='images must be 1 or more and resamples 0 or more'):
        resampled_weights(images, resamples)
