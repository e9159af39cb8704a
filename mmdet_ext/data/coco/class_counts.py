"""Number of boxes per class in COCO files and Pascal VOC folders.

Neither torch nor a host is imported, so that a command-line tool can refuse wrong data at once.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from os.path import normpath
from pathlib import Path
from typing import Any

from mmdet_ext.data.coco.annotations import is_number, load_coco, usable_annotations
from mmdet_ext.data.coco.image_files import (
    note_corner_boxes,
    note_missing_sizes,
    note_repeated_images,
    note_swapped_sizes,
)
from mmdet_ext.data.coco.sizes import Size, read_size
from mmdet_ext.data.coco.values import is_fraction_box, read_flag
from mmdet_ext.data.coco.voc import convert_voc
from mmdet_ext.data.coco.voc_folder import VocError
from mmdet_ext.data.reports import LayoutError, Tally

#: Training leaves out boxes with a side below this, in px; so they are not counted.
MIN_SIDE = 1


@dataclass
class ClassCounts:
    """Numbers of boxes per class.

    Attributes:
        classes: Names of the classes, in the order of the labels.
        counts: Boxes per class that training uses.
        ignored: Boxes per class that training ignores: crowds, and VOC's difficult boxes.
        images: Number of images.
        images_without_boxes: Number of images in which no box was counted.
        sources: Paths that were read.
        left_out: Number of boxes that are counted nowhere, per reason, and per class that was not
            asked for.
        notes: Oddities of the sources, one sentence for each source that has some.
    """

    classes: list[str]
    counts: list[int]
    ignored: list[int]
    images: int = 0
    images_without_boxes: int = 0
    sources: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the fields by name, except the notes, which are for people."""
        return {name: value for name, value in asdict(self).items() if name != 'notes'}


