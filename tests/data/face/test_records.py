"""Records read as written, also in parts, and whatever is wrong with them is told by its number."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet_ext.data.face.records import (
    RecordError,
    RecordFile,
    decode_image,
    encode,
    pack,
    read_face_records,
    read_index,
    read_property,
    unpack,
    write_face_records,
    write_records,
)

MAGIC = b'\x0a\x23\xd7\xce'  # 0xced7230a, little-endian


def jpeg(value: int = 0, side: int = 8) -> bytes:
    noise = np.random.default_rng(value).integers(0, 255, (side, side, 3), dtype=np.uint8)
    return cv2.imencode('.jpg', noise)[1].tobytes()


def slow_read(content: bytes) -> list[bytes]:
    """Payloads of all records, word by word as the format is told: a twin of the reader."""
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


def records(folder: Path, payloads: list[bytes]) -> Path:
    write_records(payloads, folder / 'a.rec')
    return folder / 'a.rec'


def faces(folder: Path, counts: tuple[int, ...] = (3, 1, 2)) -> Path:
    """InsightFace's layout with small JPEGs, each different."""
    write_face_records(
        [[jpeg(10 * label + k) for k in range(count)] for label, count in enumerate(counts)],
        folder / 'train.rec',
        (8, 8),
    )
    return folder / 'train.rec'


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
    # Elsewhere than at a multiple of 4 it cannot be taken for a record's start.
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


def test_labels_in_and_behind_the_header() -> None:
    assert unpack(pack(2.5, b'x'))[0].tolist() == [2.5]
    labels, _, data = unpack(pack([4, 1, 0.5], b'x'))
    assert (labels.tolist(), data) == ([4, 1, 0.5], b'x')
    with pytest.raises(RecordError, match='header too short: 10 bytes, 24 are needed'):
        unpack(b'0123456789')
    with pytest.raises(RecordError, match='announces 1000 labels in 24 bytes'):
        unpack(struct.pack('<IfQQ', 1000, 0, 0, 0))


def test_headers_in_bulk_are_those_of_single_records(tmp_path: Path) -> None:
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


def test_absent_or_short_index_is_rebuilt_and_said(tmp_path: Path) -> None:
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


