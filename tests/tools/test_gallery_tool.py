"""Tool of galleries: enrol, search, evaluate, list and remove by made recognisers and by ORL."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mmdet_ext.face.gallery import FaceGallery
from tests._helpers.tools import load_tool

tool = load_tool('face/gallery.py')

Capture = pytest.CaptureFixture[str]


class Pixels:
    """Recogniser whose embedding is the image, small and grey, without its mean."""

    def embed(self, images: Sequence[Path]) -> np.ndarray:
        grey = [cv2.imread(str(image), cv2.IMREAD_GRAYSCALE) for image in images]
        small = [cv2.resize(each, (24, 24), interpolation=cv2.INTER_AREA) for each in grey]
        rows = np.stack(small).reshape(len(small), -1).astype(np.float64)
        return rows - rows.mean(1, keepdims=True)


@pytest.fixture(autouse=True)
def recogniser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let --model name a made recogniser, whose identifier is the name of the file."""

    def opened(args: Any) -> tuple[Any, str]:
        return Pixels(), args.recogniser or str(args.model)

    monkeypatch.setattr(tool, '_recogniser', opened)


def write(root: Path, **people: int) -> Path:
    """Write three noisy images of each person, who is given by a number."""
    for name, number in people.items():
        (root / name).mkdir(parents=True)
        face = np.random.default_rng(number).integers(0, 200, (6, 6), dtype=np.uint8)
        for image in range(3):
            noise = np.random.default_rng(10 * number + image).integers(0, 40, (24, 24))
            pixels = cv2.resize(face, (24, 24)).astype(int) + noise
            cv2.imwrite(str(root / name / f'{image}.png'), pixels.astype(np.uint8))
    return root


def run(*words: Any) -> int:
    return int(tool.main([str(word) for word in words]))


@pytest.fixture
def enrolled(tmp_path: Path, capsys: Capture) -> Path:
    people = write(tmp_path / 'people', ann=1, bob=2, eve=3)
    assert run('enrol', tmp_path / 'gallery', people, '--model', 'm') == 0
    assert '9 images of 3 people enrolled' in capsys.readouterr().out
    return tmp_path / 'gallery'


def test_people_are_enrolled_listed_and_removed(enrolled: Path, capsys: Capture) -> None:
    out = enrolled.parent / 'list.json'
    assert run('list', enrolled, '--out', out) == 0
    assert '3 people, pooling mean, search flat\nrecogniser m\n' in capsys.readouterr().out
    assert json.loads(out.read_text())['people'] == {'ann': 3, 'bob': 3, 'eve': 3}
    assert run('remove', enrolled, 'bob') == 0
    assert FaceGallery.open(enrolled).names == ('ann', 'eve')
    assert run('remove', enrolled, 'ann', 'bob') == 2
    assert "'bob' is not enrolled" in capsys.readouterr().err
    assert FaceGallery.open(enrolled).names == ('ann', 'eve')


def test_images_are_searched_for(enrolled: Path, capsys: Capture) -> None:
    strange = write(enrolled.parent / 'others', zoe=9) / 'zoe' / '0.png'
    own = enrolled.parent / 'people' / 'bob' / '1.png'
    out = enrolled.parent / 'found.json'
    words = ['--model', 'm', '--k', 2, '--threshold', 0.8, '--out', out]
    assert run('search', enrolled, own, strange, *words) == 0
    found = json.loads(out.read_text())['found']
    assert [each['name'] for each in found.values()] == ['bob', 'unknown']
    assert [len(each['candidates']) for each in found.values()] == [2, 2]
    assert f'{strange}: unknown (' in capsys.readouterr().out


def test_known_and_unknown_people_are_counted(enrolled: Path, capsys: Capture) -> None:
    probes = write(enrolled.parent / 'probes', ann=1, bob=2, zoe=9, yan=8)
    cv2.imwrite(str(probes / 'bob' / '0.png'), cv2.imread(str(probes / 'ann' / '0.png')))
    cv2.imwrite(str(probes / 'zoe' / '0.png'), cv2.imread(str(probes / 'ann' / '1.png')))
    cv2.imwrite(str(probes / 'bob' / '1.png'), cv2.imread(str(probes / 'yan' / '1.png')))
    out = enrolled.parent / 'figures.json'
    words = ['--model', 'm', '--threshold', 0.8, '--out', out]
    assert run('evaluate', enrolled, probes, *words) == 0
    report = json.loads(out.read_text())
    counts = report['counts']
    assert (counts['known'], counts['unknown']) == (6, 6)
    assert (counts['identified'], counts['misnamed'], counts['missed']) == (4, 1, 1)
    assert counts['false_alarms'] == 1
    assert report['rates']['tpir'] == pytest.approx(4 / 6)
    assert report['rates']['fpir'] == pytest.approx(1 / 6)
    assert {Path(path).parent.name for path in report['wrong']} == {'bob', 'zoe'}
    assert 'tpir       0.6667' in capsys.readouterr().out


