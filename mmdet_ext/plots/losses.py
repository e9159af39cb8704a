"""Figures of losses: curves of values and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.plots.style import COLOURS, GREY, new_figure, save_small_figure


@dataclass(frozen=True)
class Curve:
    """Curve of one loss along a path of N inputs.

    Attributes:
        label: Text in the legend.
        value: The loss, shape (N,).
        gradient: The derivative or its length, shape (N,); NaN where it does not exist.
        stock: mmdet's loss, shape (N,), NaN where it is no number; None if mmdet lacks the loss.
    """

    label: str
    value: np.ndarray
    gradient: np.ndarray
    stock: np.ndarray | None = None


@dataclass(frozen=True)
class Panel:
    """Losses along one path, drawn together.

    Attributes:
        title: Text above the panel.
        xlabel: Quantity along the path.
        x: Place on the path, shape (N,).
        curves: The losses; about six can be distinguished.
        doubling: Whether ``x`` is a factor, drawn on a logarithmic axis to base 2.
    """

    title: str
    xlabel: str
    x: np.ndarray
    curves: Sequence[Curve]
    doubling: bool = False


def draw_panels(panels: Sequence[Panel], gradient_label: str, path: Path) -> None:
    """Draw panels side by side: the losses above, their gradients below.

    Args:
        panels: The panels; about four are readable.
        gradient_label: Name of the gradients, for the axis.
        path: The png file to write.
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
    save_small_figure(figure, path)


def _draw_lines(axes: Any, x: np.ndarray, rows: Sequence[np.ndarray]) -> None:
    """Draw each row as a line; lines that coincide alternate in dashes, so that each is visible."""
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
    """Draw mmdet's loss as a wide pale line beneath ours, with a cross where it is no number."""
    if curve.stock is None:
        return
    axes.plot(x, curve.stock, color=colour, linewidth=5, alpha=0.3, solid_capstyle='butt')
    missing = ~np.isfinite(curve.stock)
    axes.plot(x[missing], curve.value[missing], 'x', color=colour, markersize=8, zorder=3)


def _explain_twins(figure: Any, curves: Sequence[Curve]) -> None:
    """Add a legend of mmdet's lines and crosses, if there are any."""
    twins = [curve.stock for curve in curves if curve.stock is not None]
    if not twins:
        return
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=GREY, lw=5, alpha=0.3, label="broad and pale: mmdet's loss")]
    if not all(np.isfinite(twin).all() for twin in twins):
        label = "cross: mmdet's is no number"
        handles.append(Line2D([], [], color=GREY, ls='', marker='x', ms=8, label=label))
    figure.legend(handles=handles, loc='outside upper right', ncols=2, frameon=False, fontsize=9)


def _readable_range(rows: Sequence[np.ndarray]) -> tuple[float, float]:
    """Choose limits of an axis that show most curves whole and cut outliers.

    The reach in both directions is three times the median of the largest absolute values.
    """
    reach = 3 * float(np.median([np.nanmax(np.abs(row)) for row in rows]))
    low = max(-reach, min(0.0, *(float(np.nanmin(row)) for row in rows)))
    high = min(reach, max(float(np.nanmax(row)) for row in rows))
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin
