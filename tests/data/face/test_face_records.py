"""InsightFace's layout of face records: labels, oddities, writing, and images."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet_ext.data.face.records import (
    RecordError,
    RecordFile,
    decode_image,
    pack,
    read_face_records,
    read_index,
    read_property,
    write_face_records,
)
from tests.data.face.written_records import faces, jpeg, records


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


def test_with_ranges_the_images_are_not_read(tmp_path: Path) -> None:
    """Only a scan finds a label that differs within its identity."""
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
def test_wrong_ranges_are_noted_and_labels_stay_right(
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


def test_file_without_identity_records(tmp_path: Path) -> None:
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


def test_numbers_above_the_range_of_float32_are_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above 2**24, float32 rounds F and the ranges. In this test, 4 stands for 2**24."""
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


def test_writer_refuses_more_records_than_float32_can_number(
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


def test_interrupted_writer_leaves_no_file_and_keeps_older_files(tmp_path: Path) -> None:
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


def test_each_process_maps_the_file_itself(tmp_path: Path) -> None:
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


def test_images_of_all_formats_become_bgr() -> None:
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
