"""Binary form of MXNet's RecordIO: reading and writing records without MXNet.

A file of records has this form; all numbers are little-endian::

    record   magic uint32 = 0xced7230a
             word  uint32 = continuation << 29 | length of what follows
             payload, then zeros up to a multiple of 4 bytes
    payload  IRHeader: flag uint32, label float32, id uint64, id2 uint64
             flag float32 labels, which replace the label if flag > 0
             the encoded image

A payload that contains the magic at a multiple of 4 bytes is split there into parts, without that
magic. The first part has continuation 1, the last has 3, the others have 2; a record of one part
has 0. The text file ``.idx`` beside it has one line ``number<TAB>offset`` per record.
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
#: Words before the payload of a part: the magic, and the continuation with the length.
WORDS = struct.Struct('<II')
HEADER = struct.Struct('<IfQQ')
MAX_LENGTH = (1 << 29) - 1


class RecordError(ValueError):
    """Error for a record, or a file of records, that cannot be read.

    Attributes:
        index: number of the record; None if the whole file is meant.
    """

    def __init__(self, message: str, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class Record(NamedTuple):
    """One record.

    Attributes:
        labels: (k,) float32; k is 1 if the header itself holds the label.
        record_id: id in the header.
        data: bytes after the header and its labels: an encoded image, or nothing.
    """

    labels: np.ndarray[Any, np.dtype[np.float32]]
    record_id: int
    data: bytes


def pack(labels: float | Sequence[float], data: bytes, record_id: int = 0) -> bytes:
    """Make the payload of a record: header, labels, data.

    >>> unpack(pack(7, b'image', record_id=3))
    Record(labels=array([7.], dtype=float32), record_id=3, data=b'image')
    """
    if np.ndim(labels) == 0:
        return HEADER.pack(0, labels, record_id, 0) + data
    more = np.asarray(labels, '<f4')
    return HEADER.pack(len(more), 0, record_id, 0) + more.tobytes() + data


def unpack(payload: bytes) -> Record:
    """Split the payload of a record into labels, id and data.

    Raises:
        RecordError: if the payload is shorter than its header says.
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
    """Encode a payload as a record of a file, in parts if the payload contains the magic.

    Raises:
        RecordError: if the payload is longer than 2**29 - 1 bytes, which a record can hold.
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
    """Format the numbers and offsets of records as the text of an ``.idx`` file."""
    return ''.join(f'{number}\t{offset}\n' for number, offset in entries)


def append(file: BinaryIO, offsets: list[int], payload: bytes) -> None:
    """Write a record, and append its offset to ``offsets``."""
    offsets.append(file.tell())
    file.write(encode(payload))


def write_records(payloads: Iterable[bytes], rec_path: Path) -> int:
    """Write payloads (see `pack`) as ``.rec`` and ``.idx``, numbered from 0; return the count."""
    offsets: list[int] = []
    with whole_file(rec_path) as rec, whole_file(rec_path.with_suffix('.idx')) as idx:
        with rec.open('wb') as file:
            for payload in payloads:
                append(file, offsets, payload)
        idx.write_text(index_text(enumerate(offsets)), encoding='ascii')
    return len(offsets)
