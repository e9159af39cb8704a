"""Tool of records: a folder of faces to train.rec and back, reports and errors."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet_ext.data.face.folder import list_faces
from mmdet_ext.data.face.records import RecordFile, read_index
from mmdet_ext.data.images import decode_image
from mmdet_ext.face.datasets.folder import FaceFolderDataset
from mmdet_ext.face.datasets.records import FaceRecordDataset
from tests._helpers.tools import load_tool

main = load_tool('face/rec_tool.py').main

Capture = pytest.CaptureFixture[str]


def jpeg(number: int, height: int = 112, width: int = 112) -> bytes:
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return cv2.imencode('.jpg', cv2.resize(coarse, (width, height)))[1].tobytes()


def folder(root: Path, **images: list[bytes]) -> Path:
    for name, contents in images.items():
        (root / name).mkdir(parents=True)
        for k, content in enumerate(contents, start=1):
            (root / name / f'{k}.jpg').write_bytes(content)
    return root


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    return folder(
        tmp_path / 'faces', s1=[jpeg(1), jpeg(2)], s10=[jpeg(3)], s2=[jpeg(k) for k in range(4, 16)]
    )


def contents(root: Path) -> list[list[bytes]]:
    return [
        [
            file.read_bytes()
            for file in sorted(identity.iterdir(), key=lambda p: (len(p.name), p.name))
        ]
        for identity in sorted(root.iterdir())
    ]


def test_round_trip_byte_for_byte(faces: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(['write', str(faces), str(tmp_path / 'rec')]) == 0
    said = capsys.readouterr()
    assert '15 images of 3 identities (15 byte for byte, 0 encoded, 0 of them' in said.out
    assert 'To be known: 1 identities of one image, which give no genuine pair (s10)' in said.err
    assert (tmp_path / 'rec' / 'property').read_text() == '3,112,112\n'
    assert (tmp_path / 'rec' / 'identities.txt').read_text() == 's1\ns2\ns10\n'
    assert main(['extract', str(tmp_path / 'rec'), str(tmp_path / 'out')]) == 0
    assert '15 images of 3 identities in ' in capsys.readouterr().out
    assert [path.name for path in sorted((tmp_path / 'out').iterdir())] == ['0', '1', '2']
    assert contents(tmp_path / 'out') == [
        [jpeg(1), jpeg(2)],
        [jpeg(k) for k in range(4, 16)],
        [jpeg(3)],
    ]
    assert main(['write', str(tmp_path / 'out'), str(tmp_path / 'again')]) == 0
    for name in ('train.rec', 'train.idx', 'property'):
        assert (tmp_path / 'again' / name).read_bytes() == (tmp_path / 'rec' / name).read_bytes()


def test_round_trip_of_orl(shared_data: Path, tmp_path: Path, capsys: Capture) -> None:
    orl = shared_data / 'orl'
    arguments = ['write', str(orl), str(tmp_path), '--size', '112', '92', '--quality', '100']
    assert main(arguments) == 0
    assert '400 images of 40 identities (0 byte for byte, 400 encoded, 0 of them resized)' in (
        capsys.readouterr().out
    )
    assert (tmp_path / 'property').read_text() == '40,112,92\n'
    dataset = FaceRecordDataset(str(tmp_path))
    assert dataset.get_gt_labels().tolist() == [k // 10 for k in range(400)]
    for k in (0, 99, 390):  # image 10 of s10 is number 100 in natural order
        expected = cv2.imread(str(orl / f's{k // 10 + 1}' / f'{k % 10 + 1}.pgm'))
        assert np.abs(dataset[k]['img'].astype(int) - expected).max() <= 3
    assert main(['inspect', str(tmp_path), '--check', '--out', str(tmp_path / 'r.json')]) == 0
    report = json.loads((tmp_path / 'r.json').read_text())
    assert (report['pictures'], report['identities'], report['records']) == (400, 40, 441)
    assert report['picture_sizes'] == {'112 x 92': 400}
    assert report['corrupt'] == {}


def test_resizing_is_counted(tmp_path: Path, capsys: Capture) -> None:
    source = folder(tmp_path / 'faces', a=[jpeg(1, 224, 224), jpeg(2)], b=[jpeg(3, 50, 100)] * 2)
    image = np.random.default_rng(0).integers(0, 255, (112, 112), dtype=np.uint8)
    cv2.imwrite(str(source / 'a' / 'grey.png'), image)
    (source / 'a' / 'notes.txt').write_text('not an image')
    assert main(['write', str(source), str(tmp_path / 'rec')]) == 0
    said = capsys.readouterr()
    assert '5 images of 2 identities (1 byte for byte, 4 encoded, 3 of them resized)' in said.out
    assert 'warning: 2 images of another aspect ratio, stretched' in said.err
    assert "1 files whose suffix is no image's (a/notes.txt)" in said.err
    dataset = FaceRecordDataset(str(tmp_path / 'rec'))
    assert {dataset[k]['img_shape'] for k in range(5)} == {(112, 112)}
    first = cv2.resize(
        cv2.imdecode(np.frombuffer(jpeg(1, 224, 224), np.uint8), 1),
        (112, 112),
        interpolation=cv2.INTER_AREA,
    )
    assert np.abs(dataset[0]['img'].astype(int) - first).mean() < 3


def test_inspect(faces: Path, tmp_path: Path, capsys: Capture) -> None:
    main(['write', str(faces), str(tmp_path)])
    capsys.readouterr()
    assert main(['inspect', str(tmp_path / 'train.rec'), '--out', str(tmp_path / 'r.json')]) == 0
    out = capsys.readouterr().out
    assert '19 records\n15 images of 3 identities, 3 identity records\n' in out
    assert 'property: 3 classes, 112 x 112\n' in out
    assert 'images per identity: 1 to 12, median 2, mean 5.0' in out
    report = json.loads((tmp_path / 'r.json').read_text())
    assert report['histogram'] == {'1': 1, '2-3': 1, '4-7': 0, '8-15': 1}
    assert report['notes'] == ['1 identities have one image']


def test_check_lists_corrupt_records(faces: Path, tmp_path: Path, capsys: Capture) -> None:
    main(['write', str(faces), str(tmp_path)])
    path = tmp_path / 'train.rec'
    content, offsets = bytearray(path.read_bytes()), read_index(tmp_path / 'train.idx')[1]
    content[offsets[3]] ^= 255
    content[offsets[5] - 4 : offsets[5]] = bytes(4)  # the last bytes of the JPEG of record 4
    path.write_bytes(content)
    capsys.readouterr()
    assert main(['inspect', str(tmp_path)]) == 0  # only a sample is decoded
    capsys.readouterr()
    assert main(['inspect', str(tmp_path), '--check', '--out', str(tmp_path / 'r.json')]) == 2
    said = capsys.readouterr()
    assert 'corrupt: record 3: bad magic number\ncorrupt: record 4: truncated JPEG' in said.out
    assert 'error: 2 of 15 records are corrupt' in said.err
    assert list(json.loads((tmp_path / 'r.json').read_text())['corrupt']) == ['3', '4']


def test_index_is_rebuilt(faces: Path, tmp_path: Path, capsys: Capture) -> None:
    main(['write', str(faces), str(tmp_path)])
    index = tmp_path / 'train.idx'
    before = index.read_bytes()
    index.unlink()
    assert main(['inspect', str(tmp_path), '--write-idx', str(index)]) == 0
    assert 'note: train.idx is absent: 19 records were found' in capsys.readouterr().out
    assert index.read_bytes() == before


def test_some_identities_are_extracted(faces: Path, tmp_path: Path, capsys: Capture) -> None:
    main(['write', str(faces), str(tmp_path / 'rec')])
    out = tmp_path / 'out'
    assert (
        main(['extract', str(tmp_path / 'rec'), str(out), '--identities', '1', '2', '--limit', '3'])
        == 0
    )
    assert sorted(str(path.relative_to(out)) for path in out.rglob('*.jpg')) == [
        '1/00000003.jpg',
        '1/00000004.jpg',
        '1/00000005.jpg',
    ]
    assert (
        RecordFile(tmp_path / 'rec' / 'train.rec').read(4).data
        == (out / '1' / '00000004.jpg').read_bytes()
    )
    capsys.readouterr()
    assert main(['extract', str(tmp_path / 'rec'), str(out), '--identities', '2', '7']) == 2
    assert 'error: identities [7] have no image' in capsys.readouterr().err


def test_bad_images_raise_an_error_or_are_dropped(
    faces: Path, tmp_path: Path, capsys: Capture
) -> None:
    (faces / 's1' / '2.jpg').write_bytes(jpeg(2)[:500])
    (faces / 's10' / '1.jpg').write_bytes(b'no image')
    assert main(['write', str(faces), str(tmp_path / 'rec')]) == 2
    said = capsys.readouterr().err
    assert '1 images, truncated JPEG (no end marker) (s1/2.jpg); 1 images, ' in said
    assert '\nerror: 2 images cannot be used. Mend them, or give --bad-pictures drop' in said
    assert not (tmp_path / 'rec').exists()
    assert main(['write', str(faces), str(tmp_path / 'rec'), '--bad-pictures', 'drop']) == 0
    said = capsys.readouterr().err
    assert '1 identities without an image (s10)' in said
    assert (tmp_path / 'rec' / 'identities.txt').read_text() == 's1\ns2\n'
    assert FaceRecordDataset(str(tmp_path / 'rec')).get_gt_labels().tolist() == [0] + [1] * 12


def test_damaged_pixels_are_found_when_decoded(
    faces: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(data: bytes) -> np.ndarray:
        if data == jpeg(3):
            raise ValueError('image cannot be decoded')
        return decode_image(data)

    monkeypatch.setattr('mmdet_ext.data.face.record_images.decode_image', decode)
    assert main(['write', str(faces), str(tmp_path / 'rec')]) == 2
    assert '\nerror: ' + str(faces / 's10' / '1.jpg') in capsys.readouterr().err
    assert main(['write', str(faces), str(tmp_path / 'rec'), '--bad-pictures', 'drop']) == 0
    said = capsys.readouterr().err
    assert 'warning: 1 dropped, cannot be decoded: ' in said
    assert 'warning: 1 folders without a usable image, without a label: s10' in said
    assert (tmp_path / 'rec' / 'identities.txt').read_text() == 's1\ns2\n'


def test_identities_equal_those_of_the_data_set_of_folders(
    faces: Path, tmp_path: Path, capsys: Capture
) -> None:
    for name in ('.cache/1.jpg', 's2/below/1.jpg', 's1/.hidden.jpg', 'loose.jpg', 's1/a.txt'):
        (faces / name).parent.mkdir(exist_ok=True)
        (faces / name).write_bytes(jpeg(99))
    (faces / 'a_empty').mkdir()
    assert main(['write', str(faces), str(tmp_path / 'rec')]) == 0
    said = capsys.readouterr()
    assert '15 images of 3 identities (15 byte for byte' in said.out
    dataset = FaceFolderDataset(str(faces))
    names = (tmp_path / 'rec' / 'identities.txt').read_text().split()
    assert tuple(names) == dataset.metainfo['classes'] == ('s1', 's2', 's10')
    records = FaceRecordDataset(str(tmp_path / 'rec'))
    assert records.get_gt_labels().tolist() == dataset.get_gt_labels().tolist()
    assert f'warning: {list_faces(faces)}\n' in said.err
    for count in (
        '2 hidden files and folders (',
        '1 files beside the folders (loose.jpg)',
        '1 folders within folders (s2/below)',
        '1 identities without an image (',
    ):
        assert count in said.err


@pytest.mark.parametrize('scan', [[], ['--scan']])
def test_readable_images_are_extracted_and_the_others_named(
    scan: list[str], faces: Path, tmp_path: Path, capsys: Capture
) -> None:
    main(['write', str(faces), str(tmp_path / 'rec')])
    path, offsets = tmp_path / 'rec' / 'train.rec', read_index(tmp_path / 'rec' / 'train.idx')[1]
    content = bytearray(path.read_bytes())
    content[offsets[4]] ^= 255
    content[offsets[7] + 32 : offsets[8]] = bytes(offsets[8] - offsets[7] - 32)
    path.write_bytes(content)
    capsys.readouterr()
    out = tmp_path / 'out'
    assert main(['extract', str(tmp_path / 'rec'), str(out), *scan]) == 2
    said = capsys.readouterr()
    assert f'13 images of 3 identities in {out}' in said.out
    assert '\nerror: 2 records are bad and were not extracted: record 4: bad magic' in said.err
    assert '; record 7: image cannot be decoded\n' in said.err
    written = {int(file.stem): file.read_bytes() for file in out.rglob('*.*')}
    assert sorted(written) == [k for k in range(1, 16) if k not in (4, 7)]
    records = RecordFile(path)
    assert all(records.read(k).data == data for k, data in written.items())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['inspect', 'absent'], "record file 'absent' is not there"),
        (['inspect', '.'], 'is not there'),
        (['extract', 'absent.rec', 'out'], 'is not there'),
        (['write', 'absent', 'out'], "folder 'absent' is not there"),
        (
            ['write', 'empty', 'out'],
            "'empty' has no folder in it. Found: nothing; expected one folder",
        ),
        (['write', 'hollow', 'out'], '0 images of 0 identities'),
        (['write', 'hollow', 'out', '--size', '0', '112'], '--size must be above 0'),
        (['write', 'hollow', 'out', '--quality', '101'], '--quality in 1..100, got'),
    ],
)
def test_bad_input(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path('empty').mkdir()
    Path('hollow/a').mkdir(parents=True)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.rpartition('error: ')[1] and message in err.rpartition('error: ')[2]


def test_existing_files_are_not_replaced_without_force(
    faces: Path, tmp_path: Path, capsys: Capture
) -> None:
    arguments = ['write', str(faces), str(tmp_path)]
    assert main(arguments) == 0
    assert main(arguments) == 2
    assert 'is there already: give another folder, or --force' in capsys.readouterr().err
    assert main([*arguments, '--force']) == 0
