"""Figures of comparisons: of configs, of runtimes, and of classifiers over many identities."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet_ext.analysis.comparison import COCO_METRICS, RunResult, noise_of, results_of
from mmdet_ext.plots.style import COLOURS, GREY, new_figure, save_figure


def draw_comparison(
    names: Sequence[str],
    results: Sequence[RunResult],
    path: Path,
    metric: str = COCO_METRICS[0],
) -> None:
    """Draw loss and validation by iteration, and the metric of the test.

    A band around the reference covers the gaps that are noise, where configs have several seeds.

    Args:
        names: Names of the configs, one colour each; the first is the reference, grey and dashed.
        results: At least one result per config, one line each.
        path: The png file to write.
        metric: Metric of the test.
    """
    title = metric.removeprefix('bbox_')
    noise = noise_of(results, metric)
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
            middle = statistics.mean(scores)
            axes[2].axvline(middle, color=GREY, linestyle='--', linewidth=1)
            if noise is not None:
                axes[2].axvspan(middle - noise.gap, middle + noise.gap, color=GREY, alpha=0.15)
    axes[0].set(title='training loss', xlabel='iteration', ylim=(0, None))
    # Validation shows the first metric of the evaluator, not the one by which the test is ranked.
    shown = next((run.val_metric for run in results if run.val_metric), '')
    shown = f'validation {shown.removeprefix("bbox_")}'.rstrip()
    axes[1].set(title=f'{shown}, one line per seed', xlabel='iteration', ylim=(0, None))
    axes[2].set(title=f'test {title}\n(a dot per seed, a bar for their mean)')
    axes[2].set_yticks(range(len(names)), names)
    axes[2].invert_yaxis()
    for index, label in enumerate(axes[2].get_yticklabels()):
        label.set_color(COLOURS[(index - 1) % len(COLOURS)] if index else GREY)
        label.set_fontsize(8)
    for axis in axes:
        axis.grid(alpha=0.3)
    save_figure(figure, path)


def draw_latency(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the latency and the peak memory of contenders, one bar per number of threads.

    Args:
        rows: with ``name``, ``threads``, ``median_ms``, ``iqr_ms`` and ``peak_mib``.
        path: The png file to write.
    """
    names = list(dict.fromkeys(row['name'] for row in rows))
    threads = sorted({row['threads'] for row in rows})
    figure = new_figure(12, max(3.0, 0.45 * len(names) + 1))
    axes = figure.subplots(1, 2, sharey=True)
    height = 0.8 / len(threads)
    for place, count in enumerate(threads):
        own = [row for row in rows if row['threads'] == count]
        at = [names.index(row['name']) + (place + 0.5) * height - 0.4 for row in own]
        style: dict[str, Any] = dict(height=height, color=COLOURS[place % len(COLOURS)])
        label = f'{count} thread{"s" if count > 1 else ""}'
        times = [row['median_ms'] for row in own]
        bars = axes[0].barh(
            at, times, xerr=[row['iqr_ms'] / 2 for row in own], label=label, **style
        )
        axes[0].bar_label(bars, [f' {each:.1f}' for each in times], fontsize=8)
        axes[1].barh(at, [row['peak_mib'] for row in own], **style)
    axes[0].set(title='median latency of an image', xlabel='ms')
    axes[1].set(title='peak memory of the process', xlabel='MiB')
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    axes[0].legend(fontsize=8)
    for axis in axes:
        axis.grid(alpha=0.3, axis='x')
    save_figure(figure, path)


def draw_scale(points: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw CPU time and memory of a step over the number of identities, both axes logarithmic.

    Args:
        points: with ``name``, ``rate``, ``identities``, ``cpu_ms`` and ``peak_mib``; a name has one
            colour, a rate one line style.
        path: The png file to write.

    Raises:
        ValueError: without points.
    """
    if not points:
        raise ValueError('there are no points to draw')
    names = list(dict.fromkeys(point['name'] for point in points))
    rates = list(dict.fromkeys(point['rate'] for point in points))
    figure = new_figure(12, 4.5)
    axes = figure.subplots(1, 2)
    for name, rate in dict.fromkeys((point['name'], point['rate']) for point in points):
        own = [point for point in points if (point['name'], point['rate']) == (name, rate)]
        style: dict[str, Any] = dict(
            color=COLOURS[names.index(name) % len(COLOURS)],
            linestyle=('-', '--', '-.', ':')[rates.index(rate) % 4],
            marker='o',
            markersize=4,
        )
        for axis, key in zip(axes, ('cpu_ms', 'peak_mib'), strict=True):
            label = f'{name}, rate {rate:g}'
            axis.plot([p['identities'] for p in own], [p[key] for p in own], label=label, **style)
    axes[0].set(title='CPU time of a step, median', ylabel='ms')
    axes[1].set(title='memory beyond centres, gradients and optimizer state', ylabel='MiB')
    for axis in axes:
        axis.set(xscale='log', yscale='log', xlabel='identities')
        axis.grid(alpha=0.3, which='both')
    axes[0].legend(fontsize=8)
    save_figure(figure, path)
