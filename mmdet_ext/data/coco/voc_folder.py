"""Reader of a Pascal VOC folder: its annotations, its images, and the lists of its splits.

A VOC folder holds ``Annotations/<id>.xml``, ``JPEGImages/<id>.<suffix>`` and usually
``ImageSets/Main/<split>.txt`` with one id per line.
"""

from __future__ import annotations

import math
import os
import random
import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmdet_ext.data.suffixes import has_image_suffix

Box = tuple[float, float, float, float]

_VAL_SHARE = 0.2
_SHOWN = 5


class VocError(ValueError):
    """A folder that is no VOC folder or does not fit the arguments; the message is for users."""


@dataclass(frozen=True)
class VocObject:
    """Object of an annotation; ``corners`` are xmin, ymin, xmax, ymax as the file has them."""

    name: str
    corners: Box
    is_difficult: bool


@dataclass(frozen=True)
class VocAnnotation:
    """Content of one xml file.

    Attributes:
        filename: Name of the image that the file states, without folders; may be empty.
        size: Stated width and height of the image in pixels, None if absent or not above 0.
        objects: The objects that can be used.
        malformed: One line per object that cannot be used, with its number and problem.
    """

    filename: str
    size: tuple[int, int] | None
    objects: list[VocObject]
    malformed: list[str]


class VocFolder:
    """Files of a VOC folder by the ids of its images; each xml file is read once.

    Attributes:
        root: The folder.
        lists: Path of each list of ids in ``ImageSets/Main`` by the name of its split.

    Raises:
        VocError: If the folder lacks ``Annotations`` or ``JPEGImages``.
    """

    def __init__(self, root: Path) -> None:
        _check_form(root)
        self.root = root
        self._xmls = {
            path.stem: path
            for path in sorted((root / 'Annotations').iterdir())
            if path.suffix.lower() == '.xml'
        }
        self._images: dict[str, list[Path]] = defaultdict(list)
        for path in sorted((root / 'JPEGImages').iterdir()):
            if has_image_suffix(path):
                self._images[path.stem].append(path)
        main = root / 'ImageSets' / 'Main'  # some tools put the lists one folder higher
        self.lists = {
            path.stem: path
            for path in sorted((main if main.is_dir() else main.parent).glob('*.txt'))
        }
        self._read: dict[str, VocAnnotation | str] = {}

    def annotation(self, image_id: str) -> VocAnnotation | str:
        """Return the annotation of an image, or the reason why there is none."""
        if image_id not in self._read:
            path = self._xmls.get(image_id)
            self._read[image_id] = 'xml missing' if path is None else _read_annotation(path)
        return self._read[image_id]

    def image(self, image_id: str) -> Path | None:
        """Return the image of an id.

        The file name in the xml decides only between several images of one id, or where no image
        bears the id.
        """
        annotation = self.annotation(image_id)
        filename = '' if isinstance(annotation, str) else annotation.filename
        found = self._images.get(image_id) or self._images.get(_without_suffix(filename), [])
        return max(found, key=lambda path: path.name == filename, default=None)

    def split_ids(self, splits: Sequence[str] | None, seed: int) -> dict[str, list[str]]:
        """Return the image ids of the chosen splits, in the order of each split's list.

        Args:
            splits: Names of the splits; None chooses every list that holds plain ids alone.
            seed: Seed of the random split into train (80 %) and val (20 %) that stands in for the
                lists of a folder without any.

        Raises:
            VocError: If a split does not exist, or none is chosen.
        """
        known = self._xmls.keys() | self._images.keys()
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
        """Return the class names of the whole folder, sorted.

        The splits that are converted have no influence on them, and so none on the class ids.
        """
        return sorted(
            {
                item.name
                for annotation in map(self.annotation, self._xmls)
                if not isinstance(annotation, str)
                for item in annotation.objects
            }
        )


def first_few(texts: list[str], separator: str) -> str:
    """Join the first five texts, with three dots behind them if there are more."""
    return separator.join([*texts[:_SHOWN], *['...'][: len(texts) > _SHOWN]])


def _check_form(root: Path) -> None:
    """Raise unless the folder has the two subfolders that VOC needs."""
    if not root.is_dir():
        raise VocError(f'VOC folder {root} is not there')
    if _has_form(root):
        return
    inside = sorted(root.iterdir())
    found = first_few([path.name + '/' * path.is_dir() for path in inside], ', ')
    hint = ''.join(f'; did you mean {path}?' for path in inside if _has_form(path))
    raise VocError(
        f'{root} is not of VOC form: looked for the folders Annotations and JPEGImages, '
        f'found {found or "nothing"}{hint}'
    )


def _has_form(root: Path) -> bool:
    return (root / 'Annotations').is_dir() and (root / 'JPEGImages').is_dir()


def _without_suffix(name: str) -> str:
    """Cut off the suffix of an image, but no other dot: ``a.b.jpg`` and ``a.b`` give ``a.b``."""
    return os.path.splitext(name)[0] if has_image_suffix(name) else name


def _read_entries(path: Path, known: Collection[str]) -> tuple[list[str], bool]:
    """Read the list of a split.

    Returns:
        Its ids, and whether each line is a plain id. An id may hold spaces; lists per class have a
        second column instead.
    """
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


def _read_annotation(path: Path) -> VocAnnotation | str:
    """Read one xml file, or return the reason why it cannot be read."""
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
    return VocAnnotation(filename, size if min(size) > 0 else None, objects, malformed)


def _read_object(element: ElementTree.Element) -> VocObject:
    name = (element.findtext('name') or '').strip()
    if not name:
        raise ValueError('no name')
    xmin, ymin, xmax, ymax = (
        _number_in(element, f'bndbox/{corner}') for corner in ('xmin', 'ymin', 'xmax', 'ymax')
    )
    is_difficult = (element.findtext('difficult') or '').strip() == '1'
    return VocObject(name, (xmin, ymin, xmax, ymax), is_difficult)


def _number_in(element: ElementTree.Element, tag: str) -> float:
    text = (element.findtext(tag) or '').strip()
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f'{tag} is {text!r}' if text else f'no {tag}')
    return int(number) if number.is_integer() else number  # 5 is written as 5, not as 5.0
