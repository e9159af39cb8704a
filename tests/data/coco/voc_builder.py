"""Pascal VOC folders that a test builds file by file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

#: Class name, and xmin, ymin, xmax, ymax as texts or numbers; corners left out are absent.
Item = tuple[str, tuple[object, ...]]


class Voc:
    """Pascal VOC folder under construction."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
            (root / folder).mkdir(parents=True)

    def image(self, name: str, size: tuple[int, int] = (100, 80), seed: int = 0) -> Path:
        """Write an image of noise; ``size`` is its width and height in pixels."""
        pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        path = self.root / 'JPEGImages' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return path

    def xml(
        self,
        image_id: str,
        *items: Item,
        filename: str = '',
        size: str | None = '100 80',
        difficult: int = 0,
    ) -> None:
        """Write an annotation with the given objects."""
        objects = ''.join(
            f'<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>'
            + ''.join(
                f'<{tag}>{value}</{tag}>'
                for tag, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), corners, strict=False)
            )
            + '</bndbox></object>'
            for name, corners in items
        )
        if size is not None:
            width, height = size.split()
            size = f'<size><width>{width}</width><height>{height}</height></size>'
        self.raw_xml(
            image_id,
            f'<annotation><filename>{filename}</filename>{size or ""}{objects}</annotation>',
        )

    def raw_xml(self, image_id: str, text: str, encoding: str = 'utf-8') -> None:
        """Write the text of an annotation as it is."""
        path = self.root / 'Annotations' / f'{image_id}.xml'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode(encoding))

    def split(self, name: str, *lines: str, encoding: str = 'utf-8') -> None:
        """Write the list of a split."""
        path = self.root / 'ImageSets' / 'Main' / f'{name}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(('\n'.join(lines) + '\n\n').encode(encoding))

    def sample(self, image_id: str, *items: Item, **options: Any) -> None:
        """Write an image and its annotation."""
        self.image(f'{image_id}.jpg')
        self.xml(image_id, *items, **options)


def load_split(out: Path, split: str) -> dict[str, Any]:
    """Read the COCO file of a split."""
    return dict(json.loads((out / f'instances_{split}.json').read_text(encoding='utf-8')))


def converted_boxes(out: Path, split: str = 'train') -> list[tuple[str, str, list[float]]]:
    """Return image name, class name and box of each annotation in the COCO file of a split."""
    coco = load_split(out, split)
    files = {image['id']: image['file_name'] for image in coco['images']}
    names = {category['id']: category['name'] for category in coco['categories']}
    return [
        (files[item['image_id']], names[item['category_id']], item['bbox'])
        for item in coco['annotations']
    ]
