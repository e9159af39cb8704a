"""Files of a Pascal VOC folder by their ids: paths from its folder on, without suffix.

Files of one name in several subfolders are several images.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmdet_ext.data.reports import LayoutError
from mmdet_ext.data.suffixes import has_image_suffix, has_unread_suffix
from mmdet_ext.data.voc.annotation import VocAnnotation

#: Folders and files that systems write beside those of the user; all others begin with a dot.
_SYSTEM_NAMES = frozenset(
    '__macosx @eadir #recycle $recycle.bin lost+found thumbs.db ehthumbs.db desktop.ini'.split()
)


class VocError(LayoutError):
    """A folder that is no VOC folder or does not fit the arguments; the message is for users."""


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is written by a system, not by the user.

    >>> is_hidden('._a.jpg'), is_hidden('__MACOSX'), is_hidden('a.jpg')
    (True, True, False)
    """
    return name.startswith('.') or name.lower() in _SYSTEM_NAMES


def subfolder(folder: Path, name: str) -> Path:
    """Return the subfolder of a name, or else the only one that differs from it in case alone."""
    exact = folder / name
    if exact.is_dir() or not folder.is_dir():
        return exact
    found = [path for path in folder.iterdir() if path.name.lower() == name.lower()]
    return found[0] if len(found) == 1 and found[0].is_dir() else exact


def find_files(
    folder: Path, wanted: Callable[[str], bool], again: list[Path] | None = None
) -> Iterator[Path]:
    """Find the files of a folder and of its subfolders, without hidden ones.

    Links to folders are followed, except to folders that are read already: a link that leads back
    ends there.

    Args:
        folder: The folder.
        wanted: Judge of the name of a file.
        again: List that gets the links that are not followed.
    """
    seen: set[tuple[int, int]] = set()
    folders, links = [folder], list[Path]()
    while folders or links:  # links come last, so that a folder is read at its own place
        current = folders.pop() if folders else links.pop(0)
        state = current.stat()
        if (state.st_dev, state.st_ino) in seen:
            if again is not None:
                again.append(current)
            continue
        seen.add((state.st_dev, state.st_ino))
        with os.scandir(current) as entries:  # which asks the disk about links alone
            inside = sorted(entries, key=lambda entry: entry.name)
        for entry in inside:
            path, is_link = Path(entry.path), entry.is_symlink()
            if is_hidden(entry.name):
                continue
            if path.is_dir() if is_link else entry.is_dir():
                (links if is_link else folders).append(path)
            elif wanted(entry.name):
                yield path


def id_of(path: Path, folder: Path) -> str:
    """Return the id of a file: its path from the folder on, with slashes and without suffix.

    Letters with accents have one form, as file systems differ in them.
    """
    return composed(os.path.splitext(path.relative_to(folder).as_posix())[0])


def composed(text: str) -> str:
    """Return a text in which a letter and its accent are one character."""
    return unicodedata.normalize('NFC', text)


def without_suffix(name: str) -> str:
    """Cut off the suffix of an image, but no other dot: ``a.b.jpg`` and ``a.b`` give ``a.b``."""
    return os.path.splitext(name)[0] if has_image_suffix(name) else name


def id_in_place(place: str) -> tuple[str, bool]:
    r"""Return the id that a stated path means, and whether its beginning is of unknown meaning.

    Backslashes are slashes, and the path begins behind the last ``JPEGImages`` or ``Annotations``
    in it.

    Args:
        place: A path, relative or absolute, with or without the suffix of an image.

    >>> id_in_place(r'.\\JPEGImages\\cam1\\f0.jpg'), id_in_place('/home/me/cam1/f0')
    (('cam1/f0', False), ('home/me/cam1/f0', True))
    """
    text = composed(place.strip().strip('"\'').strip()).replace('\\', '/')
    parts = [part for part in os.path.normpath(text).split('/') if part not in ('', '.')]
    roots = [n for n, part in enumerate(parts) if part.lower() in ('jpegimages', 'annotations')]
    is_absolute = bool(re.match('/|[A-Za-z]:', text)) or parts[:1] == ['..']
    if roots and roots[-1] + 1 < len(parts):
        parts, is_absolute = parts[roots[-1] + 1 :], False
    name = without_suffix('/'.join(parts))
    return name.removesuffix('.xml').removesuffix('.XML'), is_absolute


