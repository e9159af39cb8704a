"""Hard negatives: confident detections where no known object is, as background for a training.

Where an image has no known object, the whole image is background. Elsewhere a crop around the false
alarm is, if it can be cut so that no known object reaches into it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from mmdet_ext.data.images import decode_image
from mmdet_ext.data.reports import LayoutError, Tally
from mmdet_ext.data.suffixes import has_image_suffix
from mmdet_ext.utils.files import whole_file, write_json

Array = np.ndarray[Any, Any]
#: Function of an image (H, W, 3) that returns boxes (N, 4) in px, scores (N,) and labels (N,).
Detect = Callable[[Array], tuple[Array, Array, Array]]

#: Folder of the crops beside the json file.
CROPS = 'crops'


class Source(NamedTuple):
    """An image that is searched for false alarms.

    Attributes:
        path: of the file.
        known: boxes of all known objects, crowds and ignored ones too, (G, 4), as corners in px.
    """

    path: Path
    known: Array


@dataclass(frozen=True)
class Options:
    """Choice of false alarms.

    Attributes:
        score: least score.
        most: number of background images to keep, those of the highest scores; None for all.
        crop: side of a crop, px, where the alarm is not larger.
        context: side of a crop in sides of the alarm, at least 1.
        least: least side of a crop, px.
        whole: take an image without a known object whole; otherwise crop it, too.
    """

    score: float = 0.3
    most: int | None = None
    crop: int = 320
    context: float = 2.0
    least: int = 32
    whole: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.score <= 1:
            raise LayoutError(f'score must be above 0 and at most 1, got {self.score}')
        if self.most is not None and self.most < 1:
            raise LayoutError(f'most must be at least 1, got {self.most}')
        if not 1 <= self.least <= self.crop:
            raise LayoutError(
                f'least must be from 1 to crop, {self.crop}, got {self.least}: sides in px'
            )
        if not 1 <= self.context < np.inf:
            raise LayoutError(f'context must be at least 1, got {self.context}')


class Background(NamedTuple):
    """A part of an image without any known object.

    Attributes:
        path: of the image.
        size: width and height of the image, px.
        region: left, top, right and bottom, px; None for the whole image.
        box: the false alarm of the highest score in it, as corners in px of the image.
        score: its score.
        label: its class.
    """

    path: Path
    size: tuple[int, int]
    region: tuple[int, int, int, int] | None
    box: tuple[float, float, float, float]
    score: float
    label: int


def without_known(
    box: Array, known: Array, size: tuple[int, int], options: Options
) -> Array | None:
    """Find a region around a box that no known object reaches into.

    It begins as a square around the box and is cut, at each object in it, on the side that leaves
    most of it, and never into the box.

    Args:
        box: left, top, right and bottom, px.
        known: boxes of the known objects, (G, 4).
        size: width and height of the image.
        options: sides of the region.

    Returns:
        Whole px, (4,); None if an object reaches into the box, or the region gets too small.

    >>> box, known = np.array([40.0, 40.0, 60.0, 60.0]), np.array([[70.0, 0.0, 90.0, 90.0]])
    >>> without_known(box, known, (200, 200), Options(crop=100, least=8)).tolist()
    [0, 0, 70, 100]
    """
    side = max(options.crop, options.context * float(max(box[2:] - box[:2])))
    middle = (box[:2] + box[2:]) / 2
    # A square at the border moves inwards.
    low = (middle - side / 2).clip(0, np.maximum(np.array(size) - side, 0))
    region = np.concatenate([low, np.minimum(low + side, size)])
    for other in known:
        if not _touch(region, other):
            continue
        cuts = []
        for axis in (0, 1):
            if other[axis + 2] <= box[axis]:
                cuts.append((axis, max(region[axis], other[axis + 2])))
            if other[axis] >= box[axis + 2]:
                cuts.append((axis + 2, min(region[axis + 2], other[axis])))
        if not cuts:
            return None
        regions = [np.where(np.arange(4) == place, value, region) for place, value in cuts]
        region = max(regions, key=lambda each: float(np.prod(each[2:] - each[:2])))
    whole = np.concatenate([np.ceil(region[:2]), np.floor(region[2:])]).astype(np.int64)
    return whole if (whole[2:] - whole[:2]).min() >= options.least else None


def _touch(one: Array, other: Array) -> bool:
    """Return whether two boxes have a common area."""
    return bool((np.maximum(one[:2], other[:2]) < np.minimum(one[2:], other[2:])).all())


def find_backgrounds(
    image: Array, source: Source, detect: Detect, options: Options, tally: Tally
) -> list[Background]:
    """Find the parts of an image that a detector takes for objects, and that hold none.

    Args:
        image: (H, W, 3).
        source: where it is from, with its known objects.
        detect: the detector.
        options: which alarms count.
        tally: gets the alarms that are left out, by reason.

    Raises:
        LayoutError: if the detector gives scores or boxes that are no numbers.
    """
    boxes, scores, labels = detect(image)
    if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
        raise LayoutError(
            f'{source.path}: the detector gives scores or boxes that are no numbers: '
            'look at the checkpoint'
        )
    size = (image.shape[1], image.shape[0])
    found: list[Background] = []
    for place in np.argsort(-scores, kind='stable'):
        score, label, box = float(scores[place]), int(labels[place]), boxes[place]
        if score < options.score:
            break
        box = np.concatenate([box[:2].clip(0, size), box[2:].clip(0, size)])
        left, top, right, bottom = map(float, box)
        alarm = ((left, top, right, bottom), score, label)
        if not len(source.known) and options.whole:
            return [Background(source.path, size, None, *alarm)]
        if any(_touch(box, other) for other in source.known):
            tally.add('detections that touch a known object', _place(source, box))
            continue
        if any(_touch(box, np.array(each.region)) for each in found):
            tally.add('false alarms within the crop of another', _place(source, box))
            continue
        region = without_known(box, source.known, size, options)
        if region is None:
            tally.add(
                'false alarms with too little room between known objects', _place(source, box)
            )
            continue
        x0, y0, x1, y1 = map(int, region)
        found.append(Background(source.path, size, (x0, y0, x1, y1), *alarm))
    return found


def _place(source: Source, box: Array) -> str:
    return f'{source.path.name} at {box[0]:.0f},{box[1]:.0f}'


def image_sources(folder: Path) -> list[Source]:
    """List the images of a folder and its subfolders, which hold no known object.

    Raises:
        LayoutError: if there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise LayoutError(f'{folder} is no folder of images')
    paths = sorted(path for path in folder.rglob('*') if has_image_suffix(path))
    if not paths:
        raise LayoutError(f'{folder} has no image')
    return [Source(path, np.zeros((0, 4))) for path in paths]


