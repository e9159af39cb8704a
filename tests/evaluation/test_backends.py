"""Backends of COCO's protocol: all fill pycocotools' tables, where their own interfaces differ."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mmdet_ext.evaluation.columns import (
    Detections,
    Federated,
    GroundTruth,
    capped,
    check_detections,
    federated_only,
    without_categories,
)
from mmdet_ext.evaluation.protocol import PERSON_SIGMAS, Figures, Protocol, Scores
from mmdet_ext.evaluation.running import BACKENDS
from tests.evaluation import made_columns
from tests.evaluation.made_columns import assert_same_scores, made

pytest.importorskip('pycocotools')

each_backend = pytest.mark.parametrize('backend', made_columns.BACKENDS)
each_fast = pytest.mark.parametrize('backend', made_columns.BACKENDS[:2])
NUMBERS = (100, 300, 1000)


def run(backend: str, truth: GroundTruth, found: Detections, protocol: Protocol) -> Scores:
    pytest.importorskip(backend)
    scores: Scores = importlib.import_module(BACKENDS[backend]).evaluate(truth, found, protocol)
    return scores


def figures(backend: str, truth: GroundTruth, found: Detections, **options: Any) -> Figures:
    protocol = Protocol('bbox', **options)
    return Figures(run(backend, truth, found, protocol), protocol)


def one_box(box: tuple[float, ...] = (10, 10, 40, 40), **changes: Any) -> GroundTruth:
    """Make a ground truth of one image with one box of one category."""
    boxes = np.array([box], np.float64)
    truth = GroundTruth(
        image_ids=[7],
        sizes=np.array([[100, 100]]),
        category_ids=[3],
        names=['cell'],
        image=np.zeros(1, np.int64),
        category=np.zeros(1, np.int64),
        boxes=boxes,
        area=boxes[:, 2] * boxes[:, 3],
        crowd=np.zeros(1, np.bool_),
        flagged=np.zeros(1, np.bool_),
    )
    return replace(truth, **changes)


def detections(boxes: list[Any], scores: list[float]) -> Detections:
    zeros = np.zeros(len(boxes), np.int64)
    table = np.array(boxes, np.float64).reshape(-1, 4)
    return Detections(zeros, zeros, table, np.array(scores, np.float64))


@each_fast
@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('numbers', [NUMBERS, (1, 3, 5)], ids=str)
@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_tables_are_those_of_pycocotools(
    backend: str, kind: Any, numbers: tuple[int, ...], seed: int
) -> None:
    truth, found = made(seed, kind)
    protocol = Protocol(kind, max_dets=numbers)
    expected = run('pycocotools', truth, found, protocol)
    assert 0.5 < expected.precision.max() <= 1 and (expected.precision == -1).any()
    assert_same_scores(run(backend, truth, found, protocol), expected)


@each_fast
@pytest.mark.parametrize('count', [17, 21])
def test_keypoints_are_compared_by_the_given_sigmas(backend: str, count: int) -> None:
    truth, found = made(0, 'keypoints', keypoints=count)
    sigmas = PERSON_SIGMAS if count == 17 else tuple(np.linspace(0.02, 0.1, count).tolist())
    protocol = Protocol('keypoints', max_dets=(20,), sigmas=sigmas)
    expected = run('pycocotools', truth, found, protocol)
    assert expected.precision.max() > 0.5
    assert_same_scores(run(backend, truth, found, protocol), expected)
    # The sigmas matter, those of the last keypoints too.
    other = replace(protocol, sigmas=(*sigmas[:-4], 1.0, 1.0, 1.0, 1.0))
    assert (run(backend, truth, found, other).precision != expected.precision).any()


@each_fast
def test_proposals_are_ranked_as_without_categories(backend: str) -> None:
    truth, found = made(1)
    protocol = Protocol('bbox', max_dets=NUMBERS)
    expected = use_cats_0(truth, found, protocol)
    assert expected.precision.shape[2] == 1 and expected.recall.max() > 0.9
    assert_same_scores(run(backend, *without_categories(truth, found), protocol), expected)


def use_cats_0(truth: GroundTruth, found: Detections, protocol: Protocol) -> Scores:
    """Evaluate with pycocotools' own way to leave categories out."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from mmdet_ext.evaluation.as_dicts import found_dicts, truth_dict

    annotated, detected = COCO(), COCO()
    annotated.dataset = truth_dict(truth, protocol)
    detected.dataset = {**annotated.dataset, 'annotations': found_dicts(found, protocol)}
    annotated.createIndex()
    detected.createIndex()
    run = COCOeval(annotated, detected, 'bbox')
    run.params.maxDets = list(protocol.max_dets)
    run.params.useCats = 0
    run.evaluate()
    run.accumulate()
    return Scores(run.eval['precision'], run.eval['recall'])


