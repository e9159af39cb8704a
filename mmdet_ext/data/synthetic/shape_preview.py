"""Preview of a set of shapes: a sheet of images with their boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmdet_ext.data.synthetic.shape_scenes import CLASSES, Pixels

_LABELLED_FROM = 0.1
_IMAGES, _COLUMNS, _SCALE, _LEGEND_HEIGHT = 6, 3, 2, 40
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_COLOURS = ((0, 230, 255), (90, 255, 60), (255, 90, 255))  # BGR, per class


def write_image(path: Path, image: Pixels, *options: int) -> None:
    """Write an image in the format of the path's suffix, with OpenCV's options of encoding."""
    _, data = cv2.imencode(path.suffix, image, options)
    path.write_bytes(data.tobytes())  # OpenCV's own writer does not report why it fails


def write_preview(folder: Path, coco: dict[str, Any]) -> None:
    """Write ``preview.png``: training images with boxes, those with most classes first."""
    by_image: dict[str, list[Any]] = {image['file_name']: [] for image in coco['images']}
    for item in coco['annotations']:
        by_image[coco['images'][item['image_id'] - 1]['file_name']].append(item)
    shown = sorted(by_image, key=lambda name: -len({it['category_id'] for it in by_image[name]}))
    tiles = [
        _preview_tile(folder / 'images' / 'train' / name, by_image[name])
        for name in shown[:_IMAGES]
    ]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % _COLUMNS)
    sheet = np.vstack(
        [np.hstack(tiles[start : start + _COLUMNS]) for start in range(0, len(tiles), _COLUMNS)]
    )
    legend = np.full((_LEGEND_HEIGHT, sheet.shape[1], 3), 40, np.uint8)
    left = 12
    for text, colour in [
        *zip(CLASSES, _COLOURS, strict=True),
        ('%: share hidden by later shapes, from 10 %', (255, 255, 255)),
    ]:
        cv2.putText(legend, text, (left, 26), _FONT, 0.55, colour, 1, cv2.LINE_AA)
        left += cv2.getTextSize(text, _FONT, 0.55, 1)[0][0] + 24
    write_image(folder / 'preview.png', np.vstack([sheet, legend]))


def _preview_tile(path: Path, annotations: list[dict[str, Any]]) -> Pixels:
    """Draw one enlarged image with a frame and its boxes, labelled with their hidden shares."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    tile = cv2.resize(
        np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)),
        None,
        fx=_SCALE,
        fy=_SCALE,
        interpolation=cv2.INTER_CUBIC,
    )
    labels = []
    for annotation in annotations:
        x, y, width, height = (round(_SCALE * value) for value in annotation['bbox'])
        colour = _COLOURS[annotation['category_id'] - 1]
        cv2.rectangle(tile, (x, y), (x + width - 1, y + height - 1), colour, 1)
        hidden = 1 - annotation['visible']
        if hidden >= _LABELLED_FROM:
            labels.append((f'{hidden:.0%}', (x, y), colour))
    for text, (x, y), colour in labels:
        (width, height), _ = cv2.getTextSize(text, _FONT, 0.4, 1)
        cv2.rectangle(tile, (x, y), (x + width + 3, y + height + 5), (0, 0, 0), cv2.FILLED)
        cv2.putText(tile, text, (x + 2, y + height + 2), _FONT, 0.4, colour, 1, cv2.LINE_AA)
    cv2.rectangle(tile, (0, 0), (tile.shape[1] - 1, tile.shape[0] - 1), (255, 255, 255), 1)
    return np.asarray(tile, np.uint8)
