"""InsightFace's layout of faces in a file of records: ``train.rec``, ``train.idx``, ``property``.

Record 0 has no image, but the labels (F, L). Records 1..F-1 are images, each with its label.
Records F..L-1 are identities: they have no image, and their labels (a, b) say that the images
a..b-1 are of this identity. A file without such a record 0 holds images only. ``property`` contains
``classes,height,width``.

All these numbers are float32, which is exact up to 2**24 = 16,777,216. Glint360K has more records
than that, so numbers of records from there on are not trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.data.face.records.binary import RecordError, append, encode, index_text, pack
from mmdet_ext.data.face.records.container import (
    BAD_LABEL,
    BEHIND,
    EMPTY,
    EXACT_FLOAT,
    LARGE_LABEL,
    PROBLEMS,
    IntArray,
    RecordFile,
    problem_code,
)
from mmdet_ext.utils.files import whole_file

# After the headers of record 0 and of the identity records there is nothing, or too little for an
# image.
_NO_IMAGE = 16
# Largest rounding error of float32 between 2**24 and 2**26.
_ROUNDING = 2
_ABSENT = 'absent from the file, though record 0 counts it (truncated)'


@dataclass
class FaceRecords:
    """Images in a file of records.

    Attributes:
        keys: (N,) numbers of the records that hold usable images, ascending.
        offsets: (N,) int64, offsets of these records.
        labels: (N,) int32, labels of these images.
        bad: reason -> numbers of the records that are not usable.
        notes: messages for the user.
        identities: number of identity records in the file.
    """

    keys: IntArray
    offsets: IntArray
    labels: np.ndarray[Any, np.dtype[np.int32]]
    bad: dict[str, list[int]]
    notes: list[str]
    identities: int


def read_face_records(
    file: RecordFile, *, scan: bool = False, classes: int | None = None
) -> FaceRecords:
    """Find the images of a file and their labels, without decoding an image.

    If identity records give the images of each identity, the label is read from the header of one
    image per identity. Otherwise the header of each image is read, which takes minutes for
    millions of images.

    Args:
        file: the file.
        scan: always read the header of each image. This finds all records that are cut or have no
            header, and labels that differ from the label of their identity.
        classes: number of classes; images with labels from there on are bad.
    """
    notes: list[str] = []
    bounds = _bounds(file)
    if bounds is not None and not file.scanned:
        listed = int(np.sum((file.keys >= 1) & (file.keys < bounds[0])))
        if listed < bounds[0] - 1:
            file.rescan(f'the .idx lists {listed} of the {bounds[0] - 1} images')
    bad: dict[str, list[int]] = {}
    chosen = np.ones(len(file), bool)
    if bounds is not None:
        chosen = (file.keys >= 1) & (file.keys < bounds[0])
        if chosen.sum() < bounds[0] - 1:
            bad[_ABSENT] = np.setdiff1d(np.arange(1, bounds[0]), file.keys[chosen]).tolist()
    keys, offsets = file.keys[chosen], file.offsets[chosen]
    labels, identities = np.full(len(keys), -1, np.int32), 0
    if bounds is not None:
        own = (file.keys >= bounds[0]) & (file.keys < bounds[1]) & _inside(file, file.offsets)
        identities = int(own.sum())
        if identities < bounds[1] - bounds[0]:
            notes.append(
                f'{bounds[1] - bounds[0] - identities} of {bounds[1] - bounds[0]} identity '
                'records are absent: their images are asked for their labels one by one'
            )
        if identities and not scan:
            labels = _labels_of_ranges(file, keys, offsets, file.offsets[own], bounds[0], notes)
    problems = _known_problems(file, keys, offsets)
    rest = np.flatnonzero((labels < 0) & (problems == 0))
    labels[rest], problems[rest] = _labels_of_headers(file, offsets[rest])
    if classes is not None:
        problems[(labels >= classes) & (problems == 0)] = LARGE_LABEL
    for code in np.unique(problems[problems > 0]):
        bad[PROBLEMS[code]] = keys[problems == code].tolist()
    good = problems == 0
    return FaceRecords(keys[good], offsets[good], labels[good], bad, file.notes + notes, identities)


def _known_problems(
    file: RecordFile, keys: IntArray, offsets: IntArray
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the problem of each record that its offset, or reading through the file, shows."""
    problems = np.where(_inside(file, offsets), 0, BEHIND).astype(np.uint8)
    for row in np.flatnonzero(np.isin(keys, list(file.broken)) & (problems == 0)):
        problems[row] = problem_code(file.broken[int(keys[row])])
    return problems


