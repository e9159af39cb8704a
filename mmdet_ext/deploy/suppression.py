"""Suppression of boxes that overlap a better one, as mmcv's ``batched_nms`` computes it.

Arithmetic is in float32 and classes are shifted apart, as in mmcv, so that the overlaps that decide
are those of training. At an IoU of exactly the threshold a box stays. Of equal scores the box with
the lower index comes first, where torch leaves the order open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmdet_ext.deploy.errors import ModelFileError

#: Boxes from which on mmcv suppresses each class by itself, unless ``split_thr`` says otherwise.
SPLIT = 10_000

#: Type of ``nms`` -> its options and their defaults.
RULES: dict[str, dict[str, Any]] = {
    'nms': dict(iou_threshold=None, offset=0, score_threshold=0.0, max_num=-1),
    'soft_nms': dict(iou_threshold=0.3, sigma=0.5, min_score=1e-3, method='linear', offset=0),
    'mmdet_ext.soft_nms': dict(
        iou_threshold=0.3, sigma=0.5, min_score=1e-3, method='linear', offset=0, max_num=-1
    ),
    'mmdet_ext.diou_nms': dict(iou_threshold=0.5, max_num=-1),
}

#: Boxes (N, 4) of one group and scores (N,) -> indices of the kept, best first, and their scores.
Rule = Callable[..., tuple[np.ndarray, np.ndarray]]


def checked_options(options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the options of ``nms`` with all defaults.

    Args:
        options: as mmdet's ``test_cfg.nms``; None for no suppression.

    Raises:
        ModelFileError: if the type or an option is unknown.
    """
    if options is None:
        return None
    given = dict(options)
    kind = given.pop('type', 'nms')
    if kind not in RULES:
        raise ModelFileError(
            f'nms has the type {kind!r}, which mmdet_ext.deploy does not have. Take one of '
            f'{", ".join(RULES)}'
        )
    common = {
        'class_agnostic': bool(given.pop('class_agnostic', False)),
        'split_thr': given.pop('split_thr', SPLIT if '.' not in kind else 1 << 62),
    }
    if 'iou_thr' in given:  # mmcv's name of before
        given['iou_threshold'] = given.pop('iou_thr')
    unknown = sorted(set(given) - set(RULES[kind]))
    if unknown:
        raise ModelFileError(
            f'nms of type {kind} has no option {unknown[0]!r}. Its options: '
            f'{", ".join(RULES[kind])}'
        )
    found = {'type': kind, **RULES[kind], **given, **common}
    if found['iou_threshold'] is None:
        raise ModelFileError('nms of type nms needs iou_threshold')
    return found


