"""Training and test set from a user's folder, COCO or Pascal VOC, checked and ready to train on."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmdet_ext.data.coco.annotations import (
    load_coco,
    number_categories,
    repeated_names,
    usable_annotations,
)
from mmdet_ext.data.coco.folders import CocoSplit, VocLayout, find_layout
from mmdet_ext.data.coco.image_files import check_image_files
from mmdet_ext.data.coco.normal_form import complete_annotations
from mmdet_ext.data.coco.voc import convert_voc
from mmdet_ext.data.duplicates import find_equal_files, find_shared_files
from mmdet_ext.data.reports import LayoutError, listed

#: Share of the images that is held out for the test if a folder holds one set alone.
TEST_SHARE = 0.2
_SHOWN = 5

Say = Callable[[str], None]


@dataclass(frozen=True)
class Subset:
    """Contents of a COCO file, and the folder of its images."""

    coco: dict[str, Any]
    image_dir: Path

    @property
    def paths(self) -> list[Path]:
        """Path of each image."""
        return [self.image_dir / image['file_name'] for image in self.coco['images']]

    @property
    def size(self) -> int:
        """Number of images."""
        return len(self.coco['images'])

    def limited(self, count: int, seed: int) -> Subset:
        """Draw at most ``count`` of the images with the seed; they keep their order."""
        images = self.coco['images']
        if len(images) <= count:
            return self
        chosen = sorted(random.Random(seed).sample(range(len(images)), count))
        return self.only({images[index]['id'] for index in chosen})

    def only(self, ids: set[int]) -> Subset:
        """Select the images of the given ids with their boxes."""
        images = [image for image in self.coco['images'] if image['id'] in ids]
        boxes = [box for box in self.coco['annotations'] if box['image_id'] in ids]
        return Subset({**self.coco, 'images': images, 'annotations': boxes}, self.image_dir)


@dataclass(frozen=True)
class TrainingSets:
    """Sets to train and to test on; both have the classes as categories, with ids from 1 on."""

    train: Subset
    test: Subset
    classes: tuple[str, ...]


def read_training_sets(folder: Path, out_dir: Path, seed: int, say: Say = print) -> TrainingSets:
    """Read a folder of detection data; convert and split it where needed.

    Annotations and images that cannot be used are left out and counted.

    Args:
        folder: The user's folder, COCO or Pascal VOC. Nothing is written into it.
        out_dir: Folder of converted annotations.
        seed: Seed of the split into 80 % and 20 % if the folder holds one set alone.
        say: Function that takes each message, also that images are in both sets.

    Returns:
        Both sets with readable images, and the classes that have boxes to train on.

    Raises:
        LayoutError: If the layout of the folder is unknown, a set has no boxes, or a record of an
            image or category cannot be used.
        VocError: If the folder is of VOC layout but cannot be converted.
    """
    layout = find_layout(folder)
    say(f'Data: {layout.root}, recognised as {layout.kind.upper()} layout.')
    if isinstance(layout, VocLayout):
        splits = _voc_splits(layout, out_dir, seed, say)
    else:
        splits = [split for split in (layout.train, layout.test) if split]
        for note in layout.notes:
            say(f'  {note}')
    subsets = [_usable(split, say) for split in splits]
    if len(subsets) == 1:
        subsets = _split(subsets[0], seed, say)
    train_set, test_set = subsets
    _warn_of_shared(train_set, test_set, say)
    classes = _classes(train_set, test_set, say)
    return TrainingSets(
        _numbered('train', train_set, classes, say),
        _numbered('test', test_set, classes, say),
        classes,
    )


def _voc_splits(layout: VocLayout, out_dir: Path, seed: int, say: Say) -> list[CocoSplit]:
    names = [name for name in (layout.train, layout.test) if name]
    reports = convert_voc(layout.root, out_dir, splits=names, seed=seed)
    for item in reports:
        say(item.table())
    return [CocoSplit(item.path, layout.root / 'JPEGImages') for item in reports]


def _usable(split: CocoSplit, say: Say) -> Subset:
    """Read a split without the images and annotations that cannot be used.

    Boxes get the keys that COCO's evaluation needs: an area, and ids from 1 on, because it takes
    the id 0 for "no match".
    """
    coco = load_coco(split.ann_file)
    coco['annotations'], dropped = usable_annotations(coco)
    if dropped:
        say(f'  {split.ann_file.name}: annotations left out: {dropped}')
    for name, ids in repeated_names(coco).items():
        say(f'  {split.ann_file.name}: categories {ids}, all named {name!r}, are taken as one')
    complete_annotations(coco)
    subset = Subset(coco, split.image_dir)
    found = check_image_files(coco, subset.paths)
    sizes = {path: f' ({text})' for path, text in found.misdrawn.items()}
    for path, problem in list(found.bad.items())[:_SHOWN]:
        say(f'  left out: {path}: {problem}{sizes.get(path, "")}')
    if found.notes:
        say(f'  {split.ann_file.name}: {found.notes}')
    readable = {
        image['id']
        for image, path in zip(coco['images'], subset.paths, strict=True)
        if path not in found.bad
    }
    unreadable = sum(path in found.unreadable for path in subset.paths)
    misdrawn = len(coco['images']) - len(readable) - unreadable
    say(
        f'  {split.ann_file.name}: {len(readable)} images, {unreadable} left out as unreadable'
        + (f', {misdrawn} as drawn at another size' if misdrawn else '')
    )
    return subset.only(readable)


def _split(subset: Subset, seed: int, say: Say) -> list[Subset]:
    """Split one set into a training and a test set at random.

    Images of one content go into the same set.
    """
    ids = [image['id'] for image in subset.coco['images']]
    count = math.ceil(TEST_SHARE * len(ids))
    rng, groups = random.Random(seed), _copies(subset)
    if len(groups) in (1, len(ids)):
        held_out = set(rng.sample(ids, count))
    else:
        held_out = set()
        for group in rng.sample(groups, len(groups)):
            if len(held_out) + len(group) <= count:
                held_out.update(group)
        smallest = min(groups, key=len)
        held_out = held_out or set(smallest)
        say('  images of one content go into the same set')
    say(
        f'  one set alone: {len(held_out)} of {len(ids)} images are held out for the test, drawn '
        f'with seed {seed}'
    )
    return [subset.only(set(ids) - held_out), subset.only(held_out)]


def _copies(subset: Subset) -> list[list[Any]]:
    """Return the ids of the images, those of one content together."""
    first = {path: group[0] for group in find_equal_files(subset.paths) for path in group}
    groups: dict[Path, list[Any]] = {}
    for image, path in zip(subset.coco['images'], subset.paths, strict=True):
        groups.setdefault(first.get(path, path), []).append(image['id'])
    return list(groups.values())


def _warn_of_shared(train_set: Subset, test_set: Subset, say: Say) -> None:
    """Report images that are in both sets."""
    shared = find_shared_files(train_set.paths, test_set.paths)
    if shared:
        examples = [f'{test}' if test == train else f'{test} = {train}' for test, train in shared]
        say(
            f'WARNING: {len(shared)} of {test_set.size} images of the test set are also in the '
            f'training set, as the same file or as one of equal content: {listed(examples)}. '
            'Results on them do not show what the detector makes of new images. Remove them from '
            'one of the sets'
        )


def _classes(train_set: Subset, test_set: Subset, say: Say) -> tuple[str, ...]:
    """Return the classes with boxes to train on, in the order of the annotations."""
    counts: list[Counter[str]] = []
    for subset in (train_set, test_set):
        names = {entry['id']: entry['name'] for entry in subset.coco['categories']}
        boxes = [box for box in subset.coco['annotations'] if min(box['bbox'][2:]) > 0]
        counts.append(Counter(names[box['category_id']] for box in boxes))
    names_in_order = dict.fromkeys(entry['name'] for entry in train_set.coco['categories'])
    classes = tuple(name for name in names_in_order if counts[0][name])
    for which, count in zip(('train', 'test'), counts, strict=True):
        if not any(count[name] for name in classes):
            raise LayoutError(
                f'no boxes in the {which} set: classes {list(names_in_order)}, boxes {dict(count)}'
            )
    unused = [name for name in names_in_order if name not in classes]
    say(f'  classes: {", ".join(classes)}' + (f'; without boxes: {unused}' if unused else ''))
    return classes


def _numbered(which: str, subset: Subset, classes: tuple[str, ...], say: Say) -> Subset:
    """Renumber the categories of a set to the classes, and count the boxes that this leaves out."""
    coco, left_out = number_categories(subset.coco, classes)
    if left_out:
        say(f'  {which} set: boxes of classes left out: {dict(left_out)}')
    return replace(subset, coco=coco)
