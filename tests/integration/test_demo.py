"""The demo: what it makes of a user's folder, and one tiny run from end to end."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from mmengine.config import Config

from mmdet_ext.data.coco.folders import LayoutError
from mmdet_ext.utils import mim
from tests._helpers.tools import load_tool

demo = load_tool('train/demo.py')

Edit = Callable[[dict[str, Any]], Any]

REPO = Path(__file__).resolve().parents[2]


def coco(root: Path, split: str) -> dict[str, Any]:
    return dict(json.loads((root / 'annotations' / f'instances_{split}.json').read_text()))


def prepared(folder: Path, work_dir: Path) -> Any:
    data = demo.read_data(folder, work_dir / 'data', seed=0)
    return Config.fromfile(demo.write_config(data, work_dir, seed=0))


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
    # Two iterations; without a threshold the hardly trained detector finds something.
    options = [
        'train_cfg.max_epochs=1',
        'train_dataloader.batch_size=4',
        'model.test_cfg.score_thr=0',
    ]
    arguments = ['--data', str(shapes_root), '--work-dir', str(tmp_path / 'run')]
    assert demo.main([*arguments, '--cfg-options', *options]) == 0
    printed = capfd.readouterr().out
    assert f'$ mim train mmdet {tmp_path}/run/data/config.py --work-dir' in printed
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
        picture = cv2.imread(str(tmp_path / 'run' / f'{name}.png'))
        assert picture.std() > 10, f'{name}.png is blank'


def check_against_the_log(report: dict[str, Any], work_dir: Path) -> None:
    """The figures of the report are those that CocoMetric logged in the test."""
    newest = max(path for path in work_dir.iterdir() if path.name[:2] == '20')
    logged = json.loads((newest / f'{newest.name}.json').read_text().splitlines()[-1])
    for ours, theirs in (('mAP', ''), ('AP50', '_50'), ('AP75', '_75')):
        # It rounds to three digits.
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
    monkeypatch.setattr(demo, 'REPO', tmp_path)
    monkeypatch.setattr(demo, 'SHAPES_TRAIN', 3)
    monkeypatch.setattr(demo, 'SHAPES_VAL', 2)
    assert demo.shapes_config() == demo.CONFIG
    dataset = Config.fromfile(demo.CONFIG).train_dataloader.dataset
    ann_file = tmp_path / dataset.data_root / dataset.ann_file
    content = json.loads(ann_file.read_text())
    assert len(content['images']) == 3
    names = [entry['name'] for entry in content['categories']]
    assert names == list(dataset.metainfo.classes)
    pictures = tmp_path / dataset.data_root / dataset.data_prefix.img
    assert {path.name for path in pictures.iterdir()} == {
        image['file_name'] for image in content['images']
    }
    written = ann_file.stat().st_mtime_ns
    assert 'making 3 + 2 pictures' in capsys.readouterr().out
    demo.shapes_config()
    assert 'made before' in capsys.readouterr().out
    assert ann_file.stat().st_mtime_ns == written


def test_work_dir_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    # As many pictures seen as the demo's own set gives, and the schedule stretched with it.
    assert config.train_cfg.max_epochs * 8 == base.train_cfg.max_epochs * demo.SHAPES_TRAIN
    factor = config.train_cfg.max_epochs / base.train_cfg.max_epochs
    for ours, theirs in zip(config.param_scheduler, base.param_scheduler, strict=True):
        by_epoch = theirs.get('by_epoch', True)
        assert ours.end == pytest.approx(theirs.end * (factor if by_epoch else 1))
    validations = math.ceil(config.train_cfg.max_epochs / config.train_cfg.val_interval)
    old = base.train_cfg.max_epochs // base.train_cfg.get('val_interval', 1)
    assert 1 <= (validations + 1) * 4 <= (old + 1) * demo.SHAPES_VAL


def test_large_set_is_sampled(tmp_path: Path) -> None:
    picture = {'file_name': 'a.jpg', 'width': 9, 'height': 9}
    content = {
        'images': [{'id': n, **picture} for n in range(5000)],
        'annotations': [
            {'id': n, 'image_id': n, 'category_id': 1, 'bbox': [0, 0, 5, 5]} for n in range(5000)
        ],
        'categories': [{'id': 1, 'name': 'cat'}],
    }
    subset = demo.Subset(content, tmp_path)
    config = Config.fromfile(
        demo.write_config(demo.OwnData(subset, subset, ('cat',)), tmp_path, seed=0)
    )
    base = Config.fromfile(demo.CONFIG)
    written = json.loads((tmp_path / 'data' / 'train.json').read_text())
    assert config.train_cfg.max_epochs == 1
    assert len(written['images']) == base.train_cfg.max_epochs * demo.SHAPES_TRAIN
    kept = [image['id'] for image in written['images']]
    assert [box['image_id'] for box in written['annotations']] == kept
    assert kept != list(range(len(kept))), 'the first pictures are no sample'
    looked = len(json.loads((tmp_path / 'data' / 'test.json').read_text())['images'])
    assert 2 * looked <= (base.train_cfg.max_epochs + 1) * demo.SHAPES_VAL


def test_one_set_alone_is_split_by_the_seed(shapes_root: Path, tmp_path: Path) -> None:
    root = tmp_path / 'one'
    shutil.copytree(shapes_root / 'images' / 'train', root / 'images')
    content = coco(shapes_root, 'train')
    (root / 'all.json').write_text(json.dumps(content))
    halves = [demo.read_data(root, tmp_path, seed) for seed in (0, 0, 1)]
    ids = [[image['id'] for image in half.test.coco['images']] for half in halves]
    trained = [image['id'] for image in halves[0].train.coco['images']]
    assert len(ids[0]) == math.ceil(0.2 * 8)
    assert sorted(trained + ids[0]) == [image['id'] for image in content['images']]
    assert ids[0] == ids[1] != ids[2]
    assert {box['image_id'] for box in halves[0].test.coco['annotations']} <= set(ids[0])


def test_bad_pictures_and_unused_classes_are_told(
    shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / 'own'
    shutil.copytree(shapes_root, root)
    content = coco(root, 'train')
    content['categories'].append({'id': 77, 'name': 'hexagon'})
    (root / 'annotations' / 'instances_train.json').write_text(json.dumps(content))
    pictures = [root / 'images' / 'train' / image['file_name'] for image in content['images']]
    pictures[0].unlink()
    pictures[1].write_bytes(pictures[1].read_bytes()[:500])
    data = demo.read_data(root, tmp_path / 'out', seed=0)
    assert [i['file_name'] for i in data.train.coco['images']] == [p.name for p in pictures[2:]]
    assert 'hexagon' not in data.classes
    printed = capsys.readouterr().out
    assert f'left out: {pictures[0]}: missing' in printed
    assert '6 pictures, 2 left out as unreadable' in printed
    assert "without boxes: ['hexagon']" in printed


def test_ids_are_made_fit_for_coco_evaluation(shapes_root: Path, tmp_path: Path) -> None:
    root = tmp_path / 'own'
    shutil.copytree(shapes_root, root)
    content = coco(root, 'val')
    for number, box in enumerate(content['annotations']):
        box['id'] = number
        del box['area']
    (root / 'annotations' / 'instances_val.json').write_text(json.dumps(content))
    boxes = demo.read_data(root, tmp_path / 'out', seed=0).test.coco['annotations']
    assert [box['id'] for box in boxes] == list(range(1, len(boxes) + 1))
    assert [box['area'] for box in boxes] == [box['bbox'][2] * box['bbox'][3] for box in boxes]


def spoiled(shapes_root: Path, tmp_path: Path, split: str, change: Edit) -> Path:
    """A copy of the shapes with one annotation file changed."""
    root = tmp_path / 'own'
    if not root.exists():
        shutil.copytree(shapes_root, root)
    content = coco(root, split)
    change(content)
    (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))
    return root


def named_boxes(content: dict[str, Any]) -> list[tuple[int, list[float], str]]:
    names = {entry['id']: entry['name'] for entry in content['categories']}
    return [(b['image_id'], b['bbox'], names[b['category_id']]) for b in content['annotations']]


def built(config: Any, which: str) -> tuple[Any, list[tuple[int, list[float], str]]]:
    """The data set that a run gets, and its boxes by their labels' names."""
    from mmdet.registry import DATASETS

    options = config[f'{which}_dataloader'].dataset
    dataset = DATASETS.build({**options, 'pipeline': [], 'test_mode': True})
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    return dataset, [
        (info['img_id'], box['bbox'], dataset.metainfo['classes'][box['bbox_label']])
        for info in infos
        for box in info['instances']
    ]


