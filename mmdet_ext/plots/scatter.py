"""Pictures of embeddings in the plane: a scatter a class, its animation, and runs side by side.

On matplotlib's Agg canvas: no display.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.plots.style import COLOURS, GREY, new_figure
from mmdet_ext.utils.files import whole_file

UNSEEN_COLOURS = ('black', '#8C564B', '#5F5F5F')
UNSEEN_MARKERS = ('x', '+', '1')
SEEN_MARKERS = ('o', '^', 's', 'D')
#: Degrees a bin, of the histogram of directions.
BIN = 3
LEGEND_ROWS = 20
FRAME_MS, LAST_FRAME_MS = 600, 2500
_SCATTER_DPI = 100


@dataclass(frozen=True)
class Projection:
    """A view of D-dimensional points in the plane.

    Attributes:
        mean: what is taken away first, (D,).
        axes: two directions of length 1, or of 0 where the points have no second one, (2, D).
        share: part of the points' variance that lies in them, from 0 to 1.
    """

    mean: np.ndarray
    axes: np.ndarray
    share: float

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Coordinates (N, 2) of points (N, D)."""
        return (np.asarray(points, np.float64) - self.mean) @ self.axes.T


def fit_projection(points: np.ndarray) -> Projection:
    """The two directions in which points spread most (PCA).

    The largest entry of each direction, by magnitude, is positive, so that nearly the same points
    are not mirrored.

    Args:
        points: (N, D), N at least 1, finite.

    Raises:
        ValueError: for anything else.

    >>> view = fit_projection(np.array([[0., 0, 5], [-4, 0, 5], [4, 2, 5], [0, -2, 5]]))
    >>> view(np.array([[0., 0, 5], [0, 0, 9]])).round(6).tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or not points.size or not np.isfinite(points).all():
        raise ValueError(
            f'points must be (N, D), at least one and finite, got {points.shape}'
            f'{"" if np.isfinite(points).all() else " with values that are not finite"}'
        )
    mean = points.mean(0)
    _, lengths, directions = np.linalg.svd(points - mean, full_matrices=False)
    axes = np.zeros((2, points.shape[1]))
    found = directions[:2]
    largest = found[np.arange(len(found)), np.abs(found).argmax(1)]
    axes[: len(found)] = found * np.where(largest < 0, -1.0, 1.0)[:, None]
    power = lengths**2
    return Projection(mean, axes, float(power[:2].sum() / power.sum()) if power.any() else 1.0)


@dataclass(frozen=True)
class Scatter:
    """Points of classes.

    Attributes:
        points: (N, 2).
        labels: place of each point's class in ``names``, (N,).
        names: of the classes.
        unseen: places of the classes that were not in training, drawn as crosses.
        centres: place of a class -> the directions of its centres, (S, 2), drawn as rays from 0;
            of some classes or none.
    """

    points: np.ndarray
    labels: np.ndarray
    names: Sequence[str]
    unseen: Collection[int] = ()
    centres: Mapping[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] != 2:
            raise ValueError(f'points must be (N, 2), got {self.points.shape}')
        if self.labels.shape != self.points.shape[:1]:
            raise ValueError(
                f'labels must be one a point, ({len(self.points)},), got {self.labels.shape}'
            )
        if len(self.labels) and not (
            0 <= self.labels.min() and self.labels.max() < len(self.names)
        ):
            raise ValueError(
                f'labels must be from 0 to {len(self.names) - 1}, as there are names, got '
                f'{self.labels.min()} to {self.labels.max()}'
            )

    def present(self) -> list[int]:
        """Places of the classes that have points: those of training, then the others."""
        there = np.unique(self.labels).tolist()
        return sorted(there, key=lambda place: (place in self.unseen, place))


def styles(scatter: Scatter) -> dict[int, tuple[str, str]]:
    """Colour and marker of each class, by its place; they repeat past 28 and 3 classes.

    They go by the place among all names, so that they are the same whatever points there are.
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
        axes: where.
        scatter: what.
        around_zero: whether 0 is to be in the middle, as where directions count; rays ask for it.
        size: of a point, in square points of print.
        room: around the points, as a share of how far they reach.
    """
    look = styles(scatter)
    points = scatter.points
    middle = np.zeros(2) if around_zero or not len(points) else (points.max(0) + points.min(0)) / 2
    reach = (1 + room) * float(np.abs(points - middle).max(initial=0)) or 1.0
    if around_zero:
        axes.axhline(0, color=GREY, linewidth=0.5, alpha=0.4, zorder=0)
        axes.axvline(0, color=GREY, linewidth=0.5, alpha=0.4, zorder=0)
    for place, directions in scatter.centres.items():
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
    """A scatter with the classes' names beside it.

    Args:
        scatter: what; at most twenty names are written.
        title: above it.
        around_zero: as `plot_scatter` has it.

    Returns:
        The picture, RGB, uint8, of one size whatever is in it.
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
    return pixels(figure, _SCATTER_DPI)


