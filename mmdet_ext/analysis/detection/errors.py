"""Anatomy of errors: what kind each false or missed box is, and how much AP each kind costs.

The kinds and their cost are those of TIDE: each kind of error alone is corrected, and the gain of
AP is its cost. Costs therefore do not sum up to what is missing to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmdet_ext.analysis.detection.average_precision import average_precision_of_counts
from mmdet_ext.analysis.detection.columns import Detections, TruthSet
from mmdet_ext.analysis.detection.matching import Matches, match_detections, overlapping_pairs

#: Kinds in the order in which a detection is tested; the last is of ground truth.
KINDS = ('localisation', 'class', 'duplicate', 'background', 'both', 'missed')
LOCALISATION, CLASS, DUPLICATE, BACKGROUND, BOTH, MISSED = range(len(KINDS))
#: COCO's sizes, by the area of the box in square pixels.
SIZES = (
    ('small', 0.0, 32.0**2),
    ('medium', 32.0**2, 96.0**2),
    ('large', 96.0**2, float('inf')),
)
#: Recalls as TIDE rounds them; COCO's differ in the last digit, which a recall may just reach.
RECALLS = np.arange(101) / 100
_NONE = -1


@dataclass(frozen=True)
class Errors:
    """Errors of N detections and G ground-truth boxes.

    Attributes:
        matches: matches at the foreground threshold.
        kind: place in `KINDS` of each detection, -1 for one that is right or ignored, shape (N,).
        partner: ground-truth box that an error of place or class is about, the one that a duplicate
            repeats; otherwise -1, shape (N,).
        mends: whether correcting the detection finds its partner: the partner is not found
            otherwise, and no detection with a higher score would be corrected to it, shape (N,).
        missed: whether a box is not found and no correction would find it, shape (G,).
    """

    matches: Matches
    kind: np.ndarray
    partner: np.ndarray
    mends: np.ndarray
    missed: np.ndarray


def find_errors(
    data: TruthSet,
    found: Detections,
    foreground: float = 0.5,
    background: float = 0.1,
) -> Errors:
    """Find the kind of each error, as TIDE does.

    A detection that COCO counts as false is, with the highest IoU to the boxes of its image, tested
    in this order:

    - localisation: IoU with its own class from ``background`` to ``foreground``;
    - class: IoU with another class of at least ``foreground``;
    - duplicate: IoU with its own class of at least ``foreground``, and that box is found already;
    - background: IoU with any class of at most ``background``;
    - both: all others, of a wrong class and place.

    A box is missed if it was not found and no error of place or class is about it. Ignored
    detections are no errors here (tidecv also looks for one in them, though they cost no AP).

    Args:
        data: images and ground truth.
        found: detections.
        foreground: IoU of a right detection.
        background: IoU up to which a detection lies on nothing, above 0.

    Raises:
        ValueError: unless 0 < background < foreground <= 1.

    References:
        Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, ECCV 2020,
        section 2.2.
    """
    if not 0 < background < foreground <= 1:
        raise ValueError(
            'background and foreground must be 0 < background < foreground <= 1, got '
            f'{background} and {foreground}'
        )
    truth = data.truth
    matches = match_detections(truth, found, (foreground,))
    pairs = overlapping_pairs(truth, found, np.finfo(float).tiny, same_class=False)
    counts = ~truth.crowd[pairs.truth]
    det, gt, iou = pairs.found[counts], pairs.truth[counts], pairs.iou[counts]
    same = found.label[det] == truth.label[gt]
    used = matches.found_index[0] >= 0
    best_same = _best(len(found), det[same], gt[same], iou[same])
    best_other = _best(len(found), det[~same], gt[~same], iou[~same])
    taken = same & used[gt]
    best_used = _best(len(found), det[taken], gt[taken], iou[taken])
    best_any = np.maximum(best_same[0], best_other[0])
    false = (matches.truth_index[0] < 0) & ~matches.ignored[0]
    tests = (
        (best_same[0] >= background) & (best_same[0] <= foreground),
        best_other[0] >= foreground,
        best_used[0] >= foreground,
        best_any <= background,
    )
    kind = np.select([~false, *tests], [_NONE, *range(len(tests))], BOTH)
    partner = np.select(
        [kind == LOCALISATION, kind == CLASS, kind == DUPLICATE],
        [best_same[1], best_other[1], best_used[1]],
        _NONE,
    )
    mends = _mending(found, kind, partner, used)
    reached = np.zeros(len(truth), bool)
    reached[partner[mends]] = True
    return Errors(matches, kind, partner, mends, ~used & ~truth.crowd & ~reached)


def _best(
    size: int, det: np.ndarray, gt: np.ndarray, iou: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the highest IoU of each detection, 0 for none, and its box, the first of equals."""
    value, box = np.zeros(size), np.full(size, _NONE)
    # Of the entries of a detection the last, its best, is the one that stays.
    order = np.lexsort((-gt, iou, det))
    value[det[order]] = iou[order]
    box[det[order]] = gt[order]
    return value, box


