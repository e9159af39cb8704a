"""Figures of the maps of a bottom-up network: tags in the colours of people, fields as arrows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.plots.pose.people import PANEL, People, draw_person, show_image
from mmdet_ext.plots.style import COLOURS, GREY, new_figure, save_figure

#: Value of a heatmap, and length of a field's vector, from which on a cell is drawn.
_HEAT, _LENGTH = 0.1, 0.25


def draw_tags(
    image: np.ndarray,
    heatmaps: np.ndarray,
    tags: np.ndarray,
    people: People,
    joint_tags: np.ndarray,
    limbs: Sequence[tuple[int, int]],
    path: Path,
) -> None:
    """Draw how tags tell people apart: heatmaps, tags, tags of joints by person, and the people.

    Args:
        image: (H, W, 3) uint8, RGB.
        heatmaps: of K joints, (K, h, w), over the whole image.
        tags: first dimension of the tag at each cell, (K, h, w).
        people: the people that were grouped.
        joint_tags: tag of each of their joints, (N, K).
        limbs: pairs of joints.
        path: PNG file to write.
    """
    figure = new_figure(4 * PANEL, PANEL + 0.2)
    panels = figure.subplots(1, 4)
    strongest = heatmaps.argmax(0)
    heat = np.take_along_axis(heatmaps, strongest[None], 0)[0]
    extent = _extent(image, heat)
    show_image(panels[0], image, 0.35)
    panels[0].imshow(_masked(heat, heat), extent=extent, cmap='inferno', vmin=0, vmax=1)
    panels[0].set_title('heatmaps, the largest of all joints', fontsize=9)
    show_image(panels[1], image, 0.35)
    tag = np.take_along_axis(tags, strongest[None], 0)[0]
    shown = panels[1].imshow(_masked(tag, heat), extent=extent, cmap='turbo')
    figure.colorbar(shown, ax=panels[1], shrink=0.8)
    panels[1].set_title('tag of that joint', fontsize=9)
    show_image(panels[3], image)
    for index in range(len(people.keypoints)):
        colour, seen = COLOURS[index % len(COLOURS)], people.shown[index]
        draw_person(panels[3], people.keypoints[index], seen, limbs, colour)
        joint = seen.nonzero()[0]
        panels[2].scatter(joint_tags[index, joint], joint, s=12, color=colour)
        mean = joint_tags[index, joint].mean() if len(joint) else np.nan
        panels[2].axvline(mean, color=colour, linewidth=0.8)
    panels[2].set(xlabel='tag', ylabel='joint')
    panels[2].set_title('tags of joints, and means of people', fontsize=9)
    panels[3].set_title('people', fontsize=9)
    save_figure(figure, path)


def draw_fields(
    image: np.ndarray,
    heatmaps: np.ndarray,
    fields: np.ndarray,
    names: Sequence[str],
    path: Path,
) -> None:
    """Draw the heatmaps, and chosen fields as arrows of their directions.

    Args:
        image: (H, W, 3) uint8, RGB.
        heatmaps: of all joints, (K, h, w), over the whole image.
        fields: of the chosen limbs, (C, 2, h, w).
        names: of these limbs.
        path: PNG file to write.
    """
    figure = new_figure((len(fields) + 1) * PANEL, PANEL + 0.2)
    panels = figure.subplots(1, len(fields) + 1)
    show_image(panels[0], image, 0.35)
    heat = heatmaps.max(0)
    panels[0].imshow(
        _masked(heat, heat), extent=_extent(image, heat), cmap='inferno', vmin=0, vmax=1
    )
    panels[0].set_title('heatmaps, the largest of all joints', fontsize=9)
    stride = np.array([image.shape[1] / heat.shape[1], image.shape[0] / heat.shape[0]])
    for number, (panel, field, name) in enumerate(zip(panels[1:], fields, names, strict=True)):
        show_image(panel, image, 0.35)
        _arrows(panel, field, stride, COLOURS[number % len(COLOURS)])
        panel.set_title(name, fontsize=9)
    save_figure(figure, path)


def _arrows(panel: Any, field: np.ndarray, stride: np.ndarray, colour: str) -> None:
    """Draw the vectors of a field (2, h, w) that are long enough."""
    rows, columns = (np.hypot(*field) >= _LENGTH).nonzero()
    u, v = field[:, rows, columns]
    x, y = columns * stride[0], rows * stride[1]
    panel.quiver(
        x,
        y,
        u,
        v,
        color=colour,
        angles='xy',
        scale_units='xy',
        scale=0.8 / stride[0],
        width=0.007,
        pivot='mid',
        edgecolor=GREY,
        linewidth=0.2,
    )


def _extent(image: np.ndarray, heat: np.ndarray) -> tuple[float, float, float, float]:
    """Return the edges of a map over the whole image, whose first cell is at the first pixel."""
    height, width = image.shape[:2]
    rows, columns = heat.shape
    across, down = width / columns, height / rows
    return (-across / 2, width - across / 2, height - down / 2, -down / 2)


def _masked(values: np.ndarray, heat: np.ndarray) -> Any:
    """Hide the values of cells that no heatmap marks."""
    return np.ma.masked_where(heat < _HEAT, values)
