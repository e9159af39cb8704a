"""Comparison of the images of a COCO file with their files: sizes, damage and copies."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmdet_ext.data.coco.normal_form import usable_box
from mmdet_ext.data.coco.sizes import (
    Difference,
    Size,
    drawn_at_stated_size,
    fits,
    read_size,
    show_sizes,
    size_difference,
)
from mmdet_ext.data.duplicates import find_equal_files
from mmdet_ext.data.images import check_images
from mmdet_ext.data.reports import Tally, listed

#: Share of images with boxes beyond the file's size from which on the others of one scale are
#: taken to be drawn at the stated size too.
_GROUP_SHARE = 0.1
#: Share of the true width below which a stated one is clearly smaller, and the number of boxes
#: that do not keep to a part of the image by chance.
_SMALLER, _MANY = 0.8, 20
#: Boxes from which on their form is judged.
_FEWEST = 5
_CORNERS = (
    'boxes that leave their image, and fit as corners x1, y1, x2, y2; bbox must be [x, y, width, '
    'height]'
)


@dataclass
class ImageFiles:
    """Findings in the files of the images of a COCO file.

    Attributes:
        unreadable: Reason for each file that cannot be read.
        misdrawn: Stated and true size of each file whose boxes are drawn at the stated size, which
            is not that of the file.
        notes: Sizes that were filled in or corrected, and images that stand several times.
    """

    unreadable: dict[Path, str] = field(default_factory=dict)
    misdrawn: dict[Path, str] = field(default_factory=dict)
    notes: Tally = field(default_factory=Tally)

    @property
    def bad(self) -> dict[Path, str]:
        """Reason for each file that cannot be used."""
        drawn = dict.fromkeys(self.misdrawn, 'boxes drawn at another size than that of the file')
        return {**self.unreadable, **drawn}


@dataclass(frozen=True)
class _Mismatch:
    """Image whose stated size differs from that of its file."""

    path: Path
    stated: Size
    true: Size
    boxes: list[tuple[float, ...]]

    @property
    def is_certain(self) -> bool:
        """True if the boxes certainly belong to the stated size."""
        return drawn_at_stated_size(self.boxes, self.stated, self.true)

    @property
    def fits_file_alone(self) -> bool:
        """True if the boxes certainly belong to the size of the file."""
        return drawn_at_stated_size(self.boxes, self.true, self.stated)


def check_image_files(
    coco: dict[str, Any], paths: Sequence[Path], *, turned: bool = True
) -> ImageFiles:
    """Check the files of all images, each once, and set width and height to those of the files.

    Boxes that lie beyond the file's size, but within a stated size that is larger, of another
    scale or turned, are drawn at that size: the image cannot be used as it is.

    Args:
        coco: Contents of a COCO file, see :func:`~mmdet_ext.data.coco.annotations.load_coco`;
            ``width`` and ``height`` of its images are changed.
        paths: Path of each image, in the order of ``coco['images']``.
        turned: Whether the loader turns images by their EXIF orientation.

    Returns:
        What was found.
    """
    found = ImageFiles()
    checks = check_images(paths, turned=turned)
    groups: dict[tuple[Difference, float], list[int]] = defaultdict(list)
    stated_sizes: dict[int, Size] = {}
    for index, (image, path) in enumerate(zip(coco['images'], paths, strict=True)):
        problem, true = checks[path]
        if problem is not None or true is None:
            found.unreadable[path] = problem or 'of unknown size'
            continue
        stated = image.get('width'), image.get('height')
        difference = size_difference(stated, true)
        if difference:
            found.notes.add(
                f'images, {difference}', f'{image["file_name"]}: {show_sizes(stated, true)}'
            )
        size = read_size(*stated)
        if size and difference not in (None, 'size missing', 'size wrong'):
            stated_sizes[index] = size
            groups[difference, round(math.log(math.prod(size) / math.prod(true)), 1)].append(index)
        image['width'], image['height'] = true
    for mismatches in _mismatches(coco, paths, groups.values(), stated_sizes):
        for each in _misdrawn(mismatches):
            found.misdrawn[each.path] = show_sizes(each.stated, each.true)
    note_corner_boxes(coco, found.notes)
    note_repeated_images(coco, paths, found.notes)
    for first, *copies in find_equal_files(path for path in paths if path not in found.unreadable):
        for path in copies:
            found.notes.add('files with the content of another file', f'{path} = {first}')
    return found


def note_missing_sizes(coco: dict[str, Any]) -> Tally:
    """Count the images whose stated size cannot be used, where no file can be read.

    Args:
        coco: Contents of a COCO file.
    """
    notes = Tally()
    for image in coco['images']:
        stated = image.get('width'), image.get('height')
        if read_size(*stated) is None:
            notes.add('images, size missing', f'{image["file_name"]}: {show_sizes(stated)}')
    return notes


def note_repeated_images(coco: dict[str, Any], files: Sequence[str | Path], notes: Tally) -> None:
    """Count the files that stand under several ids of images.

    Args:
        coco: Contents of a COCO file.
        files: File of each image, in the order of ``coco['images']``.
        notes: Tally that is added to.
    """
    ids: dict[str | Path, list[Any]] = defaultdict(list)
    for image, file in zip(coco['images'], files, strict=True):
        ids[file].append(image['id'])
    for file, found in ids.items():
        if len(found) > 1:
            notes.add('files under several image ids', f'{file}: ids {listed(found)}')


def _mismatches(
    coco: dict[str, Any],
    paths: Sequence[Path],
    groups: Iterable[list[int]],
    stated: dict[int, Size],
) -> Iterator[list[_Mismatch]]:
    """Yield the images of each group with their boxes, after sizes were set to those of files."""
    images = coco['images']
    boxes: dict[Any, list[tuple[float, ...]]] = {images[index]['id']: [] for index in stated}
    for record in coco['annotations'] if boxes else ():
        box = usable_box(record)
        if box and record.get('image_id') in boxes:
            x, y, width, height = box
            boxes[record['image_id']].append((x, y, x + width, y + height))
    for group in groups:
        yield [
            _Mismatch(
                paths[index],
                stated[index],
                (images[index]['width'], images[index]['height']),
                boxes[images[index]['id']],
            )
            for index in group
        ]


def _misdrawn(group: list[_Mismatch]) -> list[_Mismatch]:
    """Select the images of one difference whose boxes are drawn at the stated size.

    Boxes in the upper left part of an image fit both sizes: what other images of the same
    difference show holds for them too, unless some show the contrary. Boxes never leave an image
    that is larger than stated; there, many boxes that all keep to the stated size show it.
    """
    certain = [each for each in group if each.is_certain]
    with_boxes = [each for each in group if each.boxes]
    clear = not any(each.fits_file_alone for each in group)
    if certain and clear and len(certain) >= _GROUP_SHARE * len(with_boxes):
        return with_boxes
    boxes = [(each, box) for each in group for box in each.boxes]
    is_smaller = all(each.stated[0] < _SMALLER * each.true[0] for each in group)
    if is_smaller and len(boxes) >= _MANY and all(fits(box, each.stated) for each, box in boxes):
        return with_boxes
    return certain


def note_corner_boxes(coco: dict[str, Any], notes: Tally) -> None:
    """Count the boxes of a file that has corners x1, y1, x2, y2 in place of x, y, width, height.

    That is certain if all of some boxes are corners within their image, and most of them would
    leave it otherwise.

    Args:
        coco: Contents of a COCO file with usable annotations.
        notes: Tally that is added to.
    """
    sizes = {
        image['id']: read_size(image.get('width'), image.get('height')) for image in coco['images']
    }
    leaving, total = [], 0
    for index, record in enumerate(coco['annotations']):
        box = usable_box(record)
        size = sizes.get(record['image_id']) if box and record.get('image_id') in sizes else None
        if not box or not size:
            continue
        x, y, right, lower = box
        if right <= x or lower <= y or not fits(box, size):
            return
        total += 1
        if not fits((x, y, x + right, y + lower), size):
            leaving.append(f'annotations[{index}] has bbox {box}')
    if total >= _FEWEST and 2 * len(leaving) > total:
        for example in leaving:
            notes.add(_CORNERS, example)


def note_swapped_sizes(coco: dict[str, Any], notes: Tally) -> None:
    """Count the images whose boxes leave the stated size and fit it with its sides swapped.

    Cameras store many images on their side, and some programs state the stored size.

    Args:
        coco: Contents of a COCO file with usable annotations.
        notes: Tally that is added to.
    """
    boxes: dict[Any, list[tuple[float, ...]]] = defaultdict(list)
    for record in coco['annotations']:
        box = usable_box(record)
        if box:
            x, y, width, height = box
            boxes[record.get('image_id')].append((x, y, x + width, y + height))
    for image in coco['images']:
        size = read_size(image.get('width'), image.get('height'))
        if size and drawn_at_stated_size(boxes.get(image['id'], ()), (size[1], size[0]), size):
            example = f'{image["file_name"]}: {show_sizes(size)}'
            notes.add('images whose boxes fit width and height if these are swapped', example)
