"""Pascal VOC folders to COCO json, with an account of everything that is left out.

A VOC folder holds ``Annotations/<id>.xml``, ``JPEGImages/<id>.<suffix>`` and, as a rule,
``ImageSets/Main/<split>.txt`` with one id a line.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from mmdet_ext.data.images import find_bad_images, image_size
from mmdet_ext.utils.files import whole_file

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
Difficult = Literal['keep', 'crowd', 'drop']
Box = tuple[float, float, float, float]

_VAL_SHARE = 0.2
_SHOWN = 5


class VocError(ValueError):
    """The input is no VOC folder, or not what the arguments say of it; the message is for users."""


@dataclass
class SplitReport:
    """What became of one split, read from ``origin`` (a list of ids, or a random split).

    ``dropped_images``, ``dropped_boxes`` and ``notes`` (things changed but kept) map a reason to
    one line per case, which begins with the picture's id.
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
        """Lay the report out as text, with the first few examples of each reason."""
        rows = [
            ('pictures', self.images, ''),
            ('  of them without boxes', self.images_without_boxes, ''),
            ('boxes', self.boxes, ''),
            *((f'  {name}', count, '') for name, count in self.class_boxes.items()),
        ]
        for group, reasons in {
            'pictures dropped': self.dropped_images,
            'boxes dropped': self.dropped_boxes,
            'notes': self.notes,
        }.items():
            rows.append((group, sum(map(len, reasons.values())), ''))
            rows += [
                (f'  {reason}', len(examples), _first(examples, '; '))
                for reason, examples in reasons.items()
            ]
        width = max(len(label) for label, _, _ in rows)
        lines = [f'  {label:<{width}}  {count:>7}  {text}'.rstrip() for label, count, text in rows]
        return '\n'.join([f'{self.split} ({self.origin}) -> {self.path.name}', *lines])


@dataclass(frozen=True)
class _VocObject:
    name: str
    corners: Box
    is_difficult: bool


@dataclass(frozen=True)
class _VocAnnotation:
    filename: str
    size: tuple[int, int] | None
    objects: list[_VocObject]
    malformed: list[str]


