"""Files of records: reading what was written, also in parts, and errors that name the record."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from mmdet_ext.data.face.records import (
    RecordError,
    RecordFile,
    encode,
    pack,
    read_face_records,
    read_index,
    unpack,
)
from tests.data.face.written_records import faces, records

MAGIC = b'\x0a\x23\xd7\xce'  # 0xced7230a, little-endian


def slow_read(content: bytes) -> list[bytes]:
    """Read the payloads of all records word by word: a slow reference of the reader."""
    payloads, at = [], 0
    while at < len(content):
        payload, more = b'', True
        while more:
            assert content[at : at + 4] == MAGIC
            word = struct.unpack('<I', content[at + 4 : at + 8])[0]
            flag, length = word >> 29, word % 2**29
            payload += (MAGIC if flag in (2, 3) else b'') + content[at + 8 : at + 8 + length]
            at += 8 + -(-length // 4) * 4
            more = flag in (1, 2)
        payloads.append(payload)
    return payloads


def test_bytes_of_a_record_by_hand() -> None:
    assert encode(pack(3, b'abcde', record_id=9)) == (
        MAGIC + struct.pack('<I', 29) + struct.pack('<IfQQ', 0, 3.0, 9, 0) + b'abcde' + b'\0\0\0'
    )
    assert pack((1, 5), b'') == struct.pack('<IfQQff', 2, 0.0, 0, 0, 1.0, 5.0)


@pytest.mark.parametrize('length', range(9))
def test_padding_to_four_bytes(length: int) -> None:
    assert len(encode(b'x' * length)) == 8 + (length + 3) // 4 * 4


def test_magic_within_a_payload_makes_parts_without_it() -> None:
    assert encode(b'abcd' + MAGIC + b'efgh' + MAGIC + b'ij') == (
        MAGIC
        + struct.pack('<I', 1 << 29 | 4)
        + b'abcd'
        + MAGIC
        + struct.pack('<I', 2 << 29 | 4)
        + b'efgh'
        + MAGIC
        + struct.pack('<I', 3 << 29 | 2)
        + b'ij\0\0'
    )
    # At other places than a multiple of 4, the magic cannot be mistaken for the start of a record.
    assert encode(b'x' + MAGIC + b'yz') == MAGIC + struct.pack('<I', 7) + b'x' + MAGIC + b'yz\0'


def test_round_trip_of_payloads_full_of_the_magic(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    payloads = []
    for k in range(200):
        pieces = [MAGIC if rng.random() < 0.5 else rng.bytes(rng.integers(1, 6)) for _ in range(12)]
        payloads.append(pack(k, b''.join(pieces), record_id=k))
    path = records(tmp_path, payloads)
    assert slow_read(path.read_bytes()) == payloads
    assert sum(payload.count(MAGIC) for payload in payloads) > 500
    file = RecordFile(path)
    for k in rng.permutation(200).tolist():
        labels, record_id, data = file.read(k)
        assert (labels.tolist(), record_id, data) == ([k], k, payloads[k][24:])
    path.with_suffix('.idx').unlink()
    assert RecordFile(path).offsets.tolist() == file.offsets.tolist()


def test_labels_in_and_after_the_header() -> None:
    assert unpack(pack(2.5, b'x'))[0].tolist() == [2.5]
    labels, _, data = unpack(pack([4, 1, 0.5], b'x'))
    assert (labels.tolist(), data) == ([4, 1, 0.5], b'x')
    with pytest.raises(RecordError, match='header too short: 10 bytes, 24 are needed'):
        unpack(b'0123456789')
    with pytest.raises(RecordError, match='announces 1000 labels in 24 bytes'):
        unpack(struct.pack('<IfQQ', 1000, 0, 0, 0))


def test_headers_of_many_records_equal_those_of_single_records(tmp_path: Path) -> None:
    payloads = [pack(5, b'xyz'), pack([7, 8], b''), pack([9], b'abcd'), pack(1, MAGIC + b'ab')]
    file = RecordFile(records(tmp_path, payloads))
    table = file.headers(file.offsets)
    np.testing.assert_array_equal(table.labels, [[5, np.nan], [7, 8], [9, np.nan], [1, np.nan]])
    assert table.problems.tolist() == [0, 0, 0, 0]
    assert table.sizes[:3].tolist() == [3, 0, 4] and table.sizes[3] > 0


def test_index_file(tmp_path: Path) -> None:
    path = tmp_path / 'a.idx'
    path.write_text('2\t80\n0\t0\r\n1\t40')
    keys, offsets = read_index(path)
    assert (keys.tolist(), offsets.tolist()) == ([0, 1, 2], [0, 40, 80])
    path.write_text('0\t0\n\n1\t40\n')
    assert read_index(path)[1].tolist() == [0, 40]
    for text, where in (
        ('0\t0\n1\n2\t3\n', 2),
        ('0\t0\n1\tx\n', 2),
        ('0\t-4\n', 1),
        ('a b', 1),
        ('0\t0\n1 2 3\n4\n', 2),
    ):
        path.write_text(text)
        with pytest.raises(RecordError, match=f'line {where}: expected the number of a record'):
            read_index(path)
    path.write_text('0\t0\n0\t40\n')
    with pytest.raises(RecordError, match='record 0 stands in it twice'):
        read_index(path)


def test_absent_or_short_index_is_rebuilt_and_noted(tmp_path: Path) -> None:
    path = faces(tmp_path)
    index = path.with_suffix('.idx')
    whole = index.read_text()
    expected = read_index(index)
    for text in (None, '', whole[: whole.index('4\t')], whole[whole.index('2\t') :]):
        index.unlink(missing_ok=True)
        if text is not None:
            index.write_text(text)
        file = RecordFile(path)
        assert (file.keys.tolist(), file.offsets.tolist()) == tuple(x.tolist() for x in expected)
        (note,) = file.notes
        assert note.startswith('train.idx ')
        assert note.endswith(': 10 records were found by reading through the file')
        file.write_index(index)
        assert index.read_text() == whole


def test_index_with_a_hole_among_the_images_is_rebuilt(tmp_path: Path) -> None:
    path = faces(tmp_path)
    index = path.with_suffix('.idx')
    index.write_text(''.join(row for row in index.read_text().splitlines(True) if row[0] != '3'))
    found = read_face_records(RecordFile(path))
    assert found.labels.tolist() == [0, 0, 0, 1, 2, 2]
    assert found.notes[0].startswith('the .idx lists 5 of the 6 images: 10 records were found')


def test_index_of_another_file(tmp_path: Path) -> None:
    path = records(tmp_path, [pack(1, b'abc'), pack(2, b'defgh')])
    path.with_suffix('.idx').write_text('0\t4\n1\t8\n')
    with pytest.raises(RecordError, match='is not the index of .*a.rec: no record begins where'):
        RecordFile(path)
    path.with_suffix('.idx').write_text('5\t0\n')
    with pytest.raises(RecordError, match='there are more, and the numbers .* Remove it'):
        RecordFile(path)
    with pytest.raises(FileNotFoundError, match='index file .*other.idx'):
        RecordFile(path, tmp_path / 'other.idx')


def test_files_that_are_not_records_are_refused(tmp_path: Path) -> None:
    path = tmp_path / 'a.rec'
    with pytest.raises(FileNotFoundError, match='a.rec'):
        RecordFile(path)
    path.write_bytes(b'')
    with pytest.raises(RecordError, match='has 0 bytes, less than a record'):
        RecordFile(path)
    path.write_bytes(b'an image, or a zip archive, or anything else')
    with pytest.raises(RecordError, match='no record begins in it .*0xced7230a'):
        RecordFile(path)


@pytest.mark.parametrize('with_index', [True, False])
def test_broken_record_is_named_by_its_number_and_the_others_are_read(
    tmp_path: Path, with_index: bool
) -> None:
    path = records(tmp_path, [pack(k, b'0123' * (k + 1)) for k in range(6)])
    offset = read_index(path.with_suffix('.idx'))[1]
    content = bytearray(path.read_bytes())
    content[offset[2]] ^= 1
    path.write_bytes(content)
    if not with_index:
        path.with_suffix('.idx').unlink()
    file = RecordFile(path)
    assert len(file) == 6
    assert [file.read(k).data for k in (0, 1, 3, 4, 5)] == [
        b'0123' * (k + 1) for k in (0, 1, 3, 4, 5)
    ]
    with pytest.raises(
        RecordError, match=rf'a.rec: record 2: bad magic .* at byte {offset[2]}'
    ) as error:
        file.read(2)
    assert error.value.index == 2
    with pytest.raises(IndexError, match='no record 6'):
        file.read(6)
    found = read_face_records(file)
    assert found.bad == {'bad magic number': [2]}
    assert (found.keys.tolist(), found.labels.tolist()) == ([0, 1, 3, 4, 5], [0, 1, 3, 4, 5])


@pytest.mark.parametrize('with_index', [True, False])
def test_truncated_file(tmp_path: Path, with_index: bool) -> None:
    path = records(tmp_path, [pack(k, b'0123' * 5) for k in range(6)])
    path.write_bytes(path.read_bytes()[: 3 * 52 + 30])
    if not with_index:
        path.with_suffix('.idx').unlink()
    file = RecordFile(path)
    with pytest.raises(
        RecordError, match='record 3: ends behind the end .*44 bytes from byte 164 on, of 186'
    ):
        file.read(3)
    found = read_face_records(file)
    assert found.keys.tolist() == [0, 1, 2]
    behind = {'starts behind the end of the file (truncated)': [4, 5]} if with_index else {}
    assert found.bad == {**behind, 'ends behind the end of the file (truncated)': [3]}


def test_record_in_parts_without_its_last_part(tmp_path: Path) -> None:
    path = records(tmp_path, [pack(0, b'abcd' + MAGIC + b'efgh'), pack(1, b'ij')])
    content = bytearray(path.read_bytes())
    second = 8 + 28
    assert content[second + 7] >> 5 == 3
    content[second + 7] = 0  # a whole record where the last part should be
    path.write_bytes(content)
    with pytest.raises(RecordError, match='record 0: continuation flag 0 in part 2'):
        RecordFile(path).read(0)
    path.with_suffix('.idx').write_text(f'0\t0\n1\t{second}\n')
    content[second + 7] = 3 << 5
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r'record 1: begins with a continuation \(flag 3\)'):
        RecordFile(path).read(1)
