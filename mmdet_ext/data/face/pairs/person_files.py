"""Files of the numbered images of persons, in the form of LFW: ``name/name_0001.jpg``."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from mmdet_ext.data.reports import Tally
from mmdet_ext.data.suffixes import UNREAD_SUFFIXES

_DIGITS = 4


class PersonFiles:
    """Files of persons, one folder per person; each folder is listed once.

    Args:
        root: folder with one folder per person.
        extensions: suffixes of the images, the preferred ones first; case does not matter.

    Attributes:
        ambiguous: images that were asked for and have several files, counted and named.
    """

    def __init__(self, root: Path, extensions: Sequence[str]) -> None:
        self.root = root
        self.ambiguous = Tally()
        self._order = [extension.lower() for extension in extensions]
        self._folders: dict[str, dict[int, list[str]]] = {}
        self._counted: set[tuple[str, int]] = set()

    def image(self, name: str, number: int) -> Path:
        """Return the file of an image of a person.

        The number may be padded in another way than LFW's four digits. Of several files, one with
        four digits is taken first, then one of the first suffix. Without an image that can be read,
        one of a format that is not read is returned, or else the name that LFW would give.
        """
        found = self._listed(name).get(number, [])
        chosen = [file for file in found if _suffix(file) in self._order]
        if len(chosen) > 1 and (name, number) not in self._counted:
            self._counted.add((name, number))
            self.ambiguous.add(
                'images have several files, of which the first is taken',
                ' or '.join(str(Path(name, file)) for file in chosen),
            )
        usual = f'{name}_{number:0{_DIGITS}d}{self._order[0] if self._order else ""}'
        return self.root / name / next(iter([*chosen, *found, usual]))

    def _listed(self, name: str) -> dict[int, list[str]]:
        """List the files of a person by the number of their image, the preferred ones first."""
        if name not in self._folders:
            files: dict[int, list[str]] = defaultdict(list)
            of_name = re.compile(re.escape(name) + r'_(\d+)', re.ASCII)
            folder = self.root / name
            for file in sorted(os.listdir(folder)) if folder.is_dir() else ():
                match = of_name.fullmatch(os.path.splitext(file)[0])
                if match and _suffix(file) in (*self._order, *UNREAD_SUFFIXES):
                    files[int(match[1])].append(file)
            for several in files.values():
                several.sort(key=self._preference)
            self._folders[name] = files
        return self._folders[name]

    def _preference(self, file: str) -> tuple[bool, int, str]:
        """Return a key that sorts the files of one image."""
        stem, suffix = os.path.splitext(file)
        digits = stem.rpartition('_')[2]
        usual = digits == f'{int(digits):0{_DIGITS}d}'
        known = suffix.lower() in self._order
        return not usual, self._order.index(suffix.lower()) if known else len(self._order), file


def _suffix(file: str) -> str:
    """Return the suffix of a file in small letters."""
    return os.path.splitext(file)[1].lower()
