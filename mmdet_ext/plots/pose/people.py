"""Figures of people as their joints and limbs, on images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.plots.style import COLOURS, new_figure, save_figure

PANEL = 2.6


@dataclass(frozen=True)
class People:
    """People in an image.

    Attributes:
        keypoints: x and y of each joint, (N, K, 2), px of the image.
        shown: joints that are drawn, (N, K) bool.
    """

    keypoints: np.ndarray
    shown: np.ndarray


def draw_people(
    images: Sequence[np.ndarray],
    columns: Sequence[tuple[str, Sequence[People]]],
    limbs: Sequence[tuple[int, int]],
    path: Path,
) -> None:
    """Draw a row per image and a column per source of people, such as ground truth and prediction.

    Each person of a panel has a colour; a limb is drawn where both its joints are.

    Args:
        images: (H, W, 3) uint8, RGB.
        columns: title, and the people of each image.
        limbs: pairs of joints.
        path: PNG file to write.
    """
    figure = new_figure(PANEL * len(columns), PANEL * len(images) + 0.3)
    axes = figure.subplots(len(images), len(columns), squeeze=False)
    for number, (title, people) in enumerate(columns):
        for row, image in enumerate(images):
            panel = axes[row, number]
            show_image(panel, image)
            for index in range(len(people[row].keypoints)):
                draw_person(
                    panel,
                    people[row].keypoints[index],
                    people[row].shown[index],
                    limbs,
                    COLOURS[index % len(COLOURS)],
                )
            if row == 0:
                panel.set_title(title, fontsize=9)
    save_figure(figure, path)


def show_image(axes: Any, image: np.ndarray, strength: float = 1.0) -> None:
    """Show an image without ticks, mixed with white if ``strength`` is below 1."""
    height, width = image.shape[:2]
    axes.imshow(np.asarray(255 - strength * (255.0 - image), np.uint8), interpolation='nearest')
    axes.set(xticks=(), yticks=(), xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def draw_person(
    axes: Any,
    keypoints: np.ndarray,
    shown: np.ndarray,
    limbs: Sequence[tuple[int, int]],
    colour: str,
) -> None:
    """Draw the limbs of a person, (K, 2), and the joints that are shown, (K,)."""
    for start, end in limbs:
        if shown[start] and shown[end]:
            x, y = keypoints[[start, end]].T
            axes.plot(x, y, color='white', linewidth=2.4, alpha=0.8, solid_capstyle='round')
            axes.plot(x, y, color=colour, linewidth=1.4, solid_capstyle='round')
    x, y = keypoints[shown].T
    axes.scatter(x, y, s=9, color=colour, edgecolors='white', linewidths=0.5, zorder=3)
