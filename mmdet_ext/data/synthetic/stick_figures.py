"""Synthetic set of people as jointed figures, with keypoints in COCO's form.

It is hard where real sets are hard: several people who hide one another, of many sizes, some cut by
the edge of the image, some joints hidden or absent. Each image depends on the seed, its split and
its number alone.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmdet_ext.data.skeletons import COCO_JOINTS, COCO_LIMBS
from mmdet_ext.data.synthetic.made_sets import check_target, move_in
from mmdet_ext.data.synthetic.shape_preview import write_image
from mmdet_ext.data.synthetic.stick_figure_scenes import (
    Pixels,
    Scene,
    StickFiguresError,
    draw_scene,
    render,
)

_MIN_SIDE, _MOST_PEOPLE = 96, 20
_SPLIT_NUMBERS = {'train': 0, 'val': 1}
_JPEG_QUALITY = 92
_DESCRIPTION = 'synthetic stick figures'
#: The file by which an earlier set is known, and how it begins.
_START = ('keypoints_train.json', _DESCRIPTION)
_TILES, _TILE_COLUMNS, _TILE_SCALE = 6, 3, 2
# BGR of a joint that is hidden, and of one that is seen.
_FLAG_COLOURS = {1: (0, 0, 0), 2: (80, 255, 80)}

#: Called with the number of finished images and that of all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FiguresSummary:
    """Statistics of one split.

    Attributes:
        images: number.
        people: number in all images.
        joints: share of joints that are absent, hidden and seen.
        sizes: quantiles 0, 25, 50, 75, 100 % of the longer side of the boxes, px.
        hidden: mean share of a figure's pixels that something hides.
    """

    images: int
    people: int
    joints: tuple[float, float, float]
    sizes: tuple[float, ...]
    hidden: float


@dataclass(frozen=True)
class FiguresReport:
    """Report of :func:`make_stick_figures`: the folder, and statistics per split."""

    out_dir: Path
    splits: dict[str, FiguresSummary]

    def table(self) -> str:
        """Format the statistics as text, one column per split."""
        labels = [
            '',
            'images',
            'people',
            *(f'joints, {flag}' for flag in ('absent', 'hidden', 'seen')),
            *(
                f'longer side in px, {quantile}'
                for quantile in ('smallest', '25 %', 'median', '75 %', 'largest')
            ),
            'mean hidden share',
        ]
        columns = [
            [
                name,
                f'{split.images}',
                f'{split.people}',
                *(f'{share:.1%}' for share in split.joints),
                *(f'{size:.1f}' for size in split.sizes),
                f'{split.hidden:.1%}',
            ]
            for name, split in self.splits.items()
        ]
        width = max(map(len, labels))
        return '\n'.join(
            f'{label:<{width}}' + ''.join(f'{cell:>9}' for cell in cells)
            for label, *cells in zip(labels, *columns, strict=True)
        )


def make_stick_figures(
    out_dir: str | os.PathLike[str],
    train: int = 600,
    val: int = 100,
    width: int = 192,
    height: int = 192,
    seed: int = 0,
    people: tuple[int, int] = (1, 4),
    overwrite: bool = False,
    preview: bool = True,
    progress: Progress | None = None,
) -> FiguresReport:
    """Write the set: ``images/{train,val}``, ``annotations/keypoints_{train,val}.json``, a preview.

    The annotations are those of COCO's person keypoints: 17 joints as x, y, v with v = 0 for a
    joint that is absent or outside of the image, 1 for a hidden one and 2 for one that is seen;
    ``num_keypoints`` counts v above 0. Box and ``area`` are those of the whole silhouette within
    the image, hidden parts included; ``visible`` is the share of it that nothing hides. The left
    arm is orange, the right one light blue, the left leg red and the right one blue. All parts of a
    figure have one shade, and the figures of an image differ in it: what tags can be learnt from.
    The same seed gives the same set, and an image does not depend on the numbers of images.

    Args:
        out_dir: Folder for the set; it must be absent or empty.
        train: Number of images to train on, at least 1.
        val: Number of images to validate on, at least 1.
        width: Width of the images in pixels, at least 96.
        height: Height of the images in pixels, at least 96.
        seed: Seed, at least 0.
        people: Least and largest number of people in an image, from 1 to 20.
        overwrite: Replace a set that this function wrote into ``out_dir`` earlier.
        preview: Write ``preview.png``, a sheet of images with their joints.
        progress: Called after each image.

    Returns:
        Statistics of both splits.

    Raises:
        StickFiguresError: If an argument is out of range, or ``out_dir`` holds anything else.
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
            raise StickFiguresError(f'{name} is {value}; expected at least {least}')
    if not 1 <= people[0] <= people[1] <= _MOST_PEOPLE:
        raise StickFiguresError(
            f'people is {people[0]} to {people[1]}; expected two numbers from 1 to {_MOST_PEOPLE}, '
            'the smaller one first'
        )
    out_dir = Path(out_dir)
    check_target(out_dir, overwrite, _START, StickFiguresError)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f'.{out_dir.name}-', dir=out_dir.parent))
    splits, done = {}, 0

    def report() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, train + val)

    try:
        for split, count in (('train', train), ('val', val)):
            coco = _write_split(scratch, split, count, (width, height), seed, people, report)
            splits[split] = _summarise(coco)
            if preview and split == 'train':
                _write_preview(scratch, coco)
        move_in(scratch, out_dir, ('annotations', 'images', 'preview.png'))
    finally:
        shutil.rmtree(scratch)
    return FiguresReport(out_dir, splits)


