"""Operating points of a detector: one report of all classes and thresholds, ready for json."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from mmdet_ext.analysis.detection.bootstrap import blocks, percentiles, resampled_weights
from mmdet_ext.analysis.detection.columns import Detections, TruthSet
from mmdet_ext.analysis.detection.matching import check_iou_thresholds, match_detections
from mmdet_ext.analysis.detection.points import (
    FROC_FPPI,
    Protocol,
    Wish,
    best_f1_point,
    check_wish,
    log_average_miss_rate,
    precisions_at_recalls,
    recalls_at_fppi,
    wished_point,
)
from mmdet_ext.analysis.detection.ranking import (
    Curve,
    Ranking,
    Rankings,
    counts_at,
    curve_of,
    resampled_counts_at,
    resampled_curve,
)

MEASURES = ('precision', 'recall', 'f1', 'fppi')
#: Largest number of points of a curve in a report.
CURVE_POINTS = 200
#: Key of the entry of all classes together.
OVERALL = 'overall'


@dataclass(frozen=True)
class PointOptions:
    """Options of a report of operating points.

    Attributes:
        iou_thresholds: thresholds of the IoU, above 0 and at most 1.
        score_thresholds: scores at which precision, recall, F1 and FPPI are reported.
        wishes: pairs of 'precision', 'recall' or 'fppi' and the value that is wished.
        fppi: false detections per image at which the recall is reported (FROC).
        recalls: recalls at which the precision is reported.
        miss_rate: protocol of the log-average miss rate, 'dollar' or 'crowdhuman'.
        resamples: number of resamples of the images for intervals, 0 for none.
        confidence: share of resamples within an interval.
        seed: seed of the resamples.

    Raises:
        ValueError: if an option is out of range.
    """

    iou_thresholds: Sequence[float] = (0.5,)
    score_thresholds: Sequence[float] = (0.3, 0.5)
    wishes: Sequence[tuple[Wish, float]] = ()
    fppi: Sequence[float] = FROC_FPPI
    recalls: Sequence[float] = (0.5, 0.7, 0.8, 0.9, 0.95)
    miss_rate: Protocol = 'dollar'
    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        check_iou_thresholds(self.iou_thresholds)
        for wish, value in self.wishes:
            check_wish(wish, value)
        for name, values in (('recall', self.recalls), ('fppi', self.fppi)):
            for value in values:
                check_wish(name, value)
        if not all(math.isfinite(value) for value in self.score_thresholds):
            raise ValueError(f'score_thresholds must be finite, got {self.score_thresholds!r}')
        if self.miss_rate not in get_args(Protocol):
            raise ValueError(f'miss_rate must be one of {get_args(Protocol)}: {self.miss_rate!r}')
        if self.resamples < 0:
            raise ValueError(f'resamples must be 0 or more, got {self.resamples}')
        if not 0 < self.confidence < 1:
            raise ValueError(f'confidence must be above 0, below 1, got {self.confidence}')


def operating_points(data: TruthSet, found: Detections, options: PointOptions) -> dict[str, Any]:
    """Report the operating points of detections, per class and over all classes.

    The entry of all classes counts their detections together, so that one threshold serves all.
    Intervals are percentiles over resamples of the images. Of a threshold that is chosen, the
    interval of the threshold is that of choosing anew in each resample; those of precision,
    recall, F1 and FPPI are of the chosen threshold.

    Args:
        data: images and ground truth.
        found: detections on them.
        options: what to report.

    Returns:
        The report, with None where a figure is undefined.
    """
    images = len(data.image_ids)
    matches = match_detections(data.truth, found, options.iou_thresholds)
    rankings = Rankings(data.truth, found, matches, images)
    weights = resampled_weights(images, options.resamples, options.seed)
    labels: list[tuple[str, int | None]] = [(OVERALL, None)]
    # With one class, all classes together are that class.
    labels += list(zip(data.classes, range(len(data.classes)), strict=True))
    tables = []
    for t, iou in enumerate(options.iou_thresholds):
        entries: dict[str, Any] = {}
        for name, label in labels:
            if label is not None and len(data.classes) == 1:
                entries[name] = entries[OVERALL]
            else:
                entries[name] = _entry(rankings.of(t, label), weights, options)
        overall = entries.pop(OVERALL)
        tables.append({'iou': float(iou), OVERALL: overall, 'classes': entries})
    return {
        'images': images,
        'boxes': int((~data.truth.crowd).sum()),
        'crowds': int(data.truth.crowd.sum()),
        'detections': len(found),
        'miss_rate_protocol': options.miss_rate,
        'resamples': options.resamples,
        'confidence': options.confidence,
        'seed': options.seed,
        'iou_thresholds': tables,
    }


def _entry(ranking: Ranking, weights: np.ndarray, options: PointOptions) -> dict[str, Any]:
    """Return the figures of one class at one threshold of the IoU."""
    curve = curve_of(ranking)
    growing = curve.where_hits_grow()
    drawn = _Drawn(ranking, weights, options)
    chosen: list[tuple[str, Wish | None, float, int]] = [
        ('best F1', None, math.nan, int(best_f1_point(growing)))
    ]
    for wish, value in options.wishes:
        sign = '<=' if wish == 'fppi' else '>='
        point = int(wished_point(growing, wish, value))
        chosen.append((f'{wish} {sign} {value:g}', wish, value, point))
    reached = [float(growing.threshold[point]) for *_, point in chosen if point >= 0]
    points = _points(ranking, np.array([*options.score_thresholds, *reached]), weights, options)
    given = points[: len(options.score_thresholds)]
    rest = iter(points[len(options.score_thresholds) :])
    thresholds = []
    for number, (name, _, _, point) in enumerate(chosen):
        entry = {'wish': name, 'reached': point >= 0}
        if point >= 0:
            entry |= next(rest)
            entry['threshold_interval'] = drawn.interval(drawn.thresholds[number])
        thresholds.append(entry)
    return {
        'boxes': int(curve.boxes),
        'detections': len(ranking),
        'ignored_detections': ranking.ignored,
        'at_thresholds': given,
        'chosen': thresholds,
        'recall_at_fppi': [
            {'fppi': fppi, 'recall': plain(value), **drawn.of('recall', k)}
            for k, (fppi, value) in enumerate(
                zip(options.fppi, recalls_at_fppi(growing, options.fppi), strict=True)
            )
        ],
        'log_average_miss_rate': plain(log_average_miss_rate(growing, options.miss_rate)),
        'log_average_miss_rate_interval': drawn.interval(drawn.miss_rate),
        'precision_at_recall': [
            {'recall': recall, 'precision': plain(value), **drawn.of('precision', k)}
            for k, (recall, value) in enumerate(
                zip(options.recalls, precisions_at_recalls(growing, options.recalls), strict=True)
            )
        ],
        'curve': _thinned(curve),
    }


class _Drawn:
    """Figures of one class in the resamples, one value per resample each."""

    def __init__(self, ranking: Ranking, weights: np.ndarray, options: PointOptions) -> None:
        self._confidence = options.confidence
        size = len(weights)
        self.thresholds = np.full((1 + len(options.wishes), size), np.nan)
        self.miss_rate = np.full(size, np.nan)
        self._figures = {
            'recall': np.full((size, len(options.fppi)), np.nan),
            'precision': np.full((size, len(options.recalls)), np.nan),
        }
        for rows in blocks(size, int(ranking.hit.sum())):
            curve = resampled_curve(ranking, weights[rows])
            points = [best_f1_point(curve)]
            points += [wished_point(curve, wish, value) for wish, value in options.wishes]
            for row, point in zip(self.thresholds, points, strict=True):
                padded = np.append(curve.threshold, np.nan)  # the last is taken for -1
                row[rows] = padded[point]
            self.miss_rate[rows] = log_average_miss_rate(curve, options.miss_rate)
            self._figures['recall'][rows] = recalls_at_fppi(curve, options.fppi)
            self._figures['precision'][rows] = precisions_at_recalls(curve, options.recalls)

    def interval(self, values: np.ndarray) -> list[float | None] | None:
        """Return the interval of values; None without resamples."""
        if not len(values):
            return None
        return [plain(end) for end in percentiles(values, self._confidence)]

    def of(self, name: str, number: int) -> dict[str, Any]:
        """Return the interval of a figure under its key."""
        return {f'{name}_interval': self.interval(self._figures[name][:, number])}


def _points(
    ranking: Ranking, thresholds: np.ndarray, weights: np.ndarray, options: PointOptions
) -> list[dict[str, Any]]:
    """Return the measures at thresholds of the score, with intervals."""
    curve = counts_at(ranking, thresholds)
    values = {name: getattr(curve, name) for name in MEASURES}
    drawn: dict[str, np.ndarray] = {}
    if len(weights):
        resampled = resampled_counts_at(ranking, thresholds, weights)
        drawn = {name: getattr(resampled, name) for name in MEASURES}
    points = []
    for k, threshold in enumerate(thresholds):
        point: dict[str, Any] = {
            'threshold': float(threshold),
            'hits': int(curve.hits[k]),
            'false': int(curve.false[k]),
        }
        for name in MEASURES:
            point[name] = plain(values[name][k])
            ends = percentiles(drawn[name][:, k], options.confidence) if drawn else None
            point[f'{name}_interval'] = [plain(end) for end in ends] if ends else None
        points.append(point)
    return points


def _thinned(curve: Curve) -> dict[str, list[float | None]]:
    """Return a curve with few points, evenly over its length."""
    size = len(curve.threshold)
    rows = np.unique(np.linspace(0, size - 1, min(size, CURVE_POINTS)).astype(int))
    columns = {'threshold': curve.threshold} | {name: getattr(curve, name) for name in MEASURES}
    return {name: [plain(v) for v in column[rows]] for name, column in columns.items()}


def plain(value: Any) -> float | None:
    """Return a number for json, rounded to six digits, None for NaN."""
    number = float(value)
    return float(f'{number:.6g}') if math.isfinite(number) else None


def summary_table(report: dict[str, Any]) -> str:
    """Format a report as text: the best F1 and each wish, per class and over all classes."""
    lines = []
    for table in report['iou_thresholds']:
        lines.append(f'IoU {table["iou"]:g}, {report["images"]:,} images')
        entries = {OVERALL: table[OVERALL], **table['classes']}
        width = max(len('class'), *(len(name) for name in entries))
        lines.append(
            f'{"class":<{width}} {"boxes":>7} {"MR":>7}  {"wish":<18} {"threshold":>9} '
            f'{"precision":>9} {"recall":>7} {"F1":>7} {"FPPI":>8}'
        )
        for name, entry in entries.items():
            head = f'{name:<{width}} {entry["boxes"]:>7,} '
            head += f'{_number(entry["log_average_miss_rate"], 7)}  '
            for row in entry['chosen']:
                lines.append(head + _row(row))
                head = ' ' * len(head)
    return '\n'.join(lines)


def _row(row: dict[str, Any]) -> str:
    if not row['reached']:
        return f'{row["wish"]:<18} not reached'
    cells = [_number(row['threshold'], 9), _number(row['precision'], 9)]
    cells += [_number(row['recall'], 7), _number(row['f1'], 7), _number(row['fppi'], 8)]
    return f'{row["wish"]:<18} ' + ' '.join(cells)


def _number(value: float | None, width: int) -> str:
    return f'{"-" if value is None else f"{value:.3f}":>{width}}'
