"""Templates of IJB-B and IJB-C: lists of images with their templates and media, and of pairs.

A list of images (``ijbc_face_tid_mid.txt``) has one line ``image template medium`` per image of a
template. A list of pairs (``ijbc_template_pair_label.txt``) has lines ``template template label``,
the label 1 for one person and 0 for two. A list of landmarks (``ijbc_name_5pts_score.txt``) has
lines ``image x y x y x y x y x y score``, with the score of the detector. Templates and media are
whole numbers. Columns are separated by blanks, or by tabs, so that names may contain blanks.

References:
    C. Whitelam et al.: IARPA Janus Benchmark-B face dataset. CVPR Workshops, 2017.
    B. Maze et al.: IARPA Janus Benchmark - C: Face dataset and protocol. ICB, 2018.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmdet_ext.data.face.lists import read_lines
from mmdet_ext.data.reports import EXAMPLES, LayoutError, listed
from mmdet_ext.data.suffixes import has_unread_suffix

Array = np.ndarray[Any, np.dtype[Any]]

_POINTS = 10


class TemplateTable(dict[str, Any]):
    """Templates, media and pairs: arrays that cannot be written to, and that copies share.

    A comparison gives one bool, unlike that of a dict of arrays. A pickle holds a plain dict of the
    arrays, because checkpoints that have it must be read without this package.

    Args:
        image: (R,) number of the image (its ``sample_idx``) in each row. An image in two templates
            has two rows.
        template: (R,) number of the template of each row.
        medium: (R,) number of the medium of each row.
        pairs: (K, 2) numbers of the two templates of each pair.
        same: (K,) whether a pair is genuine.
        score: (R,) score of the detector, or None.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self, image: Any, template: Any, medium: Any, pairs: Any, same: Any, score: Any = None
    ) -> None:
        arrays = dict(image=image, template=template, medium=medium, pairs=pairs, same=same)
        if score is not None:
            arrays['score'] = score
        super().__init__({name: np.array(values) for name, values in arrays.items()})
        for values in self.values():
            values.setflags(write=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def __copy__(self) -> TemplateTable:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> TemplateTable:
        return self

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Mapping)
            and set(self) == set(other)
            and all(np.array_equal(value, other[key]) for key, value in self.items())
        )

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __repr__(self) -> str:
        return f'TemplateTable({len(self["image"])} rows, {len(self["same"])} pairs)'


@dataclass(frozen=True)
class TemplateProtocol:
    """Checked table, in which templates are numbered 0 .. T - 1.

    Attributes:
        image: (R,) int64, number of the image in each row, ascending.
        template: (R,) int64, row of ``numbers``.
        medium: (R,) int64.
        score: (R,) float64, or None.
        numbers: (T,) int64, the templates as the list numbers them, ascending.
        pairs: (K, 2) int32, rows of ``numbers``.
        same: (K,) bool.
    """

    image: Array
    template: Array
    medium: Array
    score: Array | None
    numbers: Array
    pairs: Array
    same: Array


@dataclass
class FaceTemplates:
    """Images of templates, each once, and the table of templates and pairs.

    Attributes:
        images: N files.
        table: templates, media and pairs.
        landmarks: (N, 5, 2) float32, px, or None.
        notes: messages for the user.
    """

    images: list[Path]
    table: TemplateTable
    landmarks: Array | None = None
    notes: list[str] = field(default_factory=list)