def figure_image(
    seed: int, split: str, number: int, size: tuple[int, int], people: tuple[int, int]
) -> tuple[Scene, Pixels]:
    """Draw the scene of an image of the set, and its pixels.

    Args:
        seed: of the set.
        split: 'train' or 'val'.
        number: of the image, from 1.
        size: width and height, px.
        people: least and largest number of people.
    """
    rng = np.random.default_rng((seed, _SPLIT_NUMBERS[split], number))
    scene = draw_scene(rng, *size, people)
    return scene, render(rng, scene, *size)


def _write_split(
    folder: Path,
    split: str,
    count: int,
    size: tuple[int, int],
    seed: int,
    people: tuple[int, int],
    report: Callable[[], None],
) -> dict[str, Any]:
    """Write the images and annotations of a split, and return the contents of the latter."""
    images, annotations = folder / 'images' / split, folder / 'annotations'
    images.mkdir(parents=True)
    annotations.mkdir(exist_ok=True)
    person = {'id': 1, 'name': 'person', 'supercategory': 'person'}
    coco: dict[str, Any] = {
        'info': {'description': f'{_DESCRIPTION}, {split}, seed {seed}'},
        'images': [],
        'annotations': [],
        'categories': [
            {
                **person,
                'keypoints': list(COCO_JOINTS),
                # COCO counts joints from 1 here.
                'skeleton': [[joint + 1 for joint in limb] for limb in COCO_LIMBS],
            }
        ],
    }
    for number in range(1, count + 1):
        name = f'{number:06d}.jpg'
        scene, pixels = figure_image(seed, split, number, size, people)
        write_image(images / name, pixels, cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY)
        width, height = size
        coco['images'].append({'id': number, 'file_name': name, 'width': width, 'height': height})
        for index in range(len(scene.figures)):
            item = {'id': len(coco['annotations']) + 1, 'image_id': number, 'category_id': 1}
            coco['annotations'].append({**item, **_annotation(scene, index)})
        report()
    (annotations / f'keypoints_{split}.json').write_text(json.dumps(coco), encoding='utf-8')
    return coco


def _annotation(scene: Scene, index: int) -> dict[str, Any]:
    """Describe a figure of a scene in COCO's form."""
    silhouette, flags = scene.silhouettes[index], scene.flags[index]
    rows, columns = silhouette.any(1).nonzero()[0], silhouette.any(0).nonzero()[0]
    left, top = int(columns[0]), int(rows[0])
    keypoints: list[float | int] = []
    for place, flag in zip(scene.figures[index].joints, flags.tolist(), strict=True):
        x, y = place.round(2).tolist()
        keypoints += [x, y, flag] if flag else [0, 0, 0]
    return {
        'bbox': [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
        'area': int(silhouette.sum()),
        'iscrowd': 0,
        'num_keypoints': int((flags > 0).sum()),
        'keypoints': keypoints,
        'visible': round(float(scene.shares[index]), 3),
    }


def _write_preview(folder: Path, coco: dict[str, Any]) -> None:
    """Write ``preview.png``: the first training images, joints seen and hidden marked."""
    tiles = []
    for image in coco['images'][:_TILES]:
        data = np.frombuffer(
            (folder / 'images' / 'train' / image['file_name']).read_bytes(), np.uint8
        )
        tile = cv2.resize(
            np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)),
            None,
            fx=_TILE_SCALE,
            fy=_TILE_SCALE,
            interpolation=cv2.INTER_CUBIC,
        )
        for item in coco['annotations']:
            for x, y, flag in np.reshape(item['keypoints'], (-1, 3)).tolist():
                if item['image_id'] == image['id'] and flag:
                    place = tuple(round((value + 0.5) * _TILE_SCALE) for value in (x, y))
                    cv2.circle(tile, place, 2, _FLAG_COLOURS[int(flag)], -1, cv2.LINE_AA)
        tiles.append(tile)
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % _TILE_COLUMNS)
    rows = [tiles[i : i + _TILE_COLUMNS] for i in range(0, len(tiles), _TILE_COLUMNS)]
    sheet = np.vstack([np.hstack(row) for row in rows])
    write_image(folder / 'preview.png', np.asarray(sheet, np.uint8))


def _summarise(coco: dict[str, Any]) -> FiguresSummary:
    items = coco['annotations']
    flags = np.concatenate([item['keypoints'][2::3] for item in items])
    sizes = np.quantile([max(item['bbox'][2:]) for item in items], (0, 0.25, 0.5, 0.75, 1))
    absent, hidden, seen = (float((flags == flag).mean()) for flag in range(3))
    return FiguresSummary(
        images=len(coco['images']),
        people=len(items),
        joints=(absent, hidden, seen),
        sizes=tuple(float(size) for size in sizes),
        hidden=float(np.mean([1 - item['visible'] for item in items])),
    )