@dataclass(frozen=True)
class Run:
    """One of the runs that are compared.

    Attributes:
        name: above its panel.
        notes: lines below the name, of figures.
        scatter: its embeddings of 2 numbers, as they are.
    """

    name: str
    notes: Sequence[str]
    scatter: Scatter


def draw_comparison(runs: Sequence[Run], title: str, footer: str, path: Path) -> None:
    """Draw runs side by side: embeddings above, and how many lie in each direction below.

    Args:
        runs: one a column; about four are readable. All are of the same classes.
        title: above all.
        footer: below all.
        path: where the png goes.
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
    # An empty line apart from the names of the runs.
    figure.suptitle(f'{title}\n', fontsize=13, linespacing=1)
    save_small(figure, path)


def plot_directions(axes: Any, scatter: Scatter) -> None:
    """Draw which share of each class lies in which direction, in bins of `BIN` degrees."""
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
    """Share of points in each of the 360 / `BIN` bins of direction from -180 degrees on.

    >>> shares = direction_shares(np.array([[1., 0.01], [0, 2], [0, 5], [-0.1, 5]]))
    >>> [(int(k) * BIN - 180, float(shares[k])) for k in shares.nonzero()[0]]
    [(0, 0.25), (90, 0.75)]
    """
    degrees = np.degrees(np.arctan2(points[:, 1], points[:, 0]))
    counts = np.histogram(degrees, np.arange(-180, 181, BIN))[0]
    return counts / max(len(points), 1)


def angles_to_class(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Degrees from each point's direction to the mean direction of its class, (N,), 0 to 180.

    Args:
        points: (N, D).
        labels: (N,).

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
    """What a legend shows of classes."""
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
    """Write the names of classes of training at the end of their points' direction."""
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
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _wrapped(text: str, letters: int) -> str:
    return '\n'.join(part for line in text.splitlines() for part in textwrap.wrap(line, letters))


def _short(name: str, letters: int = 14) -> str:
    return name if len(name) <= letters else f'{name[: letters - 1]}…'


def pixels(figure: Any, dpi: int) -> np.ndarray:
    """A figure as RGB, uint8, (H, W, 3)."""
    figure.set_dpi(dpi)
    figure.canvas.draw()
    return np.ascontiguousarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])


def save_small(figure: Any, path: Path, dpi: int = _SCATTER_DPI) -> None:
    """Write a figure of few colours as PNG."""
    write_picture(pixels(figure, dpi), path)


def write_picture(picture: np.ndarray, path: Path) -> None:
    """Write an RGB picture as PNG with a palette of 256 colours, a third of the size."""
    from PIL import Image

    with whole_file(path) as part:
        Image.fromarray(picture).quantize(256, dither=Image.Dither.NONE).save(
            part, format='png', optimize=True
        )


def write_animation(frames: Sequence[Path], path: Path) -> None:
    """Write pictures of one size as a GIF that repeats, whole or not at all; the last stays longer.

    Raises:
        ValueError: if there are none, or they differ in size.
        OSError: if one cannot be read.
    """
    from PIL import Image

    if not frames:
        raise ValueError('frames is empty: an animation needs at least one picture')
    pictures = []
    for frame in frames:
        with Image.open(frame) as opened:
            pictures.append(opened.convert('RGB').quantize(128, dither=Image.Dither.NONE))
    sizes = {picture.size for picture in pictures}
    if len(sizes) > 1:
        raise ValueError(f'frames must be of one size, got {sorted(sizes)} (width, height) in px')
    durations = [FRAME_MS] * (len(pictures) - 1) + [LAST_FRAME_MS]
    with whole_file(path) as part:
        pictures[0].save(
            part,
            format='gif',
            save_all=True,
            append_images=pictures[1:],
            duration=durations,
            loop=0,
            optimize=False,
        )