def check_templates(table: Mapping[str, Any]) -> TemplateProtocol:
    """Check a table of templates, and number its templates from 0.

    Args:
        table: the entries of `TemplateTable`, as arrays or lists.

    Raises:
        LayoutError: if an entry is absent, of another shape or not of whole numbers, a score is
            below 0 or not finite, an image stands twice in a template, or a pair names a template
            without an image.
    """
    absent = sorted({'image', 'template', 'medium', 'pairs', 'same'} - set(table))
    if absent:
        raise LayoutError(f'the table of templates has no {", ".join(absent)}')
    image, template, medium = (_whole(table, name) for name in ('image', 'template', 'medium'))
    pairs, same = np.asarray(table['pairs']), np.asarray(table['same']).astype(np.bool_)
    score = None if table.get('score') is None else np.asarray(table['score'], np.float64)
    shapes = [image.shape, template.shape, medium.shape, *([] if score is None else [score.shape])]
    if image.ndim != 1 or len(set(shapes)) > 1 or pairs.shape != (*same.shape, 2) or same.ndim != 1:
        raise LayoutError(
            'a table of templates has image, template, medium and score (R,), pairs (K, 2) and '
            f'same (K,), got {", ".join(map(str, [*shapes, pairs.shape, same.shape]))}'
        )
    if not len(image) or image.min() < 0:
        raise LayoutError('a table of templates has images, numbered from 0')
    if score is not None and not (np.isfinite(score) & (score >= 0)).all():
        wrong = np.flatnonzero(~(np.isfinite(score) & (score >= 0)))
        raise LayoutError(
            f'{len(wrong):,} scores of the detector are below 0 or not finite: rows '
            f'{listed(wrong[:EXAMPLES].tolist(), len(wrong))}'
        )
    numbers, row = np.unique(template, return_inverse=True)
    order = np.lexsort((row, image))
    image, row = image[order], row.reshape(-1)[order]
    twice = (image[1:] == image[:-1]) & (row[1:] == row[:-1])
    if twice.any():
        raise LayoutError(
            f'{int(twice.sum()):,} images stand twice in a template: images '
            f'{listed(image[1:][twice][:EXAMPLES].tolist(), int(twice.sum()))}'
        )
    index = np.searchsorted(numbers, pairs).clip(max=len(numbers) - 1)
    lost = np.unique(pairs[numbers[index] != pairs])
    if len(lost):
        raise LayoutError(
            f'{len(lost):,} templates of pairs have no image: templates '
            f'{listed(lost[:EXAMPLES].tolist(), len(lost))}'
        )
    return TemplateProtocol(
        image,
        row,
        medium[order],
        None if score is None else score[order],
        numbers,
        index.astype(np.int32),
        same,
    )


def read_templates(
    image_list: str | os.PathLike[str],
    pair_list: str | os.PathLike[str],
    root: str | os.PathLike[str],
    landmark_list: str | os.PathLike[str] | None = None,
    absent: Literal['error', 'drop'] = 'error',
) -> FaceTemplates:
    """Read the lists of IJB-B or IJB-C.

    Args:
        image_list: ``image template medium``, and perhaps the score of the detector, per line.
        pair_list: ``template template label`` per line.
        root: folder that the images are relative to.
        landmark_list: landmarks and, if lines have a twelfth column, scores; None if images are
            aligned.
        absent: 'error' raises for images that are absent; 'drop' leaves them out, with the pairs of
            templates that have no other image. Both report their numbers and the first ones.

    Raises:
        LayoutError: with file and line, if a list is absent or not of this form, images are absent,
            an image has no landmarks or two media in one template, or a pair names a template that
            no image has.
    """
    if absent not in ('error', 'drop'):
        raise LayoutError(f"absent must be 'error' or 'drop', got {absent!r}")
    folder = Path(root)
    notes: list[str] = []
    names, rows, score = _read_images(Path(image_list), folder, notes)
    pairs, same = _read_pairs(Path(pair_list))
    unknown = np.unique(pairs[~np.isin(pairs, rows[:, 1])])
    if len(unknown):
        raise LayoutError(
            f'{pair_list}: {len(unknown):,} templates of pairs have no image in {image_list}: '
            f'templates {listed(unknown[:EXAMPLES].tolist(), len(unknown))}'
        )
    landmarks = None
    if landmark_list is not None:
        landmarks, found = _read_landmarks(Path(landmark_list), names)
        if found is not None and score is not None:
            raise LayoutError(f'both {image_list} and {landmark_list} have scores of the detector')
        score = score if found is None else found[rows[:, 0]]
    files = [folder / name for name in names]
    there = np.array([not has_unread_suffix(file) and file.is_file() for file in files], np.bool_)
    if not there.all():
        gone = [str(file) for file, is_there in zip(files, there, strict=True) if not is_there]
        what = (
            f'{image_list}: {len(gone):,} of {len(files):,} images are absent, or of a format that '
            f'is not read: {listed(gone)}'
        )
        if absent == 'error' or not there.any():
            raise LayoutError(
                f'{what}. Check the folder of images'
                + (", or set absent='drop' to go on without them" if there.any() else '')
            )
        kept = there[rows[:, 0]]
        rows, score = rows[kept], None if score is None else score[kept]
        rows[:, 0] = (np.cumsum(there) - 1)[rows[:, 0]]
        files = [file for file, is_there in zip(files, there, strict=True) if is_there]
        landmarks = None if landmarks is None else landmarks[there]
        first, second = np.isin(pairs, rows[:, 1]).T
        whole = first & second
        notes.append(f'dropped: {what}; with them {int((~whole).sum()):,} of {len(whole):,} pairs')
        pairs, same = pairs[whole], same[whole]
    notes += _odd_pairs(pairs, same)
    table = TemplateTable(rows[:, 0], rows[:, 1], rows[:, 2], pairs, same, score)
    return FaceTemplates(files, table, landmarks, notes)


