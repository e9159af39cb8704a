"""Recognition of the layout of a folder of detection data, COCO or Pascal VOC, by its contents.

Standard library only, so that a command-line tool can refuse a wrong folder at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmdet_ext.data.coco.annotations import load_coco
from mmdet_ext.data.reports import LayoutError

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
    """COCO folder; ``test`` is None if one file holds everything and the caller has to split it."""

    root: Path
    train: CocoSplit
    test: CocoSplit | None
    kind: Literal['coco'] = 'coco'


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
        'test' or else 'val'. COCO: the files named train, and val or else test.

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
    ann_files = _coco_files(root)
    if ann_files:
        return _coco_layout(root, ann_files)
    raise LayoutError(_unknown(root))


def _is_voc(root: Path) -> bool:
    annotations = root / 'Annotations'
    has_xml = annotations.is_dir() and any(
        path.suffix.lower() == '.xml' for path in annotations.iterdir()
    )
    return has_xml and (root / 'JPEGImages').is_dir()


def _voc_layout(root: Path) -> VocLayout:
    lists = root / 'ImageSets' / 'Main'
    names = [n for n in ('train', 'val', 'trainval', 'test') if (lists / f'{n}.txt').is_file()]
    if not names:
        return VocLayout(root, 'train', 'val')
    order = ('train', 'trainval') if 'val' in names else ('trainval', 'train')
    train = next(name for name in (*order, 'val', 'test') if name in names)
    # A set for evaluation must not be trained on: 'trainval' holds 'val'.
    seen = {train, 'val'} if train == 'trainval' else {train}
    test = next((name for name in ('test', 'val') if name in names and name not in seen), None)
    return VocLayout(root, train, test)


def _coco_files(root: Path) -> list[Path]:
    found = sorted(root.glob(f'*/{ROBOFLOW_NAME}'))
    for folder in (root / 'annotations', root):
        found = found or sorted(folder.glob('*.json'))
    # COCO's own folder has captions and keypoints of the same splits beside the instances.
    instances = [path for path in found if path.stem.startswith('instances')]
    return instances or found


def _split_name(ann_file: Path) -> str:
    source = ann_file.parent if ann_file.name == ROBOFLOW_NAME else Path(ann_file.stem)
    return source.name.lower()


def _coco_layout(root: Path, ann_files: list[Path]) -> CocoLayout:
    train = [path for path in ann_files if 'train' in _split_name(path)]
    rest = [path for path in ann_files if path not in train]
    # A set for evaluation must not be trained on: 'trainval' holds 'val'.
    unseen = not any('trainval' in _split_name(path) for path in train)
    val = [path for path in rest if unseen and 'val' in _split_name(path)]
    test = val or [path for path in rest if 'test' in _split_name(path)]
    if len(ann_files) == 1:
        train, test = ann_files, []
    if len(train) != 1 or len(test) > 1:
        names = ', '.join(str(path.relative_to(root)) for path in ann_files)
        raise LayoutError(
            f'{root}: cannot tell which annotation file to train on: found {names}; expected one '
            "with 'train' in its name, and at most one with 'val' (or else 'test')"
        )
    return CocoLayout(
        root,
        CocoSplit(train[0], _image_dir(root, train[0])),
        CocoSplit(test[0], _image_dir(root, test[0])) if test else None,
    )


def _image_dir(root: Path, ann_file: Path) -> Path:
    """Return the folder under which most images of the annotation file exist."""
    names = [image['file_name'] for image in load_coco(ann_file)['images']]
    if not names:
        raise LayoutError(f"{ann_file} lists no image: its 'images' is empty")
    tokens = list(dict.fromkeys(t for t in re.split(r'[_\-. ]+', _split_name(ann_file)) if t))
    folders = [ann_file.parent] if ann_file.name == ROBOFLOW_NAME else []
    for token in tokens:
        folders += [root / token, root / 'images' / token, root / f'{token}2017']
    folders += [root / 'images', root / 'JPEGImages', root]
    folders = list(dict.fromkeys(folder for folder in folders if folder.is_dir()))
    counts = [sum((folder / name).is_file() for name in names) for folder in folders]
    if not any(counts):
        tried = ', '.join(str(folder) for folder in folders)
        raise LayoutError(
            f'{ann_file}: none of its {len(names)} images is there; looked for '
            f'{names[0]!r} and the others under {tried}'
        )
    return folders[counts.index(max(counts))]


def _unknown(root: Path) -> str:
    entries = sorted(root.iterdir())
    shown = [f'{path.name}/' if path.is_dir() else path.name for path in entries[:8]]
    found = ', '.join(shown) + (f' and {len(entries) - 8} more' if len(entries) > 8 else '')
    below = [path for path in entries if path.is_dir() and (_is_voc(path) or _coco_files(path))]
    hint = f'\nOne folder below looks right: try {str(below[0])!r}.' if below else ''
    return (
        f'the data folder {str(root)!r} has neither the COCO nor the Pascal VOC layout.\n'
        f'Looked for: {LOOKED_FOR}.\nFound: {found or "an empty folder"}.{hint}\n'
        f'Expected one of:\n{TREES}'
    )
