"""Colours and figures that all plots share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmdet_ext.utils.files import whole_file

# Okabe and Ito's palette, told apart with any colour vision; its yellow is left out (too pale).
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#6A3D9A')
PALE = ('#CC79A7', '#56B4E9', '#E69F00')  # black writing on these
GREY = '#555555'
DASHED = (0, (3, 2))
DPI = 120


def new_figure(width: float, height: float) -> Any:
    """An empty figure of that many inches, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG."""
    with whole_file(path) as part:
        figure.savefig(part, format='png')