def test_no_file_of_records(tmp_path: Path) -> None:
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
def test_broken_record_is_told_by_its_number_and_the_others_are_read(
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


def test_record_in_parts_that_lacks_its_last(tmp_path: Path) -> None:
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


def test_insightface_layout(tmp_path: Path) -> None:
    path = faces(tmp_path, (3, 1, 2))
    assert path.with_name('property').read_text() == '3,8,8\n'
    file = RecordFile(path)
    assert file.read(0).labels.tolist() == [7, 10]
    assert [file.read(k).labels.tolist() for k in (7, 8, 9)] == [[1, 4], [4, 5], [5, 7]]
    assert [file.read(k).labels.tolist() for k in range(1, 7)] == [[0], [0], [0], [1], [2], [2]]
    assert file.read(5).data == jpeg(20)
    for scan in (False, True):
        found = read_face_records(file, scan=scan)
        assert found.keys.tolist() == [1, 2, 3, 4, 5, 6]
        assert found.labels.tolist() == [0, 0, 0, 1, 2, 2]
        assert (found.identities, found.bad, found.notes) == (3, {}, [])


def test_ranges_spare_reading_the_images(tmp_path: Path) -> None:
    """A label that differs within its identity is seen by a scan alone."""
    payloads = [
        pack((4, 6), b''),
        pack(7, b'a'),
        pack(8, b'b'),
        pack(3, b'c'),
        pack((1, 3), b''),
        pack((3, 4), b''),
    ]
    file = RecordFile(records(tmp_path, payloads))
    assert read_face_records(file).labels.tolist() == [7, 7, 3]
    assert read_face_records(file, scan=True).labels.tolist() == [7, 8, 3]


@pytest.mark.parametrize(
    ('ranges', 'note'),
    [
        ([(1, 3), (2, 4)], 'identity records name the same images'),
        ([(1, 3), (3, 9)], '1 identity records name no range of images'),
        ([(1, 3), (0, 2)], '1 identity records name no range of images'),
        ([(1, 3), (3, 3)], '1 identity records have no images'),
        ([(1, 3)], '1 of 2 identity records are absent'),
    ],
)
def test_wrong_ranges_are_said_and_labels_stay_right(
    tmp_path: Path, ranges: list[tuple[int, int]], note: str
) -> None:
    payloads = [
        pack((4, 6), b''),
        pack(0, b'a'),
        pack(0, b'b'),
        pack(1, b'c'),
        *(pack(one, b'') for one in ranges),
    ]
    found = read_face_records(RecordFile(records(tmp_path, payloads)))
    assert found.labels.tolist() == [0, 0, 1]
    assert note in found.notes[0]


def test_file_of_images_alone(tmp_path: Path) -> None:
    file = RecordFile(
        records(
            tmp_path,
            [
                pack([4, 0], b'image of 16 bytes or more'),
                pack(2, b'b'),
                pack(4, b''),
                pack(0.5, b'd'),
                pack(-1, b'e'),
                pack(float('nan'), b'f'),
                pack(9, b'g'),
            ],
        )
    )
    found = read_face_records(file, classes=9)
    assert (found.keys.tolist(), found.labels.tolist()) == ([0, 1], [4, 2])
    assert found.identities == 0
    assert found.bad == {
        'no image in it': [2],
        'label is not a whole number from 0 on': [3, 4, 5],
        'label is not below the number of classes': [6],
    }


@pytest.mark.parametrize('with_index', [True, False])
def test_truncated_insightface_file(tmp_path: Path, with_index: bool) -> None:
    path = faces(tmp_path, (3, 1, 2))
    offsets = read_index(path.with_suffix('.idx'))[1]
    path.write_bytes(path.read_bytes()[: offsets[5] + 50])
    if not with_index:
        path.with_suffix('.idx').unlink()
    found = read_face_records(RecordFile(path))
    assert found.labels.tolist() == [0, 0, 0, 1]
    assert sorted(key for keys in found.bad.values() for key in keys) == [5, 6]
    assert any('3 of 3 identity records are absent' in note for note in found.notes)


def test_numbers_past_float32_are_not_taken_at_their_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As float32 past 2**24: F is rounded, ranges too. Here 4 plays 2**24."""
    monkeypatch.setattr('mmdet_ext.data.face.records.faces.EXACT_FLOAT', 4)
    payloads = [
        pack((8, 10), b''),
        *(pack(label, b'image of 16 bytes or more') for label in (0, 0, 1, 1, 1, 3)),
        pack((1, 3), b''),
        pack((4, 6), b''),
        pack((6, 8), b''),
    ]
    found = read_face_records(RecordFile(records(tmp_path, payloads)))
    assert found.keys.tolist() == [1, 2, 3, 4, 5, 6]
    assert found.labels.tolist() == [0, 0, 1, 1, 1, 3]


def test_writer_refuses_what_float32_cannot_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecordError, match='0 images of 0 identities'):
        write_face_records([[], []], tmp_path / 'train.rec', (8, 8))
    monkeypatch.setattr('mmdet_ext.data.face.records.faces.EXACT_FLOAT', 8)
    with pytest.raises(RecordError, match='6 images of 2 identities.*may not exceed 7'):
        write_face_records([[b'x'] * 3] * 2, tmp_path / 'train.rec', (8, 8))
    assert list(tmp_path.iterdir()) == []
    assert write_face_records([[b'x'] * 3, [], [b'y'] * 2], tmp_path / 'train.rec', (8, 8)) == [
        3,
        2,
    ]


def test_writer_leaves_nothing_and_harms_nothing_when_interrupted(tmp_path: Path) -> None:
    path = faces(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def interrupted():
        yield [b'x']
        raise OSError('disk full')

    with pytest.raises(OSError, match='disk full'):
        write_face_records(interrupted(), path, (8, 8))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_property(tmp_path: Path) -> None:
    path = tmp_path / 'property'
    path.write_text('93431,112, 96\n')
    assert read_property(path) == (93431, 112, 96)
    for text in ('', '3,112', '0,112,112', '3,112,112,1', 'many,112,112'):
        path.write_text(text)
        with pytest.raises(RecordError, match="must say 'classes,height,width'"):
            read_property(path)


def test_each_process_maps_the_file_for_itself(tmp_path: Path) -> None:
    path = records(tmp_path, [pack(k, bytes([k])) for k in range(50)])
    file = RecordFile(path)
    assert file.read(7).data == b'\x07'
    mine = file._mapped
    pickled = pickle.dumps(file)
    assert len(pickled) < 2000
    copy = pickle.loads(pickled)
    assert copy._mapped is None and copy.read(9).data == b'\x09'
    assert mine is not None and mine[0] == os.getpid()
    file._mapped = (mine[0] + 1, mine[1])  # as a forked process finds it
    assert file.read(8).data == b'\x08'
    assert file._mapped[1] is not mine[1]


def test_images_of_all_kinds_become_bgr() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for ending, image in (
        ('.png', grey),
        ('.png', np.stack([grey] * 4, 2)),
        ('.png', grey.astype(np.uint16) * 256),
    ):
        decoded = decode_image(cv2.imencode(ending, image)[1].tobytes())
        np.testing.assert_array_equal(decoded, np.stack([grey] * 3, 2))
    colour = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode_image(cv2.imencode('.png', colour)[1].tobytes()), colour)


def test_broken_images() -> None:
    whole = jpeg(side=64)
    with pytest.raises(ValueError, match=r'truncated JPEG \(no end marker\)'):
        decode_image(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match='cannot be decoded'):
        decode_image(b'no image, some words')
    with pytest.raises(ValueError, match='no image in it'):
        decode_image(b'')
