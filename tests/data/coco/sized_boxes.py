"""COCO file with boxes of every kind in images of several sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BOXES = [
    {'bbox': [0, 0, 10, 10]},
    {'bbox': [5, 5, 20, 10]},
    {'bbox': [70, 40, 20, 20]},  # clipped to 10 x 10 in an image of 80 x 50 px
    {'bbox': [0, 0, 40, 40], 'image_id': 1},
    {'bbox': [0, 0, 40, 44], 'image_id': 1},
    {'bbox': [0, 0, 9, 9], 'iscrowd': 1},
    {'bbox': [0, 0, 9, 9], 'ignore': 1},
    {'bbox': [0, 0, 9, 0]},
    {'bbox': [0, 0, 9, 9], 'image_id': 2},  # its image has no size
    {'bbox': None},
]
SIZES: tuple[dict[str, Any], ...] = (
    {'width': 80, 'height': 50},
    {'width': 160, 'height': 200},
    {},
)


def write_coco(path: Path, boxes: list[dict[str, Any]] | None = None) -> Path:
    """Write a file of three images with `BOXES`, or with other boxes."""
    content = {
        'images': [{'id': k, 'file_name': f'{k}.jpg', **size} for k, size in enumerate(SIZES)],
        'categories': [{'id': 1, 'name': 'a'}],
        'annotations': [
            {'id': k + 1, 'image_id': 0, 'category_id': 1, **box}
            for k, box in enumerate(BOXES if boxes is None else boxes)
        ],
    }
    path.write_text(json.dumps(content))
    return path
