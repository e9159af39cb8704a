"""Figure of the simulation of box regression: errors by step, by distance and by anchor point."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.analysis.box_simulation import SimulatedLoss, ring_edges, ring_errors
from mmdet_ext.plots.style import COLOURS, GREY, new_figure, save_small_figure

MORE_COLOURS = (*COLOURS, 'black', '#8C564B', '#7F7F7F')
#: Line style per scope of a loss.
STYLES = {'mmdet_ext': '-', 'published': (0, (4, 2)), 'mmdet': (0, (1, 1.2))}


def short_name(name: str) -> str:
    """Shorten the name of a loss for a legend.

    >>> short_name('mmdet_ext.GIoULoss:power=3')
    'GIoU power=3'
    """
    name, _, options = name.partition(':')
    return f'{name.rpartition(".")[2].removesuffix("Loss")} {options}'.strip()


def draw_simulation(results: Sequence[SimulatedLoss], points: np.ndarray, path: Path) -> None:
    """Draw the error by step, by the distance of the anchor, and on a map of the anchor points.

    Args:
        results: One result per loss.
        points: Anchor points relative to the targets' centre, shape (P, 2).
        path: The png file to write.
    """
    columns = min(7, max(4, math.ceil(len(results) / 2)))
    rows = math.ceil(len(results) / columns)
    figure = new_figure(12, 5.2 + 12 / columns * rows)
    curves, maps = figure.subfigures(2, 1, height_ratios=[5.2, 12 / columns * rows])
    left, right = curves.subplots(1, 2)
    styles = _styles([result.name for result in results])
    middles = (ring_edges(points)[1:] + ring_edges(points)[:-1]) / 2
    for result, style in zip(results, styles, strict=True):
        left.plot(result.errors / result.cases, **style)
        rings = [math.nan if v is None else v for v in ring_errors(result, points)]
        right.plot(middles, rings, **{**style, 'marker': '.'})
    left.set(xlabel='step', ylabel='mean error of a case', title='Error by step', ylim=(0, None))
    right.set(xlabel="distance of the anchor's centre", yscale='log')
    right.set(title='Error after the last step, by distance')
    for axes in (left, right):
        axes.set_xlim(0, None)
        axes.grid(alpha=0.25)
    handles, labels = left.get_legend_handles_labels()
    curves.legend(handles, labels, loc='outside lower center', ncols=5, frameon=False)
    _draw_maps(maps, maps.subplots(rows, columns, squeeze=False), results, points)
    save_small_figure(figure, path)


def _styles(names: Sequence[str]) -> list[dict[str, Any]]:
    """Return line styles: one colour per loss, shared by its packages, and one dash per package."""
    # GIoU of two packages counts as one loss; GIoU with two powers counts as two.
    loss = {name: short_name(name).partition(' ')[0] for name in names}
    variants = Counter((name.partition('.')[0], loss[name]) for name in names)
    several = {of for (_, of), count in variants.items() if count > 1}
    keys = [short_name(name) if loss[name] in several else loss[name] for name in names]
    order = list(dict.fromkeys(keys))
    return [
        {
            'color': MORE_COLOURS[order.index(key) % len(MORE_COLOURS)],
            'linestyle': STYLES.get(name.partition('.')[0], '-'),
            # Wide and narrow lines alternate, so that DIoU is visible beneath CIoU.
            'linewidth': 1.4 if order.index(key) % 2 else 2.8,
            'label': _label(name),
        }
        for name, key in zip(names, keys, strict=True)
    ]


def _label(name: str) -> str:
    scope = name.partition('.')[0]
    return short_name(name) if scope == 'mmdet_ext' else f'{short_name(name)} ({scope})'


def _draw_maps(
    figure: Any, grid: np.ndarray, results: Sequence[SimulatedLoss], points: np.ndarray
) -> None:
    """Draw one map of the anchor points per loss, coloured by the final error."""
    from matplotlib.colors import LogNorm

    everything = np.concatenate([result.point_errors for result in results])
    everything = everything[np.isfinite(everything) & (everything > 0)]
    low, high = np.percentile(everything, [1, 99]) if len(everything) else (1e-3, 1)
    norm = LogNorm(low, max(high, 1.01 * low))
    for axes in grid.flat[len(results) :]:
        axes.set_axis_off()
    size = min(20.0, 14000 / len(points))
    for axes, result in zip(grid.flat, results, strict=False):
        marks = axes.scatter(
            *points.T,
            c=result.point_errors,
            s=size,
            marker='s',
            linewidths=0,
            norm=norm,
            cmap='viridis',
        )
        axes.set_title(_label(result.name), fontsize=9)
        axes.set(aspect='equal', xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_color(GREY)
    figure.suptitle("Error after the last step, by the anchor's centre", fontsize=11)
    figure.colorbar(marks, ax=grid, location='right', shrink=0.9, pad=0.01)
