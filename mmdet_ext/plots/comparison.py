"""Figure of a comparison of configs: training loss, validation and test metric."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet_ext.analysis.comparison import COCO_METRICS, RunResult, results_of
from mmdet_ext.plots.style import COLOURS, GREY, new_figure, save_figure


def draw_comparison(
    names: Sequence[str],
    results: Sequence[RunResult],
    path: Path,
    metric: str = COCO_METRICS[0],
) -> None:
    """Draw loss and validation by iteration, and the metric of the test.

    Args:
        names: Names of the configs, one colour each; the first is the reference, grey and dashed.
        results: At least one result per config, one line each.
        path: The png file to write.
        metric: Metric of the test.
    """
    title = metric.removeprefix('bbox_')
    figure = new_figure(16, max(4.5, 0.3 * len(names)))
    axes = figure.subplots(1, 3)
    for index, name in enumerate(names):
        colour = COLOURS[(index - 1) % len(COLOURS)] if index else GREY
        runs = results_of(results, name)
        for run in runs:
            style: dict[str, Any] = dict(
                color=colour, linestyle='--' if index == 0 else '-', alpha=0.8
            )
            axes[0].plot(run.iterations, run.loss, **style)
            if run.val:
                axes[1].plot(*zip(*run.val, strict=True), marker='.', **style)
        scores = [run.metrics[metric] for run in runs]
        axes[2].plot(scores, [index] * len(runs), 'o', color=colour, alpha=0.5)
        axes[2].plot(statistics.mean(scores), index, '|', color=colour, markersize=16)
        if index == 0:
            axes[2].axvline(statistics.mean(scores), color=GREY, linestyle='--', linewidth=1)
    axes[0].set(title='training loss', xlabel='iteration', ylim=(0, None))
    axes[1].set(title=f'validation {title}, one line per seed', xlabel='iteration', ylim=(0, None))
    axes[2].set(title=f'test {title}, one dot per seed, the bar is their mean')
    axes[2].set_yticks(range(len(names)), names)
    axes[2].invert_yaxis()
    for index, label in enumerate(axes[2].get_yticklabels()):
        label.set_color(COLOURS[(index - 1) % len(COLOURS)] if index else GREY)
        label.set_fontsize(8)
    for axis in axes:
        axis.grid(alpha=0.3)
    save_figure(figure, path)
