"""Random access to the records of a file by their numbers, without MXNet.

The module `binary` describes the form of a record, and the text file ``.idx`` beside a ``.rec``.
"""

from __future__ import annotations

import io
import mmap
import os
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmdet_ext.data.face.records.binary import (
    HEADER,
    MAGIC,
    MAGIC_BYTES,
    MAX_LENGTH,
    WORDS,
    Record,
    RecordError,
    index_text,
    unpack,
)
from mmdet_ext.utils.files import whole_file

IntArray = np.ndarray[Any, np.dtype[np.int64]]

#: Largest integer up to which float32, the type of labels in records, holds every integer exactly.
EXACT_FLOAT = 1 << 24

_CHUNK = 1 << 18
_PROGRESS_STEP = 1 << 20

# Problems of a record that its first bytes show; the index is the code of the problem.
PROBLEMS = (
    '',
    'starts behind the end of the file (truncated)',
    'offset is not a multiple of 4',
    'bad magic number',
    'begins with a continuation',
    'ends behind the end of the file (truncated)',
    'header too short',
    'no image in it',
    'label is not a whole number from 0 on',
    'label is not below the number of classes',
)
(_, BEHIND, _UNALIGNED, BAD_MAGIC, _CONTINUATION, _CUT, _SHORT, EMPTY, BAD_LABEL, LARGE_LABEL) = (
    range(len(PROBLEMS))
)


def problem_code(reason: str) -> int:
    """Return the index into `PROBLEMS` of a reason that begins like one of them.

    Other reasons come from a later part of a record in parts, which does not begin with the magic
    number where it should; they count as a bad magic number.

    >>> PROBLEMS[problem_code('bad magic number 0x00000000 at byte 12')]
    'bad magic number'
    """
    codes = range(1, len(PROBLEMS))
    return next((code for code in codes if reason.startswith(PROBLEMS[code])), BAD_MAGIC)


class _Broken(Exception):
    """Reason why a record cannot be read; the caller adds its number in a `RecordError`."""


class Headers(NamedTuple):
    """Headers of n records.

    Attributes:
        labels: (n, 2) float32, the first and second label; NaN if there is none.
        sizes: (n,) int64, number of bytes after the header, at least 1 for a record in parts.
        problems: (n,) uint8, index into `PROBLEMS`, 0 for none.
    """

    labels: np.ndarray[Any, np.dtype[np.float32]]
    sizes: IntArray
    problems: np.ndarray[Any, np.dtype[np.uint8]]


def read_index(path: Path) -> tuple[IntArray, IntArray]:
    """Read an ``.idx`` file.

    Returns:
        Numbers and offsets of the records, in the order of the numbers.

    Raises:
        RecordError: if a line is not two whole numbers, or a number occurs twice.
    """
    text = path.read_bytes().strip()
    table: IntArray | None = None
    with warnings.catch_warnings():
        warnings.simplefilter('error', DeprecationWarning)
        try:
            flat = np.fromstring(text, np.int64, sep=' ') if text else np.empty(0, np.int64)
            table = flat.reshape(-1, 2)
            right = len(table) == text.count(b'\n') + bool(text) == text.count(b'\t')
            right = right and not (table < 0).any()
        except (ValueError, DeprecationWarning):
            right = False
    if table is None or not right:  # check each line, slowly; blank lines are allowed
        rows = enumerate(io.BytesIO(text), start=1)
        wrong = next((number for number, row in rows if not _is_index_line(row)), 0)
        if table is None or wrong:
            raise RecordError(
                f'{path}, line {wrong}: expected the number of a record, a tab and its offset. '
                'Remove the file to have the records found by reading through them'
            )
    table = table[np.argsort(table[:, 0], kind='stable')]
    keys = np.ascontiguousarray(table[:, 0])
    twice = keys[1:][keys[1:] == keys[:-1]]
    if len(twice):
        raise RecordError(f'{path}: record {twice[0]} stands in it twice ({len(twice)} such)')
    return keys, np.ascontiguousarray(table[:, 1])


def _is_index_line(row: bytes) -> bool:
    """Return whether a line is blank or two whole numbers."""
    cells = row.split()
    return not cells or (len(cells) == 2 and all(cell.isdigit() for cell in cells))


