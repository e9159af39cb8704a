"""Comparison of two results on the same images: is the difference of AP more than noise?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmdet_ext.analysis.detection.average_precision import (
    average_precision,
    resampled_average_precisions,
)
from mmdet_ext.analysis.detection.bootstrap import percentiles, resampled_weights
from mmdet_ext.analysis.detection.columns import Detections, TruthSet
from mmdet_ext.analysis.detection.matching import check_iou_thresholds, match_detections
from mmdet_ext.analysis.detection.operating_points import plain
from mmdet_ext.analysis.detection.points import best_f1_point
from mmdet_ext.analysis.detection.ranking import Rankings, curve_of, image_counts

#: COCO's thresholds of the IoU.
COCO_IOU = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())


def compare_results(
    data: TruthSet,
    first: Detections,
    second: Detections,
    iou_thresholds: Sequence[float] = COCO_IOU,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare the average precision of two results, per class and in the mean, with intervals.

    Both results are evaluated on the same resamples of the images (a paired bootstrap), so that
    what is hard for both does not widen the interval of the difference. The difference is noise
    where that interval holds 0.

    The interval says how the difference moves with other images. That of other seeds of the
    training is not in it.

    Args:
        data: images and ground truth.
        first: detections of the first result.
        second: detections of the second.
        iou_thresholds: thresholds of the IoU, over which AP is the mean; AP50 and AP75 are
            reported too if they are among them.
        resamples: number of resamples, 1 or more.
        confidence: share of the resamples within an interval.
        seed: seed of the resamples.

    Returns:
        By figure ('AP', 'AP50', 'AP75') the entries of 'mean' and of each class.

    Raises:
        ValueError: if an option is out of range.

    References:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13.
    """
    thresholds = check_iou_thresholds(iou_thresholds)
    if resamples < 1:
        raise ValueError(f'resamples must be 1 or more, got {resamples}')
    if not 0 < confidence < 1:
        raise ValueError(f'confidence must be above 0, below 1, got {confidence}')
    # The resamples of an image beside each other, as they are added together.
    weights = np.asfortranarray(resampled_weights(len(data.image_ids), resamples, seed))
    sides = [_precisions(data, found, thresholds, weights) for found in (first, second)]
    figures = {'AP': np.ones(len(thresholds), bool)}
    for name, value in (('AP50', 0.5), ('AP75', 0.75)):
        chosen = np.isclose(thresholds, value)
        if chosen.any() and not chosen.all():
            figures[name] = chosen
    return {
        name: _figure(
            data.classes, [(ap[:, rows], drawn[:, rows]) for ap, drawn in sides], confidence
        )
        for name, rows in figures.items()
    }


def _precisions(
    data: TruthSet, found: Detections, thresholds: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return AP per class and threshold, (C, T), and in the resamples, (C, T, R)."""
    matches = match_detections(data.truth, found, thresholds)
    rankings = Rankings(data.truth, found, matches, len(data.image_ids))
    shape = (len(data.classes), len(thresholds))
    ap, drawn = np.empty(shape), np.empty((*shape, len(weights)))
    for label in range(shape[0]):
        own = [rankings.of(t, label) for t in range(shape[1])]
        ap[label] = [average_precision(each) for each in own]
        drawn[label] = resampled_average_precisions(own, weights)
    return ap, drawn


def _figure(
    classes: Sequence[str], sides: Sequence[tuple[np.ndarray, np.ndarray]], confidence: float
) -> dict[str, Any]:
    """Return the entries of one figure."""
    values = [ap.mean(axis=1) for ap, _ in sides]
    drawn = [table.mean(axis=1) for _, table in sides]
    has_boxes = ~np.isnan(values[0])
    entries = {
        name: _difference([side[k] for side in values], [side[k] for side in drawn], confidence)
        for k, name in enumerate(classes)
        if has_boxes[k]
    }
    if not entries:
        raise ValueError('there is no ground-truth box that counts, so that AP is undefined')
    # A class without a box in a resample takes no part in its mean, on either side.
    counts = np.maximum((~np.isnan(drawn[0])).sum(axis=0), 1)
    means = [np.nansum(side, axis=0) / counts for side in drawn]
    mean = _difference([side[has_boxes].mean() for side in values], means, confidence)
    return {'mean': mean, 'classes': entries}


def _difference(
    values: Sequence[Any], drawn: Sequence[np.ndarray], confidence: float
) -> dict[str, Any]:
    gap = drawn[1] - drawn[0]
    low, high = percentiles(gap, confidence)
    finite = gap[np.isfinite(gap)]
    better = float((finite > 0).mean()) if len(finite) else float('nan')
    if np.isnan(low):
        verdict = 'undefined'
    elif low > 0:
        verdict = 'second is better'
    elif high < 0:
        verdict = 'first is better'
    else:
        verdict = 'noise'
    return {
        'first': plain(values[0]),
        'second': plain(values[1]),
        'difference': plain(values[1] - values[0]),
        'interval': [plain(low), plain(high)],
        'share_second_better': plain(better),
        'verdict': verdict,
    }


def image_changes(
    data: TruthSet,
    first: Detections,
    second: Detections,
    iou: float = 0.5,
    score_thresholds: tuple[float, float] | None = None,
) -> tuple[tuple[float, float], np.ndarray]:
    """Count the errors of each image, false detections and boxes not found, of two results.

    Args:
        data: images and ground truth.
        first: detections of the first result.
        second: detections of the second.
        iou: threshold of the IoU.
        score_thresholds: threshold of the score of each; None takes that with the best F1 of each.

    Returns:
        The thresholds, and the errors of each image, shape (I, 2).
    """
    errors, used = [], []
    for number, found in enumerate((first, second)):
        matches = match_detections(data.truth, found, (iou,))
        ranking = Rankings(data.truth, found, matches, len(data.image_ids)).of(0)
        if score_thresholds is None:
            curve = curve_of(ranking)
            point = int(best_f1_point(curve))
            threshold = float(curve.threshold[point]) if point >= 0 else 1.0
        else:
            threshold = score_thresholds[number]
        hits, false = image_counts(ranking, np.array([threshold]))
        errors.append(false[:, 0] + ranking.boxes - hits[:, 0])
        used.append(threshold)
    return (used[0], used[1]), np.stack(errors, axis=1)


def comparison_table(report: dict[str, Any], names: tuple[str, str]) -> str:
    """Format a comparison as text, one line per class."""
    lines = [f'first: {names[0]}', f'second: {names[1]}']
    for figure in ('AP', 'AP50', 'AP75'):
        if figure not in report:
            continue
        rows = {'mean': report[figure]['mean'], **report[figure]['classes']}
        width = max(len(figure), *(len(name) for name in rows))
        lines.append(
            f'{figure:<{width}} {"first":>7} {"second":>7} {"change":>7}  {"interval":<18} verdict'
        )
        for name, row in rows.items():
            low, high = row['interval']
            span = '-' if low is None or high is None else f'{low:+.3f} to {high:+.3f}'
            lines.append(
                f'{name:<{width}} {row["first"]:>7.3f} {row["second"]:>7.3f} '
                f'{row["difference"]:>+7.3f}  {span:<18} {row["verdict"]}'
            )
    return '\n'.join(lines)
