"""Lists of ids in ``ImageSets/Main``, as programs and people write them."""

from __future__ import annotations

import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mmdet_ext.data.coco.split_names import split_role
from mmdet_ext.data.reports import LayoutError
from mmdet_ext.data.suffixes import has_image_suffix
from mmdet_ext.data.text import read_text
from mmdet_ext.data.voc.files import VocError, composed, find_files, id_in_place, subfolder

_VAL_SHARE = 0.2
#: DOS ends some files with a control character.
_BLANKS = ' \t\v\f\x1a'
#: Second column of VOC's lists per class: absent, difficult, present.
_FLAGS = frozenset(('-1', '0', '1', '+1'))


class KnownIds:
    """Ids of the images of a folder, with the names that stand for each.

    Args:
        ids: The ids.
        aliases: The id that stands for another name, such as that of an image in a subfolder whose
            xml file is not in one.
    """

    def __init__(self, ids: Iterable[str], aliases: dict[str, str]) -> None:
        self.ids = set(ids)
        self._aliases = aliases
        self._by_name: dict[str, set[str]] = defaultdict(set)
        self._by_casefold: dict[str, set[str]] = defaultdict(set)
        for name in (*self.ids, *aliases):
            self._by_name[name.rpartition('/')[2]].add(aliases.get(name, name))
        self._is_flat = not any('/' in name for name in (*self.ids, *aliases))

    def find(self, entry: str, folder: str = '') -> tuple[str, str] | None:
        """Return the id that an entry certainly means.

        Args:
            entry: Entry of a list: an id or a path, with or without suffix.
            folder: Folder of the list below ``ImageSets/Main``.

        Returns:
            The id, and the reason why it is not simply the entry, or an empty text; None if no
            image, or more than one, is meant.
        """
        name, is_unknown = id_in_place(entry)
        for candidate in (composed(entry.replace('\\', '/').removeprefix('./')), name):
            if self._id(candidate):
                return self._id(candidate), ''
        if is_unknown:
            return self._find_end(name)
        if folder and self._id(f'{folder}/{name}'):
            return self._id(f'{folder}/{name}'), ''
        if '/' not in name and len(self._by_name.get(name, ())) == 1:
            return next(iter(self._by_name[name])), 'listed by name, found in a subfolder'
        return None

    def several(self, entry: str) -> list[str]:
        """Return the ids that a plain name may mean, if there is more than one."""
        name, _ = id_in_place(entry)
        found = self._by_name.get(name, set()) if '/' not in name else set()
        return sorted(found) if len(found) > 1 and not self._id(name) else []

    def in_other_case(self, name: str) -> list[str]:
        """Return the ids that differ from a name in capital letters alone."""
        if not self._by_casefold:
            for known in self.ids:
                self._by_casefold[known.casefold()].add(known)
        return sorted(self._by_casefold.get(name.casefold(), set()) - {name})

    def _id(self, name: str) -> str:
        return self._aliases.get(name, name if name in self.ids else '')

    def _find_end(self, name: str) -> tuple[str, str] | None:
        """Return the id at the end of a path of another machine, with its folders if any has."""
        parts = name.split('/')
        least = 1 if self._is_flat else 2
        for start in range(1, len(parts) - least + 1):
            found = self._id('/'.join(parts[start:]))
            if found and start + 1 == len(parts):
                return found, 'listed by a path of another place, taken by its name'
            if found:
                return found, ''
        return None


@dataclass
class SplitIds:
    """Ids of one split.

    Attributes:
        ids: The ids in the order of the list; those that no image has are as the list has them.
        is_plain: Whether each line is an id; VOC's lists per class have a second column.
        is_known: Whether any of the ids is one of the folder.
        origin: Name of the list, or 'random split' with its seed.
        notes: Lines by reason on entries that were not taken as they are.
        ambiguous: The ids that an entry may mean, per entry.
        suffixes: The listed suffix of an image per id, where the list has one.
    """

    ids: list[str] = field(default_factory=list)
    is_plain: bool = True
    is_known: bool = False
    origin: str = ''
    notes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    ambiguous: dict[str, list[str]] = field(default_factory=dict)
    suffixes: dict[str, str] = field(default_factory=dict)


def find_lists(root: Path) -> dict[str, list[Path]]:
    """Find the lists of a folder of VOC form.

    Args:
        root: The folder.

    Returns:
        Paths by the name of the split. Lists of one name in several subfolders are one split. They
        are looked for in ``ImageSets/Main``, and else in ``ImageSets`` itself, in any case.
    """
    above = subfolder(root, 'ImageSets')
    main = subfolder(above, 'Main')
    found = _by_stem(find_files(main, _is_list)) if main.is_dir() else {}
    if not found and above.is_dir():  # some programs put the lists one folder higher
        found = _by_stem(path for path in above.iterdir() if _is_top_list(path))
    return found


