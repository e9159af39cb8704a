"""Images of identities, from a folder an identity or from a list of paths: found, split, counted.

Neither torch nor an mm* package, so that a command-line tool can refuse wrong data at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from mmdet_ext.data.face.lists import (
    Groups,
    grouped_list,
    natural_key,
    read_lines,
    read_list,
)
from mmdet_ext.data.face.splits import check_split, split_identities, split_images
from mmdet_ext.data.images import find_bad_images
from mmdet_ext.data.reports import EXAMPLES, LayoutError, Tally, listed
from mmdet_ext.data.suffixes import IMAGE_SUFFIXES

__all__ = [
    'BadImages',
    'FaceList',
    'list_faces',
    'natural_key',
    'read_list',
    'split_identities',
    'split_images',
]

BadImages = Literal['error', 'drop', 'unchecked']

_LAYOUT = 'expected a folder an identity, images right in it: ROOT/<identity>/<image>.jpg'
_MODES = {
    'L': 'grey images',
    'CMYK': 'CMYK images',
    '1': 'images of black and white alone',
    'P': 'images with a palette',
    'RGBA': 'images with transparency (which is passed over)',
    'LA': 'grey images with transparency (which is passed over)',
    'I': 'grey images of 16 bits or more',
    'I;16': 'grey images of 16 bits',
    'I;16B': 'grey images of 16 bits',
}


@dataclass
class FaceList:
    """Images and whose they are.

    Attributes:
        root: folder or list that was read.
        classes: names of the identities, in the order of the labels.
        paths: of the images, those of an identity together: of a folder in natural order, of a
            list in its order.
        labels: of the images, 0 .. len(classes) - 1.
        bad: how many images are left out as they cannot be used.
        left_out: what was there and is not used.
        oddities: what is used, but should be known of.
    """

    root: str
    classes: tuple[str, ...] = ()
    paths: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    bad: int = 0
    left_out: Tally = field(default_factory=Tally)
    oddities: Tally = field(default_factory=Tally)

    def __str__(self) -> str:
        text = f'{self.root}: {len(self.paths)} images of {len(self.classes)} identities'
        if self.left_out:
            text += f'. Left out: {self.left_out}'
        return text + (f'. To be known: {self.oddities}' if self.oddities else '')


def list_faces(
    root: str | os.PathLike[str],
    *,
    ann_file: str | os.PathLike[str] | None = None,
    identities: Sequence[str] | str | None = None,
    identity_split: Mapping[str, Any] | None = None,
    picture_split: Mapping[str, Any] | None = None,
    min_pictures: int = 1,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    bad_images: BadImages = 'error',
) -> FaceList:
    """Find the images of identities.

    Identities are the folders right under ``root`` and number themselves in natural order, s2
    before s10. With ``ann_file`` the images are those that it lists, see `read_list`: with
    labels, which then count as they are, or without, and then the folder of an image names its
    identity.

    Args:
        root: the folder; paths of a list are relative to it.
        ann_file: a list, a path a line, or a path and a label.
        identities: names of those to take, which also orders their labels; or a text file,
            looked for under ``root`` first, of a name a line. By default all.
        identity_split: arguments of `split_identities`, for parts without a common identity.
        picture_split: arguments of `split_images`, for parts of the same identities.
        min_pictures: identities with fewer readable images are left out. Counted before
            ``picture_split``, so that its parts number identities alike.
        num_classes: how many identities there have to be (of a list with labels: its labels are
            below that).
        class_names: names of the labels of a list with labels; by default their digits.
        bad_images: missing, cut or unreadable images: raise an 'error', 'drop' them, counted,
            or leave images 'unchecked', which opens no file and so counts no odd ones either
            (for millions of them). Give the parts of a split the same.

    Returns:
        The images; ``str`` of it is a report of one line.

    Raises:
        LayoutError: if there are no such files, names or labels, or nothing is left.
        ValueError: if an option is out of its range, or two exclude each other.
    """
    _check_options(identities, identity_split, picture_split, min_pictures, bad_images)
    root = Path(root).expanduser()
    faces = FaceList(str(root if ann_file is None else ann_file))
    labels: dict[str, int] | None = None
    lines: dict[str, int] = {}
    if ann_file is None:
        groups = _scan(root, faces.left_out)
    else:
        groups, labels, lines = grouped_list(
            Path(ann_file), root, num_classes, class_names, faces.oddities
        )
    _check_names(faces.root, labels, identities, identity_split, class_names)
    groups = _chosen(groups, root, identities, identity_split)
    groups = _readable(groups, bad_images, faces, lines)
    groups = _large_enough(groups, min_pictures, faces, named=identities is not None)
    labels = labels or {name: label for label, name in enumerate(groups)}
    faces.classes = tuple(labels)
    for name, paths in groups.items():
        if picture_split is not None:
            paths = split_images(paths, **picture_split)
        faces.paths += paths
        faces.labels += [labels[name]] * len(paths)
    if not faces.paths:
        raise LayoutError(f'no image is left to use. {faces}. {_LAYOUT}')
    if num_classes is not None and len(labels) != num_classes:
        raise LayoutError(
            f'num_classes is {num_classes}: set it to the number of identities, or choose '
            f'others. {faces}'
        )
    return faces


def _check_options(
    identities: object,
    identity_split: object,
    picture_split: object,
    min_pictures: int,
    bad_images: str,
) -> None:
    if bad_images not in ('error', 'drop', 'unchecked'):
        raise ValueError(f"bad_images must be 'error', 'drop' or 'unchecked', got {bad_images!r}")
    if min_pictures < 1:
        raise ValueError(f'min_pictures must be at least 1, got {min_pictures}')
    if identity_split is not None:
        check_split('identity_split', identity_split, split_identities)
    if picture_split is not None:
        check_split('picture_split', picture_split, split_images)
    if identities is not None and identity_split is not None:
        raise ValueError('identities and identity_split both choose identities: give one of them')


def _check_names(
    root: str, labels: object, identities: object, identity_split: object, class_names: object
) -> None:
    """Raise unless what chooses or gives names fits to how labels are told."""
    if labels is None and class_names is not None:
        raise ValueError(
            f'class_names (metainfo classes) name the labels of a list, but {root!r} is read by '
            'names: take and order identities by identities=[...]'
        )
    if labels is not None and (identities is not None or identity_split is not None):
        raise ValueError(
            f'identities and identity_split choose by name, but {root!r} labels its images by '
            'number: leave lines out of the list instead'
        )


def _short(path: str) -> str:
    """A path's file and folder."""
    return os.path.join(*Path(path).parts[-2:])