def _mending(
    found: Detections, kind: np.ndarray, partner: np.ndarray, used: np.ndarray
) -> np.ndarray:
    """Return the detections that find their partner if they are corrected, one per box at most."""
    mends = np.zeros(len(found), bool)
    rows = np.flatnonzero((kind == LOCALISATION) | (kind == CLASS))
    rows = rows[~used[partner[rows]]]
    # Of the detections of a box the last, that with the highest score, is the one that stays.
    rows = rows[np.lexsort((-rows, found.score[rows]))]
    chosen = np.full(len(used), _NONE)
    chosen[partner[rows]] = rows
    mends[chosen[chosen >= 0]] = True
    return mends


def error_report(
    data: TruthSet,
    found: Detections,
    foreground: float = 0.5,
    background: float = 0.1,
    sizes: Sequence[tuple[str, float, float]] = SIZES,
) -> tuple[dict[str, Any], Errors]:
    """Report how often each kind of error comes and how much AP it costs, in all and by size.

    To correct a kind of error means: the detection with the highest score takes the right place or
    class, and the others on that box go; duplicates and detections of background or of both go; a
    missed box goes. The size is that of the ground truth for errors of place and class and for
    missed boxes, otherwise that of the detection. The mean is over the classes with ground truth.

    Args:
        data: images and ground truth.
        found: detections.
        foreground: IoU of a right detection.
        background: IoU up to which a detection lies on nothing.
        sizes: name, area above which and area up to which a box has the size, in square pixels.

    Returns:
        The report with AP and costs from 0 to 1, and the errors. Its costs ``false_positives`` and
        ``false_negatives`` are those of all false detections and of all boxes not found.

    References:
        Bolya et al., ECCV 2020, sections 2.3 and 2.4.
    """
    errors = find_errors(data, found, foreground, background)
    study = _Costs(data, found, errors)
    ap = study.mean()
    area = found.box[:, 2] * found.box[:, 3]
    # In TIDE the product of the sides is the area also where the annotation states another.
    of_box = data.truth.box[:, 2] * data.truth.box[:, 3]
    with_partner = (errors.kind == LOCALISATION) | (errors.kind == CLASS)
    area = np.where(with_partner, np.append(of_box, 0)[errors.partner], area)

    def entry(kind: int, low: float = -1.0, high: float = float('inf')) -> dict[str, Any]:
        chosen = (errors.kind == kind) & (area > low) & (area <= high)
        lost = errors.missed & (of_box > low) & (of_box <= high) & (kind == MISSED)
        count = int(lost.sum() if kind == MISSED else chosen.sum())
        return {'count': count, 'cost': max(study.mean(chosen, lost) - ap, 0.0)}

    kinds = {
        name: {
            **entry(kind),
            'by_size': {size: entry(kind, low or -1.0, high) for size, low, high in sizes},
        }
        for kind, name in enumerate(KINDS)
    }
    report = {
        'foreground': foreground,
        'background': background,
        'images': len(data.image_ids),
        'boxes': int((~data.truth.crowd).sum()),
        'detections': len(found),
        'hits': int(errors.matches.hit[0].sum()),
        'ignored': int(errors.matches.ignored[0].sum()),
        'AP': ap,
        'kinds': kinds,
        'false_positives': study.mean_without_false() - ap,
        'false_negatives': study.mean_without_missed() - ap,
        'per_class': {
            name: {
                'AP': study.of_class(label),
                **{
                    kind: int(
                        (errors.missed & (data.truth.label == label)).sum()
                        if number == MISSED
                        else ((errors.kind == number) & (found.label == label)).sum()
                    )
                    for number, kind in enumerate(KINDS)
                },
            }
            for label, name in enumerate(data.classes)
            if study.boxes[label]
        },
    }
    return report, errors


