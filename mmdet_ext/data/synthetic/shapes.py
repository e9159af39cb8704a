"""A seeded synthetic detection set: circles, squares and triangles that hide one another.

Hard where real sets are: sizes over a factor of ten, occlusion, classes in the ratio 20 : 4 : 1.
Every picture is drawn from the seed, its split and its number alone.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

CLASSES = ('circle', 'square', 'triangle')
CLASS_SHARES = (20 / 25, 4 / 25, 1 / 25)
SHAPES_PER_PICTURE = (6, 20)
MIN_SIZE = 8.0
MIN_VISIBLE = 0.3
MIN_INSIDE = 0.5

_MIN_SIDE = 64
_SPLIT_NUMBERS = {'train': 0, 'val': 1}
_CORNER_COUNTS = {'circle': 0, 'square': 4, 'triangle': 3}
_TRIES, _TRIES_PER_SIZE, _SHRINK = 2000, 50, 0.8
_RIM, _RIM_SHADE = 1.5, 0.55
_COLOUR_TRIES, _MIN_CONTRAST = 8, 110.0
_JPEG_QUALITY = 92
_LABELLED_FROM = 0.1
_DESCRIPTION = 'synthetic shapes'
_PREVIEW_PICTURES, _PREVIEW_COLUMNS, _PREVIEW_SCALE, _LEGEND_HEIGHT = 6, 3, 2, 40
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PREVIEW_COLOURS = ((0, 230, 255), (90, 255, 60), (255, 90, 255))  # BGR, by class

Picture = NDArray[np.uint8]
Cover = tuple[tuple[slice, slice], NDArray[np.float32]]


class ShapesError(ValueError):
    """An argument cannot be used; the message is for users."""


@dataclass(frozen=True)
class Shape:
    """A circle or regular polygon; ``centre``, ``radius`` (to the corners) in pixels."""

    name: str
    centre: tuple[float, float]
    radius: float
    angle: float = 0.0

    def corners(self) -> NDArray[np.float64]:
        """Corners (K, 2) as x, y; none for a circle."""
        count = _CORNER_COUNTS[self.name]
        angles = self.angle + 2 * math.pi * np.arange(count) / max(count, 1)
        return self.centre + self.radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)

    def area(self) -> float:
        """Area in square pixels, within the picture or not."""
        count = _CORNER_COUNTS[self.name]
        return self.radius**2 * (count / 2 * math.sin(2 * math.pi / count) if count else math.pi)

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Edges x0, y0, x1, y1 of the part within the picture, which must hold the centre."""
        if self.name == 'circle':
            points = np.array(self.centre) + [[-self.radius], [self.radius]]
        else:  # a corner beyond the picture does not count, only what of its edges is within
            points = _cut(_cut(self.corners(), 0, width), 1, height)
        x0, y0 = points.min(axis=0).clip(0).tolist()
        x1, y1 = points.max(axis=0).clip(max=(width, height)).tolist()
        return x0, y0, x1, y1


def _cut(corners: NDArray[np.float64], axis: int, limit: int) -> NDArray[np.float64]:
    """Cut a convex polygon, corners (K, 2), down to the strip from 0 to ``limit`` along an axis."""
    for outwards, bound in ((-1, 0), (1, limit)):
        beyond = outwards * (corners[:, axis] - bound)
        kept = []
        for here, there, a, b in zip(
            corners, np.roll(corners, -1, axis=0), beyond, np.roll(beyond, -1), strict=True
        ):
            if a <= 0:
                kept.append(here)
            if a * b < 0:
                kept.append(here + (there - here) * a / (a - b))
        corners = np.array(kept)
    return corners


@dataclass(frozen=True)
class SplitSummary:
    """Figures of one split; ``sizes`` are quantiles 0, 25, 50, 75, 100 % of the longer side."""

    pictures: int
    class_boxes: dict[str, int]
    sizes: tuple[float, ...]
    mean_occlusion: float


@dataclass(frozen=True)
class ShapesReport:
    """What :func:`make_shapes` wrote, by split."""

    out_dir: Path
    splits: dict[str, SplitSummary]

    def table(self) -> str:
        """Lay the figures out as text, one column a split."""
        columns = [
            (
                '',
                'pictures',
                'boxes',
                *(f'  {name}' for name in CLASSES),
                *(
                    f'longer side in px, {quantile}'
                    for quantile in ('smallest', '25 %', 'median', '75 %', 'largest')
                ),
                'mean hidden share',
            )
        ]
        for name, split in self.splits.items():
            counts = (split.pictures, sum(split.class_boxes.values()), *split.class_boxes.values())
            columns.append(
                (
                    name,
                    *map(str, counts),
                    *(f'{size:.1f}' for size in split.sizes),
                    f'{split.mean_occlusion:.1%}',
                )
            )
        width = max(map(len, columns[0]))
        return '\n'.join(
            f'{label:<{width}}' + ''.join(f'{cell:>9}' for cell in cells)
            for label, *cells in zip(*columns, strict=True)
        )