def suppress(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    options: Mapping[str, Any] | None,
    most: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Suppress boxes per class.

    Args:
        boxes: (N, 4) corners, px.
        scores: (N,).
        labels: (N,).
        options: as `checked_options` returns them; None for no suppression.
        most: boxes to keep, at which the search for more ends; 0 for all.

    Returns:
        tuple: indices of the kept boxes, best first, and their scores, which soft-NMS lowers.
    """
    limits = [each for each in (most, (options or {}).get('max_num', -1)) if each > 0]
    most = min(limits, default=len(scores))
    if options is None or not len(scores):
        order = np.argsort(-scores, kind='stable')[:most]
        return order, scores[order]
    boxes, scores = boxes.astype(np.float32), scores.astype(np.float32)
    if not options['class_agnostic']:
        boxes = boxes + (labels.astype(np.float32) * (boxes.max() + np.float32(1)))[:, None]
    if len(scores) < options['split_thr']:
        return _apply(boxes, scores, options, most)
    kept, found = _per_class(boxes, scores, labels, options, most)
    return kept[:most], found[:most]


def _per_class(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, options: Mapping[str, Any], most: int
) -> tuple[np.ndarray, np.ndarray]:
    indices, values = [], []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        kept, found = _apply(boxes[own], scores[own], options, most)
        indices.append(own[kept])
        values.append(found)
    index, value = np.concatenate(indices), np.concatenate(values)
    order = np.lexsort((index, -value))
    return index[order], value[order]


def _apply(
    boxes: np.ndarray, scores: np.ndarray, options: Mapping[str, Any], most: int
) -> tuple[np.ndarray, np.ndarray]:
    kind = options['type']
    if kind.endswith('soft_nms'):
        return soft_nms(
            boxes,
            scores,
            options['iou_threshold'],
            options['sigma'],
            options['min_score'],
            options['method'],
            options['offset'],
            most,
        )
    if kind == 'mmdet_ext.diou_nms':
        return _greedy(boxes, scores, options['iou_threshold'], most, centres=True)
    least = options['score_threshold']
    if least <= 0:
        return _greedy(boxes, scores, options['iou_threshold'], most, options['offset'])
    valid = np.flatnonzero(scores > least)
    kept, found = _greedy(
        boxes[valid], scores[valid], options['iou_threshold'], most, options['offset']
    )
    return valid[kept], found


def _greedy(
    boxes: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    most: int,
    offset: int = 0,
    centres: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Keep the best box, remove those that overlap it, and repeat.

    Args:
        boxes: (N, 4).
        scores: (N,).
        threshold: an overlap above it removes; with ``centres``, an overlap not below it.
        most: boxes to keep.
        offset: added to the sides, 0 or 1 px.
        centres: whether the IoU is lessened by the distance of the centres (DIoU).
    """
    limit = np.float32(threshold)
    rest = np.argsort(-scores, kind='stable')
    kept: list[int] = []
    while len(rest) and len(kept) < most:
        best, rest = rest[0], rest[1:]
        kept.append(best)
        overlap = _iou(boxes[best], boxes[rest], offset)
        if centres:
            overlap = overlap - _centre_distance(boxes[best], boxes[rest])
        rest = rest[overlap < limit if centres else overlap <= limit]
    index = np.array(kept, np.int64)
    return index, scores[index]


def soft_nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: str,
    offset: int,
    most: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Lower the scores of boxes that overlap a better one.

    Args:
        boxes: (N, 4).
        scores: (N,).
        iou_threshold: least overlap that counts; unused by ``gaussian``.
        sigma: width of the Gaussian.
        min_score: score below which a box is dropped.
        method: ``linear``, ``gaussian`` or ``naive``.
        offset: added to the sides, 0 or 1 px.
        most: boxes to keep.
    """
    rest, values = np.arange(len(scores)), scores.copy()
    kept: list[int] = []
    found: list[float] = []
    while len(rest) and len(kept) < most:
        place = int(np.argmax(values[rest]))
        best = rest[place]
        kept.append(best)
        found.append(values[best])
        rest = np.delete(rest, place)
        overlap = _iou(boxes[best], boxes[rest], offset)
        if method == 'gaussian':
            weight = np.exp(-(overlap * overlap) / np.float32(sigma))
        else:
            lowered = 1 - overlap if method == 'linear' else np.float32(0)
            weight = np.where(overlap >= np.float32(iou_threshold), lowered, np.float32(1))
        values[rest] *= weight.astype(np.float32)
        rest = rest[values[rest] >= np.float32(min_score)]
    return np.array(kept, np.int64), np.array(found, np.float32)


def _iou(box: np.ndarray, boxes: np.ndarray, offset: int) -> np.ndarray:
    """Compute the IoU (N,) of a box with others, 0 where neither has an area."""
    plus = np.float32(offset)
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.maximum(high - low + plus, 0).prod(1)
    own, others = (box[2:] - box[:2] + plus).prod(), (boxes[:, 2:] - boxes[:, :2] + plus).prod(1)
    union = own + others - shared
    with np.errstate(divide='ignore', invalid='ignore'):
        overlap: np.ndarray = shared / union
    return np.where(np.isnan(overlap), np.float32(0), overlap)


def _centre_distance(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Compute the squared distance of centres over the squared diagonal of what encloses both."""
    apart = (box[:2] + box[2:] - boxes[:, :2] - boxes[:, 2:]) / 2
    sides = np.maximum(box[2:], boxes[:, 2:]) - np.minimum(box[:2], boxes[:, :2])
    diagonal = (sides * sides).sum(1)
    square = (apart * apart).sum(1)
    return np.where(diagonal > 0, square / np.where(diagonal > 0, diagonal, 1), np.float32(0))
