"""Plots of margins: decision boundaries of two classes, and scores as functions of the angle.

Figures are drawn on matplotlib's Agg canvas, without a display.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.plots.style import COLOURS, DASHED, GREY, new_figure, save_small_figure

#: Largest angle that the plots of boundaries show, degrees.
SPAN = 120
#: Angle between the two centres whose gap is measured, degrees.
APART = 60.0
_STEPS = 481

#: Function of angles to the own centre, in degrees, that returns the score of the own class.
Score = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Boundary:
    """Margin between two classes, to be drawn as a panel.

    Attributes:
        title: first line of the title of the panel.
        formula: second line of the title.
        score: score of the own class by the angle to its centre; it must fall.
    """

    title: str
    formula: str
    score: Score


@dataclass(frozen=True)
class ScoreCurve:
    """Score as a function of the angle.

    Attributes:
        label: entry in the legend.
        value: the score divided by the scale, (N,).
        slope: derivative of the score by the cosine, (N,); 1 for the cosine itself.
        dashed: whether the line is dashed.
    """

    label: str
    value: np.ndarray
    slope: np.ndarray
    dashed: bool = False


@dataclass(frozen=True)
class ScorePanel:
    """Panel with several curves.

    Attributes:
        title: title of the panel.
        xlabel: name of the angle.
        degrees: the angles, (N,).
        curves: curves of the panel; at most about seven can be distinguished.
    """

    title: str
    xlabel: str
    degrees: np.ndarray
    curves: Sequence[ScoreCurve]


def gap_between(score: Score, apart: float = APART) -> float:
    """Measure the angle between the boundaries of two classes, on the arc between their centres.

    The boundary of the first class lies at the angle t where its score with the margin equals the
    cosine to the other centre, ``score(t) = cos(apart - t)``. The boundary of the second class
    mirrors it. Without a margin both lie half way.

    Args:
        score: score of the own class by degrees, falling.
        apart: angle between the centres, degrees.

    Returns:
        float: degrees, from 0 without a margin to ``apart`` for a boundary at the centre itself. A
        margin so wide that it refuses the centre itself has ``apart`` too.

    >>> round(gap_between(lambda t: np.cos(np.radians(t + 20))), 6)
    20.0
    >>> round(gap_between(lambda t: np.cos(np.radians(4 * t))), 6)
    36.0
    """
    low, high = 0.0, apart / 2

    def ahead(degrees: float) -> float:
        return float(score(np.array([degrees]))[0]) - math.cos(math.radians(apart - degrees))

    if ahead(low) <= 0:
        return apart
    if ahead(high) >= 0:
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if ahead(middle) > 0 else (low, middle)
    return apart - 2 * low


def draw_boundaries(boundaries: Sequence[Boundary], path: Path) -> None:
    """Draw the regions of two classes, by the angles to both centres, for several margins.

    Args:
        boundaries: margins, one per panel; six fill the figure.
        path: PNG file to write.
    """
    columns = min(3, len(boundaries))
    rows = math.ceil(len(boundaries) / columns)
    figure = new_figure(3.3 * columns, 3.75 * rows + 0.6)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(boundaries) :]:
        axes.set_axis_off()
    for axes, boundary in zip(grid.flat, boundaries, strict=False):
        _draw_boundary(axes, boundary)
    for axes in grid[-1]:
        axes.set_xlabel('angle to centre 1 [degrees]')
    for axes in grid[:, 0]:
        axes.set_ylabel('angle to centre 2 [degrees]')
    figure.suptitle(
        'Where a sample of either class costs less than log 2: its score, with the margin, is '
        f'ahead.\nDotted: between two centres {APART:g}° apart',
        fontsize=10,
    )
    save_small_figure(figure, path)


def _draw_boundary(axes: Any, boundary: Boundary) -> None:
    """Draw the regions of two classes, and the gap between them."""
    degrees = np.linspace(0, SPAN, _STEPS)
    own, other = boundary.score(degrees), np.cos(np.radians(degrees))
    ahead = own[None, :] - other[:, None]  # lead of class 1, at [angle 2, angle 1]
    for number, table in ((1, ahead), (2, ahead.T)):
        colour = COLOURS[number - 1]
        axes.contourf(degrees, degrees, table, levels=[0, np.inf], colors=[colour], alpha=0.22)
        axes.contour(degrees, degrees, table, levels=[0], colors=[colour], linewidths=1.6)
    axes.plot([0, APART], [APART, 0], color=GREY, linestyle=':', linewidth=1.2)
    gap = gap_between(boundary.score)
    half = gap / 2 / math.sqrt(2)
    if gap > 1:
        ends = (APART / 2 - gap / 2, APART / 2 + gap / 2)
        axes.annotate(
            '',
            xy=(ends[0], ends[1]),
            xytext=(ends[1], ends[0]),
            arrowprops=dict(arrowstyle='<->', color='black', shrinkA=0, shrinkB=0),
        )
    axes.text(
        APART / 2 + half / 3 + 3,
        APART / 2 + half / 3 + 3,
        f'{gap:.1f}°',
        fontsize=9,
        ha='left',
        va='bottom',
        bbox=dict(facecolor='white', alpha=0.75, edgecolor='none', pad=1),
    )
    axes.text(0.06 * SPAN, 0.9 * SPAN, 'class 1', color=COLOURS[0], fontweight='bold')
    axes.text(0.94 * SPAN, 0.04 * SPAN, 'class 2', color=COLOURS[1], fontweight='bold', ha='right')
    axes.set_title(f'{boundary.title}\n', fontsize=11, fontweight='bold', pad=5)
    axes.text(0.5, 1.025, boundary.formula, transform=axes.transAxes, ha='center', fontsize=9)
    axes.set(
        aspect='equal',
        xlim=(0, SPAN),
        ylim=(0, SPAN),
        xticks=range(0, SPAN + 1, 30),
        yticks=range(0, SPAN + 1, 30),
    )
    axes.grid(alpha=0.2)


def draw_scores(panels: Sequence[ScorePanel], path: Path) -> None:
    """Draw panels side by side: scores above, and their derivatives by the cosine below.

    Args:
        panels: panels; about four are readable.
        path: PNG file to write.
    """
    figure = new_figure(3.7 * len(panels) + 0.4, 7.6)
    grid = figure.subplots(2, len(panels), squeeze=False, sharex='col')
    for column, panel in enumerate(panels):
        above, below = grid[:, column]
        for number, curve in enumerate(panel.curves):
            look = dict(
                color=COLOURS[number % len(COLOURS)],
                linewidth=1.7,
                linestyle=DASHED if curve.dashed else '-',
            )
            above.plot(panel.degrees, curve.value, label=curve.label, **look)
            below.plot(panel.degrees, curve.slope, **look)
        above.set_title(panel.title, fontsize=11)
        below.set_xlabel(panel.xlabel)
        above.set_ylim(*_limits([curve.value for curve in panel.curves], 8))
        below.set_ylim(*_limits([curve.slope for curve in panel.curves], 6))
        for axes in (above, below):
            axes.axhline(0, color=GREY, linewidth=0.6)
            axes.grid(alpha=0.25)
            axes.set(xlim=(0, 180), xticks=range(0, 181, 30))
        handles, labels = above.get_legend_handles_labels()
        below.legend(
            handles,
            labels,
            loc='upper center',
            bbox_to_anchor=(0.5, -0.17),
            fontsize=8.5,
            frameon=False,
        )
    grid[0, 0].set_ylabel('score / scale')
    grid[1, 0].set_ylabel('derivative by the cosine of the angle')
    save_small_figure(figure, path)


def _limits(rows: Sequence[np.ndarray], reach: float) -> tuple[float, float]:
    """Return the limits of an axis that holds 0 and all values between -reach and reach."""
    values = np.concatenate([*rows, [0.0]])
    low, high = max(float(values.min()), -reach), min(float(values.max()), reach)
    margin = 0.05 * (high - low)
    return low - margin, high + margin
