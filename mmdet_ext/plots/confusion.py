"""Figure of a confusion matrix: the share of each class that is predicted as each other one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.plots.style import GREY, new_figure, save_figure

#: Up to so many classes each cell shows its share and its count, up to the next number its share.
COUNTS_UP_TO, SHARES_UP_TO = 12, 30
#: Names of so many classes fit along an axis.
NAMES_UP_TO = 80


def draw_confusion(classes: Sequence[str], counts: np.ndarray, path: Path) -> None:
    """Draw the shares of each row, the ground truth of a class, with their counts.

    The row of a class without ground truth is grey.

    Args:
        classes: names of the C classes.
        counts: (C, C) integers; rows are the ground truth, columns the predictions.
        path: the png file to write.

    Raises:
        ValueError: if the number of classes differs from the size of the table.
    """
    size = len(classes)
    if counts.shape != (size, size):
        raise ValueError(f'{size} classes make a table of {(size, size)}, got {counts.shape}')
    from matplotlib.colors import PowerNorm

    totals = counts.sum(axis=1)
    shares = np.full(counts.shape, np.nan)
    np.divide(counts, totals[:, None], out=shares, where=totals[:, None] > 0)
    side = min(4.2 + 0.62 * min(size, COUNTS_UP_TO) + 0.1 * max(size - COUNTS_UP_TO, 0), 20.0)
    figure = new_figure(side + 1.2, side)
    axes = figure.add_subplot()
    axes.set_facecolor('#DDDDDD')
    # Square roots, so that a confusion of one in a hundred is seen.
    colours = PowerNorm(0.5, vmin=0, vmax=1)
    image = axes.imshow(shares, cmap='Blues', norm=colours, interpolation='nearest')
    figure.colorbar(image, ax=axes, shrink=0.8, label='share of the ground truth of a class')
    if size <= SHARES_UP_TO:
        _write_cells(axes, shares, counts)
    _name_axes(axes, classes)
    right = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(f'Confusion of {counts.sum():,} pixels, {right:.1%} of them right')
    save_figure(figure, path)


def _write_cells(axes: Any, shares: np.ndarray, counts: np.ndarray) -> None:
    """Write the share into each cell that is not empty, and the count where there is room."""
    few = len(counts) <= COUNTS_UP_TO
    for (row, column), count in np.ndenumerate(counts):
        if not count:
            continue
        share = shares[row, column]
        digits = 1 if few else 0
        text = f'{share:.{digits}%}'
        if few:
            text += f'\n{count:,}'
        colour = 'white' if share > 0.45 else 'black'
        size = 8 if few else 6
        axes.text(column, row, text, ha='center', va='center', fontsize=size, color=colour)


def _name_axes(axes: Any, classes: Sequence[str]) -> None:
    """Write the names of the classes along both axes; of very many every few."""
    step = -(-len(classes) // NAMES_UP_TO)
    ticks = range(0, len(classes), step)
    names = [name if len(name) <= 24 else f'{name[:22]}...' for name in classes[::step]]
    size = 9 if len(classes) <= SHARES_UP_TO else 6
    axes.set_xticks(ticks, names, rotation=45, ha='right', rotation_mode='anchor', fontsize=size)
    axes.set_yticks(ticks, names, fontsize=size)
    axes.set_xlabel('prediction', color=GREY)
    axes.set_ylabel('ground truth', color=GREY)