def _whole(table: Mapping[str, Any], name: str) -> Array:
    """Return an entry as int64."""
    values = np.asarray(table[name])
    if values.dtype.kind not in 'iu':
        raise LayoutError(f'{name} of a table of templates must be whole numbers: {values.dtype}')
    return values.astype(np.int64)


def _cells(line: str) -> list[str]:
    """Divide a line at its tabs, or at blanks if it has none."""
    return [cell.strip() for cell in line.split('\t')] if '\t' in line else line.split()


def _numbered(path: Path, argument: str, root: Path) -> list[tuple[int, list[str]]]:
    """Read the cells of each line that is not empty, with its number."""
    lines = read_lines(path, argument, lambda line: (root / _cells(line)[0]).exists())
    found = [(number, _cells(line)) for number, line in enumerate(lines, start=1) if line]
    if not found:
        raise LayoutError(f'{argument} {str(path)!r} is empty')
    return found


def _read_images(path: Path, root: Path, notes: list[str]) -> tuple[list[str], Array, Array | None]:
    """Read the list of images: N names, rows (R, 3) of image, template, medium, and scores."""
    lines = _numbered(path, 'image_list', root)
    columns = len(lines[0][1])
    numbers: dict[str, int] = {}
    media: dict[tuple[int, int], int] = {}
    rows: list[tuple[int, int, int]] = []
    scores: list[float] = []
    again: list[int] = []
    for line, cells in lines:
        score = _number(cells[3]) if len(cells) == 4 else 1.0
        if (
            len(cells) != columns
            or columns not in (3, 4)
            or not all(re.fullmatch(r'-?\d+', cell, re.ASCII) for cell in cells[1:3])
            or not 0 <= score < math.inf
        ):
            raise LayoutError(
                f"{path}, line {line}: expected 'image template medium', and in all lines or in "
                f'none a score of at least 0; it has {cells[:5]}'
            )
        image, template, medium = (
            numbers.setdefault(cells[0], len(numbers)),
            int(cells[1]),
            int(cells[2]),
        )
        known = media.setdefault((image, template), medium)
        if known != medium:
            raise LayoutError(
                f'{path}, line {line}: {cells[0]!r} is in template {template} already, in another '
                f'medium, {known}'
            )
        if len(media) == len(rows):
            again.append(line)
            continue
        rows.append((image, template, medium))
        scores.append(score)
    if again:
        notes.append(
            f'{len(again):,} lines of {path} stand there before, used once (lines {listed(again)})'
        )
    score_table = np.array(scores) if columns == 4 else None
    return list(numbers), np.array(rows, np.int64), score_table


