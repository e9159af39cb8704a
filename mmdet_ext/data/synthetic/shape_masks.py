"""Labels per pixel of scenes of shapes, for semantic segmentation, and a preview of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mmdet_ext.data.synthetic.shape_preview import write_image
from mmdet_ext.data.synthetic.shape_scenes import CLASSES, Pixels, Shape, coverage

#: Names of the labels 0, 1, ...; shapes keep their order behind the background.
MASK_CLASSES = ('background', *CLASSES)
#: Colour of each label, RGB.
PALETTE = ((70, 70, 70), (255, 230, 0), (60, 255, 90), (255, 90, 255))
#: Label of pixels that belong to no class.
IGNORED = 255
#: Least share of a pixel that a class covers to own it.
MIN_SHARE = 0.75

_PREVIEWED = 6


def label_map(shapes: list[Shape], width: int, height: int) -> Pixels:
    """Label each pixel by the class that is seen in at least three quarters of it.

    Pixels at outlines, in which no class is, have the label `IGNORED`: their colour is mixed.

    Args:
        shapes: the shapes, the lowest first.
        width: width of the image in pixels.
        height: height of the image in pixels.

    Returns:
        Labels of `MASK_CLASSES`, shape (height, width).
    """
    shares = np.zeros((len(MASK_CLASSES), height, width), np.float32)
    shares[0] = 1
    for shape in shapes:
        (rows, columns), cover = coverage(shape, width, height)
        shares[:, rows, columns] *= 1 - cover
        # A distractor is background.
        label = MASK_CLASSES.index(shape.name) if shape.name in CLASSES else 0
        shares[label, rows, columns] += cover
    labels = shares.argmax(axis=0)
    labels[shares.max(axis=0) < MIN_SHARE] = IGNORED
    return labels.astype(np.uint8)


def write_mask_preview(folder: Path, split: str = 'train') -> None:
    """Write ``preview_masks.png``: images, and below them their labels; ignored pixels are white.

    The first images with most classes are shown.

    Args:
        folder: folder of the set, with ``images`` and ``masks``.
        split: part of the set.
    """
    masks = {
        path: _read(path, cv2.IMREAD_UNCHANGED) for path in (folder / 'masks' / split).iterdir()
    }
    shown = sorted(masks, key=lambda path: (-len(np.unique(masks[path])), path.name))[:_PREVIEWED]
    colours = np.full((256, 3), 255, np.uint8)
    colours[: len(PALETTE)] = np.array(PALETTE)[:, ::-1]  # OpenCV's order is BGR
    images = [
        _read(folder / 'images' / split / f'{path.stem}.jpg', cv2.IMREAD_COLOR) for path in shown
    ]
    sheet = np.vstack([np.hstack(images), np.hstack([colours[masks[path]] for path in shown])])
    write_image(folder / 'preview_masks.png', np.asarray(sheet, np.uint8))


def _read(path: Path, flags: int) -> Pixels:
    return np.asarray(cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flags), np.uint8)