def coco_sources(content: dict[str, Any], folder: Path) -> list[Source]:
    """List the images of a COCO file, with all their boxes.

    Args:
        content: as `load_coco` returns it.
        folder: the folder in which its ``file_name`` lie.

    Raises:
        LayoutError: if images are missing, or a box cannot be read.
    """
    boxes: dict[Any, list[list[float]]] = {image['id']: [] for image in content['images']}
    for number, annotation in enumerate(content['annotations']):
        x, y, width, height = _box_of(number, annotation)
        if annotation['image_id'] in boxes:
            boxes[annotation['image_id']].append([x, y, x + width, y + height])
    sources = [
        Source(folder / image['file_name'], np.array(boxes[image['id']]).reshape(-1, 4))
        for image in content['images']
    ]
    absent = [str(source.path) for source in sources if not source.path.is_file()]
    if absent:
        raise LayoutError(f'{len(absent)} of {len(sources)} images are missing: {absent[0]}')
    return sources


def _box_of(number: int, annotation: dict[str, Any]) -> Sequence[float]:
    box = annotation.get('bbox')
    if isinstance(box, list) and len(box) == 4 and np.isfinite(np.array(box, float)).all():
        return box
    raise LayoutError(
        f'annotations[{number}] has the bbox {box!r}, and an object at an unknown place may be '
        'anywhere: mend it, or remove its image'
    )


def mine(
    sources: Sequence[Source], detect: Detect, options: Options, tally: Tally
) -> Iterator[list[Background]]:
    """Search images in turn; yield what was found in each, as it is found.

    Images that cannot be read are counted and left out.

    Raises:
        LayoutError: as `find_backgrounds`.
    """
    for source in sources:
        try:
            image = decode_image(source.path.read_bytes())
        except (OSError, ValueError) as error:
            tally.add('images that cannot be read', f'{source.path.name}: {error}')
            yield []
            continue
        yield find_backgrounds(image, source, detect, options, tally)


def strongest(found: Sequence[Background], most: int | None) -> list[Background]:
    """Return the backgrounds of the highest scores, at most so many, in the order of the files."""
    ranked = sorted(found, key=lambda each: -each.score)[:most]
    return sorted(ranked, key=lambda each: (str(each.path), each.region or ()))


def write_hard_negatives(
    found: Sequence[Background], classes: Sequence[str], folder: Path, tight: bool = False
) -> Path:
    """Write backgrounds as a COCO file without annotations, and the crops beside it.

    The crops of an image are left at their places in it, with its mean colour around them, so that
    a pipeline that resizes images shows them at the scale of the others.

    Args:
        found: the backgrounds. Whole images stay where they are.
        classes: names of the classes, in the order of their labels.
        folder: gets ``hard_negatives.json`` and the crops; ``file_name`` is relative to it.
        tight: write each crop as an image of its own, without anything around it.

    Returns:
        Path: of the json file.
    """
    groups: dict[Any, list[Background]] = {}
    for number, each in enumerate(found):
        groups.setdefault(number if tight else each.path, []).append(each)
    records = []
    for number, group in enumerate(groups.values(), 1):
        path, regions = group[0].path, [each.region for each in group if each.region is not None]
        width, height = group[0].size
        name = Path(os.path.relpath(path, folder)).as_posix()
        if regions:
            name = f'{CROPS}/{number:06d}_{path.stem}.png'
            crop = _crop(decode_image(path.read_bytes()), regions, tight)
            height, width = crop.shape[:2]
            _, data = cv2.imencode('.png', crop)
            with whole_file(folder / name) as part:
                part.write_bytes(data.tobytes())
        alarms = [
            {'class': _name(classes, each.label), 'score': round(each.score, 4), 'box': each.box}
            | ({} if each.region is None else {'region': each.region})
            for each in group
        ]
        record = dict(id=number, file_name=name, width=width, height=height, false_alarms=alarms)
        records.append(record | ({'source': path.name} if regions else {}))
    categories = [dict(id=number, name=name) for number, name in enumerate(classes, 1)]
    out = folder / 'hard_negatives.json'
    write_json(out, dict(images=records, annotations=[], categories=categories))
    return out


def _crop(image: Array, regions: Sequence[tuple[int, int, int, int]], tight: bool) -> Array:
    """Return the only region, or all of them at their places."""
    left, top, right, bottom = regions[0]
    if tight:
        return image[top:bottom, left:right]
    canvas = np.empty_like(image)
    canvas[:] = image.mean((0, 1)).round()
    for left, top, right, bottom in regions:
        canvas[top:bottom, left:right] = image[top:bottom, left:right]
    return canvas


def _name(classes: Sequence[str], label: int) -> str:
    return classes[label] if 0 <= label < len(classes) else str(label)
