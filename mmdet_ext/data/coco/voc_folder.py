"""Reader of a Pascal VOC folder: its annotations, its images, and the lists of its splits.

A VOC folder holds ``Annotations/<id>.xml``, ``JPEGImages/<id>.<suffix>`` and usually
``ImageSets/Main/<split>.txt`` with one id per line. An id may hold folders: ``cam1/0001``.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from mmdet_ext.data.coco.split_names import split_role
from mmdet_ext.data.duplicates import find_equal_files
from mmdet_ext.data.voc.annotation import VocAnnotation, read_annotation
from mmdet_ext.data.voc.files import (
    VocError,
    composed,
    is_hidden,
    pair_by_content,
    read_files,
    subfolder,
)
from mmdet_ext.data.voc.lists import (
    KnownIds,
    SplitIds,
    find_lists,
    holds_everything,
    is_used_by_default,
    random_parts,
    random_split,
    read_split,
)

_SHOWN = 5


class VocFolder:
    """Files of a VOC folder by the ids of its images; each xml file is read once.

    Attributes:
        root: The folder.
        lists: Path of each list of ids in ``ImageSets/Main`` by the name of its split.
        files: The xml files and images by id.

    Raises:
        VocError: If the folder lacks ``Annotations`` or ``JPEGImages``.
    """

    def __init__(self, root: Path) -> None:
        _check_form(root)
        self.root = root
        self.files = read_files(root)
        self._lists = find_lists(root)
        self.lists = {name: paths[0] for name, paths in self._lists.items()}
        self._read: dict[str, VocAnnotation | str] = {}

    def annotation(self, image_id: str) -> VocAnnotation | str:
        """Return the annotation of an image, or the reason why there is none."""
        if image_id not in self._read:
            path = self.files.xmls.get(image_id)
            if image_id in self.files.repeated:
                self._read[image_id] = 'several xml files of one name'
            elif path is not None:
                self._read[image_id] = read_annotation(path)
            else:
                has_image = image_id in self.files.images
                self._read[image_id] = 'xml missing' if has_image else 'image and xml missing'
        return self._read[image_id]

    def images(self, image_id: str) -> list[Path]:
        """Return the images of an id, the certain one first; several differ in their suffixes.

        The file name in the xml decides only between several images of one id, or where no image
        bears the id.
        """
        annotation = self.annotation(image_id)
        filename = '' if isinstance(annotation, str) else composed(annotation.filename)
        found = self.files.images.get(image_id)
        if not found and image_id in self._pairs:
            found = self.files.images[self._pairs[image_id]]
        named = [path for path in found or () if composed(path.name) == filename]
        return named if len(named) == 1 else list(found or ())

    def image(self, image_id: str, suffix: str = '') -> Path | None:
        """Return the image of an id, that of a listed suffix if it is there; see :meth:`images`."""
        listed = [
            path for path in self.files.images.get(image_id, ()) if suffix and path.suffix == suffix
        ]
        return next(iter(listed or self.images(image_id)), None)

    def contradiction(self, image_id: str, image: Path) -> str:
        """Return the other image of an id that its xml file names, or an empty text."""
        annotation, several = self.annotation(image_id), self.files.images.get(image_id, ())
        if isinstance(annotation, str) or len(several) < 2:
            return ''
        names = [path.name for path in several if path != image]
        return next((name for name in names if composed(name) == composed(annotation.filename)), '')

    def unclear_images(self, image_id: str) -> list[str]:
        """Return the images that an xml file may belong to if none of them is certain."""
        return self._pairing[1].get(image_id, [])

    @cached_property
    def known(self) -> KnownIds:
        """Ids of the folder, one for each image or xml file."""
        aliases = {image: xml for xml, image in self._pairs.items()}
        return KnownIds(
            (self.files.xmls.keys() | self.files.images.keys()) - aliases.keys(), aliases
        )

    @cached_property
    def _pairing(self) -> tuple[dict[str, str], dict[str, list[str]]]:
        return pair_by_content(self.files, self.annotation)

    @property
    def _pairs(self) -> dict[str, str]:
        """Id of the image per id of an xml file that has another."""
        return self._pairing[0]

    @cached_property
    def contents(self) -> tuple[dict[str, SplitIds], dict[str, VocError]]:
        """Contents of the lists by the name of the split, and the errors of those not read."""
        main = subfolder(subfolder(self.root, 'ImageSets'), 'Main')
        contents, errors = {}, {}
        for name, paths in self._lists.items():
            top = main if main in paths[0].parents else main.parent
            try:
                contents[name] = read_split(paths, top, self.known)
            except VocError as error:
                errors[name] = error
        return contents, errors

    def splits(self, chosen: Sequence[str] | None, seed: int) -> dict[str, SplitIds]:
        """Return the chosen splits, in the order of each one's list.

        Args:
            chosen: Names of the splits, in any case if they are unique then; None chooses every
                list that holds plain ids alone. A single list whose name says no split, such as
                CVAT's ``default.txt``, is split.
            seed: Seed of the random split into train (80 %) and val (20 %) of such a list, or of a
                folder without lists.

        Raises:
            VocError: If a split does not exist, none is chosen, or its encoding is unknown.
        """
        contents, errors = self.contents
        default = [name for name, found in contents.items() if is_used_by_default(name, found)]
        parts: dict[str, SplitIds] = {}
        if not self._lists:
            parts = random_split(sorted(self.known.ids), seed)
        elif len(default) == 1 and holds_everything(default[0], contents[default[0]]):
            parts = random_parts(contents[default[0]], seed)
        self._join_copies(parts)
        if chosen is None and errors:  # a list that cannot be read is no reason to go on without it
            raise next(iter(errors.values()))
        names = {**contents, **errors, **parts}
        found = {
            name: names[self._name(name, list(names))]
            for name in dict.fromkeys(chosen if chosen is not None else list(parts) or default)
        }
        if not found:
            raise self._no_split('no plain list of ids', list(names))
        for split in found.values():
            if isinstance(split, VocError):
                raise split
        return {name: split for name, split in found.items() if isinstance(split, SplitIds)}

    def _join_copies(self, parts: dict[str, SplitIds]) -> None:
        """Move images between train and val so that copies of an image are in one part.

        Copies go to train. If val has nothing else, it keeps those of its first image instead, and
        all others of this content join them there.
        """
        if not parts:
            return
        train, val = parts['train'], parts['val']
        names = {
            path: name
            for part in (train, val)
            for name in part.ids
            if (path := self.image(name, part.suffixes.get(name, '')))
        }
        groups = [{names[path] for path in group} for group in find_equal_files(names)]
        trained, tested = set(train.ids), set(val.ids)
        split = [group for group in groups if group & trained and group & tested]
        copies = {name for group in split for name in group & tested}
        if copies == tested and split:
            kept = next(group for group in split if val.ids[0] in group)
            if trained <= kept:
                return  # all images have one content
            copies = copies - kept
            train.ids = [name for name in train.ids if name not in kept]
            val.notes['copy of an image of val, not drawn for train'] += sorted(kept & trained)
            val.ids = sorted({*val.ids, *kept})
        train.ids = sorted([*train.ids, *copies])
        val.ids = [name for name in val.ids if name not in copies]
        if copies:
            train.notes['copy of an image of train, not drawn for val'] += sorted(copies)

    def _name(self, wanted: str, names: list[str]) -> str:
        """Return the name of a list, or the only one that differs from the wanted one in case."""
        if wanted in names:
            return wanted
        found = [name for name in names if name.casefold() == wanted.casefold()]
        if len(found) == 1:
            return found[0]
        role = split_role(wanted)
        near = found or [name for name in names if role and split_role(name) == role]
        near = near or difflib.get_close_matches(wanted, names)
        raise self._no_split(f'no split {wanted}', names, near)

    def _no_split(self, problem: str, names: list[str], near: Sequence[str] = ()) -> VocError:
        origin = 'ImageSets' if self._lists else 'the random split (ImageSets has no lists)'
        hint = f'; did you mean {" or ".join(near)}?' if near else ''
        todo = (
            ''
            if near or problem.startswith('no split')
            else ('. Write lists with the id of one image per line, or choose one with --splits')
        )
        return VocError(
            f'{problem} in {origin} of {self.root}; there are: {", ".join(names)}{hint}{todo}'
        )

    def split_ids(self, splits: Sequence[str] | None, seed: int) -> dict[str, list[str]]:
        """Return the image ids of the chosen splits; see :meth:`splits`."""
        return {name: found.ids for name, found in self.splits(splits, seed).items()}

    @property
    def other_lists(self) -> list[str]:
        """Lists in other folders of ``ImageSets``, such as those of segmentation."""
        above = subfolder(self.root, 'ImageSets')
        found = above.glob('*/*.txt') if above.is_dir() else ()
        return sorted(
            path.relative_to(above).as_posix()
            for path in found
            if not is_hidden(path.name) and path.parent.name.lower() != 'main'
        )

    def class_names(self) -> list[str]:
        """Return the class names of the whole folder, sorted.

        The splits that are converted have no influence on them, and so none on the class ids.
        """
        return sorted(
            {
                item.name
                for annotation in map(self.annotation, self.files.xmls)
                if not isinstance(annotation, str)
                for item in annotation.objects
            }
        )


def first_few(texts: Sequence[str], separator: str) -> str:
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
