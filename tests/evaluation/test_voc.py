"""VOC's average precision and the recall of proposals: by hand, by slow references, as mmdet."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from mmdet_ext.evaluation.recalls import overlaps, proposal_recalls
from mmdet_ext.evaluation.voc import VOCImage, average_precision, class_precisions

Mode = Literal['area', '11points']


def images_of(seed: int, classes: int = 3, count: int = 40, difficult: float = 0.2) -> Any:
    """Make images whose detections lie near boxes, with scores that differ."""
    generator = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        boxes, found = generator.integers(0, 6), generator.integers(0, 12)
        corner = generator.uniform(0, 60, (boxes, 2))
        truth = np.concatenate([corner, corner + generator.uniform(4, 40, (boxes, 2))], 1)
        away = generator.uniform(0, 60, (found, 2))
        detections = np.concatenate([away, away + generator.uniform(4, 40, (found, 2))], 1)
        for row in range(found):
            if boxes and generator.random() < 0.7:
                detections[row] = truth[generator.integers(boxes)] + generator.normal(0, 2, 4)
        images.append(
            VOCImage(
                truth.astype(np.float32),
                generator.integers(0, classes, boxes),
                generator.random(boxes) < difficult,
                detections.astype(np.float32),
                generator.integers(0, classes, found),
                generator.random(found).astype(np.float32),
            )
        )
    return images


def box(*corners: float) -> np.ndarray:
    return np.array(corners, np.float32).reshape(-1, 4)


def single(
    truth: np.ndarray, found: np.ndarray, scores: list[float], difficult: bool = False
) -> list[VOCImage]:
    """Make an image of one class."""
    return [
        VOCImage(
            truth,
            np.zeros(len(truth), np.int64),
            np.full(len(truth), difficult),
            found,
            np.zeros(len(found), np.int64),
            np.array(scores, np.float32),
        )
    ]


@pytest.mark.parametrize(
    ('mode', 'expected'), [('area', 5 / 6), ('11points', (6 + 5 * 2 / 3) / 11)]
)
def test_the_precision_by_hand(mode: Mode, expected: float) -> None:
    # Right, wrong, right, of two boxes.
    recall, precision = np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3])
    assert average_precision(recall, precision, mode) == pytest.approx(expected)
    assert average_precision(np.zeros(0), np.zeros(0), mode) == 0


@pytest.mark.parametrize('mode', ['area', '11points'])
@pytest.mark.parametrize('pixels', [False, True])
@pytest.mark.parametrize('seed', range(4))
def test_precisions_are_those_of_a_slow_reference(seed: int, pixels: bool, mode: Mode) -> None:
    images = images_of(seed)
    for name, result in enumerate(class_precisions(images, 3, 0.5, mode, pixels)):
        boxes, recall, average = reference(images, name, 0.5, mode, pixels)
        assert result.boxes == boxes
        assert result.detections == sum((image.found_labels == name).sum() for image in images)
        assert result.recall == pytest.approx(recall) and 0 < recall <= 1
        assert result.average == pytest.approx(average) and 0 < average <= 1


def reference(
    images: list[VOCImage], name: int, threshold: float, mode: Mode, pixels: bool
) -> tuple[int, float, float]:
    """Walk over the detections of a class by score, as VOC's development kit does."""
    rows = [
        (float(image.scores[row]), number, row)
        for number, image in enumerate(images)
        for row in np.flatnonzero(image.found_labels == name)
    ]
    boxes = sum(int(((im.labels == name) & ~im.difficult).sum()) for im in images)
    taken: set[tuple[int, int]] = set()
    right, wrong, recalls, precisions = 0, 0, [], []
    for _, number, row in sorted(rows, key=lambda each: -each[0]):
        image = images[number]
        best, target = 0.0, -1
        for place in np.flatnonzero(image.labels == name).tolist():
            iou = overlap(image.found[row], image.boxes[place], pixels)
            if iou > best:
                best, target = iou, place
        if best >= threshold and image.difficult[target]:
            continue
        if best >= threshold and (number, target) not in taken:
            taken.add((number, target))
            right += 1
        else:
            wrong += 1
        recalls.append(right / boxes)
        precisions.append(right / (right + wrong))
    if mode == '11points':
        levels = [k * 0.1 for k in range(11)]
        tops = [
            max([p for r, p in zip(recalls, precisions, strict=True) if r >= level], default=0)
            for level in levels
        ]
        return boxes, recalls[-1], sum(tops) / 11
    area, before = 0.0, 0.0
    for place, recall in enumerate(recalls):
        area += (recall - before) * max(precisions[place:])
        before = recall
    return boxes, recalls[-1], area


