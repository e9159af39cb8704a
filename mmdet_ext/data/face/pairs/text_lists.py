"""Pairs of faces in text: LFW's lists, and tables.

LFW's ``pairs.txt`` begins with ``sets<TAB>n``, or with ``n`` alone for one set, as
``pairsDevTest.txt`` does. Each set has n lines ``name<TAB>i<TAB>j``, two images of one person, and
then n lines ``name<TAB>i<TAB>other<TAB>j``, images of two. Image i of a person is
``name/name_000i.jpg``; other suffixes of images, in any case, and other paddings are found too.

A table (``.csv``, ``.tsv``) has one line per pair: ``path1,path2,same``, and optionally a fold.
``same`` is 1 or 0, 1.0 or 0.0, true or false, yes or no. A header line with these names is skipped.

References:
    Huang et al., Labeled Faces in the Wild, UMass Amherst TR 07-49, 2007; its README describes the
    form of the lists.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmdet_ext.data.coco.values import read_number
from mmdet_ext.data.face.lists import names_exist
from mmdet_ext.data.face.pairs.collected import (
    Absent,
    FacePairs,
    ListedPair,
    PairsError,
    collect_pairs,
    consecutive_folds,
)
from mmdet_ext.data.face.pairs.flags import read_flag
from mmdet_ext.data.face.pairs.person_files import PersonFiles
from mmdet_ext.data.reports import LayoutError
from mmdet_ext.data.suffixes import IMAGE_SUFFIXES
from mmdet_ext.data.text import read_text


def read_lfw_pairs(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str],
    absent: Absent = 'error',
    extensions: Sequence[str] = IMAGE_SUFFIXES,
) -> FacePairs:
    """Read a list in the form of LFW's ``pairs.txt``.

    Names may contain spaces if the columns are separated by tabs.

    Args:
        path: the list.
        root: folder with one folder per identity.
        absent: 'error' raises for pairs whose files are absent, 'drop' leaves these pairs out. Both
            report their number and the first ones.
        extensions: suffixes of the images, in any case. If one image has several files, that of the
            first suffix is taken, and the notes count and name such images.

    Raises:
        FileNotFoundError: if ``path`` or ``root`` is absent.
        PairsError: with file and line, if the list is not of this form, or images are absent.
    """
    path, root = _checked_paths(path, root, absent)

    def folders(line: str) -> list[Path]:
        return [root / cell for cell in _cells(line) if cell and not cell.isascii()]

    lines = [
        (number, line)
        for number, line in enumerate(_text(path, folders).split('\n'), start=1)
        if line.strip()
    ]
    head = lines[0][1].split() if lines else []
    if len(head) not in (1, 2) or not all(cell.isdecimal() and int(cell) > 0 for cell in head):
        raise PairsError(
            f"{path} must begin with 'sets<TAB>pairs', such as '10\\t300', or the number of pairs "
            f'alone; it begins with {(lines[0][1] if lines else "")[:60]!r}'
        )
    sets, per_set = (1, int(head[0])) if len(head) == 1 else (int(head[0]), int(head[1]))
    if len(lines) - 1 != 2 * sets * per_set:
        raise PairsError(
            f'{path} has {len(lines) - 1} pairs; its first line announces {sets} x 2 x {per_set} = '
            f'{2 * sets * per_set}, in each set {per_set} of one person and {per_set} of two'
        )
    files = PersonFiles(root, extensions)
    pairs = [
        _lfw_pair(path, number, line, files, place // (2 * per_set))
        for place, (number, line) in enumerate(lines[1:])
    ]
    result = collect_pairs(path, pairs, absent, named=True)
    if files.ambiguous:
        result.notes.append(str(files.ambiguous))
    uneven = [
        fold
        for fold in range(sets)
        if sum(pair.same for pair in pairs[2 * per_set * fold : 2 * per_set * (fold + 1)])
        != per_set
    ]
    if uneven:
        result.notes.append(
            f'{len(uneven)} of {sets} sets have not as many pairs of one person as of two '
            f'(set {uneven[0] + 1} first)'
        )
    return result


def read_table_pairs(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str],
    absent: Absent = 'error',
    folds: int = 10,
) -> FacePairs:
    """Read a table ``path1,path2,same[,fold]``, separated by commas or tabs.

    Without a column of folds, the genuine pairs are divided into ``folds`` folds in their order,
    and so are the impostor pairs, so that each fold has both kinds.

    Args:
        path: the table.
        root: folder that the paths are relative to.
        absent: as in `read_lfw_pairs`.
        folds: number of folds without a column of folds.

    Raises:
        FileNotFoundError: if ``path`` or ``root`` is absent.
        PairsError: with file and line, if the table is not of this form, or images are absent.
    """
    path, root = _checked_paths(path, root, absent)

    def files(line: str) -> list[Path]:
        cells = re.split('[,\t]', line)[:2]
        return [root / cell.strip(' "') for cell in cells if not cell.isascii()]

    text = _text(path, files)
    rows = [
        (number, [cell.strip() for cell in row])
        for number, row in enumerate(
            csv.reader(text.split('\n'), delimiter='\t' if '\t' in text else ','), start=1
        )
        if any(cell.strip() for cell in row)
    ]
    if rows and len(rows[0][1]) >= 3 and rows[0][1][2].lower() == 'same':
        rows = rows[1:]
    if not rows:
        raise PairsError(f'{path} has no pairs')
    columns = len(rows[0][1])
    pairs = []
    for number, row in rows:
        same = read_flag(row[2]) if len(row) == columns and columns in (3, 4) else None
        fold = read_number(row[3]) if len(row) > 3 else 0
        if same is None or fold is None or fold < 0 or fold % 1:
            raise PairsError(
                f"{path}, line {number}: expected 'path1,path2,same' with same 0 or 1, and in all "
                f'lines or in none a fold from 0 on; it has {row[:5]}'
            )
        pairs.append(ListedPair(number, root / row[0], root / row[1], ('', ''), same, int(fold)))
    result = collect_pairs(path, pairs, absent, named=False)
    if columns == 3:
        for kind in (True, False):
            chosen = result.same == kind
            if chosen.any():
                result.fold[chosen] = consecutive_folds(int(chosen.sum()), folds)
    return result


def _checked_paths(path: Any, root: Any, absent: str) -> tuple[Path, Path]:
    """Return the list and the folder of images as paths; raise if one of them is absent."""
    if absent not in ('error', 'drop'):
        raise PairsError(f"absent must be 'error' or 'drop', got {absent!r}")
    path, root = Path(path), Path(root)
    if not path.is_file():
        raise FileNotFoundError(f'list of pairs {str(path)!r} is not there')
    if not root.is_dir():
        raise FileNotFoundError(f'folder of images {str(root)!r} is not there')
    return path, root


def _text(path: Path, names: Callable[[str], list[Path]]) -> str:
    """Read a list in UTF-8, UTF-16, or an encoding in which the files that it names exist.

    Args:
        path: the list.
        names: paths that a line of the list names.
    """
    try:
        return read_text(
            path,
            lambda text: names_exist(text, lambda line: any(map(os.path.exists, names(line)))),
        )
    except LayoutError as error:
        raise PairsError(f'{path} is no text in UTF-8 or UTF-16: {error}') from error


def _lfw_pair(path: Path, number: int, line: str, files: PersonFiles, fold: int) -> ListedPair:
    """Read a line of LFW's form."""
    cells = _cells(line)
    if len(cells) == 3:
        cells.insert(2, cells[0])
    if len(cells) != 4 or not (cells[1].isdecimal() and cells[3].isdecimal()):
        raise PairsError(
            f"{path}, line {number}: expected 'name<TAB>i<TAB>j' or 'name<TAB>i<TAB>other<TAB>j', "
            f'got {line[:80]!r}'
        )
    numbers = int(cells[1]), int(cells[3])
    if min(numbers) < 1:
        raise PairsError(f'{path}, line {number}: image {min(numbers)}; they count from 1')
    names = cells[0], cells[2]
    first, second = (files.image(name, place) for name, place in zip(names, numbers, strict=True))
    return ListedPair(number, first, second, names, names[0] == names[1], fold)


def _cells(line: str) -> list[str]:
    """Divide a line of LFW's form at its tabs, or at blanks if it has none."""
    return [cell.strip() for cell in (line.strip().split('\t') if '\t' in line else line.split())]
