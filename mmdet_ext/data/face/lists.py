"""Text lists of face images: one path per line, or one path and one label."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from mmdet_ext.data.reports import EXAMPLES, LayoutError, Tally, listed
from mmdet_ext.data.suffixes import has_image_suffix, has_unread_suffix
from mmdet_ext.data.text import read_text

#: Lines by which the encoding of a list is judged.
_JUDGED = 20

#: Name of an identity -> paths of its images.
Groups = dict[str, list[str]]


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Return a key that sorts numbers within names by their value.

    >>> sorted(['s10', 's2', 's1'], key=natural_key)
    ['s1', 's2', 's10']
    """
    parts: list[str | int] = list(re.split(r'(\d+)', name))
    parts[1::2] = [int(digits) for digits in parts[1::2]]
    return parts, name


def read_list(
    ann_file: Path, root: Path | None = None
) -> tuple[list[str], list[int] | None, list[int]]:
    """Read a list of images, with a path, or a path, blanks and a label, on each line.

    A line that ends with the suffix of an image has no label, so that paths may contain blanks.
    Empty lines are skipped.

    Args:
        ann_file: the text file, in UTF-8, UTF-16, or an encoding in which its images exist.
        root: folder that its paths are relative to; None takes that of the list.

    Returns:
        tuple: the paths as written; their labels, None if no line has one; and the numbers of
        their lines, from 1.

    Raises:
        LayoutError: if the file is absent or empty, a label is not a whole number of at least 0, or
            only some lines have a label.
    """
    paths, labels, lines, wrong, bare = [], [], [], [], []
    folder = ann_file.parent if root is None else root

    def exists(line: str) -> bool:
        names = line, line.replace('\t', ' ').rpartition(' ')[0].strip()
        return any(name and os.path.exists(folder / name) for name in names)

    for number, line in enumerate(read_lines(ann_file, 'ann_file', exists), start=1):
        if not line:
            continue
        path, label = line, ''
        if not (has_image_suffix(line) or has_unread_suffix(line)):
            path, _, label = line.replace('\t', ' ').rpartition(' ')
        if not label:
            bare.append(number)
        elif not path.strip() or not re.fullmatch(r'\d+', label, re.ASCII):
            wrong.append(f'line {number}: {line!r}')
        paths.append(path.strip())
        labels.append(label)
        lines.append(number)
    if wrong:
        raise LayoutError(
            f'{len(wrong)} lines of {str(ann_file)!r} are no image with a whole number of at '
            f'least 0 as its label behind it: {listed(wrong[:EXAMPLES], len(wrong))}'
        )
    if not paths:
        raise LayoutError(f'{str(ann_file)!r} lists no image')
    if bare and len(bare) < len(paths):
        raise LayoutError(
            f'{len(bare)} of {len(paths)} lines of {str(ann_file)!r} have no label, the others '
            f'have one: lines {listed([str(n) for n in bare[:EXAMPLES]], len(bare))}'
        )
    return paths, None if bare else [int(label) for label in labels], lines


def read_lines(path: Path, argument: str, exists: Callable[[str], bool]) -> list[str]:
    """Read the stripped lines of a text file, in UTF-8, UTF-16 or an encoding of its names.

    Args:
        path: the file.
        argument: name of the argument, for errors.
        exists: judge of a line that is not ASCII, for other encodings: whether what it names
            exists.

    Raises:
        LayoutError: if the file is absent, or in no encoding in which its names exist.
    """
    try:
        text = read_text(path, lambda text: names_exist(text, exists))
    except (OSError, LayoutError) as error:
        raise LayoutError(f'{argument} {str(path)!r} cannot be read as text: {error}') from error
    return [line.strip() for line in text.split('\n')]


def names_exist(text: str, exists: Callable[[str], bool]) -> bool:
    """Return whether what a text names exists, for most of the first lines that are not ASCII.

    Args:
        text: a list, decoded in some encoding.
        exists: whether that of a line exists.
    """
    lines = list(islice((line.strip() for line in text.split('\n') if not line.isascii()), _JUDGED))
    return 2 * sum(map(exists, lines)) > len(lines)


def grouped_list(
    ann_file: Path,
    root: Path,
    num_classes: int | None,
    class_names: Sequence[str] | None,
    oddities: Tally,
) -> tuple[Groups, dict[str, int] | None, dict[str, int]]:
    """Read a list and group its images by identity.

    Args:
        ann_file: the list.
        root: folder that its paths are relative to.
        num_classes: number of classes, None if unknown.
        class_names: names of the classes, None for their digits.
        oddities: takes what the user should know of.

    Returns:
        tuple: the paths per identity; the label of each identity, None for a list without labels;
        and the number of the line of each path.
    """
    written, labels, lines = read_list(ann_file, root)
    fixed, names = None, [os.path.dirname(path) or '.' for path in written]
    if labels is not None:
        fixed = _numbering(ann_file, labels, lines, num_classes, class_names, oddities)
        by_label = list(fixed)
        names = [by_label[label] for label in labels]
    line_of: dict[str, int] = {}
    owner: dict[str, str] = {}
    groups: Groups = {}
    for path, name, line in zip(written, names, lines, strict=True):
        full = str(root / path)
        if full not in owner:
            owner[full], line_of[full] = name, line
            groups.setdefault(name, []).append(full)
        elif owner[full] == name:
            oddities.add('images listed twice, used once', f'line {line}: {path}')
        else:
            raise LayoutError(
                f'{str(ann_file)!r} gives {path!r} two labels, in lines {line_of[full]} and {line}'
            )
    if fixed is None:
        groups = {name: groups[name] for name in sorted(groups, key=natural_key)}
    return groups, fixed, line_of


def _numbering(
    ann_file: Path,
    labels: list[int],
    lines: list[int],
    num_classes: int | None,
    class_names: Sequence[str] | None,
    oddities: Tally,
) -> dict[str, int]:
    """Return the label of each name, in the order of the labels, for a list with labels."""
    count = num_classes or (len(class_names) if class_names else max(labels) + 1)
    if class_names is not None and (
        len(set(class_names)) != len(class_names) or len(class_names) != count
    ):
        raise ValueError(
            f'class_names must be {count} different names, got {len(class_names)}, '
            f'{len(set(class_names))} of them different'
        )
    beyond = [
        f'line {line}: {label}' for label, line in zip(labels, lines, strict=True) if label >= count
    ]
    if beyond:
        raise LayoutError(
            f'{len(beyond)} labels of {str(ann_file)!r} are out of the range 0 .. {count - 1}: '
            f'{listed(beyond[:EXAMPLES], len(beyond))}'
        )
    used = set(labels)
    if len(used) < count:
        if not (num_classes or class_names) and count > 1000 + 100 * len(used):
            raise LayoutError(
                f'{str(ann_file)!r} has {len(used)} different labels, but they go up to '
                f'{max(used)}: number them from 0 without gaps'
            )
        unused = [
            str(label)
            for label in islice((label for label in range(count) if label not in used), EXAMPLES)
        ]
        oddities.add(
            'numbering with gaps',
            f'without an image: labels {listed(unused, count - len(used))}',
        )
    return {name: i for i, name in enumerate(class_names or map(str, range(count)))}
