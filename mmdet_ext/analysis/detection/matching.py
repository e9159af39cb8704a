"""Matching of detections with ground truth, exactly as COCO does, for all images at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mmdet_ext.analysis.detection.columns import Detections, GroundTruth, group_ranks

#: So many pairs are measured at once, which bounds the memory.
PAIRS_AT_ONCE = 1 << 20


class Pairs(NamedTuple):
    """Detections and ground-truth boxes that overlap, shape (P,) each, by detection, then box.

    Attributes:
        found: row of the detection.
        truth: row of the ground-truth box.
        iou: overlap; on a crowd the covered share of the detection.
    """

    found: np.ndarray
    truth: np.ndarray
    iou: np.ndarray


@dataclass(frozen=True)
class Matches:
    """Matches of N detections with G ground-truth boxes at T thresholds of the IoU.

    Attributes:
        iou_thresholds: the thresholds, shape (T,).
        truth_index: ground-truth box of each detection, -1 for none, shape (T, N).
        found_index: detection of each ground-truth box, -1 for none, the last one on a crowd,
            shape (T, G).
        ignored: whether a detection counts neither as right nor as false, shape (T, N).
    """

    iou_thresholds: np.ndarray
    truth_index: np.ndarray
    found_index: np.ndarray
    ignored: np.ndarray

    @property
    def hit(self) -> np.ndarray:
        """Mask of the detections that found a box that counts, shape (T, N)."""
        return (self.truth_index >= 0) & ~self.ignored


def check_iou_thresholds(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return thresholds of the IoU as an array.

    Raises:
        ValueError: if there is none, or one is not above 0 and at most 1.
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not len(array) or not ((array > 0) & (array <= 1)).all():
        raise ValueError(f'iou_thresholds must be numbers above 0, at most 1, got {values!r}')
    return array


def overlapping_pairs(
    truth: GroundTruth, found: Detections, least: float, same_class: bool = True
) -> Pairs:
    """Measure detections against the ground-truth boxes of their image, and keep what overlaps.

    IoU = intersection / (area of both - intersection); on a crowd intersection / area of the
    detection. Operations and their order are those of pycocotools, so that values are equal.

    Args:
        truth: ground truth, G rows.
        found: detections, N rows.
        least: smallest overlap of a pair that is kept, above 0.
        same_class: whether only pairs of one class count.

    Returns:
        The pairs with an IoU of at least ``least``.
    """
    keys = _keys(truth, found, same_class)
    order = np.argsort(keys[0], kind='stable')
    in_order = keys[0][order]
    begin = np.searchsorted(in_order, keys[1], side='left')
    count = np.searchsorted(in_order, keys[1], side='right') - begin
    parts: list[Pairs] = []
    for rows in _chunks(count):
        here = count[rows]
        first = np.repeat(begin[rows] - (np.cumsum(here) - here), here)
        gt = order[first + np.arange(len(first))]
        det = np.repeat(np.arange(rows.start, rows.stop), here)
        iou = _iou(found.box[det], truth.box[gt], truth.crowd[gt])
        keep = iou >= least
        parts.append(Pairs(det[keep], gt[keep], iou[keep]))
    empty = np.zeros(0, np.int64)
    return Pairs(
        np.concatenate([empty, *(part.found for part in parts)]),
        np.concatenate([empty, *(part.truth for part in parts)]),
        np.concatenate([np.zeros(0), *(part.iou for part in parts)]),
    )


def match_detections(
    truth: GroundTruth,
    found: Detections,
    iou_thresholds: Sequence[float] | np.ndarray = (0.5,),
    ignore: np.ndarray | None = None,
) -> Matches:
    """Match detections with ground truth as COCO does.

    In each image and class detections take boxes from the highest score down. A detection takes
    the free box with the highest IoU, of those that count first, then of those that are ignored;
    of equal ones the last. A crowd can be taken any number of times. A detection on an ignored box
    is ignored.

    The steps run over the ranks of the detections that overlap a box, for all images and classes
    at once: the k-th detections of all of them take their boxes together.

    Args:
        truth: ground truth, G rows.
        found: detections, N rows.
        iou_thresholds: thresholds of the IoU, T of them, above 0 and at most 1.
        ignore: boxes that do not count, shape (G,); crowds are always among them.

    Returns:
        The matches, equal to those of pycocotools' ``COCOeval.evaluateImg``.

    Raises:
        ValueError: if a threshold is out of range.

    References:
        COCO's evaluation code, ``cocoeval.py``, ``evaluateImg``.
    """
    thresholds = check_iou_thresholds(iou_thresholds)
    # As COCO: a threshold of 1 is met by a box up to rounding.
    limits = np.minimum(thresholds, 1 - 1e-10)
    ignored = truth.crowd if ignore is None else truth.crowd | ignore
    pairs = overlapping_pairs(truth, found, float(limits.min()))
    shape = (len(limits), len(found))
    truth_index = np.full(shape, -1, np.int64)
    found_index = np.full((len(limits), len(truth)), -1, np.int64)
    rank = group_ranks(found.image, found.label, found.score)
    for t, limit in enumerate(limits):
        keep = pairs.iou >= limit
        part = Pairs(pairs.found[keep], pairs.truth[keep], pairs.iou[keep])
        _match_at(part, rank, ignored, truth.crowd, found, truth_index[t], found_index[t])
    met = truth_index >= 0
    of_ignored = np.zeros(shape, bool)
    if len(truth):
        of_ignored[met] = ignored[truth_index[met]]
    return Matches(thresholds, truth_index, found_index, of_ignored)


def _match_at(
    pairs: Pairs,
    rank: np.ndarray,
    ignored: np.ndarray,
    crowd: np.ndarray,
    found: Detections,
    truth_index: np.ndarray,
    found_index: np.ndarray,
) -> None:
    """Match at one threshold; the last two are filled."""
    if not len(pairs.found):
        return
    # Only detections with a pair need a turn: their ranks among each other are few.
    rows = np.unique(pairs.found)
    turn = np.empty(len(rank), np.int64)
    turn[rows] = group_ranks(found.image[rows], found.label[rows], -rank[rows].astype(float))
    turns = turn[pairs.found]
    order = np.lexsort((pairs.truth, pairs.iou, ~ignored[pairs.truth], pairs.found, turns))
    det, gt, turns = pairs.found[order], pairs.truth[order], turns[order]
    ends = np.searchsorted(turns, np.arange(turns[-1] + 2))
    taken = np.zeros(len(ignored), bool)
    for begin, end in zip(ends[:-1], ends[1:], strict=True):
        box = gt[begin:end]
        free = ~taken[box]
        box, who = box[free], det[begin:end][free]
        # Of the entries of a detection the last, its best, is the one that stays.
        truth_index[who] = box
        chosen = truth_index[who]
        found_index[chosen] = who
        taken[chosen] = ~crowd[chosen]


def _iou(found: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Return the overlap of pairs of boxes, in the operations of pycocotools' ``bbIou``."""
    width = np.minimum(found[:, 2] + found[:, 0], truth[:, 2] + truth[:, 0])
    width -= np.maximum(found[:, 0], truth[:, 0])
    height = np.minimum(found[:, 3] + found[:, 1], truth[:, 3] + truth[:, 1])
    height -= np.maximum(found[:, 1], truth[:, 1])
    both = (width > 0) & (height > 0)
    shared = np.where(both, width * height, 0.0)
    area = found[:, 2] * found[:, 3]
    whole = np.where(crowd, area, area + truth[:, 2] * truth[:, 3] - shared)
    iou = np.zeros(len(shared))
    np.divide(shared, whole, out=iou, where=both)
    return iou


def _keys(truth: GroundTruth, found: Detections, same_class: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return one number per image, or per image and class, for all rows."""
    if not same_class:
        return truth.image, found.image
    size = 1 + max(truth.label.max(initial=0), found.label.max(initial=0))
    return truth.image * size + truth.label, found.image * size + found.label


def _chunks(count: np.ndarray) -> Iterator[slice]:
    """Divide rows into runs whose counts sum up to about `PAIRS_AT_ONCE`."""
    total = np.cumsum(count)
    start = 0
    while start < len(count):
        before = total[start - 1] if start else 0
        stop = int(np.searchsorted(total, before + PAIRS_AT_ONCE, side='right'))
        stop = max(stop, start + 1)
        yield slice(start, stop)
        start = stop
