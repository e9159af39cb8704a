"""Recognition of the layout of a folder of detection data, COCO or Pascal VOC, by its contents.

Standard library only, so that a command-line tool can refuse a wrong folder at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mmdet_ext.data.coco.annotations import load_coco
from mmdet_ext.data.coco.split_names import choose_sets, says_role_alone, split_role
from mmdet_ext.data.coco.voc_folder import VocFolder
from mmdet_ext.data.reports import LayoutError, listed
from mmdet_ext.data.voc.files import find_files, is_hidden, is_xml
from mmdet_ext.data.voc.lists import is_used_by_default

TREES = """\
  COCO                                 Pascal VOC
  FOLDER/                              FOLDER/
  |-- annotations/                     |-- Annotations/
  |   |-- instances_train.json         |   `-- 0001.xml ...
  |   `-- instances_val.json           |-- JPEGImages/
  `-- images/                          |   `-- 0001.jpg ...
      |-- train/0001.jpg ...           `-- ImageSets/Main/
      `-- val/0002.jpg ...                 `-- train.txt val.txt test.txt
  (also FOLDER/train/_annotations.coco.json beside its images)"""

LOOKED_FOR = (
    'Annotations/*.xml with JPEGImages/ (Pascal VOC), or one of annotations/*.json, *.json, '
    '*/_annotations.coco.json (COCO)'
)
ROBOFLOW_NAME = '_annotations.coco.json'


@dataclass(frozen=True)
class CocoSplit:
    """COCO annotation file, and the folder that its ``file_name`` entries are relative to."""

    ann_file: Path
    image_dir: Path


@dataclass(frozen=True)
class CocoLayout:
    """COCO folder; ``test`` is None if one file holds everything and the caller has to split it.

    ``notes`` say which annotation files are not used.
    """

    root: Path
    train: CocoSplit
    test: CocoSplit | None
    kind: Literal['coco'] = 'coco'
    notes: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class VocLayout:
    """Pascal VOC folder.

    ``train`` and ``test`` name lists of ``ImageSets/Main``; ``test`` is None if one list holds
    everything and the caller has to split it. In a folder without lists they name the two parts of
    ``convert_voc``'s random split.
    """

    root: Path
    train: str
    test: str | None
    kind: Literal['voc'] = 'voc'


def find_layout(root: str | Path) -> CocoLayout | VocLayout:
    """Recognise the layout of a folder of detection data.

    Args:
        root: The folder. Nothing is written into it.

    Returns:
        The sets to train and to evaluate on. VOC: 'train' ('trainval' if there is no 'val'), and
        'test' or else 'val'. COCO: the files named train, and val or else test. Names may be in any
        case and in other words for the same, such as 'Validation', 'valid' and 'train2017'.

    Raises:
        LayoutError: If the folder is absent or of an unknown layout, an annotation file is no COCO
            file, or no image of the annotations exists.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        what = 'is a file' if root.exists() else 'does not exist'
        raise LayoutError(f'the data folder {str(root)!r} {what}; expected one of:\n{TREES}')
    root = root.resolve()
    if _is_voc(root):
        return _voc_layout(root)
    ann_files, others = _coco_files(root)
    if ann_files:
        return _coco_layout(root, ann_files, others)
    raise LayoutError(_unknown(root))


def _is_voc(root: Path) -> bool:
    annotations = root / 'Annotations'
    has_xml = annotations.is_dir() and any(find_files(annotations, is_xml))
    return has_xml and (root / 'JPEGImages').is_dir()


def _voc_layout(root: Path) -> VocLayout:
    folder = VocFolder(root)
    if not folder.lists:
        return VocLayout(root, 'train', 'val')
    contents, errors = folder.contents
    used = [name for name, found in contents.items() if is_used_by_default(name, found)]
    names = sorted([*used, *errors])
    sets = choose_sets(names, ('test', 'val'), train_on_held_out=True) if names else None
    if sets is None:
        raise LayoutError(
            f'{root}: cannot tell which list of ImageSets to train on: found '
            f'{listed(sorted(folder.lists), most=20)}; expected one named train (or trainval), and '
            'at most one named test and one named val. Rename the lists, or remove some'
        )
    return VocLayout(root, *sets)


def _coco_files(root: Path) -> tuple[list[Path], list[Path]]:
    """Find the annotation files, and those that hold other tasks of the same images."""
    inside = _visible(root.iterdir())
    found = [path / ROBOFLOW_NAME for path in inside if (path / ROBOFLOW_NAME).is_file()]
    for folder in (*_folders(root, 'annotations'), root):
        found = found or [
            path
            for path in _visible(folder.iterdir())
            if path.suffix.lower() == '.json' and path.is_file()
        ]
    # COCO's own folder has captions and keypoints of the same splits beside the instances.
    instances = [path for path in found if path.stem.lower().startswith('instances')]
    return instances or found, [path for path in found if instances and path not in instances]


def _visible(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if not is_hidden(path.name))


def _folders(root: Path, name: str) -> list[Path]:
    """Return the folders of a name in any case, that of this very name first."""
    found = [path for path in _visible(root.iterdir()) if path.name.lower() == name.lower()]
    return sorted((path for path in found if path.is_dir()), key=lambda path: path.name != name)


def _split_name(ann_file: Path) -> str:
    source = ann_file.parent if ann_file.name == ROBOFLOW_NAME else Path(ann_file.stem)
    return source.name


def _coco_layout(root: Path, ann_files: list[Path], others: list[Path]) -> CocoLayout:
    by_name = {_split_name(path): path for path in ann_files}
    sets = choose_sets(list(by_name), ('val', 'test'))
    if sets is None:
        names = ', '.join(str(path.relative_to(root)) for path in ann_files)
        raise LayoutError(
            f'{root}: cannot tell which annotation file to train on: found {names}; expected one '
            "with 'train' in its name, and at most one with 'val' (or else 'test')"
        )
    train, test = (by_name[name] if name else None for name in sets)
    assert train is not None  # choose_sets names a set to train on
    unused = [str(path.relative_to(root)) for path in ann_files if path not in (train, test)]
    unused += [str(path.relative_to(root)) for path in others]
    return CocoLayout(
        root,
        CocoSplit(train, _image_dir(root, train)),
        CocoSplit(test, _image_dir(root, test)) if test else None,
        notes=(f'{len(unused)} json files not used: {listed(unused)}',) if unused else (),
    )


def _image_dir(root: Path, ann_file: Path) -> Path:
    """Return the folder under which most images of the annotation file exist."""
    names = [image['file_name'] for image in load_coco(ann_file)['images']]
    if not names:
        raise LayoutError(f"{ann_file} lists no image: its 'images' is empty")
    folders = _image_dirs(root, ann_file)
    counts = [sum((folder / name).is_file() for name in names) for folder in folders]
    if not any(counts):
        tried = ', '.join(str(folder) for folder in folders)
        raise LayoutError(
            f'{ann_file}: none of its {len(names)} images is there; looked for '
            f'{names[0]!r} and the others under {tried}'
        )
    return folders[counts.index(max(counts))]


def _image_dirs(root: Path, ann_file: Path) -> list[Path]:
    """Return the folders that may hold the images of a file, the likeliest first."""
    split = _split_name(ann_file)
    tokens = [token for token in re.split(r'[_\-. ]+', split) if token]
    bases = [root, *_folders(root, 'images')]
    folders = [ann_file.parent] if ann_file.name == ROBOFLOW_NAME else []
    for token in dict.fromkeys(tokens):
        for base in bases:
            folders += _folders(base, token)
        folders += _folders(root, f'{token}2017')
    role = split_role(split)
    for base in bases:  # other words for the same, such as 'valid' for 'val'
        folders += [
            path
            for path in _visible(base.iterdir())
            if path.is_dir() and says_role_alone(path.name) and split_role(path.name) == role
        ]
    for name in ('images', 'JPEGImages', 'data'):
        folders += _folders(root, name)
    return list(dict.fromkeys([*folders, root]))


def _unknown(root: Path) -> str:
    entries = sorted(root.iterdir())
    shown = [f'{path.name}/' if path.is_dir() else path.name for path in entries[:8]]
    found = ', '.join(shown) + (f' and {len(entries) - 8} more' if len(entries) > 8 else '')
    below = [path for path in entries if path.is_dir() and (_is_voc(path) or _coco_files(path)[0])]
    hint = f'\nOne folder below looks right: try {str(below[0])!r}.' if below else ''
    return (
        f'the data folder {str(root)!r} has neither the COCO nor the Pascal VOC layout.\n'
        f'Looked for: {LOOKED_FOR}.\nFound: {found or "an empty folder"}.{hint}\n'
        f'Expected one of:\n{TREES}'
    )
