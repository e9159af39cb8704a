"""Bar chart of the number of boxes per class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmdet_ext.plots.style import COLOURS, new_figure, save_figure

#: Counts whose largest is more than this many times the smallest get a logarithmic axis.
_LOG_FROM = 50


def draw_class_counts(
    classes: Sequence[str], counts: Sequence[int], images: int, path: Path
) -> None:
    """Draw one bar per class, the first class at the top, with its number of boxes.

    Args:
        classes: Names of the classes, length K.
        counts: Boxes per class, length K; at least one is above 0.
        images: Number of images, for the title.
        path: The png file to write.
    """
    rows = len(classes)
    figure = new_figure(8, 1.3 + 0.3 * max(rows, 3))
    axes = figure.add_subplot()
    bars = axes.barh(range(rows), counts, color=COLOURS[0])
    axes.bar_label(bars, padding=3)
    axes.set_yticks(range(rows), classes)
    axes.invert_yaxis()
    present = [count for count in counts if count]
    logarithmic = max(present) > _LOG_FROM * min(present)
    if logarithmic:
        axes.set_xscale('log')
        axes.set_xlim(0.8, 4 * max(present))  # room for the numbers
    else:
        axes.set_xlim(0, 1.12 * max(present))
    axes.set_xlabel('boxes, logarithmic' if logarithmic else 'boxes')
    axes.set_title(f'Boxes by class: {sum(present)} in {images} images')
    axes.grid(axis='x', alpha=0.25)
    save_figure(figure, path)
