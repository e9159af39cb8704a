"""Synthetic set of circles, squares and triangles that hide one another, with boxes and labels.

It is hard where real sets are hard: sizes over a factor of ten, occlusion, classes in the ratio
20 : 4 : 1. Each image depends on the seed, its split and its number alone.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmdet_ext.data.synthetic.made_sets import check_target, move_in
from mmdet_ext.data.synthetic.shape_masks import MASK_CLASSES, label_map, write_mask_preview
from mmdet_ext.data.synthetic.shape_preview import write_image, write_preview
from mmdet_ext.data.synthetic.shape_scenes import (
    CLASSES,
    Contents,
    ShapesError,
    draw_scene,
    render,
    visible_shares,
)

_MIN_SIDE = 64
_SPLIT_NUMBERS = {'train': 0, 'val': 1}
_JPEG_QUALITY = 92
_DESCRIPTION = 'synthetic shapes'
#: The file by which an earlier set is known, and how it begins.
_START = ('instances_train.json', _DESCRIPTION)
_WRITTEN = ('annotations', 'images', 'masks', 'preview.png', 'preview_masks.png')


@dataclass(frozen=True)
class SplitSummary:
    """Statistics of one split.

    ``sizes`` are quantiles 0, 25, 50, 75, 100 % of the longer side; they and
    ``mean_occlusion`` are NaN in a split without boxes. ``pixel_shares`` are those of
    the labels that masks have, and 'ignored'; empty without masks.
    """

    images: int
    class_boxes: dict[str, int]
    sizes: tuple[float, ...]
    mean_occlusion: float
    pixel_shares: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ShapesReport:
    """Report of :func:`make_shapes`: the folder, and statistics per split."""

    out_dir: Path
    splits: dict[str, SplitSummary]

    def table(self) -> str:
        """Format the statistics as text, one column per split."""
        columns = [
            (
                '',
                'images',
                'boxes',
                *(f'  {name}' for name in CLASSES),
                *(
                    f'longer side in px, {quantile}'
                    for quantile in ('smallest', '25 %', 'median', '75 %', 'largest')
                ),
                'mean hidden share',
                *self._mask_labels('pixels, '),
            )
        ]
        for name, split in self.splits.items():
            counts = (split.images, sum(split.class_boxes.values()), *split.class_boxes.values())
            columns.append(
                (
                    name,
                    *map(str, counts),
                    *(_cell(size, '.1f') for size in split.sizes),
                    _cell(split.mean_occlusion, '.1%'),
                    *(f'{share:.2%}' for share in split.pixel_shares.values()),
                )
            )
        width = max(map(len, columns[0]))
        return '\n'.join(
            f'{label:<{width}}' + ''.join(f'{cell:>9}' for cell in cells)
            for label, *cells in zip(*columns, strict=True)
        )

    def _mask_labels(self, start: str) -> list[str]:
        """Name the rows of the labels of masks."""
        return [f'{start}{name}' for name in next(iter(self.splits.values())).pixel_shares]


def make_shapes(
    out_dir: str | os.PathLike[str],
    train: int = 240,
    val: int = 60,
    width: int = 240,
    height: int = 180,
    seed: int = 0,
    overwrite: bool = False,
    preview: bool = True,
    masks: bool = False,
    contents: Contents | None = None,
) -> ShapesReport:
    """Write the set: ``images/{train,val}``, ``annotations/instances_{train,val}.json``, a preview.

    A box holds the whole extent of a shape within the image, hidden parts included, and so does the
    polygon ``segmentation``; ``area`` is that of the box. An annotation also holds ``visible``, the
    share of the shape that no other hides. The same seed gives the same set, and an image does not
    depend on the numbers of images, nor on masks.

    Masks, ``masks/{train,val}/<name of the image>.png``, hold a label per pixel: 0 for the
    background, then the classes, and 255 for pixels of mixed colour at outlines. mmseg's
    BaseSegDataset reads them as they are.

    Args:
        out_dir: Folder for the set; it must be absent or empty.
        train: Number of images to train on, at least 1.
        val: Number of images to validate on, at least 1.
        width: Width of the images in pixels, at least 64.
        height: Height of the images in pixels, at least 64.
        seed: Seed, at least 0.
        overwrite: Replace a set that this function wrote into ``out_dir`` earlier.
        preview: Write ``preview.png``, a sheet of images with their boxes, and with masks also
            ``preview_masks.png``.
        masks: Write masks.
        contents: Numbers of shapes in an image; by default 6 to 20, and no distractors, which are
            painted, but neither annotated nor labelled.

    Returns:
        Statistics of both splits.

    Raises:
        ShapesError: If an argument is out of range, or ``out_dir`` holds anything else.
        OSError: If a file cannot be written.
    """
    for name, value, least in (
        ('train', train, 1),
        ('val', val, 1),
        ('width', width, _MIN_SIDE),
        ('height', height, _MIN_SIDE),
        ('seed', seed, 0),
    ):
        if value < least:
            raise ShapesError(f'{name} is {value}; expected at least {least}')
    contents = contents or Contents()
    out_dir = Path(out_dir)
    check_target(out_dir, overwrite, _START, ShapesError)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f'.{out_dir.name}-', dir=out_dir.parent))
    try:
        cocos = {
            split: _write_split(scratch, split, count, width, height, seed, contents)
            for split, count in (('train', train), ('val', val))
        }
        pixels = {
            split: _write_masks(scratch, split, count, width, height, seed, contents)
            if masks
            else {}
            for split, count in (('train', train), ('val', val))
        }
        if preview:
            write_preview(scratch, cocos['train'])
        if preview and masks:
            write_mask_preview(scratch)
        move_in(scratch, out_dir, _WRITTEN)
    finally:
        shutil.rmtree(scratch)
    return ShapesReport(
        out_dir, {split: _summarise(coco, pixels[split]) for split, coco in cocos.items()}
    )


def _write_split(
    folder: Path, split: str, count: int, width: int, height: int, seed: int, contents: Contents
) -> dict[str, Any]:
    """Write the images and annotations of a split, and return the contents of the latter."""
    images, annotations = folder / 'images' / split, folder / 'annotations'
    images.mkdir(parents=True)
    annotations.mkdir(exist_ok=True)
    coco: dict[str, Any] = {
        'info': {'description': f'{_DESCRIPTION}, {split}, seed {seed}'},
        'images': [],
        'annotations': [],
        'categories': [{'id': number, 'name': name} for number, name in enumerate(CLASSES, 1)],
    }
    for number in range(1, count + 1):
        name = f'{number:06d}.jpg'
        rng = _source(seed, split, number)
        shapes = draw_scene(rng, width, height, contents)
        write_image(
            images / name,
            render(rng, shapes, width, height),
            cv2.IMWRITE_JPEG_QUALITY,
            _JPEG_QUALITY,
        )
        coco['images'].append({'id': number, 'file_name': name, 'width': width, 'height': height})
        for shape, share in zip(shapes, visible_shares(shapes, width, height), strict=True):
            if shape.name not in CLASSES:
                continue
            x0, y0, x1, y1 = (round(edge, 2) for edge in shape.box(width, height))
            box = [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)]
            coco['annotations'].append(
                {
                    'id': len(coco['annotations']) + 1,
                    'image_id': number,
                    'category_id': CLASSES.index(shape.name) + 1,
                    'bbox': box,
                    'segmentation': [shape.outline(width, height).round(2).ravel().tolist()],
                    'area': round(box[2] * box[3], 2),
                    'iscrowd': 0,
                    'visible': round(share, 3),
                }
            )
    (annotations / f'instances_{split}.json').write_text(json.dumps(coco), encoding='utf-8')
    return coco


def _write_masks(
    folder: Path, split: str, count: int, width: int, height: int, seed: int, contents: Contents
) -> dict[str, float]:
    """Write the labels of a split, and return the share of each label and of what is ignored."""
    target = folder / 'masks' / split
    target.mkdir(parents=True)
    total = np.zeros(256, np.int64)
    for number in range(1, count + 1):
        shapes = draw_scene(_source(seed, split, number), width, height, contents)
        labels = label_map(shapes, width, height)
        write_image(target / f'{number:06d}.png', labels)
        total += np.bincount(labels.ravel(), minlength=256)
    shares = dict(zip(MASK_CLASSES, (total / total.sum()).tolist(), strict=False))
    return {**shares, 'ignored': 1 - sum(shares.values())}


def _source(seed: int, split: str, number: int) -> np.random.Generator:
    """Return the source of the random numbers of an image."""
    return np.random.default_rng((seed, _SPLIT_NUMBERS[split], number))


def _cell(value: float, spec: str) -> str:
    """Format a number of the table; NaN, of a split without boxes, is a dash."""
    return '-' if math.isnan(value) else format(value, spec)


def _summarise(coco: dict[str, Any], pixel_shares: dict[str, float]) -> SplitSummary:
    items = coco['annotations']
    category_ids = [item['category_id'] for item in items]
    quantiles = (0, 0.25, 0.5, 0.75, 1)
    sizes = (
        np.quantile([max(item['bbox'][2:]) for item in items], quantiles)
        if items
        else np.full(len(quantiles), np.nan)
    )
    return SplitSummary(
        images=len(coco['images']),
        class_boxes={name: category_ids.count(index) for index, name in enumerate(CLASSES, 1)},
        sizes=tuple(float(size) for size in sizes),
        mean_occlusion=float(np.mean([1 - item['visible'] for item in items]))
        if items
        else math.nan,
        pixel_shares=pixel_shares,
    )
