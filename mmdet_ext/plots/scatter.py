"""Plots of embeddings in the plane: a scatter of one run, and several runs side by side.

Figures are drawn on matplotlib's Agg canvas, without a display.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.plots.raster import pixels
from mmdet_ext.plots.style import COLOURS, GREY, new_figure, save_small_figure

UNSEEN_COLOURS = ('black', '#8C564B', '#5F5F5F')
UNSEEN_MARKERS = ('x', '+', '1')
SEEN_MARKERS = ('o', '^', 's', 'D')
#: Width of a bin of the histogram of directions, degrees.
BIN = 3
LEGEND_ROWS = 20


@dataclass(frozen=True)
class Scatter:
    """Points in the plane, with their classes.

    Attributes:
        points: (N, 2).
        labels: class of each point, as an index into ``names``, (N,).
        names: names of the classes.
        unseen: classes that were not in training, drawn as crosses.
        centers: class -> directions of its centres, (S, 2), drawn as rays from 0. Classes may be
            absent.
    """

    points: np.ndarray
    labels: np.ndarray
    names: Sequence[str]
    unseen: Collection[int] = ()
    centers: Mapping[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] != 2:
            raise ValueError(f'points must be (N, 2), got {self.points.shape}')
        if self.labels.shape != self.points.shape[:1]:
            raise ValueError(
                f'labels must be one per point, ({len(self.points)},), got {self.labels.shape}'
            )
        if len(self.labels) and not (
            0 <= self.labels.min() and self.labels.max() < len(self.names)
        ):
            raise ValueError(
                f'labels must be from 0 to {len(self.names) - 1}, as there are names, got '
                f'{self.labels.min()} to {self.labels.max()}'
            )

    def present(self) -> list[int]:
        """List the classes that have points: those of training, then the unseen ones."""
        there = np.unique(self.labels).tolist()
        return sorted(there, key=lambda place: (place in self.unseen, place))


def styles(scatter: Scatter) -> dict[int, tuple[str, str]]:
    """Return colour and marker of each class.

    They depend on the place of the class among all names, so that they do not change with the
    points. They repeat after 28 classes of training and after 3 unseen classes.
    """
    found: dict[int, tuple[str, str]] = {}
    seen = unseen = 0
    for place in range(len(scatter.names)):
        if place in scatter.unseen:
            turn = unseen % len(UNSEEN_COLOURS)
            found[place] = UNSEEN_COLOURS[turn], UNSEEN_MARKERS[turn]
            unseen += 1
        else:
            turn = seen // len(COLOURS) % len(SEEN_MARKERS)
            found[place] = COLOURS[seen % len(COLOURS)], SEEN_MARKERS[turn]
            seen += 1
    return found


def plot_scatter(
    axes: Any, scatter: Scatter, *, around_zero: bool, size: float = 14, room: float = 0.06
) -> None:
    """Draw points, and the rays of centres, into matplotlib axes of equal units.

    Args:
        axes: axes to draw into.
        scatter: points to draw.
        around_zero: whether 0 is in the middle, for plots in which directions count. Rays need it.
        size: area of a point, in square points of print.
        room: margin around the points, as a share of their reach.
    """
    look = styles(scatter)
    points = scatter.points
    middle = np.zeros(2) if around_zero or not len(points) else (points.max(0) + points.min(0)) / 2
    reach = (1 + room) * float(np.abs(points - middle).max(initial=0)) or 1.0
    if around_zero:
        axes.axhline(0, color=GREY, linewidth=0.5, alpha=0.4, zorder=0)
        axes.axvline(0, color=GREY, linewidth=0.5, alpha=0.4, zorder=0)
    for place, directions in scatter.centers.items():
        for ray in _unit(directions) * reach * 1.5:
            axes.plot([0, ray[0]], [0, ray[1]], color=look[place][0], linewidth=1, zorder=1)
    for place in scatter.present():
        colour, marker = look[place]
        own = points[scatter.labels == place]
        if marker in UNSEEN_MARKERS:
            axes.scatter(
                *own.T, s=1.8 * size, c=colour, marker=marker, linewidths=0.9, alpha=0.8, zorder=2
            )
        else:
            axes.scatter(
                *own.T, s=size, c=colour, marker=marker, linewidths=0, alpha=0.75, zorder=3
            )
    axes.set(
        aspect='equal',
        xlim=(middle[0] - reach, middle[0] + reach),
        ylim=(middle[1] - reach, middle[1] + reach),
    )


def draw_scatter(scatter: Scatter, title: str, *, around_zero: bool = True) -> np.ndarray:
    """Draw a scatter with a legend of the classes.

    Args:
        scatter: points to draw. The legend names at most twenty classes.
        title: text above the plot.
        around_zero: as in `plot_scatter`.

    Returns:
        np.ndarray: RGB image, uint8. Its size does not depend on the points.
    """
    from matplotlib.lines import Line2D

    figure = new_figure(6.4, 5.2)
    axes = figure.add_subplot()
    plot_scatter(axes, scatter, around_zero=around_zero)
    axes.set_title(title, fontsize=11)
    axes.tick_params(labelsize=8)
    there = scatter.present()
    handles = _handles(scatter, there[:LEGEND_ROWS], 5)
    if len(there) > LEGEND_ROWS:
        handles.append(Line2D([], [], linestyle='', label=f'and {len(there) - LEGEND_ROWS} more'))
    figure.legend(handles=handles, loc='outside right upper', frameon=False, fontsize=8)
    return pixels(figure)


@dataclass(frozen=True)
class Run:
    """One of several runs that are compared.

    Attributes:
        name: title of its panel.
        notes: lines with its figures, below the title.
        scatter: its embeddings of 2 numbers.
    """

    name: str
    notes: Sequence[str]
    scatter: Scatter


def draw_comparison(runs: Sequence[Run], title: str, footer: str, path: Path) -> None:
    """Draw runs side by side: embeddings above, and a histogram of their directions below.

    Args:
        runs: one per column, of the same classes; about four are readable.
        title: text above all panels.
        footer: text below all panels.
        path: PNG file to write.
    """
    handles = _handles(runs[0].scatter, runs[0].scatter.present(), 6)
    columns = min(len(handles), 3 * len(runs))
    title, footer = _wrapped(title, 40 * len(runs)), _wrapped(footer, 56 * len(runs))
    lines = footer.count('\n') + title.count('\n') + -(-len(handles) // columns)
    figure = new_figure(3.7 * len(runs) + 0.2, 7.2 + 0.2 * lines)
    grid = figure.subplots(2, len(runs), squeeze=False, height_ratios=[2.6, 1])
    for column, run in enumerate(runs):
        above, below = grid[:, column]
        plot_scatter(above, run.scatter, around_zero=True, room=0.18)
        _name_classes(above, run.scatter)
        above.set_title(run.name, fontsize=12, fontweight='bold', pad=8 + 13 * len(run.notes))
        above.text(
            0.5,
            1.015,
            '\n'.join(run.notes),
            transform=above.transAxes,
            ha='center',
            va='bottom',
            fontsize=9,
            linespacing=1.3,
        )
        above.tick_params(labelsize=8)
        above.set_xlabel('first number of the embedding', fontsize=9)
        plot_directions(below, run.scatter)
    top = max(axes.get_ylim()[1] for axes in grid[1])
    for axes in grid[1]:
        axes.set_ylim(0, top)
    grid[1, 0].set_ylabel(f'share of a class\nin {BIN}°', fontsize=9)
    grid[0, 0].set_ylabel('second number of the embedding', fontsize=9)
    figure.legend(
        handles=handles,
        loc='outside lower center',
        ncols=columns,
        frameon=False,
        fontsize=10,
        title=footer,
        title_fontsize=9,
    )
    # The empty line separates the title from the names of the runs.
    figure.suptitle(f'{title}\n', fontsize=13, linespacing=1)
    save_small_figure(figure, path)


def plot_directions(axes: Any, scatter: Scatter) -> None:
    """Draw the share of each class in each direction, in bins of `BIN` degrees."""
    look = styles(scatter)
    for place in scatter.present():
        share = direction_shares(scatter.points[scatter.labels == place])
        colour = look[place][0]
        edges = np.arange(-180, 181, BIN)
        if place in scatter.unseen:
            axes.stairs(share, edges, color=colour, linewidth=0.9, zorder=3)
        else:
            axes.stairs(share, edges, color=colour, fill=True, alpha=0.65, zorder=2)
    axes.set(xlim=(-180, 180), xticks=[-180, -90, 0, 90, 180])
    axes.set_xlabel('direction of the embedding [degrees]', fontsize=9)
    axes.yaxis.set_major_formatter(lambda share, _: f'{100 * share:.0f} %')
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)


def direction_shares(points: np.ndarray) -> np.ndarray:
    """Compute the share of points in each of the 360 / `BIN` bins of direction from -180 degrees.

    >>> shares = direction_shares(np.array([[1., 0.01], [0, 2], [0, 5], [-0.1, 5]]))
    >>> [(int(k) * BIN - 180, float(shares[k])) for k in shares.nonzero()[0]]
    [(0, 0.25), (90, 0.75)]
    """
    degrees = np.degrees(np.arctan2(points[:, 1], points[:, 0]))
    counts = np.histogram(degrees, np.arange(-180, 181, BIN))[0]
    return counts / max(len(points), 1)


def angles_to_class(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute the angle from the direction of each point to the mean direction of its class.

    Args:
        points: (N, D).
        labels: (N,).

    Returns:
        np.ndarray: degrees from 0 to 180, (N,).

    >>> angles_to_class(np.array([[2., 0], [0, 3], [0, -1]]), np.array([0, 0, 1])).round(3).tolist()
    [45.0, 45.0, 0.0]
    """
    units, angles = _unit(points), np.zeros(len(points))
    for label in np.unique(labels):
        own = labels == label
        middle = _unit(units[own].mean(0, keepdims=True))[0]
        angles[own] = np.degrees(np.arccos(np.clip(units[own] @ middle, -1, 1)))
    return angles


