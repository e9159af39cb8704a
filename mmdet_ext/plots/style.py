"""Colours of all figures, and figures that are made and written without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.utils.files import whole_file

# The palette of Okabe and Ito, which is readable with any colour vision, without its pale yellow.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#6A3D9A')
PALE = ('#CC79A7', '#56B4E9', '#E69F00')  # colours that need black text
GREY = '#555555'
DASHED = (0, (3, 2))
DPI = 120
SMALL_DPI = 100


def new_figure(width: float, height: float) -> Any:
    """Make an empty figure of the given size in inches, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG."""
    with whole_file(path) as part:
        figure.savefig(part, format='png')


def save_small_figure(figure: Any, path: Path) -> None:
    """Write a figure of few colours as PNG with a palette, which takes a third of the space."""
    from PIL import Image

    figure.set_dpi(SMALL_DPI)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    image = Image.fromarray(np.ascontiguousarray(pixels)).quantize(256, dither=Image.Dither.NONE)
    with whole_file(path) as part:
        image.save(part, format='png', optimize=True)
