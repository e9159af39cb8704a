"""Kinds of errors and their costs: a worked example of tidecv 1.0.1, and single boxes."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from mmdet_ext.analysis.detection.columns import Detections, GroundTruth, TruthSet
from mmdet_ext.analysis.detection.errors import KINDS, error_report, find_errors

IMAGES, CLASSES = 30, 3

#: What tidecv 1.0.1 says of `drawn_set`: count and cost of each kind in per cent of AP.
TIDECV: dict[int, dict[str, Any]] = {
    0: {
        'class': (29, 9.0593416, 2.2161181, 2.9804588, 2.9649588),
        'localisation': (17, 9.1263218, 1.4643395, 3.2372582, 3.5934662),
        'both': (2, 1.0942325, 0.2504242, 0.8438083, 0.0),
        'duplicate': (33, 2.952907, 0.4913373, 1.5532038, 0.5267142),
        'background': (28, 3.803998, 0.0, 3.803998, 0.0),
        'missed': (23, 11.2202787, 3.5724413, 2.3582623, 3.2695201),
    },
    1: {
        'class': (24, 10.7922436, 5.7684885, 2.3181678, 1.4694767),
        'localisation': (21, 10.0057005, 1.401701, 5.3274264, 2.7695784),
        'both': (9, 0.5459652, 0.1781647, 0.0967412, 0.2564494),
        'duplicate': (29, 2.0759672, 0.3880249, 0.5995212, 0.9295015),
        'background': (33, 3.8582589, 0.0, 3.8582589, 0.0),
        'missed': (16, 8.0438029, 2.7945713, 2.0921492, 1.9771618),
    },
}
TIDECV_AP: dict[int, tuple[float, float, float]] = {
    0: (31.2233846, 33.133051, 16.9178476),
    1: (39.4438989, 27.8828338, 17.7103405),
}


def drawn_set(seed: int) -> tuple[TruthSet, Detections]:
    """Draw boxes and detections by Python's generator, whose numbers no release changes."""
    draw = random.Random(seed)
    truth, found = [], []
    for image in range(IMAGES):
        for _ in range(draw.randint(0, 6)):
            size = draw.choice((20.0, 60.0, 150.0))
            box = [draw.uniform(0, 200), draw.uniform(0, 200), size, size * draw.uniform(0.7, 1.4)]
            label = draw.randrange(CLASSES)
            truth.append((image, label, box))
            for _ in range(draw.randint(0, 3)):
                near = [side + draw.gauss(0, 0.13 * size) for side in box]
                other = draw.randrange(CLASSES) if draw.random() < 0.3 else label
                found.append((image, other, near, draw.random() ** 0.5))
        for _ in range(draw.randint(0, 2)):
            far = [draw.uniform(0, 250), draw.uniform(0, 250), 40.0, 40.0]
            found.append((image, draw.randrange(CLASSES), far, draw.random()))
    corners = np.array([row[2] for row in truth])
    places, labels = np.array([row[:2] for row in truth]).T
    crowd = np.zeros(len(truth), bool)
    boxes = GroundTruth(places, labels, corners, corners[:, 2] * corners[:, 3], crowd)
    found_place, found_label = np.array([row[:2] for row in found]).T
    detections = Detections(
        found_place,
        found_label,
        np.array([row[2] for row in found]),
        np.array([row[3] for row in found]),
    )
    names = [f'class {k}' for k in range(CLASSES)]
    return TruthSet(list(range(IMAGES)), names, boxes, [''] * IMAGES), detections


@pytest.mark.parametrize('seed', TIDECV)
def test_counts_and_costs_are_those_of_tidecv(seed: int) -> None:
    report, errors = error_report(*drawn_set(seed))
    ap, false_positives, false_negatives = TIDECV_AP[seed]
    assert 100 * report['AP'] == pytest.approx(ap, abs=1e-6)
    assert 100 * report['false_positives'] == pytest.approx(false_positives, abs=1e-6)
    assert 100 * report['false_negatives'] == pytest.approx(false_negatives, abs=1e-6)
    for kind, (count, cost, *by_size) in TIDECV[seed].items():
        entry = report['kinds'][kind]
        assert entry['count'] == count, kind
        assert 100 * entry['cost'] == pytest.approx(cost, abs=1e-6), kind
        costs = [100 * each['cost'] for each in entry['by_size'].values()]
        assert costs == pytest.approx(by_size, abs=1e-6), kind
        assert sum(each['count'] for each in entry['by_size'].values()) == count
    assert (errors.kind >= 0).sum() + report['hits'] == report['detections']


