"""Conversion of Pascal VOC folders to COCO files, with a report of everything left out."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from mmdet_ext.data.coco.voc_folder import (
    Box,
    VocAnnotation,
    VocError,
    VocFolder,
    VocObject,
    first_few,
)
from mmdet_ext.data.images import find_bad_images, image_size
from mmdet_ext.utils.files import whole_file

Difficult = Literal['keep', 'crowd', 'drop']


@dataclass
class SplitReport:
    """Report of the conversion of one split.

    Attributes:
        split: Name of the split.
        origin: Name of the list that its ids come from, or 'random split' with its seed.
        path: The COCO file.
        images: Number of images written.
        images_without_boxes: Number of those without a box.
        class_boxes: Number of boxes written per class.
        dropped_images: One line per image left out, by reason; each begins with the image's id.
        dropped_boxes: One line per box left out, by reason.
        notes: One line per image or box that was changed but kept, by reason.
    """

    split: str
    origin: str
    path: Path
    images: int = 0
    images_without_boxes: int = 0
    class_boxes: dict[str, int] = field(default_factory=dict)
    dropped_images: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    dropped_boxes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    notes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def boxes(self) -> int:
        """Number of boxes written."""
        return sum(self.class_boxes.values())

    def table(self) -> str:
        """Format the report as text, with the first few examples of each reason."""
        rows = [
            ('images', self.images, ''),
            ('  of them without boxes', self.images_without_boxes, ''),
            ('boxes', self.boxes, ''),
            *((f'  {name}', count, '') for name, count in self.class_boxes.items()),
        ]
        for group, reasons in {
            'images dropped': self.dropped_images,
            'boxes dropped': self.dropped_boxes,
            'notes': self.notes,
        }.items():
            rows.append((group, sum(map(len, reasons.values())), ''))
            rows += [
                (f'  {reason}', len(examples), first_few(examples, '; '))
                for reason, examples in reasons.items()
            ]
        width = max(len(label) for label, _, _ in rows)
        lines = [f'  {label:<{width}}  {count:>7}  {text}'.rstrip() for label, count, text in rows]
        return '\n'.join([f'{self.split} ({self.origin}) -> {self.path.name}', *lines])


@dataclass
class _SplitBuilder:
    """Builder of the COCO records of one split; reports what it leaves out or changes."""

    report: SplitReport
    folder: VocFolder
    category_ids: dict[str, int]
    bad_images: dict[Path, str]
    difficult: Difficult
    inclusive: bool
    used_images: set[Path] = field(default_factory=set)
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    def add(self, image_id: str) -> None:
        """Add the image of an id with its boxes, or report why it is left out."""
        annotation = self.folder.annotation(image_id)
        image = self.folder.image(image_id)
        dropped = self.report.dropped_images
        if isinstance(annotation, str):
            reason, separator, detail = annotation.partition(': ')
            dropped[reason].append(image_id + separator + detail)
        elif image is None:
            dropped['image missing'].append(image_id)
        elif image in self.bad_images:
            dropped['image unreadable'].append(f'{image_id}: {self.bad_images[image]}')
        elif image in self.used_images:
            dropped['image listed twice'].append(image_id)
        else:
            self.used_images.add(image)
            self._add_image(image_id, image, annotation)

    def _add_image(self, image_id: str, image: Path, annotation: VocAnnotation) -> None:
        size = image_size(image)
        if annotation.size is None:
            self.report.notes['size missing in the xml'].append(image_id)
        elif annotation.size != size:
            said, true = ('x'.join(map(str, pair)) for pair in (annotation.size, size))
            self.report.notes['size in the xml is wrong'].append(f'{image_id}: {said}, true {true}')
        self.images.append(
            {
                'id': len(self.images) + 1,
                'file_name': image.name,
                'width': size[0],
                'height': size[1],
            }
        )
        self.report.images += 1
        boxes_before = len(self.annotations)
        for problem in annotation.malformed:
            self.report.dropped_boxes['malformed object'].append(f'{image_id}: {problem}')
        for item in annotation.objects:
            self._add_object(image_id, size, item)
        self.report.images_without_boxes += len(self.annotations) == boxes_before

    def _add_object(self, image_id: str, size: tuple[int, int], item: VocObject) -> None:
        shown = f'{image_id}: {",".join(map(str, item.corners))}'
        edges, problem = _fit(item.corners, size, self.inclusive)
        if item.name not in self.category_ids:
            edges, problem, shown = None, 'class not asked for', f'{shown} {item.name}'
        elif item.is_difficult and self.difficult == 'drop':
            edges, problem = None, 'difficult'
        if edges is None:
            self.report.dropped_boxes[problem].append(shown)
            return
        if problem:
            self.report.notes[problem].append(shown)
        is_crowd = item.is_difficult and self.difficult == 'crowd'
        if item.is_difficult:
            kept_as = 'difficult, as crowd' if is_crowd else 'difficult, kept'
            self.report.notes[kept_as].append(shown)
        width, height = edges[2] - edges[0], edges[3] - edges[1]
        self.annotations.append(
            {
                'id': len(self.annotations) + 1,
                'image_id': len(self.images),
                'category_id': self.category_ids[item.name],
                'bbox': [edges[0], edges[1], width, height],
                'area': width * height,
                'iscrowd': int(is_crowd),
            }
        )
        self.report.class_boxes[item.name] += 1

    def coco(self) -> dict[str, Any]:
        """Return the contents of the COCO file."""
        return {
            'info': {'description': f'converted from Pascal VOC, split {self.report.split}'},
            'images': self.images,
            'annotations': self.annotations,
            'categories': [
                {'id': category_id, 'name': name} for name, category_id in self.category_ids.items()
            ],
        }


def convert_voc(
    root: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    splits: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    *,
    difficult: Difficult = 'keep',
    inclusive: bool = False,
    seed: int = 0,
) -> list[SplitReport]:
    """Convert a Pascal VOC folder to ``out_dir/instances_<split>.json`` in COCO form.

    Boxes become ``[x, y, width, height]`` in pixels, clipped to the image; ``file_name`` is
    relative to ``JPEGImages``. Images without objects are kept. All files are written at the end,
    or none.

    Args:
        root: Folder with ``Annotations`` and ``JPEGImages``, and possibly ``ImageSets/Main``.
        out_dir: Folder of the json files; made if absent.
        splits: Names of lists in ``ImageSets/Main``; by default every list that holds plain ids
            (VOC's lists per class, with a second column, do not). A folder without lists is split
            at random into train (80 %) and val (20 %).
        classes: Class names in the order of their category ids, which begin at 1; by default all
            names of the folder, sorted. Boxes of other classes are dropped and counted.
        difficult: Treatment of VOC's difficult boxes: ``'keep'`` as ordinary boxes, ``'crowd'``
            with ``iscrowd=1`` (ignored in training and evaluation), or ``'drop'``.
        inclusive: True if corners are numbers of pixels counted from 1, both ends part of the box,
            as in the VOC devkit; otherwise they are edges in pixels from 0, as labelImg writes
            them.
        seed: Seed of the random split.

    Returns:
        One report per split.

    Raises:
        VocError: If ``root`` is no VOC folder, a split or class does not exist, or no box is left.
        OSError: If a file cannot be read or written.
    """
    if difficult not in get_args(Difficult):
        raise VocError(f'difficult is {difficult!r}; expected one of {get_args(Difficult)}')
    folder, out_dir = VocFolder(Path(root)), Path(out_dir)
    ids = folder.split_ids(splits, seed)
    category_ids = _category_ids(classes, folder.class_names())
    bad = find_bad_images(
        dict.fromkeys(path for found in ids.values() for path in map(folder.image, found) if path)
    )
    reports, contents = [], {}
    for split, found in ids.items():
        origin = folder.lists[split].name if folder.lists else f'random split, seed {seed}'
        report = SplitReport(
            split,
            origin,
            out_dir / f'instances_{split}.json',
            class_boxes=dict.fromkeys(category_ids, 0),
        )
        builder = _SplitBuilder(report, folder, category_ids, bad, difficult, inclusive)
        for image_id in found:
            builder.add(image_id)
        reports.append(report)
        contents[report.path] = json.dumps(builder.coco(), ensure_ascii=False)
    if not any(report.boxes for report in reports):
        tables = '\n'.join(report.table() for report in reports)
        raise VocError(f'no boxes left in {root}, so nothing was written\n{tables}')
    _write_all(contents)
    return reports


def _category_ids(classes: Sequence[str] | None, found: list[str]) -> dict[str, int]:
    names = found if classes is None else list(classes)
    absent = [name for name in names if name not in found]
    if absent:
        raise VocError(f'class {", ".join(absent)} never occurs; found: {", ".join(found)}')
    if len(set(names)) != len(names):
        raise VocError(f'classes names one twice: {", ".join(names)}')
    return {name: category_id for category_id, name in enumerate(names, start=1)}


def _fit(corners: Box, size: tuple[int, int], inclusive: bool) -> tuple[Box | None, str]:
    """Clip a box to the image.

    Returns:
        The edges, or None if no box is left, and the problem, or an empty text.
    """
    x0, y0, x1, y1 = corners
    if inclusive:  # pixels 1 to n, both included, reach from edge 0 to edge n
        x0, y0 = x0 - 1, y0 - 1
    if x1 < x0 or y1 < y0:
        return None, 'inverted'
    if x1 == x0 or y1 == y0:
        return None, 'zero area'
    clipped = (max(x0, 0), max(y0, 0), min(x1, size[0]), min(y1, size[1]))
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        return None, 'outside the picture'  # a key in the files of class_counts: kept as it is
    return clipped, '' if clipped == (x0, y0, x1, y1) else 'clipped to the image'


def _write_all(contents: dict[Path, str]) -> None:
    """Write all files beside their places, then move them, so that a failure changes none."""
    with ExitStack() as stack:
        parts = {path: stack.enter_context(whole_file(path)) for path in contents}
        for path, content in contents.items():
            parts[path].write_text(content, encoding='utf-8')