def corners(boxes: list[tuple[int, list[float], str]]) -> list[tuple[int, list[float], str]]:
    return [(i, [x, y, x + w, y + h], name) for i, (x, y, w, h), name in boxes]


def test_categories_in_another_order_in_the_test_set(shapes_root: Path, tmp_path: Path) -> None:
    def reverse(content: dict[str, Any]) -> None:
        old = {entry['id']: entry['name'] for entry in content['categories']}
        new = {name: 10 + number for number, name in enumerate(reversed(old.values()))}
        content['categories'] = [{'id': number, 'name': name} for name, number in new.items()]
        for box in content['annotations']:
            box['category_id'] = new[old[box['category_id']]]

    config = prepared(spoiled(shapes_root, tmp_path, 'val', reverse), tmp_path / 'run')
    for which, split in (('train', 'train'), ('test', 'val')):
        dataset, boxes = built(config, which)
        assert dataset.metainfo['classes'] == ('circle', 'square', 'triangle')
        assert boxes == corners(named_boxes(coco(shapes_root, split)))
        written = json.loads((tmp_path / 'run' / 'data' / f'{which}.json').read_text())
        assert [entry['id'] for entry in written['categories']] == [1, 2, 3]


def test_two_categories_of_one_name_are_taken_as_one(
    shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def repeat(content: dict[str, Any]) -> None:
        content['categories'].insert(0, {'id': 0, 'name': 'square', 'supercategory': 'none'})
        content['annotations'][0]['category_id'] = 0

    truth = coco(shapes_root, 'train')
    truth['annotations'][0]['category_id'] = 2
    config = prepared(spoiled(shapes_root, tmp_path, 'train', repeat), tmp_path / 'run')
    dataset, boxes = built(config, 'train')
    assert dataset.metainfo['classes'] == ('square', 'circle', 'triangle')
    assert boxes == corners(named_boxes(truth))
    message = "instances_train.json: categories [0, 2], all named 'square', are taken as one"
    assert message in capsys.readouterr().out


def test_annotations_that_cannot_be_used_are_left_out_and_counted(
    shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(content: dict[str, Any]) -> None:
        changes = [
            {'category_id': 99},
            {'bbox': None},
            {'bbox': []},
            {'bbox': ['1'] * 4},
            {'image_id': 99},
            {'area': None, 'iscrowd': None},
        ]
        for box, change in zip(content['annotations'], changes, strict=False):
            box.update(change)

    root = spoiled(shapes_root, tmp_path, 'train', spoil)
    config = prepared(root, tmp_path / 'run')
    assert built(config, 'train')[1] == corners(named_boxes(coco(shapes_root, 'train'))[5:])
    printed = capsys.readouterr().out
    assert (
        'instances_train.json: annotations left out: 1 of an unknown category_id (annotations[0] '
        'has category_id 99); 3 without a usable bbox (annotations[1] has bbox None, '
        "annotations[2] has bbox [], annotations[3] has bbox ['1', '1', '1', '1']); "
        '1 of an unknown image_id (annotations[4] has image_id 99)\n'
    ) in printed
    (first, *_) = json.loads((tmp_path / 'run' / 'data' / 'train.json').read_text())['annotations']
    assert first['area'] == first['bbox'][2] * first['bbox'][3]
    assert first['iscrowd'] == 0


def test_boxes_of_a_class_that_is_not_trained_are_counted(
    shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def add(content: dict[str, Any]) -> None:
        content['categories'].append({'id': 77, 'name': 'hexagon'})
        for box in content['annotations'][:3]:
            box['category_id'] = 77

    config = prepared(spoiled(shapes_root, tmp_path, 'val', add), tmp_path / 'run')
    assert "test set: boxes of classes left out: {'hexagon': 3}" in capsys.readouterr().out
    assert built(config, 'test')[1] == corners(named_boxes(coco(shapes_root, 'val'))[3:])


@pytest.mark.parametrize(
    ('message', 'change'),
    [
        ('images[2] has no file_name', lambda c: c['images'][2].pop('file_name')),
        ('images[2] has no id', lambda c: c['images'][2].pop('id')),
        ('images[0] has width None', lambda c: c['images'][0].update(width=None)),
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
    root = spoiled(shapes_root, tmp_path, 'val', change)
    assert demo.main(['--data', str(root), '--work-dir', str(tmp_path / 'run')]) == 2
    found = capsys.readouterr().err
    assert found.startswith(f'error: {root}/annotations/instances_val.json: {message}')
    assert 'Traceback' not in found


def test_no_boxes(shapes_root: Path, tmp_path: Path) -> None:
    root = tmp_path / 'own'
    shutil.copytree(shapes_root, root)
    content = coco(root, 'val')
    content['annotations'] = []
    (root / 'annotations' / 'instances_val.json').write_text(json.dumps(content))
    with pytest.raises(LayoutError, match='no boxes in the test set'):
        demo.read_data(root, tmp_path / 'out', seed=0)


@pytest.mark.subprocess
def test_wrong_folder_is_refused_before_anything_heavy(tmp_path: Path) -> None:
    (tmp_path / 'notes.txt').touch()
    code = (
        'import sys; from tools import demo; '
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
    assert message.startswith('error: `mim train mmdet ')
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
    seen = Config.fromfile(demo.CONFIG).train_cfg.max_epochs * demo.SHAPES_TRAIN
    assert config.train_cfg.max_epochs == round(seen / 205)
    assert sorted(root.rglob('*')) == before
