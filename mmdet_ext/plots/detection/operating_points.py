"""Figure of operating points: precision-recall, F1 by threshold, and FROC, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.plots.style import COLOURS, GREY, new_figure, save_figure

OVERALL = 'overall'


def draw_operating_points(report: Mapping[str, Any], path: Path, most_classes: int = 6) -> None:
    """Draw the operating points of a report, one row of panels per threshold of the IoU.

    The black line is of all classes together, coloured lines are of the classes with most boxes.
    Bars are intervals over resamples of the images, a dot marks the best F1, diamonds the wishes.

    Args:
        report: report of ``mmdet_ext.analysis.detection.operating_points.operating_points``.
        path: the png file to write.
        most_classes: largest number of classes that are drawn.
    """
    tables = report['iou_thresholds']
    figure = new_figure(15, 4.4 * len(tables) + 0.8)
    rows = figure.subplots(len(tables), 3, squeeze=False)
    for (left, middle, right), table in zip(rows, tables, strict=True):
        classes = sorted(table['classes'].items(), key=lambda item: -item[1]['boxes'])
        shown = classes[:most_classes] if len(classes) > 1 else []
        for number, (name, entry) in enumerate(shown):
            _draw_entry((left, middle, right), entry, COLOURS[number % len(COLOURS)], name, 1.2)
        _draw_entry((left, middle, right), table[OVERALL], 'black', 'all classes', 2.2)
        _draw_intervals((left, middle, right), table[OVERALL])
        more = '' if len(shown) in (0, len(classes)) else f' ({len(shown)} of {len(classes)})'
        left.set(xlabel='recall', ylabel='precision', xlim=(0, 1.02), ylim=(0, 1.05))
        left.set_title(f'Precision-recall at IoU {table["iou"]:g}{more}')
        middle.set(xlabel='threshold of the score', ylabel='F1', ylim=(0, 1.05))
        middle.set_title('F1 by threshold')
        right.set(xlabel='false detections per image', ylabel='recall', ylim=(0, 1.05))
        right.set_xscale('log')
        rate = table[OVERALL]['log_average_miss_rate']
        right.set_title('FROC' + ('' if rate is None else f', log-average miss rate {rate:.3f}'))
        for axes in (left, middle, right):
            axes.grid(alpha=0.25)
        left.legend(loc='lower left', fontsize=8, frameon=False)
    save_figure(figure, path)


def _draw_entry(
    panels: tuple[Any, Any, Any], entry: Mapping[str, Any], colour: str, name: str, width: float
) -> None:
    """Draw the curves of one class, with its best F1 and its wishes."""
    left, middle, right = panels
    curve = {key: _array(values) for key, values in entry['curve'].items()}
    style: dict[str, Any] = dict(color=colour, linewidth=width)
    left.plot(curve['recall'], curve['precision'], label=f'{name} ({entry["boxes"]:,})', **style)
    middle.plot(curve['threshold'], curve['f1'], **style)
    right.plot(curve['fppi'], curve['recall'], drawstyle='steps-post', **style)
    for number, point in enumerate(entry['chosen']):
        if not point['reached']:
            continue
        mark: dict[str, Any] = dict(marker='D' if number else 'o', color=colour, markersize=6)
        left.plot([point['recall']], [point['precision']], **mark)
        middle.plot([point['threshold']], [point['f1']], **mark)
        right.plot([point['fppi']], [point['recall']], **mark)
        if width > 2:
            label = f'{point["wish"]}: score {point["threshold"]:.3f}'
            middle.axvline(point['threshold'], color=GREY, linewidth=0.8, linestyle=':')
            side = 'right' if point['threshold'] > 0.55 else 'left'
            place: dict[str, Any] = dict(ha=side, fontsize=7, color=GREY)
            middle.text(point['threshold'], 0.02 + 0.05 * number, f' {label} ', **place)


def _draw_intervals(panels: tuple[Any, Any, Any], entry: Mapping[str, Any]) -> None:
    """Draw the intervals: of the precision at recalls, of chosen points, of the recall at FPPI."""
    left, middle, right = panels
    spans = [
        (left, 'recall', 'precision', entry['precision_at_recall']),
        (right, 'fppi', 'recall', entry['recall_at_fppi']),
        (middle, 'threshold', 'f1', [each for each in entry['chosen'] if each['reached']]),
    ]
    for axes, across, up, rows in spans:
        for row in rows:
            ends = row.get(f'{up}_interval')
            if row[up] is not None and ends and None not in ends:
                axes.plot([row[across]] * 2, ends, color=GREY, linewidth=3, alpha=0.45)


def _array(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], float)
