"""Detections of a class by decreasing score, and their counts at every threshold of the score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdet_ext.analysis.detection.bootstrap import drawn_sums, running_counts
from mmdet_ext.analysis.detection.columns import Detections, GroundTruth
from mmdet_ext.analysis.detection.matching import Matches


@dataclass(frozen=True)
class Ranking:
    """Detections of one class, or of all, by decreasing score, without those that are ignored.

    Attributes:
        score: scores, shape (N,).
        image: place of the image, shape (N,).
        hit: whether a detection found a box, shape (N,).
        boxes: number of ground-truth boxes that count in each image, shape (I,).
        ignored: number of ignored detections.
        place: place of each detection among all of the class, the ignored ones included, rising,
            shape (N,); None where none is ignored.
    """

    score: np.ndarray
    image: np.ndarray
    hit: np.ndarray
    boxes: np.ndarray
    ignored: int
    place: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True)
class Curve:
    """Counts of the detections with a score of at least each threshold.

    The counts may have leading dimensions, one row per resample of the images.

    Attributes:
        threshold: scores, falling, shape (K,).
        hits: detections that found a box, shape (..., K).
        false: detections that found none, shape (..., K).
        boxes: ground-truth boxes, shape (...).
        images: number of images.
    """

    threshold: np.ndarray
    hits: np.ndarray
    false: np.ndarray
    boxes: np.ndarray
    images: int

    @property
    def precision(self) -> np.ndarray:
        """Share of the detections that found a box; NaN without a detection."""
        return ratio(self.hits, self.hits + self.false)

    @property
    def recall(self) -> np.ndarray:
        """Share of the boxes that were found; NaN without a box."""
        return ratio(self.hits, self.boxes[..., None])

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN)."""
        return ratio(2 * self.hits, self.hits + self.false + self.boxes[..., None])

    @property
    def fppi(self) -> np.ndarray:
        """False detections per image."""
        return ratio(self.false, np.asarray(self.images))

    def where_hits_grow(self) -> Curve:
        """Return the thresholds at which boxes are found; between them only false ones come."""
        grows = np.diff(self.hits, axis=-1, prepend=0) > 0
        rows = grows.any(axis=tuple(range(grows.ndim - 1)))
        return Curve(
            self.threshold[rows],
            self.hits[..., rows],
            self.false[..., rows],
            self.boxes,
            self.images,
        )


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide counts; NaN where the divisor is 0."""
    with np.errstate(divide='ignore', invalid='ignore'):
        result = np.asarray(part / whole)
    none = np.asarray(whole) <= 0
    if none.any():
        result[np.broadcast_to(none, result.shape)] = np.nan
    return result


class Rankings:
    """Rankings of all classes at all thresholds of the IoU, sorted once.

    Args:
        truth: ground truth, G rows.
        found: detections, N rows.
        matches: matches of the two.
        images: number of images.
    """

    def __init__(
        self, truth: GroundTruth, found: Detections, matches: Matches, images: int
    ) -> None:
        self._truth, self._found, self._matches, self.images = truth, found, matches, images
        # Of equal scores the order of the images counts, as in COCO's evaluation.
        self._order = np.argsort(-found.score, kind='stable')
        self._hit = matches.hit
        self._of_label: dict[int | None, tuple[np.ndarray, np.ndarray]] = {}

    def of(self, iou: int, label: int | None = None) -> Ranking:
        """Return one ranking.

        Args:
            iou: place of the threshold of the IoU.
            label: class; None for all classes together.
        """
        if label not in self._of_label:
            self._of_label[label] = self._rows(label)
        rows, boxes = self._of_label[label]
        place = np.flatnonzero(~self._matches.ignored[iou, rows])
        kept, ignored = rows[place], len(rows) - len(place)
        return Ranking(
            self._found.score[kept],
            self._found.image[kept],
            self._hit[iou, kept],
            boxes,
            ignored,
            place if ignored else None,
        )

    def _rows(self, label: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the detections of a class in order, and its boxes per image."""
        counts = ~self._truth.crowd
        rows = self._order
        if label is not None:
            rows = rows[self._found.label[rows] == label]
            counts = counts & (self._truth.label == label)
        return rows, np.bincount(self._truth.image[counts], minlength=self.images)


