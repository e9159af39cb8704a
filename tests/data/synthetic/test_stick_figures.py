"""Tests of the synthetic people: joints on their limbs, true flags, equal bytes, bad input."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet_ext.data.skeletons import COCO_JOINTS, COCO_LIMBS
from mmdet_ext.data.synthetic import stick_figure_scenes
from mmdet_ext.data.synthetic.stick_figure_scenes import (
    MIN_SEEN,
    MIN_VISIBLE,
    Scene,
    StickFiguresError,
    pose,
)
from mmdet_ext.data.synthetic.stick_figures import figure_image, make_stick_figures
from tests._helpers.processes import run_python
from tests._helpers.tools import load_tool

tool = load_tool('data/make_stick_figures.py')

SIZE = (160, 128)
# Hue of a side's limbs, in OpenCV's half degrees: left orange and red, right light and dark blue.
WARM, COLD = (0, 25), (85, 130)


@pytest.fixture(scope='module')
def drawn() -> list[tuple[Scene, np.ndarray]]:
    return [figure_image(3, 'train', number, SIZE, (1, 4)) for number in range(1, 21)]


@pytest.fixture(scope='module')
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('figures') / 'set'
    make_stick_figures(out, train=4, val=2, width=160, height=128, seed=3)
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def load(folder: Path, split: str) -> dict:
    return json.loads((folder / 'annotations' / f'keypoints_{split}.json').read_text())


def test_limbs_have_the_lengths_of_a_body() -> None:
    rng = np.random.default_rng(0)
    lengths = {(5, 7): 16.5, (7, 9): 15, (11, 13): 24, (13, 15): 23}
    fronts = []
    for _ in range(200):
        joints, present, front = pose(rng, 100.0)
        for (start, end), length in lengths.items():
            for side in (0, 1):
                limb = joints[end + side] - joints[start + side]
                assert math.hypot(*limb) == pytest.approx(length)
        assert present[[*range(9), 11, 12, 13, 14]].all()  # a wrist or an ankle may be absent
        fronts.append(front)
        # Seen from behind, the left shoulder is on the left, unless the figure is upside down.
        across, along = joints[5] - joints[6], joints[[11, 12]].mean(0) - joints[[5, 6]].mean(0)
        turn = across[0] * along[1] - across[1] * along[0]
        assert bool(turn > 0) is front
    assert 0.65 < np.mean(fronts) < 0.85


def test_a_seen_joint_lies_on_pixels_of_its_figure(drawn: list) -> None:
    for scene, image in drawn:
        assert image.shape == (128, 160, 3)
        for figure, flags, silhouette in zip(
            scene.figures, scene.flags, scene.silhouettes, strict=True
        ):
            x, y = np.rint(figure.joints[flags > 0]).astype(int).T
            assert silhouette[y, x].all()


def test_the_sides_have_their_colours(drawn: list) -> None:
    right_hues, seen = 0, 0
    for scene, image in drawn:
        hues = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)[..., 0]
        for figure, flags in zip(scene.figures, scene.flags, strict=True):
            for joint in range(7, 17):  # elbows to ankles, but hips may show the trunk
                if flags[joint] == 2 and joint not in (11, 12):
                    x, y = np.rint(figure.joints[joint]).astype(int)
                    low, high = COLD if COCO_JOINTS[joint].startswith('right') else WARM
                    hue = int(hues[y, x])
                    right_hues += low <= hue <= high or (low == 0 and hue > 165)
                    seen += 1
    assert seen > 200 and right_hues / seen > 0.95


def test_flags_agree_with_who_is_on_top(drawn: list) -> None:
    hidden, behind = 0, 0
    for scene, _ in drawn:
        above = np.zeros((128, 160), bool)
        for number in reversed(range(len(scene.figures))):
            for board in scene.boards[number]:
                above[board.rows, board.columns] |= board.cover >= 0.5
            figure, flags = scene.figures[number], scene.flags[number]
            for joint, (x, y) in enumerate(np.rint(figure.joints).astype(int).tolist()):
                if not (0 <= x < 160 and 0 <= y < 128 and figure.present[joint]):
                    assert flags[joint] == 0
                elif above[y, x]:
                    assert flags[joint] == 1
                    hidden += 1
                elif joint < 3 and not figure.front:
                    assert flags[joint] == 1  # the face of somebody who looks away
                    behind += 1
                else:
                    assert flags[joint] > 0
            above |= scene.silhouettes[number]
            share = scene.shares[number]
            seen_of_all = scene.silhouettes[number] & ~_above_of(scene, number)
            assert share == pytest.approx(seen_of_all.sum() / scene.silhouettes[number].sum())
    assert hidden > 10 and behind > 10


def _above_of(scene: Scene, number: int) -> np.ndarray:
    above = np.zeros_like(scene.silhouettes[0])
    for later in range(number, len(scene.figures)):
        for board in scene.boards[later]:
            above[board.rows, board.columns] |= board.cover >= 0.5
        if later > number:
            above |= scene.silhouettes[later]
    return above


def test_scenes_keep_their_limits(drawn: list) -> None:
    counts = [len(scene.figures) for scene, _ in drawn]
    assert set(counts) == {1, 2, 3, 4}
    flags = np.concatenate([scene.flags for scene, _ in drawn])
    shares = np.concatenate([scene.shares for scene, _ in drawn])
    assert (flags == 2).sum(1).min() >= MIN_SEEN and shares.min() >= MIN_VISIBLE
    absent, hidden, seen = ((flags == flag).mean() for flag in range(3))
    assert 0.08 < absent < 0.3 and 0.03 < hidden < 0.2 and seen > 0.6
    assert (shares < 0.9).mean() > 0.1  # people do hide one another
    sides = [
        max(np.ptp(silhouette.nonzero(), axis=1)) for scene, _ in drawn
        for silhouette in scene.silhouettes
    ]  # fmt: skip
    assert max(sides) > 2.5 * min(sides)


def test_same_seed_gives_the_same_bytes_for_any_number_of_images(
    tmp_path: Path, small_set: Path
) -> None:
    first = files(small_set)
    make_stick_figures(tmp_path / 'b', train=4, val=2, width=160, height=128, seed=3)
    make_stick_figures(tmp_path / 'more', train=5, val=3, width=160, height=128, seed=3)
    make_stick_figures(tmp_path / 'other', train=4, val=2, width=160, height=128, seed=4)
    again, more, other = (files(tmp_path / name) for name in ('b', 'more', 'other'))
    images = [name for name in first if name.startswith('images')]
    assert sorted(first) == [
        'annotations/keypoints_train.json',
        'annotations/keypoints_val.json',
        *(f'images/train/00000{number}.jpg' for number in (1, 2, 3, 4)),
        'images/val/000001.jpg',
        'images/val/000002.jpg',
        'preview.png',
    ]
    assert first == again
    assert all(first[name] == more[name] for name in images)
    assert not any(first[name] == other[name] for name in images)
    assert len({first[name] for name in images}) == 6
    kept = load(small_set, 'train')['annotations']
    assert kept == load(tmp_path / 'more', 'train')['annotations'][: len(kept)]


def test_annotations_describe_the_scenes(small_set: Path) -> None:
    coco = load(small_set, 'train')
    (category,) = coco['categories']
    assert category['name'] == 'person' and tuple(category['keypoints']) == COCO_JOINTS
    assert [tuple(limb) for limb in category['skeleton']] == [
        (one + 1, other + 1) for one, other in COCO_LIMBS
    ]
    number = 0
    for image in coco['images']:
        scene, _ = figure_image(3, 'train', image['id'], SIZE, (1, 4))
        items = [item for item in coco['annotations'] if item['image_id'] == image['id']]
        assert len(items) == len(scene.figures)
        for index, item in enumerate(items):
            number += 1
            assert (item['id'], item['category_id'], item['iscrowd']) == (number, 1, 0)
            x, y, flag = np.reshape(item['keypoints'], (17, 3)).T
            assert flag.tolist() == scene.flags[index].tolist()
            assert item['num_keypoints'] == (flag > 0).sum()
            assert not x[flag == 0].any() and not y[flag == 0].any()
            shown = np.stack([x, y], 1)[flag > 0]
            assert np.abs(shown - scene.figures[index].joints[flag > 0]).max() < 0.006
            mask = scene.silhouettes[index]
            assert item['area'] == mask.sum()
            left, top, width, height = item['bbox']
            assert mask[top : top + height, left : left + width].sum() == mask.sum()
            assert mask[top].any() and mask[:, left].any()
            assert mask[top + height - 1].any() and mask[:, left + width - 1].any()


def test_coco_evaluation_reads_the_set_and_gives_the_annotations_ap_1(small_set: Path) -> None:
    coco = pytest.importorskip('xtcocotools.coco', reason='xtcocotools is not installed')
    evaluation = pytest.importorskip('xtcocotools.cocoeval')
    truth = coco.COCO(str(small_set / 'annotations' / 'keypoints_train.json'))
    found = [
        {**{key: item[key] for key in ('image_id', 'category_id', 'keypoints')}, 'score': 1.0}
        for item in truth.dataset['annotations']
    ]
    run = evaluation.COCOeval(truth, truth.loadRes(found), 'keypoints', use_area=True)
    run.evaluate()
    run.accumulate()
    run.summarize()
    assert run.stats[0] == pytest.approx(1)


def test_only_an_earlier_set_is_overwritten(tmp_path: Path, small_set: Path) -> None:
    out = tmp_path / 'set'
    small = dict(train=1, val=1, width=96, height=96)
    make_stick_figures(out, **small)
    before = files(out)
    with pytest.raises(StickFiguresError, match='not an empty folder.*--overwrite'):
        make_stick_figures(out, **small)
    assert files(out) == before
    (out / 'notes.txt').write_text('mine')
    make_stick_figures(out, **small, overwrite=True, preview=False)
    assert 'notes.txt' in files(out) and 'preview.png' not in files(out)
    (out / 'annotations' / 'keypoints_train.json').write_text('{"info": 1}')
    before = files(out)
    with pytest.raises(StickFiguresError, match='something else than an earlier set'):
        make_stick_figures(out, **small, overwrite=True)
    assert files(out) == before


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert total == 3
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_stick_figures(tmp_path / 'set', train=2, val=1, width=96, height=96, progress=stop)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--train', '0'), 'train is 0; expected at least 1'),
        (('--val', '-3'), 'val is -3; expected at least 1'),
        (('--size', '192', '95'), 'height is 95; expected at least 96'),
        (('--seed', '-1'), 'seed is -1; expected at least 0'),
        (
            ('--people', '3', '2'),
            'people is 3 to 2; expected two numbers from 1 to 20, the smaller',
        ),
    ],
    ids=['train', 'val', 'size', 'seed', 'people'],
)
def test_tool_reports_bad_arguments(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    small = ('--train', '1', '--val', '1')
    assert tool.main([str(tmp_path / 'set'), *small, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and message in error and error.count('\n') == 1
    assert not any(tmp_path.iterdir())


def test_an_image_without_room_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stick_figure_scenes, '_TRIES', 3)
    words = ['--train', '1', '--val', '1', '--people', '9', '9']
    assert tool.main([str(tmp_path / 'set'), *words]) == 2
    assert 'images of 192x192 have no room for 9 people' in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_tool_prints_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / 'set'
    small = ['--train', '3', '--val', '2', '--size', '96', '96', '--no-preview']
    assert tool.main(['--out', str(out), *small]) == 0
    lines = capsys.readouterr().out.splitlines()
    people = [str(len(load(out, split)['annotations'])) for split in ('train', 'val')]
    assert lines[0] == f'wrote {out}'
    assert [line.split() for line in lines[1:4]] == [
        ['train', 'val'],
        ['images', '3', '2'],
        ['people', *people],
    ]


@pytest.mark.subprocess
def test_the_short_path_of_the_tool_is_the_same_tool(tmp_path: Path) -> None:
    path = Path(tool.__file__).parents[1] / 'make_stick_figures.py'
    words = ['out', '--train', '1', '--val', '1', '--size', '96', '96', '--seed', '2']
    run_python(path, *words, cwd=tmp_path)
    make_stick_figures(tmp_path / 'same', train=1, val=1, width=96, height=96, seed=2)
    assert files(tmp_path / 'out') == files(tmp_path / 'same')
