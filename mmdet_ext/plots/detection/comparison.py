"""Figure of the difference of two results, per class, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdet_ext.plots.style import COLOURS, GREY, new_figure, save_figure

#: Verdict -> colour of the interval.
SHADES = {'second is better': COLOURS[2], 'first is better': COLOURS[1]}
MOST_CLASSES = 40


def draw_differences(report: Mapping[str, Any], names: tuple[str, str], path: Path) -> None:
    """Draw the difference of AP of each class with its interval; one that holds 0 is grey.

    Args:
        report: report of ``mmdet_ext.analysis.detection.comparison.compare_results``.
        names: names of the first and the second result.
        path: the png file to write.
    """
    count = min(len(report['AP']['classes']), MOST_CLASSES)
    figure = new_figure(5 * len(report), 1.9 + 0.28 * (count + 1))
    panels = figure.subplots(1, len(report), sharey=True, squeeze=False)[0]
    for axes, (figure_name, table) in zip(panels, report.items(), strict=True):
        rows = dict(list(table['classes'].items())[:MOST_CLASSES])
        rows = {f'mean of {len(table["classes"])}': table['mean'], **rows}
        for place, row in enumerate(rows.values()):
            colour = SHADES.get(row['verdict'], GREY)
            low, high = row['interval']
            if low is not None and high is not None:
                axes.plot([low, high], [place] * 2, color=colour, linewidth=3, alpha=0.6)
            axes.plot([row['difference']], [place], 'o', color=colour)
        axes.axvline(0, color='black', linewidth=0.8)
        axes.set(title=f'{figure_name}: difference', xlabel=f'{names[1]} minus {names[0]}')
        axes.set_yticks(range(len(rows)), list(rows))
        axes.grid(alpha=0.25, axis='x')
    panels[0].invert_yaxis()
    save_figure(figure, path)
