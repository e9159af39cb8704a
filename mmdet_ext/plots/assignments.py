"""Figures of label assignment: the ground truth of each prior, level by level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.plots.style import COLOURS, DASHED, GREY, new_figure, save_figure

PANEL_WIDTH = 3.4


@dataclass(frozen=True)
class LevelAssignment:
    """Assignment on one pyramid level of an image.

    Attributes:
        centers: (P, 2) centres of the priors, px.
        gt_index: (P,) int: index of the ground truth, -1 for background, -2 for ignored.
    """

    centers: np.ndarray
    gt_index: np.ndarray


@dataclass(frozen=True)
class ImageAssignment:
    """Assignment of all priors of an image by one assigner.

    Attributes:
        title: title of the row, such as config and assigner.
        boxes: (G, 4) ground truth, corners, px.
        levels: pyramid levels, the finest first.
    """

    title: str
    boxes: np.ndarray
    levels: tuple[LevelAssignment, ...]

    def counts(self) -> dict[str, Any]:
        """Count the priors in all, per ground truth and per level."""
        index = np.concatenate([level.gt_index for level in self.levels])
        by_box = np.bincount(index[index >= 0], minlength=len(self.boxes)).tolist()
        return {
            'title': self.title,
            'boxes': len(self.boxes),
            **_count(index),
            'priors_of_box': by_box,
            'boxes_without_prior': by_box.count(0),
            'levels': [_count(level.gt_index) for level in self.levels],
        }


def _count(index: np.ndarray) -> dict[str, int]:
    """Count all priors, positives and ignored ones of indices of ground truths."""
    return {
        'priors': len(index),
        'positive': int((index >= 0).sum()),
        'ignored': int((index == -2).sum()),
    }


def draw_assignments(
    image: np.ndarray | Sequence[np.ndarray], rows: Sequence[ImageAssignment], path: Path
) -> None:
    """Draw assignments of an image, with a row per assigner and a panel per level.

    A positive is a dot in the colour of its ground truth, an ignored prior a grey cross. A
    ground-truth box is dashed if it has no prior on any level.

    Args:
        image: (H, W, 3) uint8, RGB, as the network sees it; or one image per row.
        rows: assignments, from top to bottom.
        path: PNG file to write.
    """
    images = [image] * len(rows) if isinstance(image, np.ndarray) else image
    columns = max(len(row.levels) for row in rows)
    heights = [PANEL_WIDTH * each.shape[0] / each.shape[1] + 0.35 for each in images]
    figure = new_figure(PANEL_WIDTH * columns, sum(heights))
    axes = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for line, row, shown in zip(axes, rows, images, strict=True):
        counts = row.counts()
        for number, axis in enumerate(line):
            if number >= len(row.levels):
                axis.set_axis_off()
                continue
            _draw_level(axis, shown, row, number, counts['priors_of_box'])
        without = counts['boxes_without_prior']
        line[0].set_ylabel(
            f'{row.title}\n{counts["positive"]:,} positives, {counts["ignored"]:,} ignored,\n'
            f'{without} of {counts["boxes"]} boxes without',
            fontsize=8,
        )
    save_figure(figure, path)


def _draw_level(
    axis: Any, image: np.ndarray, row: ImageAssignment, number: int, of_box: Sequence[int]
) -> None:
    """Draw one panel: the pale image, the boxes and the priors of a level."""
    level = row.levels[number]
    height, width = image.shape[:2]
    pale = 255 - (255 - image.astype(np.float32)) * 0.55
    axis.imshow(pale.astype(np.uint8))
    _draw_boxes(axis, row.boxes, of_box)
    index, centers = level.gt_index, level.centers
    ignored, positive = index == -2, index >= 0
    axis.scatter(*centers[ignored].T, s=14, marker='x', color=GREY, linewidths=0.7)
    colours = [COLOURS[box % len(COLOURS)] for box in index[positive]]
    size = float(np.clip(9000 / max(1, len(index)), 7, 45))
    axis.scatter(
        *centers[positive].T, s=size, c=colours, edgecolors='black', linewidths=0.4, zorder=3
    )
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    title = f'level {number}: {int(positive.sum()):,} of {len(index):,}'
    title += f', {int(ignored.sum()):,} ignored' if ignored.any() else ''
    axis.set_title(title, fontsize=8)


def _draw_boxes(axis: Any, boxes: np.ndarray, of_box: Sequence[int]) -> None:
    """Draw the ground truth, dashed where ``of_box``, the number of priors, is 0."""
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        axis.plot(
            [x1, x2, x2, x1, x1],
            [y1, y1, y2, y2, y1],
            color=COLOURS[number % len(COLOURS)],
            linewidth=1.2,
            linestyle='-' if of_box[number] else DASHED,
        )
