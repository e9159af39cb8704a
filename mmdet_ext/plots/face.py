"""Plots of face evaluation: ROC, CMC, histogram of similarities, sheet of the hardest pairs.

They are drawn on matplotlib's Agg canvas, which needs no display.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmdet_ext.plots.style import COLOURS, DASHED, GREY, new_figure, save_figure

#: Side of an image on the sheet of pairs, px.
TILE = 112
GAP = 4
STYLES = ('-', '--', '-.', ':')


@dataclass(frozen=True)
class FacePair:
    """Pair of images on a sheet.

    Attributes:
        paths: files of the images. An image that is None or cannot be read is crossed out.
        similarity: similarity of the embeddings.
        names: text below each image, such as its identity.
    """

    paths: tuple[str | None, str | None]
    similarity: float
    names: tuple[str, str] = ('', '')


def draw_roc(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: Path) -> None:
    """Plot TAR over FAR, with a logarithmic axis of FAR, as steps between the operating points.

    The axis begins below the lowest FAR above 0. The points of a curve that accept no impostor are
    drawn at the left edge. On the dotted line, FAR and FRR are equal.

    Args:
        curves: name -> FAR and TAR, both ascending.
        path: target png file.

    Raises:
        ValueError: if there is no curve, or FAR and TAR differ in length.
    """
    _check_curves(curves)
    least = min(_least_above_zero(far) for far, _ in curves.values())
    left = 10.0 ** math.floor(math.log10(least) - 1e-9)
    figure = new_figure(7, 5)
    axes = figure.add_subplot()
    for number, (name, (far, tar)) in enumerate(curves.items()):
        if len(far) != len(tar):
            raise ValueError(f'curve {name!r}: {len(far)} values of FAR, {len(tar)} of TAR')
        x = np.maximum(np.asarray(far, float), left)
        axes.plot(x, tar, drawstyle='steps-post', label=name, linewidth=1.8, **_style(number))
    diagonal = np.geomspace(left, 1, 200)
    axes.plot(diagonal, 1 - diagonal, color=GREY, linestyle=':', linewidth=1, label='FAR = FRR')
    axes.set_xscale('log')
    axes.set(
        xlabel='false acceptance rate (FAR)',
        ylabel='true acceptance rate (TAR)',
        xlim=(left, 1),
        ylim=(0, 1.02),
        title='Verification: receiver operating characteristic',
    )
    axes.grid(alpha=0.25)
    _legend(figure, axes)
    save_figure(figure, path)


def draw_cmc(curves: Mapping[str, Sequence[float]], path: Path) -> None:
    """Plot the share of mated searches with their mate within each rank.

    Args:
        curves: name -> shares, from rank 1 on.
        path: target png file.

    Raises:
        ValueError: if there is no curve, or one without values.
    """
    _check_curves(curves)
    figure = new_figure(7, 5)
    axes = figure.add_subplot()
    for number, (name, rates) in enumerate(curves.items()):
        if not len(rates):
            raise ValueError(f'curve {name!r} has no values')
        ranks = np.arange(1, len(rates) + 1)
        few = len(rates) <= 30
        axes.plot(
            ranks,
            rates,
            marker='o' if few else None,
            markersize=4,
            linewidth=1.8,
            label=name,
            **_style(number),
        )
    low = min(float(rates[0]) for rates in curves.values())
    axes.set(
        xlabel='rank',
        ylabel='share of mated searches within the rank',
        title='Identification: cumulative match characteristic',
        ylim=(max(0.0, math.floor(low * 10 - 0.5) / 10), 1.01),
    )
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.25)
    _legend(figure, axes)
    save_figure(figure, path)


def draw_score_histogram(
    edges: Sequence[float],
    genuine: Sequence[float],
    impostors: Sequence[float],
    path: Path,
    thresholds: Mapping[str, float] | None = None,
) -> None:
    """Plot the distributions of the similarities of genuine and impostor pairs, as shares.

    Args:
        edges: (H + 1,) edges of the bins, ascending.
        genuine: (H,) genuine pairs per bin.
        impostors: (H,) impostor pairs per bin.
        path: target png file.
        thresholds: name -> similarity, drawn as lines; infinite ones are left out.

    Raises:
        ValueError: if the lengths do not fit.
    """
    if not len(edges) - 1 == len(genuine) == len(impostors):
        raise ValueError(
            f'{len(edges)} edges make {len(edges) - 1} bins, got {len(genuine)} of genuine and '
            f'{len(impostors)} of impostor pairs'
        )
    figure = new_figure(7, 4.5)
    axes = figure.add_subplot()
    for counts, name, colour in (
        (impostors, 'impostor pairs', COLOURS[1]),
        (genuine, 'genuine pairs', COLOURS[0]),
    ):
        pairs = np.asarray(counts, float)
        share = pairs / max(1.0, pairs.sum())
        axes.stairs(share, edges, fill=True, alpha=0.35, color=colour)
        axes.stairs(share, edges, color=colour, linewidth=1.4, label=f'{int(pairs.sum()):,} {name}')
    for number, (name, value) in enumerate((thresholds or {}).items()):
        if math.isfinite(value):
            axes.axvline(
                value,
                color='black',
                linestyle=STYLES[1 + number % 3],
                linewidth=1.1,
                label=f'{name}: {value:.3f}',
            )
    filled = np.flatnonzero(np.asarray(genuine, float) + np.asarray(impostors, float))
    if len(filled):
        axes.set_xlim(edges[max(0, filled[0] - 1)], edges[min(len(edges) - 1, filled[-1] + 2)])
    axes.set(xlabel='similarity (cosine)', ylabel='share of the pairs of its kind', ylim=(0, None))
    axes.set_title('Similarities of genuine and impostor pairs')
    axes.grid(alpha=0.25)
    _legend(figure, axes)
    save_figure(figure, path)


def draw_hardest_pairs(
    impostors: Sequence[FacePair], genuine: Sequence[FacePair], path: Path, columns: int = 5
) -> int:
    """Draw a sheet of the most similar impostor pairs, and the least similar genuine pairs below.

    Args:
        impostors: impostor pairs in the order of the sheet.
        genuine: genuine pairs in the order of the sheet.
        path: target png file.
        columns: number of pairs per row, at least 1.

    Returns:
        Number of images that could not be read.

    Raises:
        ValueError: if there is no pair at all, or ``columns`` is below 1.
    """
    if columns < 1:
        raise ValueError(f'columns is {columns}; at least 1 pair stands in a row')
    groups = [
        (title, pairs)
        for title, pairs in (
            ('Two persons, most similar', impostors),
            ('One person, least similar', genuine),
        )
        if pairs
    ]
    if not groups:
        raise ValueError('there is no pair to draw')
    columns = min(columns, max(len(pairs) for _, pairs in groups))
    rows = [math.ceil(len(pairs) / columns) for _, pairs in groups]
    figure = new_figure(2.15 * columns + 0.3, 1.5 * sum(rows) + 0.5 * len(groups))
    parts = np.atleast_1d(figure.subfigures(len(groups), 1, height_ratios=[r + 0.25 for r in rows]))
    unread = 0
    for (title, pairs), count, part in zip(groups, rows, parts, strict=True):
        part.suptitle(title, fontsize=12)
        grid = part.subplots(count, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for pair, axes in zip(pairs, grid.flat, strict=False):
            unread += _draw_pair(axes, pair)
    save_figure(figure, path)
    return unread


def _draw_pair(axes: Any, pair: FacePair) -> int:
    """Draw two images side by side, and return the number of images that could not be read."""
    tiles = [_tile(file) for file in pair.paths]
    gap = np.full((TILE, GAP, 3), 255, np.uint8)
    known = [np.full((TILE, TILE, 3), 225, np.uint8) if tile is None else tile for tile in tiles]
    axes.imshow(np.hstack([known[0], gap, known[1]]))
    for number, (tile, name) in enumerate(zip(tiles, pair.names, strict=True)):
        left = number * (TILE + GAP)
        if tile is None:
            for ends in ((0, TILE), (TILE, 0)):
                axes.plot((left, left + TILE - 1), ends, color=GREY, linestyle=DASHED, linewidth=1)
        short = name if len(name) <= 16 else f'...{name[-13:]}'
        axes.text(left + TILE / 2, TILE + 3, short, ha='center', va='top', fontsize=7)
    axes.set(xlim=(0, 2 * TILE + GAP), ylim=(TILE, 0))
    axes.set_title(f'{pair.similarity:.3f}', fontsize=9, pad=2)
    return sum(tile is None for tile in tiles)


def _tile(path: str | None) -> np.ndarray | None:
    """Read an image file into a square of (TILE, TILE, 3), uint8, RGB, and keep its aspect ratio.

    Returns:
        The square; None if the file cannot be read.
    """
    if path is None or not Path(path).is_file():
        return None
    data = np.fromfile(path, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        return None
    factor = TILE / max(image.shape[:2])
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    image = cv2.resize(image, (width, height), interpolation=how)
    tile = np.full((TILE, TILE, 3), 255, np.uint8)
    top, left = (TILE - height) // 2, (TILE - width) // 2
    tile[top : top + height, left : left + width] = image[..., ::-1]
    return tile


def _check_curves(curves: Mapping[str, Any]) -> None:
    """Raise ValueError if there is no curve."""
    if not curves:
        raise ValueError('there is no curve to draw')


def _least_above_zero(far: Sequence[float]) -> float:
    """Return the smallest FAR above 0, at most 0.1."""
    values = np.asarray(far, float)
    values = values[values > 0]
    return min(0.1, float(values.min())) if len(values) else 0.1


def _style(number: int) -> dict[str, Any]:
    """Return a colour, and a line style that changes when the colours repeat."""
    return {
        'color': COLOURS[number % len(COLOURS)],
        'linestyle': STYLES[number // len(COLOURS) % len(STYLES)],
    }


def _legend(figure: Any, axes: Any) -> None:
    """Draw the legend below the axes, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    longest = max(len(label) for label in labels)
    figure.legend(
        handles,
        labels,
        loc='outside lower center',
        ncols=max(1, 80 // (longest + 8)),
        frameon=False,
        fontsize=9,
    )