class RecordFile:
    """File of records with random access by their numbers.

    Each process memory-maps the file at its first access. The workers of a data loader, forked or
    spawned, therefore share neither a handle nor a position. Only the path and the table of
    offsets are pickled.

    Args:
        path: the ``.rec`` file.
        idx_path: its ``.idx``; None for the one beside it. If that is absent or incomplete, the
            records are found by reading through the file, and numbered from 0 in their order;
            ``notes`` says so.

    Attributes:
        keys: (N,) int64, numbers of the records, ascending.
        offsets: (N,) int64, offsets of the records in the file.
        notes: messages for the user.
        broken: number -> reason, for records found to be broken when reading through the file.

    Raises:
        FileNotFoundError: if the file, or a given ``idx_path``, is absent.
        RecordError: if the file is empty or holds no records, or the ``.idx`` belongs to another.
    """

    def __init__(
        self, path: str | os.PathLike[str], idx_path: str | os.PathLike[str] | None = None
    ) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f'record file {str(path)!r} is not there')
        if idx_path is not None and not Path(idx_path).is_file():
            raise FileNotFoundError(
                f'index file {str(idx_path)!r} is not there. Leave it out to have the records '
                'found by reading through the file'
            )
        self.size = self.path.stat().st_size
        self._mapped: tuple[int, memoryview] | None = None
        self.notes: list[str] = []
        self.broken: dict[int, str] = {}
        self.scanned = False
        if self.size < 8 + HEADER.size:
            raise RecordError(f'{self.path} has {self.size} bytes, less than a record')
        index = self.path.with_suffix('.idx') if idx_path is None else Path(idx_path)
        self.keys, self.offsets = np.empty(0, np.int64), np.empty(0, np.int64)
        if not index.is_file():
            self.rescan(f'{index.name} is absent')
        else:
            self.keys, self.offsets = read_index(index)
            self._check_index(index)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_mapped': None}

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int) -> Record:
        """Read the record numbered ``index``.

        Raises:
            IndexError: if there is no such record.
            RecordError: with file and number, if the record is truncated or corrupt.
        """
        row = int(np.searchsorted(self.keys, index))
        if row == len(self.keys) or self.keys[row] != index:
            raise IndexError(f'{self.path} has no record {index}')
        return self.read_at(int(self.offsets[row]), index)

    def read_at(self, offset: int, index: int) -> Record:
        """Read the record that starts at ``offset``; errors name it by ``index``."""
        content = self._content()
        try:
            parts, _ = _parts(content, offset)
            return unpack(MAGIC_BYTES.join(bytes(content[a:b]) for a, b in parts))
        except (_Broken, RecordError) as error:
            raise RecordError(f'{self.path}: record {index}: {error}', index) from None

    def headers(self, offsets: IntArray) -> Headers:
        """Read only the headers of the records that start at ``offsets``."""
        count = len(offsets)
        labels = np.full((count, 2), np.nan, np.float32)
        sizes, problems = np.zeros(count, np.int64), np.zeros(count, np.uint8)
        words = np.frombuffer(self._content()[: self.size // 4 * 4], '<u4')
        for start in range(0, count, _CHUNK):
            part = slice(start, start + _CHUNK)
            labels[part], sizes[part], problems[part] = self._some_headers(words, offsets[part])
            _show_progress('headers of records read', min(start + _CHUNK, count), count)
        return Headers(labels, sizes, problems)

    def rescan(self, why: str) -> None:
        """Find the records by reading through the file instead of its ``.idx``.

        Raises:
            RecordError: if the file holds no record, or the numbers in the ``.idx`` are not the
                places of the records, so that the missing records cannot be numbered.
        """
        offsets, self.broken = _scan(self._content())
        if len(self.broken) == len(offsets):
            raise RecordError(
                f'{self.path} is no file of records: no record begins in it '
                f'(expected the magic number {MAGIC:#x}, as MXNet writes it)'
            )
        found = np.asarray(offsets, np.int64)
        inside = self.offsets < self.size
        keys = self.keys[inside]
        if (keys >= len(found)).any() or (found[keys] != self.offsets[inside]).any():
            raise RecordError(
                f'{self.path}: {why}, and the numbers that it gives are not the places of the '
                'records, so that those it lacks cannot be numbered. Remove it to number all anew'
            )
        self.keys, self.offsets = np.arange(len(found)), found
        self.scanned = True
        self.notes.append(f'{why}: {len(found)} records were found by reading through the file')

    def write_index(self, path: Path) -> None:
        """Write the ``.idx`` of this file."""
        with whole_file(path) as part, part.open('w', encoding='ascii', newline='') as file:
            file.write(index_text(zip(self.keys.tolist(), self.offsets.tolist(), strict=True)))

    def _content(self) -> memoryview:
        """Return the bytes of the file, and map the file first in a new process."""
        if self._mapped is None or self._mapped[0] != os.getpid():
            with self.path.open('rb') as file:
                content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            self._mapped = os.getpid(), content
        return self._mapped[1]

    def _check_index(self, index: Path) -> None:
        """Check that the ``.idx`` belongs to the file, and rescan the file if it is incomplete."""
        inside = self.offsets[self.offsets < self.size]
        if not len(inside):
            self.rescan(f'{index.name} names no record within the file')
            return
        ends = np.array([inside.min(), inside.max()])
        stray = np.isin(self.headers(ends).problems, (_UNALIGNED, BAD_MAGIC, _CONTINUATION))
        if stray.all():
            raise RecordError(
                f'{index} is not the index of {self.path}: no record begins where it says '
                f'(offset {ends[0]}). Remove it to have the records found by reading through'
            )
        if stray[1] or len(inside) < len(self.offsets):
            return
        try:
            _, end = _parts(self._content(), int(ends[1]))
        except _Broken:
            return
        if end < self.size or ends[0] != 0:
            self.rescan(f'{index.name} tells of {len(self.keys)} records, and there are more')

    def _some_headers(
        self, words: np.ndarray[Any, Any], offsets: IntArray
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Read the labels, sizes and problems of some records from the words of the file."""
        readable = (offsets >= 0) & (offsets <= self.size - 8) & (offsets % 4 == 0)
        at = np.where(readable, offsets, 0) // 4

        def word(place: int) -> np.ndarray[Any, Any]:
            return words[np.minimum(at + place, len(words) - 1)]

        length, part = (word(1) & MAX_LENGTH).astype(np.int64), word(1) >> 29
        flag = word(2).astype(np.int64)
        sizes = length - HEADER.size - 4 * flag
        problems = np.select(
            [
                offsets > self.size - 8,
                ~readable,
                word(0) != MAGIC,
                part > 1,
                offsets + 8 + length > self.size,
                (length < HEADER.size) | (sizes < 0),
            ],
            [BEHIND, _UNALIGNED, BAD_MAGIC, _CONTINUATION, _CUT, _SHORT],
        )
        first = np.where(flag > 0, word(8), word(3)).astype('<u4').view('<f4')
        second = np.where(flag > 1, word(9).astype('<u4').view('<f4'), np.nan)
        labels = np.stack([first, second.astype(np.float32)], 1)
        labels[problems > 0] = np.nan
        return labels, np.where(part == 1, np.maximum(sizes, 1), sizes), problems


def _parts(content: memoryview, offset: int) -> tuple[list[tuple[int, int]], int]:
    """Find the start and end of each part of the record at ``offset``, and the next record."""
    parts: list[tuple[int, int]] = []
    size = len(content)
    if offset % 4:
        raise _Broken(PROBLEMS[_UNALIGNED])
    while True:
        if offset + 8 > size:
            raise _Broken(PROBLEMS[_CUT if parts else BEHIND])
        magic, word = WORDS.unpack_from(content, offset)
        flag, length = word >> 29, word & MAX_LENGTH
        if magic != MAGIC:
            raise _Broken(f'{PROBLEMS[BAD_MAGIC]} {magic:#010x} at byte {offset}')
        if flag not in ((2, 3) if parts else (0, 1)):
            raise _Broken(
                f'continuation flag {flag} in part {len(parts) + 1}'
                if parts
                else f'{PROBLEMS[_CONTINUATION]} (flag {flag})'
            )
        if offset + 8 + length > size:
            raise _Broken(f'{PROBLEMS[_CUT]}: {length} bytes from byte {offset + 8} on, of {size}')
        parts.append((offset + 8, offset + 8 + length))
        offset += 8 + length + -length % 4
        if flag in (0, 3):
            return parts, offset


def _scan(content: memoryview) -> tuple[list[int], dict[int, str]]:
    """Find the offsets of all records, and the reasons of broken ones by their places.

    After a broken record, the search continues at the next magic number that begins a record. All
    bytes in between count as one record.
    """
    offsets: list[int] = []
    broken: dict[int, str] = {}
    at, size = 0, len(content)
    while at < size:
        offsets.append(at)
        try:
            at = _parts(content, at)[1]
        except _Broken as error:
            broken[len(offsets) - 1] = str(error)
            at = _next_record(content, at + 4)
        if len(offsets) % _PROGRESS_STEP == 0:
            _show_progress('bytes searched for records', at, size)
    return offsets, broken


def _next_record(content: memoryview, at: int) -> int:
    """Find the start of the next record from ``at`` on; the end of the file if there is none."""
    words = np.frombuffer(content[: len(content) // 4 * 4], '<u4')
    for start in range(at // 4, len(words) - 1, _CHUNK):
        found = np.flatnonzero(words[start : start + _CHUNK] == MAGIC) + start
        found = found[found + 1 < len(words)]
        found = found[words[found + 1] >> 30 == 0]  # continuation 0 or 1
        if len(found):
            return int(found[0]) * 4
    return len(content)


def _show_progress(what: str, done: int, total: int) -> None:
    """Show a line of progress on stderr, for large files only."""
    if total > 2 * _PROGRESS_STEP:
        end = '\n' if done == total else ''
        print(f'\r{done} of {total} {what}', end=end, file=sys.stderr, flush=True)
