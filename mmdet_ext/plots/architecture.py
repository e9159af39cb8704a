"""Figures of architectures: sizes per layer, and detectors side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet_ext.plots.style import COLOURS, GREY, new_figure, save_small_figure


def draw_sizes(title: str, layers: Sequence[Mapping[str, Any]], side: int, path: Path) -> None:
    """Draw the width of the map and the receptive field of each layer.

    Args:
        title: Name of the detector.
        layers: Per layer ``name``, ``map_size`` (height, width), ``field`` and ``measured`` in px;
            infinite for a whole image, and ``field`` None where there is no formula.
        side: Longer side of the image in px, drawn as a line.
        path: The png file to write.
    """
    figure = new_figure(9, 5.4)
    upper, lower = figure.subplots(2, 1, sharex=True)
    numbers = range(1, len(layers) + 1)
    upper.step(numbers, [layer['map_size'][1] for layer in layers], where='mid', color=COLOURS[0])
    upper.set_ylabel('width of the map')
    upper.set_yscale('log', base=2)
    upper.set_title(title)
    formula = [_finite(layer['field']) for layer in layers]
    lower.plot(numbers, formula, color=COLOURS[0], label='formula')
    measured = [_finite(layer['measured']) for layer in layers]
    lower.plot(numbers, measured, '.', color=COLOURS[1], label='measured by gradients')
    whole = [n for n, layer in zip(numbers, layers, strict=True) if layer['measured'] == math.inf]
    if whole:
        lower.plot(whole, [side] * len(whole), 'x', color=GREY, label='whole image')
    lower.axhline(side, color=GREY, linestyle='--', linewidth=1, label=f'image, {side} px')
    lower.set(xlabel='convolution or pooling', ylabel='receptive field in px', ylim=(0, None))
    lower.xaxis.get_major_locator().set_params(integer=True)
    in_backbone = sum(layer['name'].startswith('backbone') for layer in layers)
    for axes in (upper, lower):
        axes.grid(alpha=0.25)
        if in_backbone < len(layers):
            axes.axvline(in_backbone + 0.5, color='black', linestyle=':', linewidth=1)
    if in_backbone < len(layers):
        upper.text(in_backbone + 0.7, upper.get_ylim()[1], 'neck', va='top')
    lower.legend(frameon=False)
    save_small_figure(figure, path)


def _finite(value: float | None) -> float:
    """Return the number, NaN where nothing is to be drawn."""
    return math.nan if value is None or math.isinf(value) else value


def draw_costs(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw parameters, operations and time of detectors as points, on logarithmic axes.

    Args:
        rows: Per detector ``name``, ``parameters``, ``gflops`` and ``median_ms``.
        path: The png file to write.
    """
    figure = new_figure(11, 1.6 + 0.26 * len(rows))
    for axes, (key, scale, label) in zip(
        figure.subplots(1, 3, sharey=True),
        (
            ('parameters', 1e-6, 'million parameters'),
            ('gflops', 1, 'GFLOPs'),
            ('median_ms', 1, 'ms per image'),
        ),
        strict=True,
    ):
        names = [row['name'] for row in rows]
        axes.plot([row[key] * scale for row in rows], names, 'o', color=COLOURS[0])
        axes.set(xscale='log', xlabel=label)
        axes.grid(alpha=0.25)
    figure.axes[0].invert_yaxis()
    save_small_figure(figure, path)
