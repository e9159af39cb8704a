"""Scenes of the demonstration: division of people, threshold, counts, and drawn scenes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmdet_ext.data.synthetic.face_scenes import (
    LARGEST,
    SIDE,
    SMALLEST,
    make_face_scenes,
    make_portraits,
)
from mmdet_ext.deploy.images import read_image
from mmdet_ext.face.gallery import Candidate
from mmdet_ext.face.recognition import FaceRecognizer, Recognition
from mmdet_ext.face.studies import scene_demo
from mmdet_ext.face.studies.scene_demo import count_scenes, divide_people, find_threshold
from tests.face.recognition.stubs import BLUE, GREEN, RED, Colours

REPO = Path(__file__).resolve().parents[3]


def write_people(folder: Path, **colours: tuple[int, int, int]) -> dict[str, list[Path]]:
    """Write three images of each person, of one colour."""
    people = {}
    for name, colour in colours.items():
        people[name] = [folder / f'{name}{number}.png' for number in range(3)]
        for path in people[name]:
            cv2.imwrite(str(path), np.full((20, 15, 3), colour, np.uint8))
    return people


def test_scenes_hold_whole_faces_that_do_not_overlap(tmp_path: Path) -> None:
    people = write_people(tmp_path, ann=RED, bob=GREEN)
    scenes = make_face_scenes(people, tmp_path / 'scenes', 12, seed=3)
    assert len(scenes) == 12 and max(map(len, scenes.values())) > 1
    colours = {'ann': RED, 'bob': GREEN}
    for path, faces in scenes.items():
        image = read_image(path)
        assert image.shape == (SIDE, SIDE, 3)
        covered = np.zeros((SIDE, SIDE), int)
        for face in faces:
            x1, y1, x2, y2 = face.box
            assert SMALLEST <= x2 - x1 == y2 - y1 <= LARGEST
            covered[y1:y2, x1:x2] += 1
            part = image[y1:y2, x1:x2].reshape(-1, 3)
            assert (part == part[0]).all()
            assert part[0].argmax() == np.argmax(colours[face.name])
        assert covered.max() == 1
    coco = json.loads((tmp_path / 'scenes' / 'faces.json').read_text())
    assert len(coco['annotations']) == sum(map(len, scenes.values()))
    first = next(iter(scenes.values()))[0]
    x1, y1, x2, y2 = first.box
    assert coco['annotations'][0]['bbox'] == [x1, y1, x2 - x1, y2 - y1]


def test_a_scene_depends_on_the_seed_and_its_number_alone(tmp_path: Path) -> None:
    people = write_people(tmp_path, ann=RED, bob=GREEN)
    few = make_face_scenes(people, tmp_path / 'few', 2, seed=3)
    many = make_face_scenes(people, tmp_path / 'many', 4, seed=3)
    other = make_face_scenes(people, tmp_path / 'other', 2, seed=4)
    assert list(few.values()) == list(many.values())[:2] != list(other.values())
    for one, same in zip(few, many, strict=False):
        assert one.read_bytes() == same.read_bytes()


def test_a_portrait_shows_one_image_alone(tmp_path: Path) -> None:
    people = write_people(tmp_path, ann=(0, 0, 200), bob=(0, 200, 0))
    found = make_portraits(people, tmp_path / 'portraits', seed=1)
    assert {name: len(paths) for name, paths in found.items()} == {'ann': 3, 'bob': 3}
    for name, channel in (('ann', 2), ('bob', 1)):
        for path in found[name]:
            image = read_image(path).astype(int)
            others = [each for each in range(3) if each != channel]
            face = (image[..., others] == 0).all(2) & (image[..., channel] >= 170)
            rows, columns = np.flatnonzero(face.any(1)), np.flatnonzero(face.any(0))
            side = rows[-1] - rows[0] + 1
            assert side == columns[-1] - columns[0] + 1 and SMALLEST <= side <= LARGEST
            assert face.sum() == side**2


def test_scenes_without_people_or_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='at least one scene, one person, and an image of each'):
        make_face_scenes({'ann': []}, tmp_path, 1, 0)
    (tmp_path / 'bad.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'bad\.png: the image cannot be read'):
        make_face_scenes({'ann': [tmp_path / 'bad.png']}, tmp_path / 'scenes', 1, 0)


def test_people_are_divided_without_an_image_in_two_parts() -> None:
    unseen = {name: [Path(f'{name}{k}') for k in range(9)] for name in ('d', 'b', 'c')}
    people = divide_people({'a': [Path('a0')]}, unseen)
    assert list(people.enrolled) == list(people.tried) == ['b', 'c']
    assert list(people.in_scenes) == ['b', 'c', 'd'] and len(people.in_scenes['d']) == 9
    for name in ('b', 'c'):
        parts = [people.enrolled[name], people.tried[name], people.in_scenes[name]]
        assert [len(part) for part in parts] == [3, 3, 3]
        assert sorted(map(str, sum(map(list, parts), []))) == sorted(map(str, unseen[name]))


@pytest.mark.parametrize('count', [2, 3, 4])
def test_few_images_still_enrol_and_show(count: int) -> None:
    unseen = {name: [Path(f'{name}{k}') for k in range(count)] for name in 'ab'}
    people = divide_people({}, unseen)
    shared = set(people.enrolled['a']) & set(people.in_scenes['a'])
    assert people.enrolled['a'] and people.in_scenes['a'] and not shared
    with pytest.raises(ValueError, match='two unseen people with two images each'):
        divide_people({}, {'a': unseen['a']})


def test_the_threshold_lies_between_known_people_and_others(tmp_path: Path) -> None:
    people = write_people(tmp_path, ann=RED, bob=GREEN, cat=(0, 90, 200), dan=BLUE)
    crops = FaceRecognizer(Colours())
    for name in ('ann', 'bob'):
        crops.enrol(name, list(people[name]))
    known = {name: people[name] for name in ('ann', 'bob')}
    threshold = find_threshold(crops, known, {name: people[name] for name in ('cat', 'dan')})
    # The mean colours plus 1: cat (1, 91, 201) against ann (1, 1, 221).
    near = (1 + 91 + 201 * 221) / np.sqrt((1 + 91**2 + 201**2) * (1 + 1 + 221**2))
    assert threshold == pytest.approx((1 + near) / 2, abs=1e-5)
    assert find_threshold(crops, {}, known) == 0.4


def seen(name: str, box: tuple[float, float, float, float]) -> Recognition:
    """Return a recognised face."""
    return Recognition(box, 0.9, None, name, 0.5, (Candidate('ann', 0.5),))


def test_faces_names_and_strangers_are_counted() -> None:
    path = Path('a.png')
    scenes = {
        path: [
            scene_demo.PlacedFace('ann', (0, 0, 10, 10)),
            scene_demo.PlacedFace('bob', (20, 0, 30, 10)),
            scene_demo.PlacedFace('eve', (40, 0, 50, 10)),
            scene_demo.PlacedFace('eve', (60, 0, 70, 10)),
            scene_demo.PlacedFace('ann', (80, 0, 90, 10)),
        ]
    }
    found = {
        path: [
            seen('ann', (0, 0, 10, 9)),
            seen('unknown', (20, 0, 30, 10)),
            seen('unknown', (40, 1, 50, 10)),
            seen('ann', (60, 0, 70, 10)),
            seen('ann', (86, 0, 96, 10)),  # an IoU of a quarter
        ]
    }
    counts = count_scenes(scenes, found, ['ann', 'bob'])
    assert counts == (5, 4, 1, 2, 1, 2, 1)
    table = counts.table().splitlines()
    assert '4 of    5    80.0%' in table[0]
    assert '1 of    2    50.0%' in table[1] and table[3].split()[-1] == '1'


def test_the_config_of_the_detector_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    def no_run(command: str, config: Path, *words: object) -> None:
        runs.append((command, config))
        (tmp_path / 'run').mkdir()
        (tmp_path / 'run' / 'last_checkpoint').write_text('epoch_8.pth')

    monkeypatch.setattr(scene_demo, 'run_mim', no_run)
    monkeypatch.setattr(scene_demo, 'TRAIN_SCENES', 2)
    base = REPO / 'configs' / 'detection' / 'atss' / 'atss_r18_fpn_demo_shapes.py'
    people = write_people(tmp_path, ann=RED)
    config, checkpoint = scene_demo.train_detector(base, people, tmp_path, seed=5)
    assert runs == [('train', config)] and checkpoint == Path('epoch_8.pth')
    read = Config.fromfile(config)
    assert read.model.bbox_head.num_classes == 1 and read.randomness.seed == 5
    for loader in (read.train_dataloader, read.test_dataloader):
        dataset = loader.dataset
        assert dataset.metainfo == {'classes': ('face',)}
        assert (Path(dataset.data_root) / dataset.ann_file).is_file()
        assert (Path(dataset.data_root) / dataset.data_prefix.img / '001.png').is_file()
