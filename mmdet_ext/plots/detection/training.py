"""Figures of training: images behind a pipeline with their boxes, and learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.plots.detection.boxes import image_grid, outline
from mmdet_ext.plots.style import COLOURS, DASHED, GREY, new_figure, save_figure, save_small_figure


def draw_samples(
    samples: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
    classes: Sequence[str],
    path: Path,
    title: str,
    columns: int = 4,
) -> None:
    """Draw images with their boxes in the colours of the classes; ignored ones are dashed.

    Args:
        samples: image (H, W, 3), RGB; boxes (N, 4); labels (N,); ignored boxes (M, 4).
        classes: names of the classes, for the legend.
        path: the png file to write.
        title: text above the figure.
        columns: number of images per row.

    Raises:
        ValueError: without an image.
    """
    figure, panels = image_grid(len(samples), columns, 2.6, 2.2, margin=0.8)
    for axes, (image, boxes, labels, ignored) in zip(panels, samples, strict=False):
        axes.imshow(image, interpolation='bilinear')
        for box, label in zip(boxes, labels, strict=True):
            outline(axes, _sides(box), COLOURS[int(label) % len(COLOURS)])
        for box in ignored:
            outline(axes, _sides(box), GREY, DASHED)
        axes.set_xlim(0, image.shape[1])
        axes.set_ylim(image.shape[0], 0)
    figure.suptitle(title, fontsize=12)
    _add_legend(figure, classes, any(len(ignored) for *_, ignored in samples))
    save_figure(figure, path)


def _sides(box: np.ndarray) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = map(float, box)
    return x1, y1, x2 - x1, y2 - y1


def _add_legend(figure: Any, classes: Sequence[str], ignores: bool, most: int = 12) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=COLOURS[number % len(COLOURS)], label=name)
        for number, name in enumerate(classes[:most])
    ]
    if ignores:
        handles.append(Line2D([], [], color=GREY, linestyle=DASHED, label='ignored'))
    if handles:
        figure.legend(handles=handles, loc='outside lower center', ncols=min(6, len(handles)))


def draw_learning_rates(rates: Mapping[str, tuple[np.ndarray, int | None]], path: Path) -> None:
    """Draw the learning rate of every step, one line per config.

    Args:
        rates: by name, the rates (T,), and the number of steps of an epoch, None for steps.
        path: the png file to write.

    Raises:
        ValueError: without a config.
    """
    if not rates:
        raise ValueError('there is no learning rate to draw')
    by_epoch = all(length is not None for _, length in rates.values())
    figure = new_figure(7.5, 3.6)
    axes = figure.subplots()
    for number, (name, (values, length)) in enumerate(rates.items()):
        time = np.arange(len(values)) / (length if by_epoch and length else 1)
        line = '-' if number < len(COLOURS) else DASHED
        axes.plot(time, values, label=name, color=COLOURS[number % len(COLOURS)], linestyle=line)
    axes.set_xlabel('epoch' if by_epoch else 'step')
    axes.set_ylabel('learning rate')
    axes.set_ylim(bottom=0)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False)
    save_small_figure(figure, path)
