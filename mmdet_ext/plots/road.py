"""Figure of detectors by accuracy and time per image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmdet_ext.plots.style import COLOURS, GREY, new_figure, save_small_figure


def draw_road(
    names: Sequence[str],
    seconds: Sequence[float],
    precision: Sequence[float],
    path: Path,
    note: str = '',
) -> None:
    """Draw the accuracy of detectors against their time per image, with a line in their order.

    Args:
        names: names of the detectors, N of them.
        seconds: time per image of each, above 0; the axis is logarithmic.
        precision: mAP of each, 0 to 1.
        path: the PNG file to write.
        note: text below the axes.
    """
    figure = new_figure(8, 5)
    axes = figure.subplots()
    axes.plot(seconds, precision, color=GREY, linewidth=0.8, zorder=1)
    for number, (name, x, y) in enumerate(zip(names, seconds, precision, strict=True)):
        axes.scatter(x, y, s=60, color=COLOURS[number % len(COLOURS)], label=name, zorder=2)
    axes.set_xscale('log')
    axes.set(xlabel=f'seconds per image, proposals included\n{note}', ylabel='mAP', ylim=(0, None))
    axes.grid(alpha=0.3, which='both')
    figure.legend(loc='outside right upper', frameon=False)
    save_small_figure(figure, path)