class _Costs:
    """Average precision with some errors corrected.

    Args:
        data: images and ground truth.
        found: detections.
        errors: their errors.
    """

    def __init__(self, data: TruthSet, found: Detections, errors: Errors) -> None:
        self._data, self._found, self._errors = data, found, errors
        truth = data.truth
        self._size = len(data.classes)
        self.boxes = np.bincount(truth.label[~truth.crowd], minlength=self._size)
        self._hit = errors.matches.hit[0]
        self._counts = ~errors.matches.ignored[0]

    def mean(self, chosen: np.ndarray | None = None, lost: np.ndarray | None = None) -> float:
        """Return the mean AP with the chosen detections corrected and without the lost boxes."""
        label, hit, counts = self._found.label, self._hit, self._counts
        boxes = self.boxes
        if chosen is not None and chosen.any():
            mended = chosen & self._errors.mends
            to = self._data.truth.label[self._errors.partner[mended]]
            label, hit = label.copy(), hit | mended
            label[mended] = to
            counts = counts & (~chosen | mended)
        if lost is not None and lost.any():
            boxes = boxes - np.bincount(self._data.truth.label[lost], minlength=self._size)
        return self._mean(label, hit, counts, boxes, self._found.score)

    def of_class(self, label: int) -> float:
        """Return the AP of a class as it is."""
        counts = self._counts & (self._found.label == label)
        return _ap(self._hit[counts], self._found.score[counts], int(self.boxes[label]))

    def mean_without_false(self) -> float:
        """Return the mean AP if every false detection came after all right ones."""
        score = self._hit.astype(float)
        return self._mean(self._found.label, self._hit, self._counts, self.boxes, score)

    def mean_without_missed(self) -> float:
        """Return the mean AP without the boxes that were not found."""
        truth = self._data.truth
        hits = np.bincount(self._found.label[self._hit], minlength=self._size)
        boxes = np.minimum(hits, np.bincount(truth.label[~truth.crowd], minlength=self._size))
        return self._mean(self._found.label, self._hit, self._counts, boxes, self._found.score)

    def _mean(
        self,
        label: np.ndarray,
        hit: np.ndarray,
        counts: np.ndarray,
        boxes: np.ndarray,
        score: np.ndarray,
    ) -> float:
        """Return the mean over the classes with ground truth.

        As in TIDE, a class whose boxes are all corrected away has AP 0, or takes no part if no
        detection is left either.
        """
        rows = np.flatnonzero(counts)
        rows = rows[np.lexsort((-score[rows], label[rows]))]
        ends = np.searchsorted(label[rows], np.arange(self._size + 1))
        values = []
        for number in np.flatnonzero(self.boxes):
            own = rows[ends[number] : ends[number + 1]]
            if boxes[number]:
                places = np.flatnonzero(hit[own])
                hits = np.arange(1, len(places) + 1)
                total = int(boxes[number])
                values.append(average_precision_of_counts(hits, places + 1, total, RECALLS))
            elif len(own):
                values.append(0.0)
        return float(np.mean(values)) if values else float('nan')


def _ap(hit: np.ndarray, score: np.ndarray, boxes: int) -> float:
    order = np.argsort(-score, kind='stable')
    places = np.flatnonzero(hit[order])
    hits = np.arange(1, len(places) + 1)
    return average_precision_of_counts(hits, places + 1, boxes, RECALLS)