def _scan(root: Path, left_out: Tally) -> Groups:
    """The paths of the images in each folder of ``root``, all in natural order."""
    if not root.is_dir():
        what = 'is no folder' if root.exists() else 'is not there'
        raise LayoutError(f'data_root {str(root)!r} {what}; {_LAYOUT}')
    folders = []
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith('.'):
                left_out.add('hidden files and folders', entry.name)
            elif entry.is_dir():
                folders.append(entry.name)
            else:
                left_out.add('files beside the folders', entry.name)
    if not folders:
        raise LayoutError(
            f'data_root {str(root)!r} has no folder in it. Found: {left_out or "nothing"}; '
            f'{_LAYOUT}'
        )
    folders.sort(key=natural_key)
    return {name: _images(root / name, left_out) for name in folders}


def _images(folder: Path, left_out: Tally) -> list[str]:
    """The paths of the images right in a folder, in natural order."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            shown = _short(entry.path)
            if entry.name.startswith('.'):
                left_out.add('hidden files and folders', shown)
            elif entry.is_dir():
                left_out.add('folders within folders', shown)
            elif os.path.splitext(entry.name)[1].lower() not in IMAGE_SUFFIXES:
                left_out.add("files whose suffix is no image's", shown)
            else:
                names.append(entry.name)
    return [str(folder / name) for name in sorted(names, key=natural_key)]


def _chosen(
    groups: Groups,
    root: Path,
    identities: Sequence[str] | str | None,
    identity_split: Mapping[str, Any] | None,
) -> Groups:
    """The identities asked for, in the order asked for."""
    if identity_split is not None:
        return {name: groups[name] for name in split_identities(groups, **identity_split)}
    if identities is None:
        return groups
    source = 'identities'
    if isinstance(identities, (str, os.PathLike)):
        path = root / identities if (root / identities).is_file() else Path(identities)
        source = f'identities ({str(path)!r})'
        identities = [name for name in read_lines(path, 'identities') if name]
    if len(set(identities)) != len(identities):
        twice = sorted({name for name in identities if list(identities).count(name) > 1})
        raise ValueError(f'{source} names some twice: {listed(twice[:EXAMPLES], len(twice))}')
    absent = [str(name) for name in identities if name not in groups]
    if absent:
        raise LayoutError(
            f'{len(absent)} of {len(identities)} {source} are not in {str(root)!r}: '
            f'{listed(absent[:EXAMPLES], len(absent))}. It has {len(groups)}: '
            f'{listed(list(groups)[:EXAMPLES], len(groups))}'
        )
    return {name: groups[name] for name in identities}


def _readable(
    groups: Groups, bad_images: BadImages, faces: FaceList, lines: dict[str, int]
) -> Groups:
    """The groups without bad images; the odd ones are counted."""

    def place(path: str) -> str:
        return f'line {lines[path]}: {_short(path)}' if lines else _short(path)

    if bad_images == 'unchecked':
        return groups
    paths = [Path(path) for members in groups.values() for path in members]
    bad = {str(path): reason for path, reason in find_bad_images(paths).items()}
    whole = [path for path in paths if str(path) not in bad]
    for path, (mode, animated) in zip(whole, _looks(whole), strict=True):
        shown = place(str(path))
        if mode == 'F':
            bad[str(path)] = 'floating-point pixels'
        elif mode != 'RGB':
            faces.oddities.add(_MODES.get(mode, f'images of mode {mode}'), shown)
        if animated:
            faces.oddities.add('animated images, of which the first frame counts', shown)
    faces.bad = len(bad)
    report = Tally() if bad_images == 'error' else faces.left_out
    for name, reason in bad.items():
        report.add(f'images, {reason}', place(name))
    if bad and bad_images == 'error':
        raise LayoutError(
            f'{len(bad)} of {len(paths)} images of {faces.root!r} cannot be used: '
            f"{report}. Mend them, or set bad_images='drop' to go on without them"
        )
    return {name: [path for path in members if path not in bad] for name, members in groups.items()}


def _looks(paths: list[Path], workers: int = 8) -> list[tuple[str, bool]]:
    """The mode of each whole image, by its header, and whether it has several frames."""

    def look(path: Path) -> tuple[str, bool]:
        with Image.open(path) as image:
            return image.mode, bool(getattr(image, 'is_animated', False))

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(look, paths))


def _large_enough(groups: Groups, least: int, faces: FaceList, *, named: bool) -> Groups:
    """The groups of ``least`` images; the others are counted, and so are those of one image."""
    empty = [name for name, paths in groups.items() if not paths]
    if named and empty:
        raise LayoutError(
            f'{len(empty)} of the identities asked for have no image to use: '
            f'{listed(empty[:EXAMPLES], len(empty))}. {faces}'
        )
    for name, paths in groups.items():
        if not paths:
            faces.left_out.add('identities without an image', name)
        elif len(paths) < least:
            faces.left_out.add(f'identities of fewer than {least} images', name)
        elif len(paths) == 1:
            faces.oddities.add('identities of one image, which give no genuine pair', name)
    return {name: paths for name, paths in groups.items() if len(paths) >= least}
