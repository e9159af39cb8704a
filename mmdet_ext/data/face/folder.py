"""Images of identities, from one folder per identity or from a list of paths.

They are found, split into parts, checked and counted without torch or an mm* package, so that a
command-line tool can refuse wrong data at once.
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
from mmdet_ext.data.suffixes import has_image_suffix, has_unread_suffix

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

_LAYOUT = (
    'expected one folder per identity, with its images right in it: ROOT/<identity>/<image>.jpg'
)
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
    """Images and their identities.

    Attributes:
        root: folder or list that was read.
        classes: names of the identities, in the order of the labels.
        paths: paths of the images, identity by identity. Images of a folder are in natural order,
            those of a list in the order of the list.
        labels: labels of the images, 0 .. len(classes) - 1.
        bad: number of images left out because they cannot be used.
        left_out: files that are not used, per reason.
        oddities: images and identities that are used, but that the user should know of.
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

    The folders directly under ``root`` are the identities, labelled in natural order: s2 before
    s10. With ``ann_file``, the images are those of a list, see `read_list`. A list with labels
    fixes the labels; in a list without labels, the folder of an image names its identity.

    Args:
        root: the folder; paths of a list are relative to it.
        ann_file: a list with one path, or one path and one label, per line.
        identities: names of the identities to take, in the order of their labels; or a text file
            with one name per line, looked for under ``root`` first. None takes all.
        identity_split: arguments of `split_identities`, for parts without a common identity.
        picture_split: arguments of `split_images`, for parts of the same identities.
        min_pictures: smallest number of readable images of an identity; others are left out. It is
            applied before ``picture_split``, so that both parts have the same labels.
        num_classes: required number of identities. The labels of a list must be below it.
        class_names: names of the labels of a list with labels; by default their digits.
        bad_images: 'error' raises for missing, cut or unreadable images; 'drop' leaves them out
            and counts them; 'unchecked' opens no file, for millions of images, and so counts no
            odd images either. All parts of a split need the same value.

    Returns:
        FaceList: the images; its ``str`` is a report of one line.

    Raises:
        LayoutError: if files, names or labels are not as described, or no image is left.
        ValueError: if an option is out of its range, or two options exclude each other.
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
    """Raise ValueError for options out of their ranges."""
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
    """Raise ValueError for options that do not fit the way in which labels are given."""
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
    """Return the folder and the file of a path."""
    return os.path.join(*Path(path).parts[-2:])


def _scan(root: Path, left_out: Tally) -> Groups:
    """List the images in each folder of ``root``, all in natural order."""
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
    """List the images directly in a folder, in natural order."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            shown = _short(entry.path)
            if entry.name.startswith('.'):
                left_out.add('hidden files and folders', shown)
            elif entry.is_dir():
                left_out.add('folders within folders', shown)
            elif has_unread_suffix(entry.name):
                left_out.add('images of a format that is not read', shown)
            elif not has_image_suffix(entry.name):
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
    """Select the wanted identities, in the wanted order."""
    if identity_split is not None:
        return {name: groups[name] for name in split_identities(groups, **identity_split)}
    if identities is None:
        return groups
    source = 'identities'
    if isinstance(identities, (str, os.PathLike)):
        path = root / identities if (root / identities).is_file() else Path(identities)
        source = f'identities ({str(path)!r})'
        lines = read_lines(path, 'identities', lambda line: line in groups)
        identities = [name for name in lines if name]
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
    """Return the groups without bad images, and count odd images."""

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
        unread = reason == 'not an image' and has_unread_suffix(name)
        report.add(f'images, {"of a format that is not read" if unread else reason}', place(name))
    if bad and bad_images == 'error':
        raise LayoutError(
            f'{len(bad)} of {len(paths)} images of {faces.root!r} cannot be used: '
            f"{report}. Mend them, or set bad_images='drop' to go on without them"
        )
    return {name: [path for path in members if path not in bad] for name, members in groups.items()}


def _looks(paths: list[Path], workers: int = 8) -> list[tuple[str, bool]]:
    """Read from the header of each image its mode, and whether it has several frames."""

    def look(path: Path) -> tuple[str, bool]:
        with Image.open(path) as image:
            return image.mode, bool(getattr(image, 'is_animated', False))

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(look, paths))


def _large_enough(groups: Groups, least: int, faces: FaceList, *, named: bool) -> Groups:
    """Return the groups of at least ``least`` images; count the others, and those of one image."""
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