def _is_list(name: str) -> bool:
    return name.lower().endswith('.txt')


def _is_top_list(path: Path) -> bool:
    return _is_list(path.name) and not path.name.startswith('.') and not path.is_dir()


def _by_stem(paths: Iterable[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(paths):
        found[path.stem].append(path)
    return dict(found)


def read_split(paths: list[Path], main: Path, known: KnownIds) -> SplitIds:
    """Read the lists of one split.

    Args:
        paths: The lists.
        main: Folder of the lists, whose subfolders may be those of the images.
        known: Ids of the folder.

    Raises:
        VocError: If the encoding of a list is unknown.
    """
    found = SplitIds(origin=', '.join(path.relative_to(main).as_posix() for path in paths))
    flagged = lines = 0
    for path in paths:
        folder = path.parent.relative_to(main).as_posix().strip('.')
        for line in _read_list(path, known, folder).split('\n'):
            if not line.strip(_BLANKS):
                continue
            flagged += _add_line(found, line.strip(_BLANKS), known, folder)
            lines += 1
    found.is_plain = 2 * flagged <= lines
    return found


def _read_list(path: Path, known: KnownIds, folder: str) -> str:
    """Read a list in the encoding in which its lines name images of the folder."""

    def fits(text: str) -> bool:
        lines = [line for line in text.split('\n') if not line.isascii()]
        return 2 * sum(known.find(line, folder) is not None for line in lines) >= len(lines)

    try:
        return read_text(path, fits)
    except LayoutError as error:
        raise VocError(f'list of a split: {error}') from error


def _add_line(found: SplitIds, line: str, known: KnownIds, folder: str) -> bool:
    """Add the id of a line; return whether the line has the second column of a list per class."""
    entry, is_flagged = line, False
    match = known.find(line, folder)
    words = line.split()
    if match is None and line.startswith('#'):
        found.notes['comment in a list'].append(line)
        return False
    if match is None and len(words) > 1:
        is_flagged = words[-1] in _FLAGS
        starts = (line.rsplit(None, 1)[0], words[0])  # names may hold spaces
        entry = next((start for start in starts if known.find(start, folder)), line)
        match = known.find(entry, folder)
        if match is None and is_flagged:
            entry = starts[0]
    several = known.several(entry) if match is None else []
    name = match[0] if match else id_in_place(entry)[0]
    found.ids.append(name)
    if has_image_suffix(entry.strip('"\' ')) and not name.endswith(entry):
        found.suffixes.setdefault(name, os.path.splitext(entry.strip('"\' '))[1])
    found.is_known = found.is_known or match is not None
    if match and match[1]:
        found.notes[match[1]].append(f'{entry}: {name}')
    if several:
        found.ambiguous[name] = several
    return is_flagged


def random_split(ids: list[str], seed: int, source: str = '') -> dict[str, SplitIds]:
    """Split ids at random into train (80 %) and val (20 %).

    Args:
        ids: The ids, none of them twice.
        seed: Seed of the split.
        source: Name of the list that holds the ids, empty for all ids of the folder.
    """
    shuffled = random.Random(seed).sample(ids, len(ids))
    val = max(round(_VAL_SHARE * len(ids)), 1) if len(ids) > 1 else 0
    origin = f'random split{" of " + source if source else ""}, seed {seed}'
    return {
        'train': SplitIds(sorted(shuffled[val:]), is_known=True, origin=origin),
        'val': SplitIds(sorted(shuffled[:val]), is_known=True, origin=origin),
    }


def random_parts(whole: SplitIds, seed: int) -> dict[str, SplitIds]:
    """Split a list at random like :func:`random_split`; each id is in one part, also if repeated.

    Args:
        whole: Contents of the list.
        seed: Seed of the split.
    """
    parts = random_split(list(dict.fromkeys(whole.ids)), seed, whole.origin)
    for part in parts.values():
        part.ambiguous, part.suffixes = whole.ambiguous, whole.suffixes
    parts['train'].notes = whole.notes
    repeated = [name for name, count in Counter(whole.ids).items() if count > 1]
    if repeated:
        parts['train'].notes['listed more than once'] += repeated
    return parts


def is_used_by_default(name: str, split: SplitIds) -> bool:
    """Return whether a list is converted where no split is asked for.

    Lists per class are not, nor texts of other kinds, of which no line names an image; a list named
    train, val or test is, so that its missing images are counted.
    """
    return split.is_plain and (split.is_known or not split.ids or split_role(name) is not None)


def holds_everything(name: str, split: SplitIds) -> bool:
    """Return whether a list that is alone holds the images of all splits and can be split."""
    return split_role(name) is None and len(set(split.ids)) > 1