def test_unreadable_images_are_named_and_counted(tmp_path: Path, capsys: Capture) -> None:
    people = write(tmp_path / 'people', ann=1, bob=2)
    whole = (people / 'ann' / '0.png').read_bytes()
    (people / 'ann' / '0.png').write_bytes(whole[: len(whole) // 2])
    for image in range(3):
        (people / 'bob' / f'{image}.png').write_bytes(b'')
    (people / 'notes.txt').write_text('not a person')
    out = tmp_path / 'report.json'
    assert run('enrol', tmp_path / 'gallery', people, '--model', 'm', '--out', out) == 1
    printed = capsys.readouterr()
    assert '2 images of 1 people enrolled' in printed.out
    assert '4 images could not be read' in printed.err and 'without image: bob' in printed.err
    assert 'left out: 1 files beside the folders (notes.txt)' in printed.err
    report = json.loads(out.read_text())
    assert report['enrolled'] == {'ann': 2} and report['without_image'] == ['bob']
    assert report['unread'][str(people / 'bob' / '0.png')] == 'empty file'
    assert 'truncated PNG' in report['unread'][str(people / 'ann' / '0.png')]


def test_bad_input_leaves_the_gallery_as_it_was(enrolled: Path, capsys: Capture) -> None:
    people = enrolled.parent / 'people'
    before = {path.name: path.read_bytes() for path in enrolled.iterdir()}
    assert run('enrol', enrolled, people, '--model', 'm') == 2
    assert '3 of 3 people are enrolled already: ann, bob, eve' in capsys.readouterr().err
    assert run('enrol', enrolled, people, '--model', 'other') == 2
    assert "of the recogniser 'other', but the gallery is of 'm'" in capsys.readouterr().err
    assert run('search', enrolled, people / 'absent', '--model', 'm') == 2
    assert 'there is no such file or folder' in capsys.readouterr().err
    write(enrolled.parent / 'bad', unknown=4)
    assert run('enrol', enrolled, enrolled.parent / 'bad', '--model', 'm') == 2
    assert 'rename' in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in enrolled.iterdir()} == before


def test_people_enrolled_already_are_added_to_or_skipped(enrolled: Path, capsys: Capture) -> None:
    people = enrolled.parent / 'people'
    write(people, zoe=9)
    assert run('enrol', enrolled, people, '--model', 'm', '--existing', 'skip') == 0
    assert FaceGallery.open(enrolled).images == {'ann': 3, 'bob': 3, 'eve': 3, 'zoe': 3}
    assert 'skipped: ann, bob, eve' in capsys.readouterr().err
    assert run('enrol', enrolled, people, '--model', 'm', '--existing', 'add') == 0
    assert FaceGallery.open(enrolled).images == {'ann': 6, 'bob': 6, 'eve': 6, 'zoe': 6}


def test_faces_of_orl_are_identified(shared_data: Path, tmp_path: Path) -> None:
    for source in sorted((shared_data / 'orl').glob('s*'))[:12]:
        for number in range(1, 11):
            part = 'enrolled' if number <= 5 and source.name != 's1' else 'probes'
            target = tmp_path / part / source.name
            target.mkdir(parents=True, exist_ok=True)
            (target / f'{number}.pgm').write_bytes((source / f'{number}.pgm').read_bytes())
    words = ['--model', 'm', '--pooling', 'best']
    assert run('enrol', tmp_path / 'gallery', tmp_path / 'enrolled', *words) == 0
    out = tmp_path / 'figures.json'
    words = ['--model', 'm', '--threshold', 0.9, '--out', out]
    assert run('evaluate', tmp_path / 'gallery', tmp_path / 'probes', *words) == 0
    report = json.loads(out.read_text())
    assert (report['counts']['known'], report['counts']['unknown']) == (55, 10)
    assert report['rates']['rank-1'] > 0.85