def _handles(scatter: Scatter, places: Sequence[int], size: float) -> list[Any]:
    """Build the entries of a legend, one per class."""
    from matplotlib.lines import Line2D

    look = styles(scatter)
    return [
        Line2D(
            [],
            [],
            color=look[place][0],
            marker=look[place][1],
            linestyle='',
            markersize=size,
            label=_short(scatter.names[place]) + ' (unseen)' * (place in scatter.unseen),
        )
        for place in places
    ]


def _name_classes(axes: Any, scatter: Scatter) -> None:
    """Write the name of each class of training at the far end of its points."""
    from matplotlib.patheffects import withStroke

    look, reach = styles(scatter), axes.get_xlim()[1]
    for place in scatter.present():
        if place not in scatter.unseen:
            own = scatter.points[scatter.labels == place]
            direction = _unit(_unit(own).mean(0, keepdims=True))[0]
            far = float(np.percentile(own @ direction, 98)) + 0.1 * reach
            spot = np.clip(direction * far, -0.94 * reach, 0.94 * reach)
            axes.text(
                *spot,
                scatter.names[place],
                color=look[place][0],
                ha='center',
                va='center',
                fontsize=13,
                fontweight='bold',
                zorder=5,
                path_effects=[withStroke(linewidth=3, foreground='white')],
            )


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors to length 1; zero vectors stay zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _wrapped(text: str, letters: int) -> str:
    """Wrap each line of a text at a number of letters."""
    return '\n'.join(part for line in text.splitlines() for part in textwrap.wrap(line, letters))


def _short(name: str, letters: int = 14) -> str:
    """Shorten a name to a number of letters, with an ellipsis."""
    return name if len(name) <= letters else f'{name[: letters - 1]}…'