class _Layers:
    """How much of each shape can be seen, while later shapes are laid over earlier ones."""

    def __init__(self, width: int, height: int, capacity: int) -> None:
        self._seen = np.zeros((capacity, height, width), np.float32)
        self._areas = np.zeros(0)
        self._left = np.zeros(0)

    def add(self, shape: Shape, min_inside: float = 0.0, min_visible: float = 0.0) -> bool:
        """Lay a shape on top, unless too little of it or of one below would be left."""
        count, height, width = len(self._left), *self._seen.shape[1:]
        (rows, columns), cover = coverage(shape, width, height)
        below = self._seen[:count, rows, columns]
        hidden = below * cover
        left = self._left - hidden.sum(axis=(1, 2), dtype=np.float64)
        area = cover.sum(dtype=np.float64)
        if area < min_inside * shape.area() or (left < min_visible * self._areas).any():
            return False
        below -= hidden
        self._seen[count, rows, columns] = cover
        self._left, self._areas = np.append(left, area), np.append(self._areas, area)
        return True

    def visible(self) -> list[float]:
        """The visible share of each shape's area within the picture."""
        return [float(share) for share in self._left / self._areas]


def coverage(shape: Shape, width: int, height: int, inset: float = 0.0) -> Cover:
    """Share of each pixel that a shape covers, in a window of the picture around it.

    Args:
        shape: The shape.
        width, height: Size of the picture in pixels.
        inset: Pixels by which the shape's outline is moved inwards.

    Returns:
        The window (rows, columns), and the shares in it, in [0, 1].
    """
    x0, y0, x1, y1 = shape.box(width, height)
    left, top = math.floor(x0), math.floor(y0)
    xs = np.arange(left, max(math.ceil(x1), left)) + 0.5
    ys = np.arange(top, max(math.ceil(y1), top))[:, None] + 0.5
    corners = shape.corners()
    if shape.name != 'circle':
        # A convex polygon is where no edge is passed: the largest signed distance tells.
        middles = (corners + np.roll(corners, -1, axis=0)) / 2 - shape.centre
        reach = np.linalg.norm(middles, axis=1)
        normals = middles / reach[:, None]
        distance = np.max(
            [
                normal[0] * (xs - shape.centre[0]) + normal[1] * (ys - shape.centre[1]) - far
                for normal, far in zip(normals, reach, strict=True)
            ],
            axis=0,
        )
    else:
        distance = np.hypot(xs - shape.centre[0], ys - shape.centre[1]) - shape.radius
    window = slice(top, top + len(ys)), slice(left, left + len(xs))
    return window, np.clip(0.5 - distance - inset, 0, 1).astype(np.float32)


def visible_shares(shapes: list[Shape], width: int, height: int) -> list[float]:
    """Share of each shape's area within the picture that no later shape hides."""
    layers = _Layers(width, height, len(shapes))
    for shape in shapes:
        layers.add(shape)
    return layers.visible()


def draw_scene(rng: np.random.Generator, width: int, height: int) -> list[Shape]:
    """Draw the shapes of a picture, the lowest first.

    A shape that would hide too much of an earlier one, or lie too far outside, is placed anew; it
    keeps its class, so that crowding does not shift ``CLASS_SHARES``, and keeps its size until many
    places have failed.

    Raises:
        ShapesError: If the picture has no room for so many shapes.
    """
    count = int(rng.integers(*SHAPES_PER_PICTURE, endpoint=True))
    names = rng.choice(CLASSES, count, p=CLASS_SHARES)
    sizes = np.exp(rng.uniform(math.log(MIN_SIZE), math.log(min(width, height) / 2), count))
    layers = _Layers(width, height, count)
    return [
        _place(rng, str(name), float(size), layers, width, height)
        for name, size in zip(names, sizes, strict=True)
    ]