class _VocFolder:
    """The files of a VOC folder by the ids of its pictures; each xml is read once."""

    def __init__(self, root: Path) -> None:
        _check_form(root)
        self.root = root
        self._xmls = {
            path.stem: path
            for path in sorted((root / 'Annotations').iterdir())
            if path.suffix.lower() == '.xml'
        }
        self._pictures: dict[str, list[Path]] = defaultdict(list)
        for path in sorted((root / 'JPEGImages').iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                self._pictures[path.stem].append(path)
        main = root / 'ImageSets' / 'Main'  # some tools leave the lists one folder higher
        self.lists = {
            path.stem: path
            for path in sorted((main if main.is_dir() else main.parent).glob('*.txt'))
        }
        self._read: dict[str, _VocAnnotation | str] = {}

    def annotation(self, image_id: str) -> _VocAnnotation | str:
        """The annotation of a picture, or the reason there is none."""
        if image_id not in self._read:
            path = self._xmls.get(image_id)
            self._read[image_id] = 'xml missing' if path is None else _read_annotation(path)
        return self._read[image_id]

    def picture(self, image_id: str) -> Path | None:
        """The picture of an id; the xml's file name decides only where the id leaves it open."""
        annotation = self.annotation(image_id)
        filename = '' if isinstance(annotation, str) else annotation.filename
        found = self._pictures.get(image_id) or self._pictures.get(_without_suffix(filename), [])
        return max(found, key=lambda path: path.name == filename, default=None)

    def split_ids(self, splits: Sequence[str] | None, seed: int) -> dict[str, list[str]]:
        """The picture ids of the chosen splits, in the order of the split's file."""
        known = self._xmls.keys() | self._pictures.keys()
        if self.lists:
            entries = {name: _read_entries(path, known) for name, path in self.lists.items()}
            plain = [name for name, (_, is_plain) in entries.items() if is_plain]
            ids = {name: found for name, (found, _) in entries.items()}
        else:
            ids = _random_split(sorted(known), seed)
            plain = list(ids)
        chosen = plain if splits is None else list(dict.fromkeys(splits))
        unknown = [name for name in chosen if name not in ids]
        if unknown or not chosen:
            wanted = f'no split {", ".join(unknown)}' if unknown else 'no plain list of ids'
            origin = 'ImageSets' if self.lists else 'the random split (ImageSets has no lists)'
            raise VocError(f'{wanted} in {origin} of {self.root}; there are: {", ".join(ids)}')
        return {name: ids[name] for name in chosen}

    def class_names(self) -> list[str]:
        """All class names of the folder, so that ids do not hang on the splits converted."""
        return sorted(
            {
                item.name
                for annotation in map(self.annotation, self._xmls)
                if not isinstance(annotation, str)
                for item in annotation.objects
            }
        )


@dataclass
class _SplitBuilder:
    """Collects the COCO records of one split and counts what it leaves out."""

    report: SplitReport
    folder: _VocFolder
    category_ids: dict[str, int]
    bad_pictures: dict[Path, str]
    difficult: Difficult
    inclusive: bool
    used_pictures: set[Path] = field(default_factory=set)
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    def add(self, image_id: str) -> None:
        annotation = self.folder.annotation(image_id)
        picture = self.folder.picture(image_id)
        dropped = self.report.dropped_images
        if isinstance(annotation, str):
            reason, separator, detail = annotation.partition(': ')
            dropped[reason].append(image_id + separator + detail)
        elif picture is None:
            dropped['picture missing'].append(image_id)
        elif picture in self.bad_pictures:
            dropped['picture unreadable'].append(f'{image_id}: {self.bad_pictures[picture]}')
        elif picture in self.used_pictures:
            dropped['picture listed twice'].append(image_id)
        else:
            self.used_pictures.add(picture)
            self._add_picture(image_id, picture, annotation)

    def _add_picture(self, image_id: str, picture: Path, annotation: _VocAnnotation) -> None:
        size = image_size(picture)
        if annotation.size is None:
            self.report.notes['size missing in the xml'].append(image_id)
        elif annotation.size != size:
            said, true = ('x'.join(map(str, pair)) for pair in (annotation.size, size))
            self.report.notes['size in the xml is wrong'].append(f'{image_id}: {said}, true {true}')
        self.images.append(
            {
                'id': len(self.images) + 1,
                'file_name': picture.name,
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

    def _add_object(self, image_id: str, size: tuple[int, int], item: _VocObject) -> None:
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

    Boxes become ``[x, y, width, height]`` in pixels, clipped to the picture; ``file_name`` is
    relative to ``JPEGImages``. Pictures without objects are kept. All files are written at the end,
    or none.

    Args:
        root: Folder with ``Annotations`` and ``JPEGImages``, and possibly ``ImageSets/Main``.
        out_dir: Where the json files go; made if it is not there.
        splits: Names of lists in ``ImageSets/Main``; by default every list that holds plain ids
            (VOC's per-class lists with a second column do not). A folder without lists is split at
            random into train (80 %) and val (20 %).
        classes: Class names in the order of their category ids, which begin at 1; by default all
            names of the folder, sorted. Boxes of other classes are dropped and counted.
        difficult: What becomes of VOC's difficult boxes: ``'keep'`` as ordinary ones, ``'crowd'``
            with ``iscrowd=1`` (ignored in training and evaluation), or ``'drop'``.
        inclusive: Corners are numbers of pixels counted from 1, both ends part of the box, as in
            the VOC devkit; otherwise they are edges in pixels from 0, as labelImg writes them.
        seed: Seed of the random split.

    Returns:
        One report per split.

    Raises:
        VocError: If ``root`` is no VOC folder, a split or class is not there, or no box is left.
        OSError: If a file cannot be read or written.
    """
    if difficult not in get_args(Difficult):
        raise VocError(f'difficult is {difficult!r}; expected one of {get_args(Difficult)}')
    folder, out_dir = _VocFolder(Path(root)), Path(out_dir)
    ids = folder.split_ids(splits, seed)
    category_ids = _category_ids(classes, folder.class_names())
    bad = find_bad_images(
        dict.fromkeys(path for found in ids.values() for path in map(folder.picture, found) if path)
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


def _check_form(root: Path) -> None:
    """Raise unless the folder has VOC's two indispensable subfolders."""
    if not root.is_dir():
        raise VocError(f'VOC folder {root} is not there')
    if _has_form(root):
        return
    inside = sorted(root.iterdir())
    found = _first([path.name + '/' * path.is_dir() for path in inside], ', ')
    hint = ''.join(f'; did you mean {path}?' for path in inside if _has_form(path))
    raise VocError(
        f'{root} is not of VOC form: looked for the folders Annotations and JPEGImages, '
        f'found {found or "nothing"}{hint}'
    )


def _has_form(root: Path) -> bool:
    return (root / 'Annotations').is_dir() and (root / 'JPEGImages').is_dir()


def _first(texts: list[str], separator: str) -> str:
    return separator.join([*texts[:_SHOWN], *['...'][: len(texts) > _SHOWN]])


def _without_suffix(name: str) -> str:
    """Cut off a picture's suffix, but no other dot: ``a.b.jpg`` and ``a.b`` both give ``a.b``."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def _read_entries(path: Path, known: Collection[str]) -> tuple[list[str], bool]:
    """Read a split's list: its ids, and whether each line is a plain id (which may hold spaces)."""
    ids, is_plain = [], True
    for line in filter(str.strip, path.read_text('utf-8-sig', errors='replace').splitlines()):
        entry = _without_suffix(re.split(r'[\\/]', line.strip())[-1])
        is_plain = is_plain and (entry in known or len(entry.split()) == 1)
        ids.append(entry if entry in known else _without_suffix(entry.split()[0]))
    return ids, is_plain


def _random_split(ids: list[str], seed: int) -> dict[str, list[str]]:
    shuffled = random.Random(seed).sample(ids, len(ids))
    val = max(round(_VAL_SHARE * len(ids)), 1) if len(ids) > 1 else 0
    return {'train': sorted(shuffled[val:]), 'val': sorted(shuffled[:val])}


def _category_ids(classes: Sequence[str] | None, found: list[str]) -> dict[str, int]:
    names = found if classes is None else list(classes)
    absent = [name for name in names if name not in found]
    if absent:
        raise VocError(f'class {", ".join(absent)} never occurs; found: {", ".join(found)}')
    if len(set(names)) != len(names):
        raise VocError(f'classes names one twice: {", ".join(names)}')
    return {name: category_id for category_id, name in enumerate(names, start=1)}


def _read_annotation(path: Path) -> _VocAnnotation | str:
    """Read one xml; a text is the reason that it cannot be read."""
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the latter two: encodings
        return f'xml unparsable: {error}'
    if root.tag != 'annotation':
        return f'xml unparsable: begins with <{root.tag}>, not <annotation>'
    objects, malformed = [], []
    for number, element in enumerate(root.findall('object'), start=1):
        try:
            objects.append(_read_object(element))
        except ValueError as error:
            malformed.append(f'object {number}, {error}')
    try:
        size = (int(_number_in(root, 'size/width')), int(_number_in(root, 'size/height')))
    except ValueError:
        size = (0, 0)
    filename = re.split(r'[\\/]', root.findtext('filename') or '')[-1].strip()
    return _VocAnnotation(filename, size if min(size) > 0 else None, objects, malformed)


def _read_object(element: ElementTree.Element) -> _VocObject:
    name = (element.findtext('name') or '').strip()
    if not name:
        raise ValueError('no name')
    xmin, ymin, xmax, ymax = (
        _number_in(element, f'bndbox/{corner}') for corner in ('xmin', 'ymin', 'xmax', 'ymax')
    )
    is_difficult = (element.findtext('difficult') or '').strip() == '1'
    return _VocObject(name, (xmin, ymin, xmax, ymax), is_difficult)


def _number_in(element: ElementTree.Element, tag: str) -> float:
    text = (element.findtext(tag) or '').strip()
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f'{tag} is {text!r}' if text else f'no {tag}')
    return int(number) if number.is_integer() else number  # 5 is to be written as 5, not 5.0


def _fit(corners: Box, size: tuple[int, int], inclusive: bool) -> tuple[Box | None, str]:
    """Clip a box to the picture: its edges, or None, and what was amiss, or ''."""
    x0, y0, x1, y1 = corners
    if inclusive:  # pixels 1 to n, both included, reach from edge 0 to edge n
        x0, y0 = x0 - 1, y0 - 1
    if x1 < x0 or y1 < y0:
        return None, 'inverted'
    if x1 == x0 or y1 == y0:
        return None, 'zero area'
    clipped = (max(x0, 0), max(y0, 0), min(x1, size[0]), min(y1, size[1]))
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        return None, 'outside the picture'
    return clipped, '' if clipped == (x0, y0, x1, y1) else 'clipped to the picture'


def _write_all(contents: dict[Path, str]) -> None:
    """Write all files beside their places first, then move them: a failed write changes none."""
    with ExitStack() as stack:
        parts = {path: stack.enter_context(whole_file(path)) for path in contents}
        for path, content in contents.items():
            parts[path].write_text(content, encoding='utf-8')
