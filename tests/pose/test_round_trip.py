"""People of COCO through targets and back, without a network between."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mmdet_ext.pose.skeletons import COCO_FLIP, LIMB_TABLES, mirror_limbs, read_limbs
from tests._helpers.tools import load_tool

REPO = Path(__file__).resolve().parents[2]
FOLDER = REPO.parent / 'shared' / 'data' / 'coco_keypoints'
#: Least AP of xtcocotools.
LEAST = {'tags': 0.93, 'fields, optimal': 0.90, 'fields, greedy': 0.90}


@pytest.fixture(scope='module')
def tool() -> ModuleType:
    pytest.importorskip('mmpose', reason='MMPose is absent')
    return load_tool('analysis/pose_round_trip.py')


@pytest.mark.slow
@pytest.mark.parametrize('part', ['train', 'val'])
def test_people_of_coco_come_back(tool: ModuleType, part: str) -> None:
    path = FOLDER / f'person_keypoints_{part}2017.json'
    if not path.is_file():
        pytest.skip(f'{path} is absent')
    with contextlib.redirect_stdout(io.StringIO()):
        coco = tool.COCO(str(path))
    scores = {}
    for road in tool.roads(512, 4):
        if road['targets'] == 'unbiased' and road['limbs'] in ('', 'coco_wide'):
            codec = tool.KEYPOINT_CODECS.build(road['codec'])
            scores[road['road']] = tool.round_trip(coco, codec, 512, alone=False)[0]
    assert set(scores) == set(LEAST)
    assert all(scores[road] >= least for road, least in LEAST.items()), scores


def test_parts_and_hidden_joints_are_counted(tool: ModuleType) -> None:
    shown = np.array([1, 1, 0, 1, 1], bool)
    assert tool.parts(shown, [(0, 1), (1, 2), (2, 3), (3, 4)]) == 2
    assert tool.parts(shown, [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)]) == 1
    people = np.array([[[40, 40, 2], [80, 80, 2]], [[43, 41, 2], [80, 80, 0]]], np.float32)
    assert tool.hidden(people, 4) == 2


def test_a_file_that_is_absent_is_named(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main([str(tmp_path / 'none.json')]) == 2
    assert f'error: no file {tmp_path / "none.json"}' in capsys.readouterr().err


@pytest.mark.parametrize('name', LIMB_TABLES)
def test_a_skeleton_has_the_mirror_of_each_limb_and_no_limb_twice(name: str) -> None:
    limbs = read_limbs(name)
    assert len({frozenset(limb) for limb in limbs}) == len(limbs)
    index, _ = mirror_limbs(limbs, COCO_FLIP)
    assert sorted(index) == list(range(len(limbs)))
    assert [index[each] for each in index] == list(range(len(limbs)))
    assert {(3, 5), (4, 6)} <= set(limbs)  # from ears to shoulders


def test_an_unknown_table_and_a_limb_without_a_mirror_are_named() -> None:
    with pytest.raises(ValueError, match="limbs must be one of coco, coco_wide, .* got 'cocoo'"):
        read_limbs('cocoo')
    with pytest.raises(ValueError, match=r'limbs must hold the mirror \(0, 2\) of \(0, 1\)'):
        mirror_limbs([(0, 1)], [0, 2, 1])