def render(rng: np.random.Generator, shapes: list[Shape], width: int, height: int) -> Picture:
    """Paint shapes, the first one lowest, over a noisy background; gives (H, W, 3) in BGR."""
    base = rng.uniform(60, 200, 3)
    picture = np.broadcast_to(base, (height, width, 3)).astype(np.float32)
    for cell, strength, channels in ((48, 14, 3), (16, 12, 1), (5, 8, 1)):
        grid = rng.normal(0, strength, (height // cell + 2, width // cell + 2, channels))
        picture += cv2.resize(
            grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        ).reshape(height, width, channels)
    for shape in shapes:
        colours = rng.uniform(15, 240, (_COLOUR_TRIES, 3))
        contrast = np.linalg.norm(colours - base, axis=1)
        enough = contrast >= _MIN_CONTRAST
        colour = colours[enough.argmax() if enough.any() else contrast.argmax()]
        for inset, shade in ((0.0, _RIM_SHADE), (_RIM, 1.0)):
            window, cover = coverage(shape, width, height, inset)
            paint = (shade * colour).astype(np.float32)
            picture[window] += cover[..., None] * (paint - picture[window])
    picture += rng.normal(0, rng.uniform(3, 8), picture.shape).astype(np.float32)
    return np.asarray(picture.clip(0, 255).round(), np.uint8)


def make_shapes(
    out_dir: str | os.PathLike[str],
    train: int = 240,
    val: int = 60,
    width: int = 240,
    height: int = 180,
    seed: int = 0,
    overwrite: bool = False,
    preview: bool = True,
) -> ShapesReport:
    """Write the set: ``images/{train,val}``, ``annotations/instances_{train,val}.json``, a preview.

    Boxes are of a shape's whole extent within the picture, hidden parts included; each annotation
    also holds ``visible``, the share of the shape that can be seen. The same seed gives the same
    set, and the pictures of one split do not depend on the number of any.

    Args:
        out_dir: Folder for the set; it must not exist, or be empty.
        train, val: Numbers of pictures, at least 1.
        width, height: Size of the pictures in pixels, at least 64.
        seed: Seed, not negative.
        overwrite: Replace a set that this function wrote into ``out_dir`` earlier.
        preview: Write ``preview.png``, a sheet of pictures with their boxes.

    Returns:
        Figures of both splits.

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
    out_dir = Path(out_dir)
    _check_target(out_dir, overwrite)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f'.{out_dir.name}-', dir=out_dir.parent))
    try:
        cocos = {
            split: _write_split(scratch, split, count, width, height, seed)
            for split, count in (('train', train), ('val', val))
        }
        if preview:
            _write_preview(scratch, cocos['train'])
        _move_in(scratch, out_dir)
    finally:
        shutil.rmtree(scratch)
    return ShapesReport(out_dir, {split: _summarise(coco) for split, coco in cocos.items()})


def _place(
    rng: np.random.Generator, name: str, size: float, layers: _Layers, width: int, height: int
) -> Shape:
    """Find a place for a shape whose bounding box has a longer side of ``size`` pixels."""
    for attempt in range(1, _TRIES + 1):
        angle = rng.uniform(0, 2 * math.pi)
        centre = (rng.uniform(0, width), rng.uniform(0, height))
        corners = Shape(name, (0.0, 0.0), 1.0, angle).corners()
        extent = float(np.ptp(corners, axis=0).max()) if len(corners) else 2.0
        shape = Shape(name, centre, size / extent, angle)
        if layers.add(shape, MIN_INSIDE, MIN_VISIBLE):
            return shape
        if attempt % _TRIES_PER_SIZE == 0:
            size = max(size * _SHRINK, MIN_SIZE)
    raise ShapesError(
        f'pictures of {width}x{height} have no room for so many shapes; make them larger'
    )


def _write_split(
    folder: Path, split: str, count: int, width: int, height: int, seed: int
) -> dict[str, Any]:
    """Write the pictures and annotations of a split, and return the latter."""
    pictures, annotations = folder / 'images' / split, folder / 'annotations'
    pictures.mkdir(parents=True)
    annotations.mkdir(exist_ok=True)
    coco: dict[str, Any] = {
        'info': {'description': f'{_DESCRIPTION}, {split}, seed {seed}'},
        'images': [],
        'annotations': [],
        'categories': [{'id': number, 'name': name} for number, name in enumerate(CLASSES, 1)],
    }
    for number in range(1, count + 1):
        name = f'{number:06d}.jpg'
        rng = np.random.default_rng((seed, _SPLIT_NUMBERS[split], number))
        shapes = draw_scene(rng, width, height)
        _write_picture(
            pictures / name,
            render(rng, shapes, width, height),
            cv2.IMWRITE_JPEG_QUALITY,
            _JPEG_QUALITY,
        )
        coco['images'].append({'id': number, 'file_name': name, 'width': width, 'height': height})
        for shape, share in zip(shapes, visible_shares(shapes, width, height), strict=True):
            x0, y0, x1, y1 = (round(edge, 2) for edge in shape.box(width, height))
            box = [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)]
            coco['annotations'].append(
                {
                    'id': len(coco['annotations']) + 1,
                    'image_id': number,
                    'category_id': CLASSES.index(shape.name) + 1,
                    'bbox': box,
                    'area': round(box[2] * box[3], 2),
                    'iscrowd': 0,
                    'visible': round(share, 3),
                }
            )
    (annotations / f'instances_{split}.json').write_text(json.dumps(coco), encoding='utf-8')
    return coco


def _write_picture(path: Path, picture: Picture, *options: int) -> None:
    _, data = cv2.imencode(path.suffix, picture, options)
    path.write_bytes(data.tobytes())  # OpenCV's own writer would not say why it fails


def _write_preview(folder: Path, coco: dict[str, Any]) -> None:
    """Write a sheet of training pictures, those with most classes first, with boxes and legend."""
    by_image = defaultdict(list)
    for item in coco['annotations']:
        by_image[coco['images'][item['image_id'] - 1]['file_name']].append(item)
    shown = sorted(by_image, key=lambda name: -len({it['category_id'] for it in by_image[name]}))
    tiles = [
        _preview_tile(folder / 'images' / 'train' / name, by_image[name])
        for name in shown[:_PREVIEW_PICTURES]
    ]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % _PREVIEW_COLUMNS)
    sheet = np.vstack(
        [
            np.hstack(tiles[start : start + _PREVIEW_COLUMNS])
            for start in range(0, len(tiles), _PREVIEW_COLUMNS)
        ]
    )
    legend = np.full((_LEGEND_HEIGHT, sheet.shape[1], 3), 40, np.uint8)
    left = 12
    for text, colour in [
        *zip(CLASSES, _PREVIEW_COLOURS, strict=True),
        ('%: share hidden by later shapes, from 10 %', (255, 255, 255)),
    ]:
        cv2.putText(legend, text, (left, 26), _FONT, 0.55, colour, 1, cv2.LINE_AA)
        left += cv2.getTextSize(text, _FONT, 0.55, 1)[0][0] + 24
    _write_picture(folder / 'preview.png', np.vstack([sheet, legend]))


def _preview_tile(path: Path, annotations: list[dict[str, Any]]) -> Picture:
    """One enlarged picture with a thin frame, its boxes, and over them the hidden shares."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    tile = cv2.resize(
        np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)),
        None,
        fx=_PREVIEW_SCALE,
        fy=_PREVIEW_SCALE,
        interpolation=cv2.INTER_CUBIC,
    )
    labels = []
    for annotation in annotations:
        x, y, width, height = (round(_PREVIEW_SCALE * value) for value in annotation['bbox'])
        colour = _PREVIEW_COLOURS[annotation['category_id'] - 1]
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


