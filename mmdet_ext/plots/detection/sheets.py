"""Sheets of images with marked boxes: examples of errors, two results side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.analysis.detection.columns import ResultError
from mmdet_ext.analysis.detection.examples import MarkedBox, MarkedImage
from mmdet_ext.plots.detection.boxes import image_grid, outline, read_image
from mmdet_ext.plots.style import DASHED, GREY, save_figure

#: Mark of a box -> its colour and its line.
MARKS: dict[str, tuple[str, Any, str]] = {
    'truth': ('#009E73', '-', 'ground truth'),
    'missed': ('#CC79A7', DASHED, 'ground truth, not found'),
    'right': ('#0072B2', '-', 'right'),
    'false': ('#D55E00', '-', 'false'),
    'ignored': (GREY, DASHED, 'ignored'),
    'cut': (GREY, '-', 'part that is kept'),
}
#: A part of an image is so many times as wide as the box in its middle, and at least so many px.
AROUND, LEAST = 2.5, 48.0


def draw_sheet(images: Sequence[MarkedImage], path: Path, title: str, columns: int = 4) -> None:
    """Draw images with their boxes, row by row.

    Args:
        images: at least one image.
        path: the png file to write.
        title: text above the sheet.
        columns: number of images per row.

    Raises:
        ResultError: if an image cannot be read.
        ValueError: without an image.
    """
    figure, panels = image_grid(len(images), columns, 3.3, 3.3, margin=0.9)
    seen: dict[str, np.ndarray] = {}
    for axes, image in zip(panels, images, strict=False):
        if image.path not in seen:
            seen = {image.path: read_image(Path(image.path), ResultError)}  # one at a time is kept
        _draw_image(axes, seen[image.path], image)
    figure.suptitle(title, fontsize=12)
    _add_legend(figure, images)
    save_figure(figure, path)


def _draw_image(axes: Any, pixels: np.ndarray, image: MarkedImage) -> None:
    axes.imshow(pixels, interpolation='bilinear')
    for box in image.boxes:
        colour, line, _ = MARKS[box.mark]
        outline(axes, box.box, colour, line)
    if image.focus is not None:
        _cut_out(axes, pixels.shape, image.focus)
    else:
        _write_labels(axes, image.boxes)
    name = image.title if len(image.title) <= 44 else f'{image.title[:41]}...'
    axes.set_title(f'{name}\n{Path(image.path).name[-36:]}', fontsize=8, loc='left')


def _cut_out(axes: Any, shape: tuple[int, ...], focus: tuple[float, float, float, float]) -> None:
    """Show the square around a box, within the image as far as that goes."""
    x, y, width, height = focus
    half = max(AROUND * max(width, height), LEAST) / 2
    half = min(half, max(shape[:2]) / 2)
    middle = [x + width / 2, y + height / 2]
    for axis, size in enumerate((shape[1], shape[0])):
        if size >= 2 * half:
            middle[axis] = min(max(middle[axis], half), size - half)
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] + half, middle[1] - half)


def _write_labels(axes: Any, boxes: Sequence[MarkedBox], most: int = 12) -> None:
    """Write the labels of the boxes that are wrong; of many, of the first."""
    wrong = [box for box in boxes if box.mark in ('false', 'missed') and box.label]
    for box in wrong[:most]:
        x, y, _, _ = box.box
        style = {'boxstyle': 'square,pad=0.1', 'fc': MARKS[box.mark][0], 'ec': 'none'}
        axes.text(x, y, box.label, fontsize=5.5, color='white', clip_on=True, bbox=style)


def _add_legend(figure: Any, images: Sequence[MarkedImage]) -> None:
    from matplotlib.lines import Line2D

    used = {box.mark for image in images for box in image.boxes}
    handles = [
        Line2D([], [], color=colour, ls=line, lw=2, label=label)
        for mark, (colour, line, label) in MARKS.items()
        if mark in used
    ]
    figure.legend(handles=handles, loc='outside lower center', ncols=5, frameon=False, fontsize=8)
