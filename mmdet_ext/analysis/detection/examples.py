"""Images and boxes that show errors, and where two results differ most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmdet_ext.analysis.detection.columns import Detections, TruthSet
from mmdet_ext.analysis.detection.errors import MISSED, Errors
from mmdet_ext.analysis.detection.matching import match_detections


class MarkedBox(NamedTuple):
    """Box to draw.

    Attributes:
        box: x, y, width and height in pixels.
        mark: 'truth', 'missed', 'right', 'false', 'ignored' or 'cut'.
        label: text beside the box.
    """

    box: tuple[float, float, float, float]
    mark: str
    label: str


class MarkedImage(NamedTuple):
    """Image to draw, or a part of it.

    Attributes:
        path: path of the image.
        title: text above it.
        boxes: boxes on it.
        focus: box around which it is cut out; None for the whole image.
    """

    path: str
    title: str
    boxes: list[MarkedBox]
    focus: tuple[float, float, float, float] | None


def error_examples(
    data: TruthSet, found: Detections, errors: Errors, kind: int, count: int
) -> list[MarkedImage]:
    """Choose examples of a kind of error: those with the highest scores, or the largest boxes.

    The first of each image come first, so that one image does not fill the sheet.

    Args:
        data: images and ground truth.
        found: detections.
        errors: their errors.
        kind: place of the kind in ``errors.KINDS``.
        count: largest number of examples.
    """
    truth = data.truth
    if kind == MISSED:
        rows = np.flatnonzero(errors.missed)
        rows = rows[np.argsort(-truth.box[rows, 2] * truth.box[rows, 3], kind='stable')]
        images = truth.image[rows]
    else:
        rows = np.flatnonzero(errors.kind == kind)
        rows = rows[np.argsort(-found.score[rows], kind='stable')]
        images = found.image[rows]
    chosen = rows[_turns(images)[:count]]
    return [_example(data, found, errors, int(row), kind) for row in chosen]


def _example(data: TruthSet, found: Detections, errors: Errors, row: int, kind: int) -> MarkedImage:
    truth = data.truth
    if kind == MISSED:
        image, box = int(truth.image[row]), _tuple(truth.box[row])
        label = data.classes[truth.label[row]]
        return MarkedImage(data.paths[image], label, [MarkedBox(box, 'missed', label)], box)
    image, box = int(found.image[row]), _tuple(found.box[row])
    label = f'{data.classes[found.label[row]]} {found.score[row]:.2f}'
    boxes = []
    partner = int(errors.partner[row])
    near = [partner] if partner >= 0 else np.flatnonzero(truth.image == image).tolist()
    for other in near:
        name = data.classes[truth.label[other]]
        boxes.append(MarkedBox(_tuple(truth.box[other]), 'truth', name))
    boxes.append(MarkedBox(box, 'false', label))
    title = label if partner < 0 else f'{label}; truth: {data.classes[truth.label[partner]]}'
    return MarkedImage(data.paths[image], title, boxes, box)


def _turns(images: np.ndarray) -> np.ndarray:
    """Order rows so that the first of each image come first, then the second of each."""
    order = np.argsort(images, kind='stable')
    starts = np.flatnonzero(np.diff(images[order], prepend=-1))
    turn = np.empty(len(images), np.int64)
    turn[order] = np.arange(len(images)) - np.repeat(starts, np.diff([*starts, len(images)]))
    return np.argsort(turn, kind='stable')


def side_by_side(
    data: TruthSet,
    sides: Sequence[tuple[str, Detections, float]],
    errors: np.ndarray,
    count: int,
    iou: float = 0.5,
) -> list[MarkedImage]:
    """Mark the images in which the second result gains most errors over the first, side by side.

    Args:
        data: images and ground truth.
        sides: name, detections and threshold of the score of both results.
        errors: errors of each image, shape (I, 2), of ``comparison.image_changes``.
        count: largest number of images.
        iou: threshold of the IoU.

    Returns:
        Two entries per image, the first and the second result; none for images that did not get
        worse.
    """
    gain = errors[:, 1] - errors[:, 0]
    order = np.argsort(-gain, kind='stable')[:count]
    matches = [match_detections(data.truth, found, (iou,)) for _, found, _ in sides]
    panels = []
    for image in order[gain[order] > 0]:
        for number, (name, found, threshold) in enumerate(sides):
            title = f'{name}: {errors[image, number]} errors'
            own = matches[number]
            boxes = []
            for row in np.flatnonzero(data.truth.image == image):
                if data.truth.crowd[row]:
                    mark = 'ignored'
                else:
                    by = own.found_index[0, row]
                    mark = 'truth' if by >= 0 and found.score[by] >= threshold else 'missed'
                label = data.classes[data.truth.label[row]] if mark == 'missed' else ''
                boxes.append(MarkedBox(_tuple(data.truth.box[row]), mark, label))
            for row in np.flatnonzero((found.image == image) & (found.score >= threshold)):
                mark = 'right' if own.hit[0, row] else 'false'
                mark = 'ignored' if own.ignored[0, row] else mark
                label = f'{data.classes[found.label[row]]} {found.score[row]:.2f}'
                boxes.append(MarkedBox(_tuple(found.box[row]), mark, label))
            panels.append(MarkedImage(data.paths[image], title, boxes, None))
    return panels


def _tuple(box: np.ndarray) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, box)
    return x, y, width, height
