"""Parts of figures of images with boxes: reading images, a grid of panels, and outlines."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.plots.style import new_figure


def read_image(path: Path, error: type[Exception]) -> np.ndarray:
    """Read an image as RGB, (H, W, 3).

    Args:
        path: file of the image.
        error: what is raised if it is absent or cannot be read.
    """
    import cv2

    data = np.fromfile(path, np.uint8) if path.is_file() else np.zeros(0, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise error(f'{path}: the image is absent or cannot be read')
    return np.ascontiguousarray(image[..., ::-1])


def image_grid(
    count: int, columns: int, width: float, height: float, margin: float
) -> tuple[Any, list[Any]]:
    """Make a figure of panels without axes, row by row.

    Args:
        count: number of images.
        columns: largest number of panels per row.
        width: width of a panel, inches.
        height: height of a panel, inches.
        margin: height above and below all panels, inches.

    Returns:
        The figure, and at least ``count`` axes.

    Raises:
        ValueError: without an image.
    """
    if not count:
        raise ValueError('there is no image to draw')
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = new_figure(width * columns, height * rows + margin)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_axis_off()
    return figure, panels


def outline(
    axes: Any,
    box: tuple[float, float, float, float],
    colour: str,
    line: Any = '-',
    thickness: float = 1.6,
) -> None:
    """Draw a box over an image; a white line beneath keeps its colour visible on any background.

    Args:
        axes: panel of the image.
        box: left, top, width and height, px.
        colour: colour of the line.
        line: style of the line.
        thickness: width of the line, points.
    """
    from matplotlib.patches import Rectangle

    left, top, width, height = box
    for shade, thick, style in (('white', thickness + 1.4, '-'), (colour, thickness, line)):
        axes.add_patch(
            Rectangle((left, top), width, height, fill=False, ec=shade, lw=thick, ls=style)
        )
