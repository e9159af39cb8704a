"""Tests of the detection demo: one tiny run from end to end, its config, and its errors."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest
from mmengine.config import Config

from mmdet_ext.studies import detection_demo
from mmdet_ext.studies.detection_demo import SHAPES_TRAIN, SHAPES_VAL
from mmdet_ext.utils import mim
from mmdet_ext.utils.mim import mim_name
from tests.integration.demo_data import Edit, coco, demo, edited, prepared

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.subprocess
def test_end_to_end(
    shapes_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv('PYTHONPATH', str(REPO))
    before = sorted(shapes_root.rglob('*'))
    # Two iterations; without a score threshold even this detector has detections.
    options = [
        'train_cfg.max_epochs=1',
        'train_dataloader.batch_size=4',
        'model.test_cfg.score_thr=0',
    ]
    arguments = ['--data', str(shapes_root), '--work-dir', str(tmp_path / 'run')]
    assert demo.main([*arguments, '--cfg-options', *options]) == 0
    printed = capfd.readouterr().out
    assert f'$ mim train {mim_name("mmdet")} {tmp_path}/run/data/config.py --work-dir' in printed
    assert f'--checkpoint {tmp_path}/run/epoch_1.pth' in printed
    assert 'Average Precision' in printed
    assert sorted(shapes_root.rglob('*')) == before, "the user's folder was written into"
    report = json.loads((tmp_path / 'run' / 'report.json').read_text())
    check_against_the_log(report, tmp_path / 'run')
    check_against_the_truth(report, coco(shapes_root, 'val'))
    losses = report['loss_by_iteration']
    assert losses['iteration'] == [2]
    assert [entry['iteration'] for entry in report['validation']] == [2]
    parts = [losses[key] for key in losses if key.startswith('loss_')]
    assert [sum(values) for values in zip(*parts, strict=True)] == pytest.approx(
        losses['loss'], abs=1e-4
    )
    assert all(0 < value < 100 for value in losses['loss'])
    for name in ('detections', 'loss_curve', 'precision_recall'):
        figure = cv2.imread(str(tmp_path / 'run' / f'{name}.png'))
        assert figure.std() > 10, f'{name}.png is blank'


def check_against_the_log(report: dict[str, Any], work_dir: Path) -> None:
    """Compare the metrics of the report with those that CocoMetric logged in the test."""
    newest = max(path for path in work_dir.iterdir() if path.name[:2] == '20')
    logged = json.loads((newest / f'{newest.name}.json').read_text().splitlines()[-1])
    for ours, theirs in (('mAP', ''), ('AP50', '_50'), ('AP75', '_75')):
        # CocoMetric rounds to three digits.
        assert report[ours] == pytest.approx(logged[f'coco/bbox_mAP{theirs}'], abs=6e-4)


def check_against_the_truth(report: dict[str, Any], truth: dict[str, Any]) -> None:
    names = {entry['id']: entry['name'] for entry in truth['categories']}
    boxes = [names[box['category_id']] for box in truth['annotations']]
    assert report['pictures'] == len(truth['images'])
    counted = {name: entry['boxes'] for name, entry in report['classes'].items()}
    assert counted == {name: boxes.count(name) for name in counted}
    assert sum(counted.values()) == len(boxes)


def test_shapes_are_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(detection_demo, 'SHAPES_TRAIN', 3)
    monkeypatch.setattr(detection_demo, 'SHAPES_VAL', 2)
    detection_demo.provide_shapes(demo.CONFIG, tmp_path)
    dataset = Config.fromfile(demo.CONFIG).train_dataloader.dataset
    ann_file = tmp_path / dataset.data_root / dataset.ann_file
    content = json.loads(ann_file.read_text())
    assert len(content['images']) == 3
    names = [entry['name'] for entry in content['categories']]
    assert names == list(dataset.metainfo.classes)
    image_dir = tmp_path / dataset.data_root / dataset.data_prefix.img
    assert {path.name for path in image_dir.iterdir()} == {
        image['file_name'] for image in content['images']
    }
    written = ann_file.stat().st_mtime_ns
    assert 'making 3 + 2 images' in capsys.readouterr().out
    detection_demo.provide_shapes(demo.CONFIG, tmp_path)
    assert 'made before' in capsys.readouterr().out
    assert ann_file.stat().st_mtime_ns == written


def test_work_dir_that_cannot_be_made_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'file').touch()
    assert demo.main(['--work-dir', str(tmp_path / 'file' / 'run')]) == 2
    assert f'{tmp_path}/file' in capsys.readouterr().err


def test_config_of_own_data(shapes_root: Path, tmp_path: Path) -> None:
    config = prepared(shapes_root, tmp_path)
    base = Config.fromfile(demo.CONFIG)
    names = [entry['name'] for entry in coco(shapes_root, 'train')['categories']]
    for which, split, count in (('train', 'train', 8), ('val', 'val', 4), ('test', 'val', 4)):
        dataset = config[f'{which}_dataloader'].dataset
        written = json.loads(Path(dataset.data_root, dataset.ann_file).read_text())
        assert len(written['images']) == count
        assert Path(dataset.data_prefix.img) == shapes_root / 'images' / split
        assert set(dataset.metainfo.classes) <= set(names)
    assert config.test_evaluator.ann_file == str(tmp_path / 'data' / 'test.json')
    classes = config.train_dataloader.dataset.metainfo.classes
    assert config.model.bbox_head.num_classes == len(classes)
    # The run sees as many images as with the demo's own set, and the schedule is stretched.
    assert config.train_cfg.max_epochs * 8 == base.train_cfg.max_epochs * SHAPES_TRAIN
    factor = config.train_cfg.max_epochs / base.train_cfg.max_epochs
    for ours, theirs in zip(config.param_scheduler, base.param_scheduler, strict=True):
        by_epoch = theirs.get('by_epoch', True)
        assert ours.end == pytest.approx(theirs.end * (factor if by_epoch else 1))
    validations = math.ceil(config.train_cfg.max_epochs / config.train_cfg.val_interval)
    old = base.train_cfg.max_epochs // base.train_cfg.get('val_interval', 1)
    assert 1 <= (validations + 1) * 4 <= (old + 1) * SHAPES_VAL


@pytest.mark.parametrize(
    ('message', 'change'),
    [
        ('images[2] has no file_name', lambda c: c['images'][2].pop('file_name')),
        ('images[2] has no id', lambda c: c['images'][2].pop('id')),
        ('images[0] has file_name 3', lambda c: c['images'][0].update(file_name=3)),
        ("1 ids stand more than once in 'images': 1", lambda c: c['images'][2].update(id=1)),
        ('categories[1] has no name', lambda c: c['categories'][1].pop('name')),
        ('categories[1] has no id', lambda c: c['categories'][1].pop('id')),
    ],
)
def test_record_that_stops_the_demo_is_named(
    shapes_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    message: str,
    change: Edit,
) -> None:
    root = edited(shapes_root, tmp_path, 'val', change)
    assert demo.main(['--data', str(root), '--work-dir', str(tmp_path / 'run')]) == 2
    found = capsys.readouterr().err
    assert found.startswith(f'error: {root}/annotations/instances_val.json: {message}')
    assert 'Traceback' not in found


@pytest.mark.subprocess
def test_wrong_folder_is_refused_before_heavy_imports(tmp_path: Path) -> None:
    (tmp_path / 'notes.txt').touch()
    code = (
        'import sys; from tests._helpers.tools import load_tool; '
        'demo = load_tool("train/demo.py"); '
        f'code = demo.main(["--data", {str(tmp_path)!r}]); '
        'print(code, {"torch", "mmengine", "mmdet"} & set(sys.modules))'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == '2 set()'
    assert done.stderr.startswith('error: the data folder')
    assert 'Found: notes.txt' in done.stderr
    assert 'instances_train.json' in done.stderr
    assert 'JPEGImages' in done.stderr


def test_failed_command_is_named(
    shapes_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failed = subprocess.CompletedProcess([], 3)
    monkeypatch.setattr(mim.subprocess, 'run', lambda *args, **kwargs: failed)
    assert demo.main(['--data', str(shapes_root), '--work-dir', str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert message.startswith(f'error: `mim train {mim_name("mmdet")} ')
    assert 'ended with exit code 3' in message


def test_bccd(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / 'bccd'
    before = sorted(root.rglob('*'))
    config = prepared(root, tmp_path)
    dataset = config.train_dataloader.dataset
    counts = [
        len(json.loads((tmp_path / 'data' / f'{split}.json').read_text())['images'])
        for split in ('train', 'test')
    ]
    assert counts == [205, 72]
    assert dataset.metainfo.classes == ('Platelets', 'RBC', 'WBC')
    seen = Config.fromfile(demo.CONFIG).train_cfg.max_epochs * SHAPES_TRAIN
    assert config.train_cfg.max_epochs == round(seen / 205)
    assert sorted(root.rglob('*')) == before