def one_image(truth: list[Any], found: list[Any], crowds: int = 0) -> tuple[TruthSet, Detections]:
    """Make an image of boxes (label, x, y, w, h); detections have falling scores."""
    box = np.array([row[1:] for row in truth], float).reshape(-1, 4)
    crowd = np.arange(len(truth)) >= len(truth) - crowds
    zeros = np.zeros(len(truth), int)
    label = np.array([row[0] for row in truth], int)
    boxes = GroundTruth(zeros, label, box, box[:, 2] * box[:, 3], crowd)
    detections = Detections(
        np.zeros(len(found), int),
        np.array([row[0] for row in found], int),
        np.array([row[1:] for row in found], float).reshape(-1, 4),
        np.linspace(0.9, 0.1, len(found)),
    )
    return TruthSet([1], ['a', 'b'], boxes, ['']), detections


BOX = (0, 0, 0, 100, 100)
SINGLE = {
    'right': ([BOX], [BOX], [None], 0),
    'shifted': ([BOX], [(0, 50, 0, 100, 100)], ['localisation'], 0),
    'of another class': ([BOX], [(1, 0, 0, 100, 100)], ['class'], 0),
    'twice': ([BOX], [BOX, (0, 2, 0, 100, 100)], [None, 'duplicate'], 0),
    'on nothing': ([BOX], [(0, 300, 0, 50, 50)], ['background'], 1),
    'shifted and of another class': ([BOX], [(1, 50, 0, 100, 100)], ['both'], 1),
    'none': ([BOX], [], [], 1),
    'on an empty image': ([], [BOX], ['background'], 0),
    # The better place is of another class, and its own class is near: place counts first.
    'between two': (
        [(0, 60, 0, 100, 100), (1, 0, 0, 100, 100)],
        [BOX],
        ['localisation'],
        1,
    ),
}


@pytest.mark.parametrize(('truth', 'found', 'kinds', 'missed'), SINGLE.values(), ids=SINGLE)
def test_each_kind_alone(truth: Any, found: Any, kinds: list[str | None], missed: int) -> None:
    errors = find_errors(*one_image(truth, found))
    names = [KINDS[kind] if kind >= 0 else None for kind in errors.kind]
    assert names == kinds
    assert errors.missed.sum() == missed


def test_the_detection_with_the_highest_score_mends_and_the_others_go() -> None:
    truth = [BOX]
    found = [(0, 40, 0, 100, 100), (1, 0, 0, 100, 100), (0, 45, 0, 100, 100)]
    data, detections = one_image(truth, found)
    errors = find_errors(data, detections)
    assert errors.mends.tolist() == [True, False, False]
    report, _ = error_report(data, detections)
    assert report['AP'] == 0
    assert report['kinds']['localisation']['cost'] == pytest.approx(1)
    # Correcting the class alone leaves no detection that finds the box.
    assert report['kinds']['class']['cost'] == 0


def test_detections_on_a_crowd_are_no_errors() -> None:
    errors = find_errors(*one_image([BOX, (0, 200, 0, 100, 100)], [(0, 210, 0, 50, 50)], crowds=1))
    assert errors.kind.tolist() == [-1] and errors.missed.tolist() == [True, False]


def test_a_class_without_ground_truth_takes_no_part_in_the_mean() -> None:
    report, _ = error_report(*one_image([BOX], [BOX, (1, 300, 0, 50, 50)]))
    assert report['AP'] == pytest.approx(1) and list(report['per_class']) == ['a']
    assert report['kinds']['background'] == {
        'count': 1,
        'cost': 0.0,
        'by_size': {
            'small': {'count': 0, 'cost': 0.0},
            'medium': {'count': 1, 'cost': 0.0},
            'large': {'count': 0, 'cost': 0.0},
        },
    }


@pytest.mark.parametrize('wrong', [(0.5, 0.5), (0.1, 0.5), (0.5, 0.0), (1.5, 0.1)])
def test_thresholds_in_the_wrong_order_are_refused(wrong: tuple[float, float]) -> None:
    data, detections = one_image([BOX], [BOX])
    with pytest.raises(ValueError, match='must be 0 < background < foreground <= 1'):
        find_errors(data, detections, *wrong)