def _check_target(out_dir: Path, overwrite: bool) -> None:
    """Raise unless the set may be written here; nothing but an earlier set is ever replaced."""
    if not out_dir.exists() or (out_dir.is_dir() and not any(out_dir.iterdir())):
        return
    if not overwrite:
        raise ShapesError(
            f'{out_dir} is there already and not an empty folder; give another, or '
            'overwrite=True (--overwrite) if it holds an earlier set of shapes'
        )
    path = out_dir / 'annotations' / 'instances_train.json'
    start = f'{{"info": {{"description": "{_DESCRIPTION}'.encode()
    if not path.is_file() or not path.read_bytes().startswith(start):
        raise ShapesError(
            f'{out_dir} holds something else than an earlier set of shapes, so it is '
            'not overwritten; give another folder'
        )


def _move_in(scratch: Path, out_dir: Path) -> None:
    """Put the finished set in its place, instead of an earlier one if there is."""
    out_dir.mkdir(exist_ok=True)
    for name in ('annotations', 'images', 'preview.png'):
        if (out_dir / name).is_dir():
            shutil.rmtree(out_dir / name)
        else:
            (out_dir / name).unlink(missing_ok=True)
        if (scratch / name).exists():
            os.replace(scratch / name, out_dir / name)


def _summarise(coco: dict[str, Any]) -> SplitSummary:
    items = coco['annotations']
    category_ids = [item['category_id'] for item in items]
    sizes = np.quantile([max(item['bbox'][2:]) for item in items], (0, 0.25, 0.5, 0.75, 1))
    return SplitSummary(
        pictures=len(coco['images']),
        class_boxes={name: category_ids.count(index) for index, name in enumerate(CLASSES, 1)},
        sizes=tuple(float(size) for size in sizes),
        mean_occlusion=float(np.mean([1 - item['visible'] for item in items])),
    )
