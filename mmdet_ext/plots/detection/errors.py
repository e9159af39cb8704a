"""Figure of the anatomy of errors: how often each kind comes, and how much AP it costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.plots.style import COLOURS, new_figure, save_figure


def draw_errors(report: Mapping[str, Any], path: Path) -> None:
    """Draw the count and the cost of each kind of error, coloured by size.

    The bars of the cost stand beside each other, as costs do not sum up: the wide pale one is of
    all sizes.

    Args:
        report: report of ``mmdet_ext.analysis.detection.errors.error_report``.
        path: the png file to write.
    """
    kinds = list(report['kinds'])
    sizes = list(report['kinds'][kinds[0]]['by_size'])
    figure = new_figure(12, 4.6)
    left, right = figure.subplots(1, 2)
    places = np.arange(len(kinds))
    below = np.zeros(len(kinds))
    width = 0.8 / len(sizes)
    costs = [report['kinds'][kind]['cost'] for kind in kinds]
    right.bar(places, costs, 0.86, color='#CCCCCC', label='all sizes')
    for number, size in enumerate(sizes):
        colour = COLOURS[number % len(COLOURS)]
        entries = [report['kinds'][kind]['by_size'][size] for kind in kinds]
        counts = np.array([entry['count'] for entry in entries])
        left.bar(places, counts, 0.8, bottom=below, color=colour, label=size)
        below += counts
        at = places + (number + 0.5) * width - 0.4
        right.bar(at, [entry['cost'] for entry in entries], 0.9 * width, color=colour, label=size)
    for place, kind in zip(places, kinds, strict=True):
        entry = report['kinds'][kind]
        left.text(place, below[place], f'{entry["count"]:,}', ha='center', va='bottom', fontsize=8)
        right.text(
            place, entry['cost'], f'{entry["cost"]:.3f}', ha='center', va='bottom', fontsize=8
        )
    left.set(title='Number of errors', ylabel='errors')
    right.set(title=f'AP that each kind costs (AP is {report["AP"]:.3f})', ylabel='gain of AP')
    for axes in (left, right):
        axes.set_xticks(places, kinds, fontsize=8)
        axes.grid(alpha=0.25, axis='y')
        axes.margins(y=0.12)
        axes.legend(frameon=False, fontsize=8)
    save_figure(figure, path)
