"""Reports of the conversion of Pascal VOC folders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from mmdet_ext.data.coco.split_names import may_share_images
from mmdet_ext.data.coco.voc_folder import VocFolder, first_few
from mmdet_ext.data.duplicates import find_equal_files
from mmdet_ext.data.reports import listed
from mmdet_ext.data.voc.lists import SplitIds


@dataclass
class SplitReport:
    """Report of the conversion of one split.

    Attributes:
        split: Name of the split.
        origin: Name of the list that its ids come from, or 'random split' with its seed.
        path: The COCO file.
        images: Number of images written.
        images_without_boxes: Number of those without a box.
        class_boxes: Number of boxes written per class.
        dropped_images: One line per image left out, by reason; each begins with the image's id.
        dropped_boxes: One line per box left out, by reason.
        notes: One line per image or box that was changed but kept, by reason.
        remarks: Lines on the folder as a whole, in the last report alone: lists and images that are
            not used, and images that several splits share.
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
    remarks: list[str] = field(default_factory=list)

    @property
    def boxes(self) -> int:
        """Number of boxes written."""
        return sum(self.class_boxes.values())

    def table(self) -> str:
        """Format the report as text, with the first few examples of each reason."""
        rows = [
            ('images', self.images, ''),
            ('  of them without boxes', self.images_without_boxes, ''),
            ('boxes', self.boxes, ''),
            *((f'  {name}', count, '') for name, count in self.class_boxes.items()),
        ]
        for group, reasons in {
            'images dropped': self.dropped_images,
            'boxes dropped': self.dropped_boxes,
            'notes': self.notes,
        }.items():
            rows.append((group, sum(map(len, reasons.values())), ''))
            rows += [
                (f'  {reason}', len(examples), first_few(examples, '; '))
                for reason, examples in reasons.items()
            ]
        width = max(len(label) for label, _, _ in rows)
        lines = [f'  {label:<{width}}  {count:>7}  {text}'.rstrip() for label, count, text in rows]
        title = f'{self.split} ({self.origin}) -> {self.path.name}'
        text = '\n'.join([title, *lines, *self.remarks])
        return text.encode('utf-8', 'backslashreplace').decode()  # names of files may be no text


def folder_remarks(
    folder: VocFolder, splits: Mapping[str, SplitIds], used: Mapping[str, Sequence[Path]]
) -> list[str]:
    """Say what of a folder is not used, and what several of the converted splits share.

    Args:
        folder: The folder.
        splits: The converted splits.
        used: Images written per split.

    Returns:
        Lines for the user; empty where there is nothing to say.
    """
    remarks = [*_unused_lists(folder, splits), *_unlisted(folder, splits)]
    remarks += [*_alike_classes(folder), *_shared(folder, used)]
    if folder.files.links:
        links = [_place(folder, path) for path in folder.files.links]
        remarks.append(f'links to folders that are read already: {listed(links)}')
    return remarks


def _unused_lists(folder: VocFolder, splits: Mapping[str, SplitIds]) -> list[str]:
    contents, errors = folder.contents
    origins = {split.origin for split in splits.values()}
    taken = {
        name
        for name, found in contents.items()
        if any(found is split for split in splits.values())
        or any(origin.startswith(f'random split of {found.origin},') for origin in origins)
    }
    left = {name: found for name, found in contents.items() if name not in taken}
    per_class = [found.origin for found in left.values() if not found.is_plain]
    unknown = [
        f'{found.origin} ({len(found.ids)} lines)'
        for found in left.values()
        if found.is_plain and not found.is_known
    ]
    others = [
        f'{found.origin} ({len(set(found.ids))} images)'
        for found in left.values()
        if found.is_plain and found.is_known
    ]
    others += [f'{folder.lists[name].name} ({error})' for name, error in errors.items()]
    elsewhere = [] if folder.lists else folder.other_lists
    return [
        f'{len(found)} {what}: {listed(found)}'
        for what, found in {
            'lists not used': others,
            'lists not used, as they name no image': unknown,
            'lists per class not used': per_class,
            'lists of other tasks not read': elsewhere,
        }.items()
        if found
    ]


def _unlisted(folder: VocFolder, splits: Mapping[str, SplitIds]) -> list[str]:
    where = 'in no list' if folder.lists else 'of the other part of the random split'
    contents = folder.contents[0] if folder.lists else splits
    left = sorted(folder.known.ids - {name for found in contents.values() for name in found.ids})
    unread = sorted(
        path.name for name, path in folder.files.unread.items() if name in _alone(folder)
    )
    return [
        f'{len(found)} images {what}, not used: {listed(found)}'
        for what, found in {where: left, 'of formats that are not read': unread}.items()
        if found
    ]


def _alone(folder: VocFolder) -> set[str]:
    """Return the ids of images of unread formats that no xml file has and no list names."""
    named = {name for found in folder.contents[0].values() for name in found.ids}
    return folder.files.unread.keys() - folder.known.ids - named


def _alike_classes(folder: VocFolder) -> list[str]:
    """Name the classes that differ in capital letters alone."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in folder.class_names():
        alike[name.casefold()].append(name)
    several = [' = '.join(names) for names in alike.values() if len(names) > 1]
    return [f'classes that differ in capital letters alone: {listed(several)}'] if several else []


def _shared(folder: VocFolder, used: Mapping[str, Sequence[Path]]) -> list[str]:
    """Say which images are in several splits, or have the content of another image."""
    remarks = []
    groups = find_equal_files(path for paths in used.values() for path in paths)
    for first, second in combinations(used, 2):
        if may_share_images(first, second):
            continue
        trained, tested = set(used[first]), set(used[second])
        both = [_place(folder, path) for path in used[first] if path in tested]
        if both:
            remarks.append(
                f'WARNING: {len(both)} images are in both {first} and {second}: {listed(both)}'
            )
        equal = [
            f'{_place(folder, here[0])} ({_place(folder, there[0])})'
            for group in groups
            if (here := [path for path in group if path in trained and path not in tested])
            and (there := [path for path in group if path in tested and path not in trained])
        ]
        if equal:
            remarks.append(
                f'WARNING: {len(equal)} images of {first} have the content of images of {second}: '
                f'{listed(equal)}'
            )
    if groups:
        shown = [' = '.join(_place(folder, path) for path in group) for group in groups]
        count = sum(len(group) - 1 for group in groups)
        remarks.append(f'{count} images have the content of another: {listed(shown)}')
    return remarks


def _place(folder: VocFolder, path: Path) -> str:
    """Return a path of an image as the json has it, that of another file from the root on."""
    for base in (folder.root / 'JPEGImages', folder.root):
        if base in path.parents:
            return path.relative_to(base).as_posix()
    return str(path)
