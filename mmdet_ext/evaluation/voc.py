"""Average precision as Pascal VOC defines it, from columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmdet_ext.evaluation.recalls import overlaps

Floats = NDArray[np.float64]
Mode = Literal['area', '11points']


class VOCImage(NamedTuple):
    """Boxes and detections of an image.

    Attributes:
        boxes: corners (G, 4) in pixels.
        labels: classes (G,).
        difficult: whether a box (G,) neither has to be found nor makes its finder wrong.
        found: corners (N, 4) of the detections.
        found_labels: their classes (N,).
        scores: their scores (N,).
    """

    boxes: NDArray[np.floating]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    found: NDArray[np.floating]
    found_labels: NDArray[np.int64]
    scores: NDArray[np.floating]


class ClassPrecision(NamedTuple):
    """Result of a class.

    Attributes:
        boxes: number of boxes to find, without the difficult ones.
        detections: number of detections.
        recall: highest recall, NaN without boxes.
        average: average precision, NaN without boxes.
    """

    boxes: int
    detections: int
    recall: float
    average: float


def average_precision(recall: Floats, precision: Floats, mode: Mode = 'area') -> float:
    """Compute the area under a curve of precision over recall.

    'area' sums the area under the curve that has at each recall the highest precision at that
    recall or above. '11points' takes the mean of this curve at recalls 0, 0.1, ..., 1, as VOC did
    up to 2009.

    Args:
        recall: recalls (N,), ascending.
        precision: precisions (N,) there.
        mode: 'area' or '11points'.

    >>> average_precision(np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3]))
    0.8333333333333333
    >>> round(average_precision(np.array([0.5]), np.array([1.0]), '11points') * 11, 6)
    6.0

    References:
        Everingham et al., The PASCAL Visual Object Classes (VOC) Challenge, IJCV 2010, section
        4.2; Everingham et al., A Retrospective, IJCV 2015, section 4.1.3.
    """
    # The highest precision at this recall or above.
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if mode == '11points':
        # Written as VOC and mmdet step: a recall of 0.3 is compared with 0.30000000000000004.
        places = np.searchsorted(recall, np.arange(0, 1 + 1e-3, 0.1), side='left')
        return float(sum(best[place] for place in places if place < len(best)) / 11)
    steps = np.diff(recall, prepend=0.0)
    return float((steps * best).sum())


def class_precisions(
    images: Sequence[VOCImage],
    classes: int,
    iou_thr: float = 0.5,
    mode: Mode = 'area',
    pixels: bool = False,
) -> list[ClassPrecision]:
    """Compute VOC's average precision of each class.

    A detection goes to the box of its class that it overlaps most. It is right if the IoU reaches
    the threshold and no detection of a higher score has gone to that box; where the box is
    difficult, the detection does not count. Equal scores are ranked by image, then by place.

    Args:
        images: boxes and detections of each image.
        classes: number of classes.
        iou_thr: threshold of the IoU, in (0, 1].
        mode: see `average_precision`.
        pixels: widths are right - left + 1, as in VOC's development kit.
    """
    counts = np.zeros(classes, np.int64)
    labels, scores, targets, ignored = [], [], [], []
    before = 0
    for image in images:
        wanted = image.labels[~image.difficult]
        counts += np.bincount(wanted, minlength=classes)[:classes]
        best, iou = _best_boxes(image, pixels)
        hit = iou >= iou_thr
        difficult = np.append(image.difficult, False)[best]
        labels.append(image.found_labels)
        scores.append(image.scores)
        targets.append(np.where(hit, before + best, -1))
        ignored.append(hit & difficult)
        before += len(image.boxes)
    joined = [np.concatenate([np.zeros(0), *part]) for part in (labels, scores, targets, ignored)]
    label, score, target, skip = joined[0], joined[1], joined[2].astype(int), joined[3] > 0
    order = np.lexsort((-score, label))  # stable
    label, target, skip = label[order], target[order], skip[order]
    right = np.zeros(len(order), bool)
    # Of the detections that go to a box, the first is right.
    right[np.unique(target, return_index=True)[1]] = True
    right &= (target >= 0) & ~skip
    results = []
    for name in range(classes):
        chosen = label == name
        counted = right[chosen][~skip[chosen]]
        boxes = int(counts[name])
        if not boxes:
            results.append(ClassPrecision(0, int(chosen.sum()), np.nan, np.nan))
            continue
        hits = np.cumsum(counted)
        recall = hits / boxes
        precision = hits / np.arange(1, len(hits) + 1)
        top = float(recall[-1]) if len(recall) else 0.0
        average = average_precision(recall, precision, mode)
        results.append(ClassPrecision(boxes, int(chosen.sum()), top, average))
    return results


def _best_boxes(image: VOCImage, pixels: bool) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return for each detection its box of the highest IoU, and that IoU; -1 without a box."""
    count = len(image.found)
    if not len(image.boxes):
        return np.full(count, -1), np.full(count, -1, np.float32)
    ious = overlaps(image.found, image.boxes, pixels)
    ious[image.found_labels[:, None] != image.labels[None]] = -1
    best = ious.argmax(1)
    return best, ious[np.arange(count), best]