def overlap(one: np.ndarray, other: np.ndarray, pixels: bool) -> float:
    extra = int(pixels)
    width = min(one[2], other[2]) - max(one[0], other[0]) + extra
    height = min(one[3], other[3]) - max(one[1], other[1]) + extra
    shared = max(float(width), 0) * max(float(height), 0)
    areas = [float(b[2] - b[0] + extra) * float(b[3] - b[1] + extra) for b in (one, other)]
    return shared / (sum(areas) - shared)


@pytest.mark.parametrize('mode', ['area', '11points'])
@pytest.mark.parametrize('pixels', [False, True])
def test_precisions_are_those_of_mmdet(pixels: bool, mode: Mode) -> None:
    functional = pytest.importorskip('mmdet.evaluation.functional')
    images = images_of(9)
    annotations = [
        dict(
            bboxes=im.boxes[~im.difficult],
            labels=im.labels[~im.difficult],
            bboxes_ignore=im.boxes[im.difficult],
            labels_ignore=im.labels[im.difficult],
        )
        for im in images
    ]
    found = [
        [np.hstack([im.found, im.scores[:, None]])[im.found_labels == name] for name in range(3)]
        for im in images
    ]
    mean, per_class = functional.eval_map(
        found,
        annotations,
        iou_thr=0.5,
        logger='silent',
        eval_mode=mode,
        use_legacy_coordinate=pixels,
    )
    ours = class_precisions(images, 3, 0.5, mode, pixels)
    assert mean == pytest.approx(np.mean([row.average for row in ours]), abs=1e-6)
    for theirs, own in zip(per_class, ours, strict=True):
        assert theirs['ap'] == pytest.approx(own.average, abs=1e-6)
        assert (theirs['num_gts'], theirs['num_dets']) == (own.boxes, own.detections)


def test_widths_count_the_last_pixel_by_option() -> None:
    one, other = box(0, 0, 4, 9), box(2, 0, 6, 9)
    assert overlaps(one, other)[0, 0] == pytest.approx(2 / 6)
    assert overlaps(one, other, pixels=True)[0, 0] == pytest.approx(3 / 7)
    images = single(one, other, [0.5])
    assert class_precisions(images, 1, 0.4)[0].average == 0
    assert class_precisions(images, 1, 0.4, pixels=True)[0].average == 1


def test_a_difficult_box_is_neither_missed_nor_wrongly_found() -> None:
    truth = np.concatenate([box(0, 0, 9, 9), box(20, 20, 40, 40)])
    found = truth[[1, 1, 0]]
    easy = single(truth, found, [0.9, 0.8, 0.7])
    (result,) = class_precisions(easy, 1)
    assert result.average == pytest.approx(0.5 + 0.5 * 2 / 3)
    hard = [easy[0]._replace(difficult=np.array([False, True]))]
    (result,) = class_precisions(hard, 1)
    assert (result.boxes, result.detections, result.recall, result.average) == (1, 3, 1, 1)


def test_a_class_without_boxes_or_detections() -> None:
    images = single(box(0, 0, 9, 9), np.zeros((0, 4), np.float32), [])
    found, absent = class_precisions(images, 2)
    assert (found.boxes, found.recall, found.average) == (1, 0, 0)
    assert absent.boxes == 0 and np.isnan([absent.recall, absent.average]).all()


@pytest.mark.parametrize('pixels', [False, True])
def test_recalls_of_proposals_are_those_of_mmdet(pixels: bool) -> None:
    module = pytest.importorskip('mmdet.evaluation.functional.recall')
    images = images_of(3)
    numbers, thresholds = np.array([1, 3, 8]), np.array([0.5, 0.7])
    boxes, found = [im.boxes for im in images], [im.found for im in images]
    # The function around it joins tables of several sizes, which NumPy refuses from 1.24 on.
    table = np.empty(len(images), object)
    for place, (one, other) in enumerate(zip(boxes, found, strict=True)):
        table[place] = module.bbox_overlaps(one, other, use_legacy_coordinate=pixels)
    theirs = module._recalls(table, numbers, thresholds)
    ours = proposal_recalls(boxes, found, numbers.tolist(), thresholds.tolist(), pixels)
    assert (0 < ours).all() and len(np.unique(ours)) > 2
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_recalls_pair_each_proposal_with_one_box() -> None:
    truth = [np.concatenate([box(0, 0, 10, 10), box(0, 0, 10, 9)])]
    recalls = proposal_recalls(truth, [box(0, 0, 10, 10)], [1, 5], [0.5])
    assert recalls.tolist() == [[0.5], [0.5]]
    assert np.isnan(proposal_recalls([np.zeros((0, 4))], [truth[0]], [1], [0.5])).all()
    with pytest.raises(ValueError, match='zip'):
        proposal_recalls(truth, [], [1], [0.5])