@dataclass
class VocFiles:
    """The xml files and images of a folder.

    Attributes:
        xmls: Path of the xml file of each id.
        images: Paths of the images of each id, several where suffixes differ.
        unread: Paths of the images of each id whose format is not read.
        repeated: Ids with several xml files, such as ``a.xml`` and ``a.XML``.
        links: Links to folders that are read already.
    """

    xmls: dict[str, Path] = field(default_factory=dict)
    images: dict[str, list[Path]] = field(default_factory=dict)
    unread: dict[str, Path] = field(default_factory=dict)
    repeated: set[str] = field(default_factory=set)
    links: list[Path] = field(default_factory=list)


def read_files(root: Path) -> VocFiles:
    """Find the xml files and images of a folder of VOC form."""
    files = VocFiles()
    folder = root / 'Annotations'
    for path in sorted(find_files(folder, is_xml, files.links)):
        name = id_of(path, folder)
        if name in files.xmls:
            files.repeated.add(name)
        files.xmls.setdefault(name, path)
    folder = root / 'JPEGImages'
    images: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(find_files(folder, _is_image, files.links)):
        if has_image_suffix(path):
            images[id_of(path, folder)].append(path)
        else:
            files.unread[id_of(path, folder)] = path
    files.images = dict(images)
    return files


def is_xml(name: str) -> bool:
    """Return whether a file is an xml file by its name."""
    return name.lower().endswith('.xml')


def _is_image(name: str) -> bool:
    return has_image_suffix(name) or has_unread_suffix(name)


def pair_by_content(
    files: VocFiles, annotation: Callable[[str], VocAnnotation | str]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Pair the xml files that have no image of their id with images that have no xml file.

    A pair is certain if the xml file states the place of the image, or if one of both lies in
    subfolders, the other does not, and no other file fits.

    Args:
        files: The files.
        annotation: Reader of the xml file of an id.

    Returns:
        The id of the image per id of an xml file; and the ids of the images that fit per id of an
        xml file for which none is certain.
    """
    free = _Images(name for name in files.images if name not in files.xmls)
    found = {
        name: free.fitting(name, annotation(name))
        for name in files.xmls
        if free.ids and name not in files.images
    }
    claims: dict[str, list[str]] = defaultdict(list)
    for name, images in found.items():
        for image in images:
            claims[image].append(name)
    pairs = {
        name: images[0]
        for name, images in found.items()
        if len(images) == 1 and len(claims[images[0]]) == 1
    }
    unclear = {name: images for name, images in found.items() if images and name not in pairs}
    return pairs, unclear


class _Images:
    """Images without an xml file of their id, by id, by the last part of it and by folders."""

    def __init__(self, ids: Iterable[str]) -> None:
        self.ids = set(ids)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self.ids):
            self._by_name[name.rpartition('/')[2]].append(name)
        self._folders = {part for name in self.ids for part in name.split('/')[:-1]}

    def fitting(self, name: str, annotation: VocAnnotation | str) -> list[str]:
        """Return the images that may be the one of an xml file."""
        if isinstance(annotation, str):
            return self._beside(name)
        stated = {end for end in map(self._known_end, annotation.places) if end}
        if stated:
            return sorted(stated)
        # A stated folder that is one of the images excludes the others.
        folders = {
            part for place in annotation.places for part in re.split(r'[\\/]', place)[:-1]
        } & self._folders
        filename = without_suffix(composed(annotation.filename))
        named = f'{name.rpartition("/")[0]}/{filename}'.lstrip('/') if filename else name
        found = self._beside(named) or self._beside(name)
        return [image for image in found if folders <= set(image.split('/'))]

    def _beside(self, name: str) -> list[str]:
        """Return the image of an id, or else those of ids that end in it, or in which it ends."""
        if name in self.ids:
            return [name]
        longer = [each for each in self._by_name[name.rpartition('/')[2]] if _is_end(name, each)]
        return sorted({*longer, *(end for end in _ends(name) if end in self.ids)})

    def _known_end(self, place: str) -> str | None:
        """Return the longest end of a stated path, of a folder and a name at least."""
        name, _ = id_in_place(place)
        known = [end for end in (name, *_ends(name)) if end in self.ids]
        return next((end for end in known if '/' in end or end == name), None)


def _ends(name: str) -> list[str]:
    """Return the ends of an id without its first folders, the longest first."""
    parts = name.split('/')
    return ['/'.join(parts[start:]) for start in range(1, len(parts))]


def _is_end(end: str, name: str) -> bool:
    return name.endswith('/' + end)
