"""MXNet's RecordIO: what a record is made of, and writing it, without MXNet.

A file of records, all numbers little-endian::

    record   magic uint32 = 0xced7230a
             word  uint32 = continuation << 29 | length of what follows
             payload, then zeros up to a multiple of 4 bytes
    payload  IRHeader: flag uint32, label float32, id uint64, id2 uint64
             flag float32 labels, which stand for the label where flag > 0
             the encoded image

A payload that holds the magic at a multiple of 4 bytes is written in parts, without that magic:
the parts have continuation 1 (first), 2, ... and 3 (last); a record of one part has 0. The text
file ``.idx`` beside it tells of each record ``number<TAB>offset``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from mmdet_ext.utils.files import whole_file

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack('<I', MAGIC)
#: What stands before the payload of a part: magic, and continuation and length in one.
WORDS = struct.Struct('<II')
HEADER = struct.Struct('<IfQQ')
MAX_LENGTH = (1 << 29) - 1


class RecordError(ValueError):
    """A record, or a file of records, that cannot be read.

    Attributes:
        index: number of the record, None where the file as a whole is meant.
    """

    def __init__(self, message: str, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class Record(NamedTuple):
    """One record.

    Attributes:
        labels: (k,) float32; k is 1 where the header itself holds the label.
        record_id: the number that the header bears.
        data: what follows the header: an encoded image, or nothing.
    """

    labels: np.ndarray[Any, np.dtype[np.float32]]
    record_id: int
    data: bytes


def pack(labels: float | Sequence[float], data: bytes, record_id: int = 0) -> bytes:
    """The payload of a record: header, labels, data.

    >>> unpack(pack(7, b'image', record_id=3))
    Record(labels=array([7.], dtype=float32), record_id=3, data=b'image')
    """
    if np.ndim(labels) == 0:
        return HEADER.pack(0, labels, record_id, 0) + data
    more = np.asarray(labels, '<f4')
    return HEADER.pack(len(more), 0, record_id, 0) + more.tobytes() + data


def unpack(payload: bytes) -> Record:
    """Take the payload of a record apart.

    Raises:
        RecordError: if it is shorter than its header says.
    """
    if len(payload) < HEADER.size:
        raise RecordError(f'header too short: {len(payload)} bytes, {HEADER.size} are needed')
    flag, label, record_id, _ = HEADER.unpack_from(payload)
    end = HEADER.size + 4 * flag
    if end > len(payload):
        raise RecordError(f'header too short: it announces {flag} labels in {len(payload)} bytes')
    if not flag:
        return Record(np.array([label], np.float32), record_id, payload[end:])
    labels = np.frombuffer(payload, '<f4', flag, HEADER.size).astype(np.float32)
    return Record(labels, record_id, payload[end:])


def encode(payload: bytes) -> bytes:
    """A record as it stands in a file, in parts where the payload holds the magic.

    Raises:
        RecordError: if the payload is longer than the 2**29 - 1 bytes that a record holds.
    """
    if len(payload) > MAX_LENGTH:
        raise RecordError(f'a record holds at most {MAX_LENGTH} bytes, got {len(payload)}')
    pieces, start, at = [], 0, payload.find(MAGIC_BYTES)
    while at != -1:
        if at % 4 == 0:
            pieces.append(payload[start:at])
            start = at + 4
        at = payload.find(MAGIC_BYTES, at + (4 if at % 4 == 0 else 1))
    pieces.append(payload[start:])
    last = len(pieces) - 1
    out = b''
    for number, piece in enumerate(pieces):
        flag = 0 if not last else 1 if number == 0 else 3 if number == last else 2
        out += WORDS.pack(MAGIC, flag << 29 | len(piece)) + piece + bytes(-len(piece) % 4)
    return out


def index_text(entries: Iterable[tuple[int, int]]) -> str:
    """What an ``.idx`` file says of records, by their numbers and offsets."""
    return ''.join(f'{number}\t{offset}\n' for number, offset in entries)


def append(file: BinaryIO, offsets: list[int], payload: bytes) -> None:
    """Write a record, and note where it starts."""
    offsets.append(file.tell())
    file.write(encode(payload))


def write_records(payloads: Iterable[bytes], rec_path: Path) -> int:
    """Write payloads (see `pack`) as ``.rec`` and ``.idx``, numbered from 0; return how many."""
    offsets: list[int] = []
    with whole_file(rec_path) as rec, whole_file(rec_path.with_suffix('.idx')) as idx:
        with rec.open('wb') as file:
            for payload in payloads:
                append(file, offsets, payload)
        idx.write_text(index_text(enumerate(offsets)), encoding='ascii')
    return len(offsets)