def _inside(file: RecordFile, offsets: IntArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return whether each offset leaves room for the first two words of a record."""
    return offsets <= file.size - 8


def _bounds(file: RecordFile) -> tuple[int, int] | None:
    """Return F and L of record 0; None if the file holds images only."""
    if not len(file) or file.keys[0] != 0:
        return None
    table = file.headers(file.offsets[:1])
    first, last = table.labels[0].tolist()
    if table.problems[0] or table.sizes[0] >= _NO_IMAGE or not 1 <= first <= last:
        return None
    first, last = int(first), int(last)
    if last <= EXACT_FLOAT:
        return first, last
    # Above 2**24, F may be rounded. The true F is the first record near it without an image.
    near = np.flatnonzero(abs(file.keys - first) <= _ROUNDING)
    sizes = file.headers(file.offsets[near]).sizes
    empty = file.keys[near][sizes < _NO_IMAGE]
    last = min(last + _ROUNDING, int(file.keys[-1]) + 1)
    return (int(empty[0]) if len(empty) else first), last


def _whole_labels(values: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Convert float labels to integers, and other values to -1."""
    valid = np.isfinite(values) & (values >= 0) & (values < EXACT_FLOAT)
    whole = np.where(valid, values, -1).astype(np.int32)
    return np.where(whole == values, whole, -1).astype(np.int32)


def _labels_of_headers(
    file: RecordFile, offsets: IntArray
) -> tuple[np.ndarray[Any, np.dtype[np.int32]], np.ndarray[Any, np.dtype[np.uint8]]]:
    """Read the labels in the headers of images, and the problems of these records."""
    table = file.headers(offsets)
    labels, problems = _whole_labels(table.labels[:, 0]), table.problems
    problems[(problems == 0) & (table.sizes < 1)] = EMPTY
    problems[(problems == 0) & (labels < 0)] = BAD_LABEL
    return labels, problems


def _labels_of_ranges(
    file: RecordFile,
    keys: IntArray,
    offsets: IntArray,
    identity_offsets: IntArray,
    end: int,
    notes: list[str],
) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Label each image with the label of the first image of its identity.

    Args:
        file: the file.
        keys: numbers of the images.
        offsets: offsets of the images.
        identity_offsets: offsets of the identity records.
        end: number of the last image, plus 1.
        notes: takes messages for the user.

    Returns:
        The labels; -1 for images that are in no usable range.
    """
    table = file.headers(identity_offsets)
    ranges = np.where(table.problems[:, None] == 0, np.nan_to_num(table.labels, nan=-1.0), -1.0)
    start, stop = np.clip(ranges, -1, 2**31).astype(np.int64).T
    empty = (start == stop) & (start >= 0)
    exact = (start >= 1) & (start < stop) & (stop <= min(end, EXACT_FLOAT))
    wrong = int(np.sum(~exact & ~empty & (stop <= EXACT_FLOAT)))
    if empty.any():
        notes.append(f'{empty.sum()} identity records have no images')
    if wrong:
        notes.append(f'{wrong} identity records name no range of images')
    order = np.argsort(start[exact], kind='stable')
    start, stop = start[exact][order], stop[exact][order]
    if (start[1:] < stop[:-1]).any():
        notes.append('identity records name the same images: labels are read from all headers')
        return np.full(len(keys), -1, np.int32)
    rows = np.searchsorted(keys, start)
    there = rows < len(keys)
    there[there] = keys[rows[there]] == start[there]
    start, stop, rows = start[there], stop[there], rows[there]
    labels, problems = _labels_of_headers(file, offsets[rows])
    value = np.where(problems == 0, labels, -1).astype(np.int64) + 1
    steps = np.zeros(end + 1, np.int64)
    np.add.at(steps, start, value)
    np.add.at(steps, stop, -value)
    by_key = (np.cumsum(steps) - 1).astype(np.int32)
    return by_key[keys]


def read_property(path: Path) -> tuple[int, int, int]:
    """Read a ``property`` file: number of classes, height, width.

    Raises:
        RecordError: if the file is not three whole numbers above 0.
    """
    text = path.read_text(encoding='utf-8', errors='replace').strip()
    cells = [cell.strip() for cell in text.split(',')]
    if len(cells) != 3 or not all(cell.isdecimal() and int(cell) > 0 for cell in cells):
        raise RecordError(
            f"{path} must say 'classes,height,width', such as '93431,112,112'; "
            f'it says {text[:80]!r}'
        )
    classes, height, width = map(int, cells)
    return classes, height, width


def write_face_records(
    identities: Iterable[Sequence[bytes]], rec_path: Path, size: tuple[int, int]
) -> list[int]:
    """Write InsightFace's layout: ``.rec``, ``.idx`` and ``property``, whole or not at all.

    Args:
        identities: the encoded images of each identity, in the order of the labels. An identity
            without images is skipped and gets no label.
        rec_path: the ``.rec`` file; the other files are written beside it.
        size: height and width, for ``property``.

    Returns:
        Number of images per label.

    Raises:
        RecordError: if there is no image, or there are more records than float32 can number.
    """
    offsets: list[int] = [0]
    ranges: list[tuple[int, int]] = []
    with ExitStack() as stack:
        rec, idx, prop = (
            stack.enter_context(whole_file(path))
            for path in (rec_path, rec_path.with_suffix('.idx'), rec_path.with_name('property'))
        )
        with rec.open('wb') as file:
            file.write(encode(pack((0, 0), b'')))  # overwritten below, when F and L are known
            for images in identities:
                first = len(offsets)
                for image in images:
                    append(file, offsets, pack(len(ranges), image, record_id=len(offsets)))
                if len(offsets) > first:
                    ranges.append((first, len(offsets)))
            first = len(offsets)
            if not ranges or first + len(ranges) > EXACT_FLOAT:
                raise RecordError(
                    f'{rec_path}: {first - 1} images of {len(ranges)} identities. There must be '
                    f'one, and together they may not exceed {EXACT_FLOAT - 1}, up to which the '
                    "format's float32 numbers them exactly"
                )
            for bounds in ranges:
                append(file, offsets, pack(bounds, b'', record_id=len(offsets)))
            file.seek(0)
            file.write(encode(pack((first, len(offsets)), b'')))
        idx.write_text(index_text(enumerate(offsets)), encoding='ascii')
        prop.write_text(f'{len(ranges)},{size[0]},{size[1]}\n', encoding='ascii')
    return [stop - start for start, stop in ranges]
