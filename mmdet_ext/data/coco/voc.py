"""Conversion of Pascal VOC folders to COCO files, with a report of everything left out."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from mmdet_ext.data.coco.sizes import show_sizes, size_difference
from mmdet_ext.data.coco.voc_folder import VocFolder
from mmdet_ext.data.images import ImageCheck, check_images
from mmdet_ext.data.voc.annotation import VocAnnotation, VocObject
from mmdet_ext.data.voc.files import VocError, composed, without_suffix
from mmdet_ext.data.voc.frames import find_misdrawn, fit_box, frame_problem
from mmdet_ext.data.voc.lists import SplitIds
from mmdet_ext.data.voc.report import SplitReport, folder_remarks
from mmdet_ext.utils.files import whole_file

Difficult = Literal['keep', 'crowd', 'drop']

_MISSING = ('image missing', '')


@dataclass
class _SplitBuilder:
    """Builder of the COCO records of one split; reports what it leaves out or changes."""

    report: SplitReport
    folder: VocFolder
    split: SplitIds
    category_ids: dict[str, int]
    checks: dict[Path, ImageCheck]
    misdrawn: dict[Path, str]
    difficult: Difficult
    inclusive: bool
    used_images: dict[Path, None] = field(default_factory=dict)
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    def add(self, image_id: str) -> None:
        """Add the image of an id with its boxes, or report why it is left out."""
        annotation = self.folder.annotation(image_id)
        image = self.folder.image(image_id, self.split.suffixes.get(image_id, ''))
        problem, detail = self._problem(image_id, annotation, image)
        if problem:
            self.report.dropped_images[problem].append(image_id + ': ' * bool(detail) + detail)
        elif image is not None and not isinstance(annotation, str):
            self.used_images[image] = None
            self._add_image(image_id, image, annotation)

    def _problem(
        self, image_id: str, annotation: VocAnnotation | str, image: Path | None
    ) -> tuple[str, str]:
        """Return the reason why an image is left out, and a detail; empty if it is not."""
        unclear = self.folder.unclear_images(image_id)
        if image_id in self.split.ambiguous:
            return 'name of several images', ', '.join(self.split.ambiguous[image_id])
        if isinstance(annotation, str):
            reason, _, detail = annotation.partition(': ')
            near = [] if image else self.folder.known.in_other_case(image_id)
            return reason, detail or ('is there as ' + ', '.join(near) if near else '')
        if image is None and unclear:
            return 'image of the xml unclear', 'may be ' + ', '.join(unclear)
        if image is None:
            unread = self.folder.files.unread.get(image_id)
            return ('image of a format that is not read', unread.name) if unread else _MISSING
        named = self.folder.contradiction(image_id, image)
        if named:
            return 'listed image is not that of the xml', f'{image.name} listed, xml names {named}'
        check = self.checks[image]
        if check.size is None:
            return 'image unreadable', check.problem or ''
        if image in self.used_images:
            return 'image listed twice', ''
        if not _is_text(image.name):
            return 'name of the image is not UTF-8', 'rename it'
        return frame_problem(annotation, self.misdrawn.get(image))

    def _add_image(self, image_id: str, image: Path, annotation: VocAnnotation) -> None:
        size = self.checks[image].size or (0, 0)
        difference = size_difference(annotation.size, size)
        if difference:
            shown = show_sizes(annotation.size, size)
            self.report.notes[f'{difference} in the xml'].append(f'{image_id}: {shown}')
        for reason, details in annotation.notes.items():
            self.report.notes[reason] += [f'{image_id}: {detail}' for detail in details]
        listed = self.split.suffixes.get(image_id, image.suffix)
        if listed != image.suffix:
            shown = f'{image_id}{listed}: {image.name} taken'
            self.report.notes['listed with another suffix'].append(shown)
        others = [path.name for path in self.folder.images(image_id) if path != image]
        if others:
            shown = f'{image_id}: {image.name} taken, not {", ".join(others)}'
            self.report.notes['several images of one name'].append(shown)
        place = image.relative_to(self.folder.root / 'JPEGImages').as_posix()
        if without_suffix(composed(place)) != image_id:
            self.report.notes['image in another folder or of another name'].append(
                f'{image_id}: {place}'
            )
        self.images.append(
            {
                'id': len(self.images) + 1,
                'file_name': place,
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
        edges, problem = fit_box(item.corners, size, self.inclusive)
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
    chosen = folder.splits(splits, seed)
    category_ids = _category_ids(classes, folder.class_names())
    checks = check_images(
        path
        for found in chosen.values()
        for name in found.ids
        if (path := folder.image(name, found.suffixes.get(name, '')))
    )
    misdrawn = _find_misdrawn(folder, chosen, checks)
    reports, contents, used = [], {}, {}
    for split, found in chosen.items():
        report = SplitReport(
            split,
            found.origin,
            out_dir / f'instances_{split}.json',
            class_boxes=dict.fromkeys(category_ids, 0),
        )
        for reason, lines in found.notes.items():
            report.notes[reason] += lines
        builder = _SplitBuilder(
            report, folder, found, category_ids, checks, misdrawn, difficult, inclusive
        )
        for image_id in found.ids:
            builder.add(image_id)
        reports.append(report)
        used[split] = list(builder.used_images)
        contents[report.path] = json.dumps(builder.coco(), ensure_ascii=False)
    reports[-1].remarks += folder_remarks(folder, chosen, used)
    if not any(report.boxes for report in reports):
        tables = '\n'.join(report.table() for report in reports)
        raise VocError(f'no boxes left in {root}, so nothing was written\n{tables}')
    _write_all(contents)
    return reports


def _find_misdrawn(
    folder: VocFolder, chosen: dict[str, SplitIds], checks: dict[Path, ImageCheck]
) -> dict[Path, str]:
    """Find the images of all splits whose boxes are drawn at another size."""
    images = {}
    for name, suffix in dict.fromkeys(
        (name, found.suffixes.get(name, '')) for found in chosen.values() for name in found.ids
    ):
        image, annotation = folder.image(name, suffix), folder.annotation(name)
        size = checks[image].size if image else None
        if image and size and not isinstance(annotation, str):
            images[image] = annotation, size
    return find_misdrawn(images)


def _is_text(name: str) -> bool:
    """Return whether the name of a file is text, and can be written into a json file."""
    return name.encode('utf-8', 'replace').decode() == name


def _category_ids(classes: Sequence[str] | None, found: list[str]) -> dict[str, int]:
    names = found if classes is None else list(classes)
    absent = [name for name in names if name not in found]
    if absent:
        raise VocError(f'class {", ".join(absent)} never occurs; found: {", ".join(found)}')
    if len(set(names)) != len(names):
        raise VocError(f'classes names one twice: {", ".join(names)}')
    return {name: category_id for category_id, name in enumerate(names, start=1)}


def _write_all(contents: dict[Path, str]) -> None:
    """Write all files beside their places, then move them, so that a failure changes none."""
    with ExitStack() as stack:
        parts = {path: stack.enter_context(whole_file(path)) for path in contents}
        for path, content in contents.items():
            parts[path].write_text(content, encoding='utf-8')