@each_backend
def test_the_headline_is_at_100_detections_and_the_others_at_the_largest_number(
    backend: str,
) -> None:
    # The right box comes 101st in its image.
    found = detections([[60, 60, 20, 20]] * 100 + [[10, 10, 40, 40]], [0.9] * 100 + [0.1])
    measured = figures(backend, one_box(), found, max_dets=NUMBERS)
    assert measured.precision(max_dets=100) == 0
    assert measured.precision(0.5) == pytest.approx(1 / 101)
    assert [measured.recall(max_dets=number) for number in NUMBERS] == [0, 1, 1]
    assert len(measured.lines()) == 12
    assert measured.lines()[0].endswith('area=   all | maxDets=100 ] = 0.000')
    assert measured.lines()[1].endswith('IoU=0.50      | area=   all | maxDets=1000 ] = 0.010')


@each_backend
def test_without_detections_the_precision_is_0_where_there_are_boxes(backend: str) -> None:
    truth, found = made(0)
    none = found.rows(np.zeros(0, np.int64))
    measured = figures(backend, truth, none, max_dets=NUMBERS)
    assert measured.precision() == measured.recall() == 0
    no_boxes = truth.rows(np.zeros(0, np.int64))
    assert figures(backend, no_boxes, found, max_dets=NUMBERS).precision() == -1


@each_backend
@pytest.mark.parametrize('kind', ['segm', 'keypoints'])
def test_without_detections_masks_and_keypoints_count_0(backend: str, kind: Any) -> None:
    truth, found = made(0, kind)
    protocol = Protocol(kind, max_dets=NUMBERS if kind == 'segm' else (20,))
    none = found.rows(np.zeros(0, np.int64))
    measured = Figures(run(backend, truth, none, protocol), protocol)
    assert measured.precision() == measured.recall() == 0


@each_backend
def test_the_first_box_of_a_file_can_be_matched(backend: str) -> None:
    measured = figures(backend, one_box(), detections([[10, 10, 40, 40]], [0.5]))
    assert measured.precision() == pytest.approx(1)
    assert measured.recall() == 1


@each_backend
def test_a_box_with_both_sides_negative_is_a_false_positive(backend: str) -> None:
    # The corners of the box in the other order; its area, 40 * 40, is medium.
    found = detections([[50, 50, -40, -40], [10, 10, 40, 40]], [0.9, 0.8])
    measured = figures(backend, one_box(), found)
    assert measured.precision() == pytest.approx(0.5)
    assert measured.precision(area='medium') == pytest.approx(0.5)


@each_backend
def test_a_crowd_takes_any_number_of_detections(backend: str) -> None:
    truth = one_box(crowd=np.ones(1, np.bool_))
    found = detections([[12, 12, 20, 20], [20, 20, 20, 20], [60, 60, 20, 20]], [0.9, 0.8, 0.7])
    assert figures(backend, truth, found).precision() == -1
    both = replace(
        one_box(),
        image=np.zeros(2, np.int64),
        category=np.zeros(2, np.int64),
        boxes=np.array([[10, 10, 40, 40], [60, 60, 20, 20]], np.float64),
        area=np.array([1600.0, 400.0]),
        crowd=np.array([True, False]),
        flagged=np.zeros(2, np.bool_),
    )
    assert figures(backend, both, found).precision() == pytest.approx(1)


@each_backend
def test_equal_scores_are_ranked_by_image_then_by_place(backend: str) -> None:
    truth = replace(one_box(), image_ids=[7, 8], sizes=np.array([[100, 100]] * 2))
    right, wrong = [10.0, 10.0, 40.0, 40.0], [60.0, 60.0, 20.0, 20.0]
    found = detections([wrong, right], [0.5, 0.5])
    assert figures(backend, truth, found).precision() == pytest.approx(0.5)
    assert figures(backend, truth, found.rows(np.array([1, 0]))).precision() == pytest.approx(1)
    # In the image before, the wrong one comes first again, whatever the order of the rows.
    apart = replace(
        found.rows(np.array([1, 0])), image=np.array([1, 0]), boxes=np.array([right, wrong])
    )
    later = replace(truth, image=np.ones(1, np.int64))
    assert figures(backend, later, apart).precision() == pytest.approx(0.5)