class _Tally:
    """Running counts per class name over the sources read so far."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.counts: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.images = self.with_boxes = 0

    def add(self, coco: dict[str, Any], skipped: Iterable[Any] = ()) -> None:
        """Count the contents of a COCO file, except the images whose ids are ``skipped``."""
        names = {category['id']: category['name'] for category in coco['categories']}
        self.names += [name for name in dict.fromkeys(names.values()) if name not in self.names]
        usable, _ = usable_annotations(coco)
        self.left_out['unusable'] += len(coco['annotations']) - len(usable)
        sizes = {
            image['id']: read_size(image.get('width'), image.get('height'))
            for image in coco['images']
        }
        skipped, with_boxes = set(skipped), set()
        for box in usable:
            if box['image_id'] in skipped:
                continue
            name = names[box['category_id']]
            reason = why_unseen(box, sizes[box['image_id']])
            if reason is not None:
                self.left_out[reason] += 1
            elif read_flag(box.get('iscrowd')):
                self.ignored[name] += 1
            else:
                self.counts[name] += 1
                with_boxes.add(box['image_id'])
        self.images += len(coco['images']) - len(skipped)
        self.with_boxes += len(with_boxes)


def why_unseen(box: dict[str, Any], size: Size | None) -> str | None:
    """Return the reason why `mmdet_ext.CocoDataset` leaves out a usable box, or None.

    Args:
        box: COCO annotation, ``bbox`` as x, y, width, height in px.
        size: Width and height of the image in px, None if the file does not state them.
    """
    width, height = size or (math.inf, math.inf)
    if read_flag(box.get('ignore')):
        return "marked 'ignore'"
    x, y, w, h = box['bbox']
    if w < 0 or h < 0:
        return 'inverted'
    if is_fraction_box(x, y, w, h):
        return 'within 0..1, as in fractions of the image'
    if min(w, h) < MIN_SIDE:
        return f'a side below {MIN_SIDE} px'
    area = box.get('area', 1)
    if is_number(area) and area <= 0:
        return 'an area of 0'
    if min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0):
        return 'outside the picture'
    return None


def count_classes(
    sources: Sequence[Path],
    classes: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
) -> ClassCounts:
    """Count the boxes per class.

    Args:
        sources: COCO json files and Pascal VOC folders; a source named twice is read once.
        classes: Names of the classes in the order of the labels; by default all, in the order of
            the files, and sorted for a VOC folder, as `convert_voc` numbers them.
        splits: Names of lists in ``ImageSets/Main`` of VOC folders; by default all. An image in
            several lists is counted once. Difficult boxes count as ignored.

    Returns:
        The counts.

    Raises:
        LayoutError: If a source cannot be read, a class is in no source, or no box is left.
    """
    tally = _Tally()
    paths = list(dict.fromkeys(Path(source).expanduser().resolve() for source in sources))
    notes: list[str] = []
    for path in paths:
        if path.is_dir():
            notes += _add_voc(tally, path, splits)
        else:
            coco = load_coco(path)
            tally.add(coco)
            notes += _notes(path, coco)
    chosen = tally.names if classes is None else list(classes)
    _check_classes(chosen, tally)
    return ClassCounts(
        classes=chosen,
        counts=[tally.counts[name] for name in chosen],
        ignored=[tally.ignored[name] for name in chosen],
        images=tally.images,
        images_without_boxes=tally.images - tally.with_boxes,
        sources=[str(path) for path in paths],
        left_out={
            **{reason: count for reason, count in tally.left_out.items() if count},
            **{
                f'class {name}': tally.counts[name] + tally.ignored[name]
                for name in tally.names
                if name not in chosen
            },
        },
        notes=notes,
    )


def _notes(path: Path, coco: dict[str, Any]) -> list[str]:
    """Describe oddities of a COCO file that only its images can settle."""
    coco = {**coco, 'annotations': usable_annotations(coco)[0]}
    missing, others = note_missing_sizes(coco), Tally()
    note_corner_boxes(coco, others)
    note_swapped_sizes(coco, others)
    note_repeated_images(coco, [normpath(image['file_name']) for image in coco['images']], others)
    notes = [f'{path}: {others}'] if others else []
    if missing:
        notes.append(
            f'{path}: {missing}; boxes of these images count wherever they lie, as nothing says '
            'where the image ends'
        )
    return notes


def _add_voc(tally: _Tally, root: Path, splits: Sequence[str] | None) -> list[str]:
    """Count the boxes of a VOC folder after the conversion that training uses.

    Returns:
        A note on the images that the conversion leaves out with their boxes, if there are any.
    """
    seen: set[str] = set()
    images: set[tuple[str, str]] = set()
    dropped: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            reports = convert_voc(root, folder, splits, difficult='crowd')
        except VocError as error:
            raise LayoutError(
                f'{error}\nA folder must be of VOC form; of other data, give the COCO json files'
            ) from error
        for report in reports:
            coco = load_coco(report.path, f'{root}, split {report.split}')
            again = [image['id'] for image in coco['images'] if image['file_name'] in seen]
            seen.update(image['file_name'] for image in coco['images'])
            tally.add(coco, again)
            # Each line names image and box, so that a box in several lists is counted once.
            dropped |= Counter(
                (reason, line) for reason, lines in report.dropped_boxes.items() for line in lines
            )
            images.update(
                (reason, line) for reason, lines in report.dropped_images.items() for line in lines
            )
    for (reason, _), count in dropped.items():
        tally.left_out[reason] += count
    without = Tally()
    for reason, line in sorted(images):
        without.add(reason, line)
    return [f'{root}: images left out with their boxes: {without}'] if without else []


def _check_classes(chosen: Sequence[str], tally: _Tally) -> None:
    absent = [name for name in chosen if name not in tally.names]
    if absent:
        raise LayoutError(
            f'class {", ".join(absent)} is in none of the files; they have {", ".join(tally.names)}'
        )
    if len(set(chosen)) != len(chosen):
        raise LayoutError(f'classes names one twice: {", ".join(chosen)}')
    if not any(tally.counts[name] for name in chosen):
        raise LayoutError(f'no box of {", ".join(chosen) or "any class"} is left to count')