def _read_pairs(path: Path) -> tuple[Array, Array]:
    """Read the list of pairs: templates (K, 2), and whether each pair is genuine."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', UserWarning)  # of an empty list, an error below
            table = np.loadtxt(path, np.int64, comments=None, ndmin=2, encoding='utf-8-sig')
    except (OSError, ValueError) as error:
        raise LayoutError(
            f"{path}: expected 'template template label' in whole numbers (rows from 0): {error}"
        ) from error
    if not table.size or table.shape[1] != 3:
        raise LayoutError(
            f"{path}: expected lines 'template template label', got a table of {table.shape}"
        )
    wrong = np.flatnonzero((table[:, 2] != 0) & (table[:, 2] != 1))
    if len(wrong):
        raise LayoutError(
            f'{path}: {len(wrong):,} labels are neither 1 (one person) nor 0: pairs '
            f'{listed((wrong[:EXAMPLES] + 1).tolist(), len(wrong))}'
        )
    return table[:, :2].copy(), table[:, 2] == 1


def _read_landmarks(path: Path, names: list[str]) -> tuple[Array, Array | None]:
    """Read landmarks (N, 5, 2) and scores (N,), None without such a column, of named images."""
    place = {name: number for number, name in enumerate(names)}
    values: Array | None = None
    for line, cells in _numbered(path, 'landmark_list', path.parent):
        numbers = [_number(cell) for cell in cells[1:]]
        if values is None and len(numbers) in (_POINTS, _POINTS + 1):
            values = np.full((len(names), len(numbers)), np.nan)
        if (
            values is None
            or len(numbers) != values.shape[1]
            or not all(map(math.isfinite, numbers))
        ):
            raise LayoutError(
                f"{path}, line {line}: expected 'image x y x y x y x y x y', and in all lines or "
                f'in none a score; it has {cells[:4]} and {max(0, len(cells) - 4)} more'
            )
        if cells[0] in place:
            values[place[cells[0]]] = numbers
    assert values is not None  # the list is not empty
    lost = np.flatnonzero(np.isnan(values[:, 0])).tolist()
    if lost:
        raise LayoutError(
            f'{path}: {len(lost):,} of {len(names):,} images have no landmarks: '
            f'{listed([names[k] for k in lost[:EXAMPLES]], len(lost))}'
        )
    score = values[:, _POINTS] if values.shape[1] > _POINTS else None
    if score is not None and (score < 0).any():
        raise LayoutError(f'{path}: {int((score < 0).sum()):,} scores are below 0')
    return values[:, :_POINTS].reshape(-1, 5, 2).astype(np.float32), score


def _number(cell: str) -> float:
    """Return the number of a cell; NaN if it is none."""
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _odd_pairs(pairs: Array, same: Array) -> list[str]:
    """Count odd pairs; they are kept, because published lists may have some."""
    low, high = np.searchsorted(np.unique(pairs), np.sort(pairs, axis=1)).T
    # One number for the two templates and the label, because rows are slow to sort.
    keys = np.sort((low * (int(high.max(initial=0)) + 1) + high) * 2 + same)
    again = keys[1:] // 2 == keys[:-1] // 2
    counts = {
        'pairs of a template with itself': int((low == high).sum()),
        'pairs that stand there before': int(again.sum()),
        'pairs that stand there before as the opposite': int(
            (again & (keys[1:] != keys[:-1])).sum()
        ),
    }
    notes = [f'{count:,} {what}' for what, count in counts.items() if count]
    if same.all() or not same.any():
        notes.append(f'all pairs are of {"one person" if same.all() else "two persons"}')
    return notes
