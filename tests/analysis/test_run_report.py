"""Tests of the results of a run, against values computed by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mmdet_ext.analysis.run_report import (
    Evaluation,
    ReportError,
    evaluate,
    find_scalars,
    read_scalars,
    summary,
)
from mmdet_ext.plots.runs import class_colours, draw_detections, pick_images, write_report
from mmdet_ext.plots.style import COLOURS
from tests._helpers.tools import load_tool

plot_run = load_tool('analysis/plot_run.py')

# Two images: two cats in the first, a cat and a dog in the second.
BOXES = {1: [('cat', 10, 10), ('cat', 60, 10)], 2: [('cat', 10, 60), ('dog', 60, 60)]}
IDS = {'cat': 3, 'dog': 7, 'bird': 9}


@pytest.fixture
def ann_file(tmp_path: Path) -> Path:
    boxes = [(image, *box) for image, found in BOXES.items() for box in found]
    content = {
        'images': [{'id': n, 'file_name': f'{n}.png', 'width': 120, 'height': 100} for n in BOXES],
        # Ids from 0, as many tools write them; no area, no iscrowd.
        'annotations': [
            {'id': n, 'image_id': image, 'category_id': IDS[name], 'bbox': [x, y, 20, 20]}
            for n, (image, name, x, y) in enumerate(boxes)
        ],
        'categories': [{'id': key, 'name': name} for name, key in IDS.items()],
    }
    path = tmp_path / 'ann.json'
    path.write_text(json.dumps(content))
    return path


def found(image: int, name: str, x: float, y: float, score: float, **more: float) -> dict[str, Any]:
    box = [x, y, more.get('w', 20), more.get('h', 20)]
    return {'image_id': image, 'category_id': IDS[name], 'bbox': box, 'score': score}


def perfect() -> list[dict[str, Any]]:
    return [found(image, *box, 0.9) for image, boxes in BOXES.items() for box in boxes]


def judge(ann_file: Path, entries: list[Any], **options: Any) -> Evaluation:
    path = ann_file.with_name('preds.bbox.json')
    path.write_text(json.dumps(entries))
    return evaluate(ann_file, path, **options)


def test_perfect_predictions_have_an_ap_of_1(ann_file: Path) -> None:
    result = judge(ann_file, perfect())
    assert [(c.name, c.boxes, c.hits, c.false) for c in result.classes] == [
        ('cat', 3, 3, 0),
        ('dog', 1, 1, 0),
    ]
    assert [c.ap for c in result.classes] == pytest.approx([1.0, 1.0])
    assert [result.mean(name) for name in ('ap', 'ap50', 'ap75')] == pytest.approx([1.0] * 3)
    np.testing.assert_allclose(result.precision50, np.ones((2, 101)))
    assert all(box.hit for image in result.images for box in image.truth + image.found)


def test_ap_of_two_boxes_of_three(ann_file: Path) -> None:
    # Precision 1 up to a recall of 2/3, which is 67 of the 101 points 0, 0.01, ..., 1.
    result = judge(ann_file, [perfect()[0], perfect()[1]], classes=['cat'])
    assert result.classes[0].ap == pytest.approx(67 / 101)
    np.testing.assert_allclose(result.precision50[0], np.r_[np.ones(67), np.zeros(34)])
    assert result.classes[0].recall == pytest.approx(2 / 3)
    assert [box.hit for box in result.images[1].truth] == [False]


def test_a_false_detection_with_a_higher_score_halves_the_precision(ann_file: Path) -> None:
    result = judge(ann_file, [found(1, 'dog', 0, 0, 0.9), found(2, 'dog', 60, 60, 0.8)])
    cat, dog = result.classes
    assert (cat.ap, dog.ap) == pytest.approx((0.0, 0.5))
    assert (dog.hits, dog.false, dog.precision) == (1, 1, 0.5)
    assert math.isnan(cat.precision)
    assert result.mean('ap') == pytest.approx(0.25)


def test_a_loose_box_is_a_hit_up_to_its_iou(ann_file: Path) -> None:
    # 20 x 14.4 within 20 x 20: IoU 0.72, above five of the ten thresholds 0.5, ..., 0.95.
    result = judge(ann_file, [found(2, 'dog', 60, 60, 0.8, h=14.4)], classes=['dog'])
    dog = result.classes[0]
    assert dog.ap == pytest.approx(0.5)
    assert (dog.ap50, dog.ap75) == pytest.approx((1.0, 0.0))
    np.testing.assert_array_equal(result.precision75, np.zeros((1, 101)))


def test_threshold_affects_counts_and_images_but_not_ap(ann_file: Path) -> None:
    entries = perfect()
    entries[0]['score'] = 0.29
    result = judge(ann_file, entries, score_thr=0.3)
    assert result.classes[0].ap == pytest.approx(1.0)
    assert (result.classes[0].hits, result.classes[0].boxes) == (2, 3)
    assert [box.score for box in result.images[0].found] == [0.9]
    assert sorted((box.bbox[0], box.hit) for box in result.images[0].truth) == [
        (10, False),
        (60, True),
    ]


def test_no_detections_give_0_and_no_precision(ann_file: Path) -> None:
    result = judge(ann_file, [])
    assert [(c.ap, c.hits, c.false) for c in result.classes] == [(0.0, 0, 0)] * 2
    assert summary(result, None)['classes']['cat']['precision'] is None


def test_crowd_boxes_are_neither_missed_nor_false(ann_file: Path) -> None:
    content = json.loads(ann_file.read_text())
    content['annotations'][3]['iscrowd'] = 1
    content['annotations'].append(
        {'id': 9, 'image_id': 1, 'category_id': IDS['dog'], 'bbox': [0, 60, 9, 9]}
    )
    ann_file.write_text(json.dumps(content))
    dog = judge(ann_file, [found(2, 'dog', 60, 60, 0.8)], classes=['dog']).classes[0]
    assert (dog.boxes, dog.hits, dog.false) == (1, 0, 0)


@pytest.mark.parametrize(
    ('entries', 'options', 'reason'),
    [
        ([found(5, 'cat', 0, 0, 0.5)], {}, 'entry 0: image_id 5 is not among the 2 images'),
        ([{'image_id': 1}], {}, r"entry 0: \['bbox', 'category_id', 'score'\] absent"),
        ([], {'classes': ['cow']}, r"no class \['cow'\]; its classes are \['cat', 'dog', 'bird'\]"),
        ([], {'classes': ['bird']}, r"no box of the classes \['bird'\]"),
    ],
)
def test_bad_predictions_are_named(
    ann_file: Path, entries: list[Any], options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ReportError, match=reason):
        judge(ann_file, entries, **options)


def test_swapped_files_are_refused(ann_file: Path) -> None:
    with pytest.raises(ReportError, match='expected a json list, got dict'):
        evaluate(ann_file, ann_file)


def write_scalars(work_dir: Path, stamp: str, *records: dict[str, Any]) -> Path:
    path = work_dir / stamp / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(json.dumps(record) + '\n' for record in records))
    return path


def logged(step: int, epoch: int | None, loss: float, **more: float) -> dict[str, Any]:
    record = {'lr': 0.1, 'loss': loss, **more, 'iter': step, 'step': step}
    return record if epoch is None else {**record, 'epoch': epoch}


def test_scalars_of_a_run_by_epoch(tmp_path: Path) -> None:
    # 25 iterations per epoch, logged at the 10th and 20th of each.
    path = write_scalars(
        tmp_path,
        '20200101_000000',
        logged(10, 1, 3.0, loss_cls=1.0, loss_bbox=2.0),
        logged(20, 1, 2.0, loss_cls=0.5),
        {'coco/bbox_mAP': 0.25, 'coco/bbox_mAP_50': 0.5, 'step': 1},
        logged(35, 2, 1.0, loss_cls=0.25, loss_bbox=0.75),
        {'coco/bbox_mAP': 0.5, 'coco/bbox_mAP_50': 0.75, 'step': 2},
    )
    curve = read_scalars(path)
    assert curve.iterations == [10, 20, 35]
    assert list(curve.losses) == ['loss', 'loss_bbox', 'loss_cls']
    assert curve.losses['loss'] == [3.0, 2.0, 1.0]
    np.testing.assert_array_equal(curve.losses['loss_bbox'], [2.0, math.nan, 0.75])
    assert curve.val_name == 'coco/bbox_mAP'
    assert curve.val == [(25, 1, 0.25), (50, 2, 0.5)]
    assert summary(None, curve)['loss_by_iteration']['loss_bbox'] == [2.0, None, 0.75]


def test_scalars_of_a_run_by_iteration(tmp_path: Path) -> None:
    path = write_scalars(tmp_path, 'a', logged(50, None, 1.0), {'pascal_voc/mAP': 0.5, 'step': 100})
    assert read_scalars(path).val == [(100, None, 0.5)]


def test_the_newest_folder_with_a_loss_is_found(tmp_path: Path) -> None:
    write_scalars(tmp_path, '20200101_000000', logged(1, 1, 1.0))
    newest = write_scalars(tmp_path, '20200102_000000', logged(1, 1, 1.0))
    write_scalars(tmp_path, '20200103_000000', {'coco/bbox_mAP': 0.5, 'step': 0})
    assert find_scalars(tmp_path) == newest


def test_absent_and_cut_scalars_are_named(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r'scalars.json with a loss \(0 scalars.json found\)'):
        find_scalars(tmp_path)
    path = write_scalars(tmp_path, 'a', logged(1, 1, 1.0))
    path.write_text(path.read_text() + '{"loss": 1')
    with pytest.raises(ReportError, match='line 2: no json object'):
        read_scalars(path)


@pytest.fixture
def image_dir(tmp_path: Path) -> Path:
    folder = tmp_path / 'images'
    folder.mkdir()
    for number in BOXES:
        cv2.imwrite(str(folder / f'{number}.png'), np.full((100, 120, 3), 90, np.uint8))
    return folder


def has_colour(pixels: np.ndarray, colour: str) -> bool:
    bgr = np.array([int(colour[i : i + 2], 16) for i in (5, 3, 1)])
    return bool((np.abs(pixels.astype(int) - bgr).max(axis=-1) <= 2).any())


def test_sheet_draws_each_class_in_its_colour(ann_file: Path, image_dir: Path) -> None:
    result = judge(ann_file, [entry for entry in perfect() if entry['category_id'] == IDS['cat']])
    path = ann_file.with_name('detections.png')
    assert draw_detections(result, image_dir, path) == ['1.png', '2.png']
    sheet = cv2.imread(str(path))
    # Four panels: truth and detections of 1.png and of 2.png, whose dog is missed.
    assert class_colours(result) == {'cat': COLOURS[0], 'dog': COLOURS[1]}
    height, width = sheet.shape[:2]
    rows = sheet[int(0.15 * height) : int(0.85 * height)]
    panels = [rows[:, k * width // 4 : (k + 1) * width // 4] for k in range(4)]
    assert [has_colour(panel, COLOURS[0]) for panel in panels] == [True, True, True, True]
    assert [has_colour(panel, COLOURS[1]) for panel in panels] == [False, False, True, False]
    assert not list(path.parent.glob('*.part'))


def test_an_unreadable_image_is_named_and_no_sheet_written(ann_file: Path, image_dir: Path) -> None:
    (image_dir / '2.png').write_bytes(b'no image')
    path = ann_file.with_name('detections.png')
    with pytest.raises(ReportError, match='2.png: the image is absent or cannot be read'):
        draw_detections(judge(ann_file, perfect()), image_dir, path)
    assert not path.exists()


def test_the_choice_of_images_does_not_depend_on_the_detections(ann_file: Path) -> None:
    result = judge(ann_file, perfect())
    assert [image.file_name for image in pick_images(result, 1)] == ['2.png']  # holds the one dog
    assert [image.file_name for image in pick_images(result, 5)] == ['1.png', '2.png']
    missed = judge(ann_file, [])
    assert [image.file_name for image in pick_images(missed, 1)] == ['2.png']


def test_report_json_holds_the_numbers_that_are_drawn(
    ann_file: Path, image_dir: Path, tmp_path: Path
) -> None:
    curve = read_scalars(write_scalars(tmp_path, 'a', logged(5, 1, 3.0), logged(10, 1, 2.0)))
    out = tmp_path / 'out'
    files = write_report(out, curve, judge(ann_file, perfect()), image_dir, {'config': 'x.py'})
    assert [path.name for path in files] == [
        'detections.png',
        'loss_curve.png',
        'precision_recall.png',
        'report.json',
    ]
    report = json.loads((out / 'report.json').read_text())
    assert (report['config'], report['mAP'], report['pictures']) == ('x.py', 1.0, 2)
    assert report['pictures_drawn'] == ['1.png', '2.png']
    assert report['loss_by_iteration'] == {'iteration': [5, 10], 'loss': [3.0, 2.0]}
    assert report['precision_by_recall']['IoU 0.5']['dog'] == [1.0] * 101
    for path in files[:3]:
        assert cv2.imread(str(path)).std() > 10, f'{path} is blank'


def test_plot_run_draws_the_loss_and_with_predictions_the_detections(
    ann_file: Path, image_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scalars(tmp_path, 'a', logged(5, 1, 3.0), logged(10, 1, 2.0))
    judge(ann_file, perfect()[:2])
    assert plot_run.main([str(tmp_path)]) == 0
    assert json.loads((tmp_path / 'report.json').read_text()).keys() == {
        'loss_by_iteration',
        'validation',
    }
    files = ['--predictions', str(tmp_path / 'preds.bbox.json'), '--annotations', str(ann_file)]
    assert plot_run.main([str(tmp_path), *files]) == 2
    assert 'error: --predictions, --annotations and --images go together' in capsys.readouterr().err
    assert plot_run.main([str(tmp_path), *files, '--images', str(image_dir)]) == 0
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['classes']['cat']['AP'] == pytest.approx(67 / 101, abs=1e-6)


def test_plot_run_refuses_a_folder_without_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plot_run.main([str(tmp_path / 'nowhere')]) == 2
    assert 'nowhere' in capsys.readouterr().err
