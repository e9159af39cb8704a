"""Tool that enrols people and names faces, on exported files made without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mmdet_ext.deploy.images import read_image
from mmdet_ext.face.gallery import FaceGallery
from mmdet_ext.face.studies.recognition_files import drawing_names
from tests._helpers.tools import load_tool

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')

from tests._helpers.model_files import SIDE, write_fixed  # noqa: E402
from tests.face.recognition.networks import write_exported, write_network  # noqa: E402

main = load_tool('face/recognize.py').main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a recogniser, a detector of two faces, and images of two people."""
    write_exported(tmp_path / 'face.onnx')
    write_fixed(tmp_path / 'det.onnx')
    generator = np.random.default_rng(0)
    for name in ('ann', 'bob'):
        (tmp_path / 'people' / name).mkdir(parents=True)
        coarse = generator.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        for number in range(2):
            image = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
            image[number] = 0
            cv2.imwrite(str(tmp_path / 'people' / name / f'{number}.png'), image)
    return tmp_path


def run(folder: Path, *words: Any) -> int:
    """Run the tool with the recogniser of the folder."""
    return main([str(word) for word in (*words, '--model', folder / 'face.onnx')])


def test_people_of_a_folder_are_enrolled_and_named_in_drawn_images(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery, people = folder / 'gallery', folder / 'people'
    assert run(folder, 'enrol', gallery, people) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['enrolled'] == {'ann': 2, 'bob': 2} and report['refused'] == {}
    assert FaceGallery.open(gallery, report['recogniser']).images == {'ann': 2, 'bob': 2}
    images = [people / 'ann', people / 'bob' / '1.png']
    assert run(folder, 'recognize', gallery, *images, '--out', folder / 'named') == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((folder / 'named' / 'recognitions.json').read_text())
    names = [faces[0]['name'] for faces in report['found'].values()]
    assert names == ['ann', 'ann', 'bob']
    assert [Path(file).name for file in report['drawn'].values()] == ['0.png', '1.png', '1_2.png']
    for source, drawn in report['drawn'].items():
        assert (read_image(drawn) != read_image(source)).any()


def test_images_with_two_faces_are_refused_by_name_or_the_largest_is_taken(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['enrol', folder / 'gallery', folder / 'people' / 'ann', '--name', 'ann']
    words += ['--detector', folder / 'det.onnx']
    assert run(folder, *words) == 2
    assert 'none of 2 images can be enrolled' in capsys.readouterr().err
    assert not (folder / 'gallery').exists()
    assert run(folder, *words, '--largest-only') == 0
    assert json.loads(capsys.readouterr().out)['enrolled'] == {'ann': 2}
    words = ['recognize', folder / 'gallery', folder / 'people' / 'ann' / '0.png']
    assert run(folder, *words, '--detector', folder / 'det.onnx', '--k', '1') == 0
    (faces,) = json.loads(capsys.readouterr().out)['found'].values()
    assert [face['box'] for face in faces] == [[4, 4, 12, 12], [16, 8, 28, 30]]
    assert faces[1]['name'] == 'ann' and len(faces[1]['candidates']) == 1


def test_a_bad_image_is_named_and_the_others_are_done(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = folder / 'people' / 'ann' / 'bad.png'
    bad.write_bytes((folder / 'people' / 'ann' / '0.png').read_bytes()[:40])
    assert run(folder, 'enrol', folder / 'gallery', folder / 'people') == 1
    done = capsys.readouterr()
    assert f'not used: {bad}' in done.err
    assert json.loads(done.out)['enrolled'] == {'ann': 2, 'bob': 2}
    assert run(folder, 'recognize', folder / 'gallery', folder / 'people' / 'ann') == 1
    report = json.loads(capsys.readouterr().out)
    assert list(report['unread']) == [str(bad)] and len(report['found']) == 2
    assert run(folder, 'recognize', folder / 'gallery', bad) == 2


def test_people_who_are_enrolled_are_added_to_or_skipped_as_wanted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['enrol', folder / 'gallery', folder / 'people' / 'ann', '--name', 'ann']
    assert run(folder, *words) == 0
    assert run(folder, *words) == 2
    assert '1 of 1 people are enrolled already: ann' in capsys.readouterr().err
    assert run(folder, *words, '--existing', 'add') == 0
    assert FaceGallery.open(folder / 'gallery').images == {'ann': 4}
    whole = ['enrol', folder / 'gallery', folder / 'people', '--existing', 'skip']
    assert run(folder, *whole) == 0
    assert FaceGallery.open(folder / 'gallery').images == {'ann': 4, 'bob': 2}


def test_a_network_of_insightface_takes_its_stated_preparation(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ['--model', str(write_network(folder / 'w600k.onnx'))]
    words = ['enrol', str(folder / 'gallery'), str(folder / 'people'), *model]
    assert main(words) == 2
    assert 'carries no description' in capsys.readouterr().err
    assert main([*words, '--insightface', '127.5', '128']) == 0
    assert json.loads(capsys.readouterr().out)['recogniser'].endswith('RGB mean 127.5 std 128')


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['enrol', 'gallery', 'people', 'people'], 'give one FOLDER'),
        (['enrol', 'gallery', 'people/ann', '--name', 'unknown'], 'unknown'),
        (['enrol', 'gallery', 'absent', '--name', 'ann'], 'there is no such file or folder'),
        (['recognize', 'gallery', 'people/ann'], 'nobody is enrolled'),
        (['recognize', 'gallery', 'people/ann', '--threshold', '2'], 'threshold must be in'),
        (['recognize', 'gallery', 'people/ann', '--checkpoint', 'a'], 'give model, or config'),
    ],
)
def test_bad_input_ends_in_one_line(
    folder: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    assert run(folder, *words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('error: ') and message in error
    assert not (folder / 'gallery').exists()


def test_drawings_of_files_of_one_name_have_distinct_names() -> None:
    files = [Path('a/door.jpg'), Path('b/door.png'), Path('c/Door.png'), Path('d/door_2.bmp')]
    assert drawing_names(files) == ['door.png', 'door_2.png', 'Door_3.png', 'door_2_2.png']
