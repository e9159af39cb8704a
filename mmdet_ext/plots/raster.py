"""Images of figures, as small PNG and GIF files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.plots.style import SMALL_DPI
from mmdet_ext.utils.files import whole_file

#: Time of a frame and of the last frame of an animation, ms.
FRAME_MS, LAST_FRAME_MS = 600, 2500


def pixels(figure: Any) -> np.ndarray:
    """Render a figure as an RGB image, uint8, (H, W, 3)."""
    figure.set_dpi(SMALL_DPI)
    figure.canvas.draw()
    return np.ascontiguousarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])


def write_image(image: np.ndarray, path: Path) -> None:
    """Write an RGB image as PNG with a palette of 256 colours, which takes a third of the space."""
    from PIL import Image

    with whole_file(path) as part:
        Image.fromarray(image).quantize(256, dither=Image.Dither.NONE).save(
            part, format='png', optimize=True
        )


def write_animation(frames: Sequence[Path], path: Path) -> None:
    """Write images of one size as a GIF that repeats and holds the last frame longer.

    The file is written whole or not at all.

    Args:
        frames: image files in their order.
        path: file to write.

    Raises:
        ValueError: if there is no frame, or frames differ in size.
        OSError: if a frame cannot be read.
    """
    from PIL import Image

    if not frames:
        raise ValueError('frames is empty: an animation needs at least one image')
    images = []
    for frame in frames:
        with Image.open(frame) as opened:
            images.append(opened.convert('RGB').quantize(128, dither=Image.Dither.NONE))
    sizes = {image.size for image in images}
    if len(sizes) > 1:
        raise ValueError(f'frames must be of one size, got {sorted(sizes)} (width, height) in px')
    durations = [FRAME_MS] * (len(images) - 1) + [LAST_FRAME_MS]
    with whole_file(path) as part:
        images[0].save(
            part,
            format='gif',
            save_all=True,
            append_images=images[1:],
            duration=durations,
            loop=0,
            optimize=False,
        )
