"""Figure of anchors: the mean IoU per number of them, and the anchors among the boxes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmdet_ext.plots.style import COLOURS, GREY, new_figure, save_figure

#: Most boxes that are drawn as points; of more, every n-th is.
MOST_POINTS = 5000


def draw_anchors(
    sides: np.ndarray, anchors: np.ndarray, mean_ious: Mapping[int, float], path: Path
) -> None:
    """Draw the mean IoU per number of anchors on the left, boxes and anchors on the right.

    Args:
        sides: Widths and heights of the boxes, (N, 2), px.
        anchors: Widths and heights of the chosen anchors, (k, 2), px.
        mean_ious: Number of anchors -> mean IoU of the boxes with the anchor of the best fit.
        path: The png file to write.
    """
    from matplotlib.patches import Rectangle

    figure = new_figure(10, 4.4)
    left, right = figure.subplots(1, 2)
    numbers = list(mean_ious)
    left.plot(numbers, list(mean_ious.values()), 'o-', color=COLOURS[0])
    left.plot(len(anchors), mean_ious[len(anchors)], 'o', color=COLOURS[1], markersize=9)
    left.set_xticks(numbers)
    left.set_xlabel('anchors')
    left.set_ylabel('mean IoU')
    left.set_title('Fit of the boxes')
    left.grid(alpha=0.25)
    shown = sides[:: max(1, len(sides) // MOST_POINTS)]
    right.plot(shown[:, 0], shown[:, 1], '.', color=GREY, markersize=2, alpha=0.4)
    for width, height in anchors:
        right.add_patch(Rectangle((0, 0), width, height, fill=False, color=COLOURS[1]))
    right.plot(anchors[:, 0], anchors[:, 1], 'o', color=COLOURS[1])
    most = 1.05 * max(float(sides.max()), float(anchors.max()))
    right.set_xlim(0, most)
    right.set_ylim(0, most)
    right.set_xlabel('width, px')
    right.set_ylabel('height, px')
    right.set_title(f'{len(sides)} boxes, {len(anchors)} anchors')
    save_figure(figure, path)
