"""Tests of tools/data/mine_hard_negatives.py, with a detector that sees one object in any image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from tests._helpers.tools import load_tool

tool = load_tool('data/mine_hard_negatives.py')

CONFIG = """
default_scope = 'mmdet'
data = dict(type='CocoDataset', ann_file='train.json', data_prefix=dict(img='x'), indices=5,
            filter_cfg=dict(filter_empty_gt=True), pipeline=[])
train_dataloader = dict(dataset={})
"""


class SeesOne:
    """Detector of one object, in the middle of each image."""

    classes = ('cat', 'dog')

    def __init__(self, config: Any, checkpoint: Path, device: str) -> None:
        if not checkpoint.is_file():
            raise FileNotFoundError(f'{checkpoint}: there is no such file')

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        box = np.array([[40.0, 40.0, 60.0, 60.0]])
        return dict(bboxes=box, scores=np.array([0.8]), labels=np.array([1]))


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(tool, 'TorchDetector', SeesOne)
    (tmp_path / 'images').mkdir()
    for name in ('a.png', 'b.png'):
        cv2.imwrite(str(tmp_path / 'images' / name), np.full((100, 120, 3), 90, np.uint8))
    (tmp_path / 'x.pth').touch()
    (tmp_path / 'config.py').write_text(CONFIG.format('data'))
    names = ('config.py', 'x.pth', 'images')
    return [*(str(tmp_path / name) for name in names), '--out', str(tmp_path / 'out')]


def annotate(tmp_path: Path, box: list[float]) -> list[str]:
    content = dict(
        images=[dict(id=1, file_name='a.png'), dict(id=2, file_name='b.png')],
        annotations=[dict(id=1, image_id=1, category_id=1, bbox=box, area=100, iscrowd=0)],
        categories=[dict(id=1, name='cat')],
    )
    (tmp_path / 'train.json').write_text(json.dumps(content))
    return ['--annotations', str(tmp_path / 'train.json')]


@pytest.mark.parametrize(
    'dataset',
    ['data', "dict(type='RepeatDataset', times=2, dataset=data)"]
    + ["dict(type='ConcatDataset', datasets=[data, data])"]
    + ["dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', times=2, dataset=data)])"],
)
def test_the_config_gets_what_was_found(
    arguments: list[str], tmp_path: Path, dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'config.py').write_text(CONFIG.format(dataset))
    known = annotate(tmp_path, [80, 10, 20, 80])
    assert tool.main([*arguments, *known, '--crop', '50', '--most', '5']) == 0
    assert '2 images, 2 hard negatives, 2 kept' in capsys.readouterr().out
    out = tmp_path / 'out'
    content = json.loads((out / 'hard_negatives.json').read_text())
    assert len(content['images']) == 2 and not content['annotations']
    assert all((out / image['file_name']).is_file() for image in content['images'])
    assert cv2.imread(str(out / 'hard_negatives.png')).shape[0] > 100
    joined = Config.fromfile(out / 'with_hard_negatives.py').train_dataloader.dataset
    joined = joined.get('dataset', joined)
    assert joined.type == 'ConcatDataset'
    *before, added = joined.datasets
    assert added.ann_file == str(out / 'hard_negatives.json')
    assert added.data_prefix.img == str(out) and not added.filter_cfg.filter_empty_gt
    assert 'indices' not in added and added.type == 'CocoDataset'
    before = [each.get('dataset', each) for each in before]
    assert all(each.ann_file == 'train.json' and each.indices == 5 for each in before)


def test_both_data_sets_open_what_was_found(arguments: list[str], tmp_path: Path) -> None:
    registry = pytest.importorskip('mmdet.registry', reason='MMDetection is absent')
    assert tool.main(arguments) == 0
    joined = Config.fromfile(tmp_path / 'out' / 'with_hard_negatives.py').train_dataloader.dataset
    for kind in ('CocoDataset', 'mmdet_ext.CocoDataset'):
        options = dict(type=kind, metainfo=dict(classes=('cat', 'dog')))
        assert len(registry.DATASETS.build({**joined.datasets[-1], **options})) == 2


def test_without_a_false_alarm_nothing_is_written(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'images' / 'b.png').unlink()
    known = annotate(tmp_path, [50, 50, 20, 20])
    content = json.loads((tmp_path / 'train.json').read_text())
    content['images'].pop()
    (tmp_path / 'train.json').write_text(json.dumps(content))
    assert tool.main([*arguments, *known]) == 0
    printed = capsys.readouterr().out
    assert '0 hard negatives' in printed and '1 detections that touch a known object' in printed
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(options=['--score-thr', '0']), 'score must be above 0'),
        (dict(options=['--annotations', 'absent.json']), 'absent.json'),
        (dict(config="dict(type='VOCDataset', ann_file='a.txt')"), 'no train_dataloader.dataset'),
        (dict(config='dict()'), 'no train_dataloader.dataset'),
        (dict(absent='x.pth'), 'there is no such file'),
        (dict(absent='config.py'), 'no such config'),
    ],
)
def test_bad_input_is_refused_and_nothing_written(
    arguments: list[str],
    tmp_path: Path,
    change: dict[str, Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if 'config' in change:
        (tmp_path / 'config.py').write_text(CONFIG.format(change['config']))
    if 'absent' in change:
        (tmp_path / change['absent']).unlink()
    assert tool.main([*arguments, *change.get('options', [])]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
