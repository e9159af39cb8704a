"""Pictures of losses: boxes on their way to a target, and curves of value and gradient."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.plots.style import COLOURS, GREY, new_figure
from mmdet_ext.utils.files import whole_file

MORE_COLOURS = (*COLOURS, 'black', '#8C564B', '#7F7F7F')
STYLES = {'mmdet_ext': '-', 'published': (0, (4, 2)), 'mmdet': (0, (1, 1.2))}
RINGS = 12
PANEL_DPI = 100


@dataclass(frozen=True)
class SimulatedLoss:
    """What a simulation by gradient descent found for one loss.

    Attributes:
        name: SCOPE.NAME, options behind a colon.
        cases: pairs of anchor and target.
        errors: summed error of all cases before the first step and after each, (T + 1,).
        point_errors: final error, mean over the cases of each anchor point, (P,).
        good_share: share of the cases that end with a high IoU.
        seconds: of one core.
    """

    name: str
    cases: int
    errors: np.ndarray
    point_errors: np.ndarray
    good_share: float
    seconds: float


def short_name(name: str) -> str:
    """``mmdet_ext.GIoULoss:power=3`` as ``GIoU power=3``."""
    name, _, options = name.partition(':')
    return f'{name.rpartition(".")[2].removesuffix("Loss")} {options}'.strip()


def ring_edges(points: np.ndarray) -> np.ndarray:
    """Edges of RINGS rings of one width around the origin, (RINGS + 1,), holding all points."""
    return np.linspace(0, np.hypot(*points.T).max(), RINGS + 1)


def ring_errors(result: SimulatedLoss, points: np.ndarray) -> list[float | None]:
    """Mean final error of the points in each ring; None for a ring without, or without numbers.

    Args:
        result: A loss's simulation.
        points: Anchor points relative to the targets' centre, (P, 2).
    """
    ring = np.digitize(np.hypot(*points.T), ring_edges(points)[1:-1])
    means = (result.point_errors[ring == k] for k in range(RINGS))
    found = [float(errors.mean()) if len(errors) else math.nan for errors in means]
    return [value if math.isfinite(value) else None for value in found]


def draw_simulation(results: Sequence[SimulatedLoss], points: np.ndarray, path: Path) -> None:
    """Draw the error by step, by the anchor's distance, and on a map of the anchor points.

    Args:
        results: One a loss.
        points: Anchor points relative to the targets' centre, (P, 2).
        path: Where the png goes.
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
    _save_small(figure, path)


