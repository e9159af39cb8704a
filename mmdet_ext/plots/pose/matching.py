"""Figures of the graph whose edges connect candidates for the joints of a limb."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmdet_ext.plots.pose.people import PANEL, show_image
from mmdet_ext.plots.style import COLOURS, DASHED, GREY, new_figure, save_figure


@dataclass(frozen=True)
class Connection:
    """Edge of the graph: a limb that two candidates may make.

    Attributes:
        start: x and y of the candidate for the first joint, px.
        end: x and y of that for the second.
        score: fit to the field between them.
        kept: whether the matching has taken it.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    score: float
    kept: bool


def draw_matching(
    image: np.ndarray,
    limbs: Sequence[tuple[str, np.ndarray, np.ndarray, Sequence[Connection]]],
    path: Path,
) -> None:
    """Draw a panel per limb: candidates for both joints, and their connections with the scores.

    A connection that was kept is a thick line, one that was not a dashed grey one. Only scores
    above 0 are drawn, as others are never taken.

    Args:
        image: (H, W, 3) uint8, RGB.
        limbs: name, candidates for the first joint (M, 2) and for the second (M', 2), px, and the
            connections.
        path: PNG file to write.
    """
    figure = new_figure(len(limbs) * 1.25 * PANEL, 1.25 * PANEL + 0.2)
    panels = figure.subplots(1, len(limbs), squeeze=False)[0]
    box = {'facecolor': 'white', 'edgecolor': 'none', 'alpha': 0.75, 'pad': 0.6}
    for panel, (name, first, second, connections) in zip(panels, limbs, strict=True):
        show_image(panel, image, 0.4)
        for item in sorted(connections, key=lambda item: item.kept):
            if item.score <= 0:
                continue
            (x, u), (y, v) = zip(item.start, item.end, strict=True)
            colour = COLOURS[2] if item.kept else GREY
            style = '-' if item.kept else DASHED
            panel.plot((x, u), (y, v), color=colour, linestyle=style, linewidth=1 + item.kept)
            panel.text(
                0.65 * x + 0.35 * u,
                0.65 * y + 0.35 * v,
                f'{item.score:.2f}',
                fontsize=6,
                color=colour,
                ha='center',
                va='center',
                bbox=box,
            )
        for places, colour, marker in ((first, COLOURS[0], 'o'), (second, COLOURS[1], 's')):
            x, y = places.T
            panel.scatter(x, y, s=22, color=colour, marker=marker, edgecolors='white', zorder=3)
        panel.set_title(name, fontsize=9)
    save_figure(figure, path)