@each_fast
@pytest.mark.parametrize('kind', ['bbox', 'segm'])
@pytest.mark.parametrize('seed', range(2))
def test_federated_tables_are_those_of_the_reference(backend: str, kind: Any, seed: int) -> None:
    truth, found = made(seed, kind, federated=True)
    counted = federated_only(truth, found)
    assert 0 < len(counted) < len(found)
    protocol = Protocol(kind, max_dets=(300,), federated=True)
    expected = run('pycocotools', truth, counted, protocol)
    without = run('pycocotools', truth, counted, replace(protocol, federated=False))
    assert (expected.precision != without.precision).any()
    assert_same_scores(run(backend, truth, counted, protocol), expected)


@each_backend
def test_a_detection_of_a_category_that_is_not_exhaustive_is_ignored(backend: str) -> None:
    lists = Federated([np.zeros(0, np.int64)], [np.zeros(1, np.int64)], ['f'])
    found = detections([[60, 60, 20, 20], [10, 10, 40, 40]], [0.9, 0.8])
    counts = replace(lists, not_exhaustive=[np.zeros(0, np.int64)])
    options: dict[str, Any] = {'max_dets': (300,), 'federated': True}
    assert figures(backend, one_box(federated=lists), found, **options).precision() == (
        pytest.approx(1)
    )
    assert figures(backend, one_box(federated=counts), found, **options).precision() == (
        pytest.approx(0.5)
    )


def test_federated_detections_are_of_categories_the_image_is_annotated_for() -> None:
    truth = replace(
        one_box(),
        category_ids=[1, 2, 3],
        names=['has a box', 'known absent', 'unknown'],
        federated=Federated([np.array([1])], [np.zeros(0, np.int64)], ['f', 'f', 'f']),
    )
    found = replace(detections([[0, 0, 9, 9]] * 3, [0.5] * 3), category=np.array([2, 1, 0]))
    assert federated_only(truth, found).category.tolist() == [1, 0]
    with pytest.raises(ValueError, match='lacks the lists of LVIS'):
        federated_only(one_box(), found)


def test_an_image_has_300_detections_over_all_categories() -> None:
    generator = np.random.default_rng(0)
    found = Detections(
        generator.integers(0, 3, 2000),
        generator.integers(0, 5, 2000),
        np.ones((2000, 4)),
        generator.integers(0, 40, 2000) / 40,
    )
    kept = capped(found, 300)
    for image in range(3):
        rows = np.flatnonzero(found.image == image)
        best = sorted(rows.tolist(), key=lambda row: -found.scores[row])[:300]  # stable
        assert kept.scores[kept.image == image].tolist() == found.scores[sorted(best)].tolist()
        assert kept.category[kept.image == image].tolist() == found.category[sorted(best)].tolist()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'scores': np.array([0.5, np.nan])}, 'the score is NaN, first in image 7; has the'),
        ({'boxes': np.array([[0, 0, 9, 9], [0, 0, np.nan, 9]])}, 'the box is not finite'),
        ({'boxes': np.array([[0, 0, 9, 9], [0, 0, np.inf, 9]])}, 'the box is not finite'),
    ],
    ids=['score', 'box', 'infinite box'],
)
def test_detections_without_a_rank_are_refused(change: dict[str, Any], message: str) -> None:
    found = detections([[0, 0, 9, 9]] * 2, [0.5, 0.6])
    check_detections(found, one_box())
    with pytest.raises(ValueError, match=f'1 of 2 detections cannot be ranked: {message}'):
        check_detections(replace(found, **change), one_box())


def test_categories_can_be_chosen() -> None:
    truth, _ = made(0, 'segm', federated=True)
    some = truth.of_categories(np.array([1, 3]))
    assert some.category_ids == [1, 3] and some.names == ['class 1', 'class 3']
    rows = np.flatnonzero(np.isin(truth.category, [1, 3]))
    assert (some.boxes == truth.boxes[rows]).all() and len(some.masks or ()) == len(rows)
    assert (some.category == (truth.category[rows] == 3)).all()
    assert some.federated is not None and truth.federated is not None
    assert list(some.federated.frequency) == ['c', 'r']
    for new, old in zip(some.federated.negative, truth.federated.negative, strict=True):
        assert new.tolist() == [[1, 3].index(row) for row in old.tolist() if row in (1, 3)]
