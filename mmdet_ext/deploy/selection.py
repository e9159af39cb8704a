"""Choice of detections among decoded priors, as mmdet's dense heads choose."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mmdet_ext.deploy.metadata import SelectionInfo
from mmdet_ext.deploy.suppression import suppress


class Priors(NamedTuple):
    """Decoded priors of one image.

    Attributes:
        boxes: (P, 4) corners, px of the network's input.
        scores: (P, C).
        factors: (P,); None for none.
        levels: (P,) level of each prior, in the order of the levels; None for one level.
    """

    boxes: np.ndarray
    scores: np.ndarray
    factors: np.ndarray | None = None
    levels: np.ndarray | None = None


class Selected(NamedTuple):
    """Detections of one image, best first.

    Attributes:
        boxes: (N, 4) corners, px of the image.
        scores: (N,).
        labels: (N,).
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def select(
    priors: Priors, size: tuple[int, int], factors: tuple[float, float], info: SelectionInfo
) -> Selected:
    """Choose the detections of an image.

    1. Candidates are pairs of a prior and a class (``pairs``), or each prior with its best class
       (``one_class``), whose score is above ``score_thr``, the best ``nms_pre`` of each level.
    2. Scores are multiplied by the priors' factors. With ``best_class`` this comes first, and all
       candidates whose product is not below ``score_thr`` count.
    3. Boxes are clipped to the image, here or at last, and scaled to its px.
    4. Boxes of no more than ``min_box_size`` are dropped.
    5. Boxes that overlap a better one of their class are suppressed, and the best kept.

    Args:
        priors: of the image.
        size: height and width, px, of the image in the network's input.
        factors: width and height of the resized image over those of the image.
        info: options.
    """
    place, labels, scores = (
        _best_class(priors, info) if info.rule == 'best_class' else _pairs(priors, info)
    )
    boxes = to_image(priors.boxes[place], size if info.clip == 'first' else None, factors)
    if info.min_box_size >= 0:
        sides = boxes[:, 2:] - boxes[:, :2]
        large = (sides > np.float32(info.min_box_size)).all(1)
        boxes, scores, labels = boxes[large], scores[large], labels[large]
    kept, found = suppress(boxes, scores, labels, info.nms, info.max_per_image)
    boxes = boxes[kept]
    if info.clip == 'last':
        boxes = _clipped(boxes, (size[0] / factors[1], size[1] / factors[0]))
    return Selected(boxes, found, labels[kept])


def to_image(
    boxes: np.ndarray, size: tuple[int, int] | None, factors: tuple[float, float]
) -> np.ndarray:
    """Clip boxes and scale them to px of the image.

    Args:
        boxes: (N, 4), px of the network's input.
        size: height and width that boxes are clipped to; None for no clipping.
        factors: width and height of the resized image over those of the image.
    """
    if size is not None:
        boxes = _clipped(boxes, size)
    scale = np.array([1 / factors[0], 1 / factors[1]] * 2, np.float32)
    scaled: np.ndarray = boxes.astype(np.float32) * scale
    return scaled


def _clipped(boxes: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """Clip boxes to a height and a width."""
    limits = np.array([size[1], size[0], size[1], size[0]], np.float32)
    return np.minimum(np.maximum(boxes, np.float32(0)), limits)


def _best_class(priors: Priors, info: SelectionInfo) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels = priors.scores.argmax(1)
    scores = np.take_along_axis(priors.scores, labels[:, None], 1)[:, 0]
    if priors.factors is not None:
        scores = scores * priors.factors
    place = np.flatnonzero(scores >= np.float32(info.score_thr))
    return place, labels[place], scores[place]


def _pairs(priors: Priors, info: SelectionInfo) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    valid = priors.scores > np.float32(info.score_thr)
    if info.rule == 'one_class':
        valid &= np.arange(valid.shape[1]) == priors.scores.argmax(1)[:, None]
    if info.factor_thr > 0 and priors.factors is not None:
        valid &= (priors.factors >= np.float32(info.factor_thr))[:, None]
    place, labels = np.nonzero(valid)
    scores = priors.scores[place, labels]
    if info.nms_pre > 0:
        levels = np.zeros(len(place)) if priors.levels is None else priors.levels[place]
        # Best first within each level; of equal scores the first prior, as a sort is stable.
        order = np.lexsort((-scores, levels))
        ranks = np.arange(len(order)) - np.searchsorted(levels[order], levels[order])
        chosen = order[ranks < info.nms_pre]
        place, labels, scores = place[chosen], labels[chosen], scores[chosen]
    if priors.factors is not None:
        scores = scores * priors.factors[place]
    return place, labels, scores