def curve_of(ranking: Ranking) -> Curve:
    """Count hits and false detections at every score that occurs.

    Detections of equal score come and go together, as a threshold cannot part them.

    Args:
        ranking: detections, N rows.

    Returns:
        The counts at K <= N thresholds.
    """
    last = _ends_of_ties(ranking.score)
    hits = np.cumsum(ranking.hit)[last]
    return Curve(
        ranking.score[last],
        hits,
        last + 1 - hits,
        np.asarray(ranking.boxes.sum()),
        len(ranking.boxes),
    )


def resampled_curve(ranking: Ranking, weights: np.ndarray) -> Curve:
    """Count in resamples of the images, at the scores at which boxes are found.

    Args:
        ranking: detections, N rows.
        weights: how often each resample has each image, shape (R, I).

    Returns:
        The counts, shape (R, K).
    """
    last = _ends_of_ties(ranking.score)
    found = np.diff(np.cumsum(ranking.hit)[last], prepend=0) > 0
    last = last[found]
    of_hits = np.flatnonzero(ranking.hit)
    every = running_counts(weights, ranking.image, last)
    before = np.searchsorted(of_hits, last, side='right') - 1
    hits = running_counts(weights, ranking.image[of_hits], before)
    return Curve(
        ranking.score[last],
        hits,
        every - hits,
        drawn_sums(weights, ranking.boxes),
        len(ranking.boxes),
    )


def counts_at(ranking: Ranking, thresholds: np.ndarray) -> Curve:
    """Count at given thresholds.

    Args:
        ranking: detections, N rows.
        thresholds: scores, shape (K,).
    """
    hits, false = _below(ranking, thresholds)
    return Curve(
        thresholds,
        hits,
        false,
        np.asarray(ranking.boxes.sum()),
        len(ranking.boxes),
    )


def resampled_counts_at(ranking: Ranking, thresholds: np.ndarray, weights: np.ndarray) -> Curve:
    """Count at given thresholds in resamples of the images.

    Args:
        ranking: detections, N rows.
        thresholds: scores, shape (K,).
        weights: how often each resample has each image, shape (R, I).

    Returns:
        The counts, shape (R, K).
    """
    hits, false = image_counts(ranking, thresholds)
    table = np.concatenate([hits, false, ranking.boxes[:, None]], axis=1)
    sums = drawn_sums(weights, table)
    size = len(thresholds)
    return Curve(thresholds, sums[:, :size], sums[:, size:-1], sums[:, -1], len(ranking.boxes))


def image_counts(ranking: Ranking, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count hits and false detections of each image at given thresholds.

    Args:
        ranking: detections, N rows.
        thresholds: scores, shape (K,).

    Returns:
        Hits and false detections, shape (I, K) each.
    """
    images, size = len(ranking.boxes), len(thresholds)
    order = np.argsort(-thresholds, kind='stable')
    # The first of the falling thresholds that a score reaches; none of them for the rest.
    step = np.searchsorted(-thresholds[order], -ranking.score, side='left')
    tables = []
    for chosen in (ranking.hit, ~ranking.hit):
        place = ranking.image[chosen] * (size + 1) + step[chosen]
        table = np.bincount(place, minlength=images * (size + 1)).reshape(images, size + 1)
        counts = np.empty((images, size), np.int64)
        counts[:, order] = np.cumsum(table, axis=1)[:, :size]
        tables.append(counts)
    return tables[0], tables[1]


def _below(ranking: Ranking, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count hits and false detections with a score of at least each threshold."""
    kept = np.searchsorted(-ranking.score, -thresholds, side='right')
    hits = np.concatenate([[0], np.cumsum(ranking.hit)])[kept]
    return hits, kept - hits


def _ends_of_ties(score: np.ndarray) -> np.ndarray:
    """Return the last row of every run of equal scores."""
    return np.flatnonzero(np.diff(score, append=-np.inf) != 0)