def _styles(names: Sequence[str]) -> list[dict[str, Any]]:
    """Line styles: a colour a loss, whatever package it is from, and a dash a package."""
    # GIoU of two packages is one loss; GIoU with two powers is two.
    loss = {name: short_name(name).partition(' ')[0] for name in names}
    told = Counter((name.partition('.')[0], loss[name]) for name in names)
    several = {of for (_, of), count in told.items() if count > 1}
    keys = [short_name(name) if loss[name] in several else loss[name] for name in names]
    order = list(dict.fromkeys(keys))
    return [
        {
            'color': MORE_COLOURS[order.index(key) % len(MORE_COLOURS)],
            'linestyle': STYLES.get(name.partition('.')[0], '-'),
            # Broad and narrow in turn, so that DIoU is seen beneath CIoU.
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


@dataclass(frozen=True)
class Curve:
    """A loss along a path.

    Attributes:
        label: in the legend.
        value: the loss, (N,).
        gradient: its derivative or the length of that, (N,); NaN where it has none.
        stock: the loss of the host's twin, (N,), NaN where it has no number; None without one.
    """

    label: str
    value: np.ndarray
    gradient: np.ndarray
    stock: np.ndarray | None = None


@dataclass(frozen=True)
class Panel:
    """Losses along one path, drawn together.

    Attributes:
        title: above the panel.
        xlabel: what the path goes along.
        x: place on the path, (N,).
        curves: at most about six can be told apart.
        doubling: whether ``x`` is a factor, drawn with one width a doubling.
    """

    title: str
    xlabel: str
    x: np.ndarray
    curves: Sequence[Curve]
    doubling: bool = False


def draw_panels(panels: Sequence[Panel], gradient_label: str, path: Path) -> None:
    """Draw panels side by side: the losses above, their gradients below.

    Args:
        panels: At most four are readable.
        gradient_label: What the gradients are, for the axis.
        path: Where the png goes.
    """
    from matplotlib.lines import Line2D

    figure = new_figure(3.6 * len(panels) + 0.6, 6.8)
    grid = figure.subplots(2, len(panels), squeeze=False, sharex='col')
    for column, panel in enumerate(panels):
        above, below = grid[:, column]
        values = [curve.value for curve in panel.curves]
        gradients = [curve.gradient for curve in panel.curves]
        for index, curve in enumerate(panel.curves):
            _draw_twin(above, panel.x, curve, COLOURS[index % len(COLOURS)])
        for axes, rows in ((above, values), (below, gradients)):
            _draw_lines(axes, panel.x, rows)
            axes.set_ylim(*_readable_range(rows))
            axes.grid(alpha=0.25)
            if panel.doubling:
                axes.set_xscale('log', base=2)
                axes.xaxis.set_major_formatter(lambda x, _: f'{x:g}' if x >= 1 else f'1/{1 / x:g}')
        above.set_title(panel.title, fontsize=11)
        below.set_xlabel(panel.xlabel)
        handles = [
            Line2D([], [], color=COLOURS[index % len(COLOURS)], label=curve.label)
            for index, curve in enumerate(panel.curves)
        ]
        below.legend(
            handles=handles,
            loc='upper center',
            bbox_to_anchor=(0.5, -0.2),
            fontsize=9,
            frameon=False,
        )
    grid[0, 0].set_ylabel('loss')
    grid[1, 0].set_ylabel(gradient_label)
    _explain_twins(figure, [curve for panel in panels for curve in panel.curves])
    _save_small(figure, path)


def _save_small(figure: Any, path: Path) -> None:
    """Write a figure of few colours as a PNG with a palette, a third of the size."""
    from PIL import Image

    figure.set_dpi(PANEL_DPI)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    picture = Image.fromarray(np.ascontiguousarray(pixels)).quantize(256, dither=Image.Dither.NONE)
    with whole_file(path) as part:
        picture.save(part, format='png', optimize=True)


def _draw_lines(axes: Any, x: np.ndarray, rows: Sequence[np.ndarray]) -> None:
    """Lines in their colours; such as coincide take turns, so that each is seen."""
    together: list[list[int]] = []
    for index, row in enumerate(rows):
        for group in together:
            if np.allclose(rows[group[0]], row, rtol=0.01, atol=0.005, equal_nan=True):
                group.append(index)
                break
        else:
            together.append([index])
    for group in together:
        for turn, index in enumerate(group):
            rest = 4 * (len(group) - 1)
            dashes = (rest + 4 - 4 * turn, (4, rest)) if rest else '-'
            there = np.isfinite(rows[index])
            axes.plot(
                x[there],
                rows[index][there],
                color=COLOURS[index % len(COLOURS)],
                linewidth=1.6,
                linestyle=dashes,
                dash_capstyle='butt',
            )


def _draw_twin(axes: Any, x: np.ndarray, curve: Curve, colour: str) -> None:
    """Stock's loss, broad and pale beneath ours, and a cross where it is no number."""
    if curve.stock is None:
        return
    axes.plot(x, curve.stock, color=colour, linewidth=5, alpha=0.3, solid_capstyle='butt')
    missing = ~np.isfinite(curve.stock)
    axes.plot(x[missing], curve.value[missing], 'x', color=colour, markersize=8, zorder=3)


def _explain_twins(figure: Any, curves: Sequence[Curve]) -> None:
    twins = [curve.stock for curve in curves if curve.stock is not None]
    if not twins:
        return
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=GREY, lw=5, alpha=0.3, label="broad and pale: stock's loss")]
    if not all(np.isfinite(twin).all() for twin in twins):
        label = "cross: stock's is no number"
        handles.append(Line2D([], [], color=GREY, ls='', marker='x', ms=8, label=label))
    figure.legend(handles=handles, loc='outside upper right', ncols=2, frameon=False, fontsize=9)


def _readable_range(rows: Sequence[np.ndarray]) -> tuple[float, float]:
    """Limits of an axis that holds most curves whole, and cuts one far above or below the rest."""
    reach = 3 * float(np.median([np.nanmax(np.abs(row)) for row in rows]))
    low = max(-reach, min(0.0, *(float(np.nanmin(row)) for row in rows)))
    high = min(reach, max(float(np.nanmax(row)) for row in rows))
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin
