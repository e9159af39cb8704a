"""Tests of the segmentation metric: mmseg's figures, what is logged and written, bad samples."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor

from mmdet_ext.functional.scoring.confusion import confusion_matrix
from mmdet_ext.registry import METRICS
from mmdet_ext.segmentation.metrics import SegmentationMetric
from mmdet_ext.segmentation.metrics import segmentation as module
from tests._helpers.options import assert_misspelt_options_are_named
from tests._helpers.two_ranks import run_on_two_ranks

CLASSES = ('road', 'wall', 'tree', 'sky', 'bus', 'dog', 'cup')
ALL = ['mIoU', 'mDice', 'mFscore']


def sample(predicted: Tensor, target: Tensor, number: int = 0) -> dict[str, Any]:
    """Make a data sample as an evaluator passes it."""
    return {
        'pred_sem_seg': {'data': predicted[None]},
        'gt_sem_seg': {'data': target[None]},
        'img_path': f'images/{number}.jpg',
        'reduce_zero_label': False,
    }


def samples(
    seed: int = 0, count: int = 5, drawn: tuple[int, ...] = tuple(range(7))
) -> list[dict[str, Any]]:
    """Make data samples whose ground truth has the drawn classes and 255, of several sizes."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number in range(count):
        size = (20 + number, 31)
        place = torch.randint(len(drawn), size, generator=generator)
        target = torch.tensor(drawn)[place]
        other = torch.tensor(drawn)[torch.randint(len(drawn), size, generator=generator)]
        predicted = target.where(torch.rand(size, generator=generator) < 0.7, other)
        target[torch.rand(size, generator=generator) < 0.1] = 255
        made.append(sample(predicted, target, number))
    return made


def evaluate(
    metric: Any, data: list[dict[str, Any]], classes: tuple[str, ...] = CLASSES
) -> dict[str, float]:
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = {'classes': classes}
    for start in range(0, len(data), 2):
        evaluator.process(data[start : start + 2])
    return evaluator.evaluate(len(data))


def quiet(**options: Any) -> Any:
    return SegmentationMetric(**{'out_dir': None, **options})


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the messages that the metric logs."""
    said: list[str] = []
    monkeypatch.setattr(SegmentationMetric, '_say', lambda self, text, *_: said.append(text))
    return said


@pytest.mark.parametrize('nan_to_num', [None, 0, 1])
@pytest.mark.parametrize('beta', [1, 2])
@pytest.mark.parametrize(
    ('drawn', 'ignore_index'),
    [(tuple(range(7)), 255), ((0, 2, 3), 255), ((1, 2, 5, 6), 5), ((4,), 255)],
    ids=['all classes', 'absent classes', 'a class ignored', 'one class'],
)
def test_figures_are_those_of_mmseg(
    drawn: tuple[int, ...], ignore_index: int, beta: int, nan_to_num: int | None
) -> None:
    mmseg = pytest.importorskip('mmseg.evaluation', reason='mmsegmentation is not installed')
    options: dict[str, Any] = dict(
        ignore_index=ignore_index, iou_metrics=ALL, beta=beta, nan_to_num=nan_to_num
    )
    data = samples(3, drawn=drawn)
    if ignore_index != 255:
        for one in data:
            labels = one['gt_sem_seg']['data']
            labels[labels == 255] = ignore_index
    expected = evaluate(mmseg.IoUMetric(**options), data)
    found = evaluate(quiet(**options), data)
    assert set(found) - set(expected) == {'fwIoU'}
    assert len(expected) == 7
    del found['fwIoU']
    # Of two decimals, the last may differ: mmseg computes in float32.
    assert found == pytest.approx(expected, abs=0.0101, nan_ok=True)


def test_figures_of_a_class_predicted_where_there_is_none_are_those_of_mmseg() -> None:
    mmseg = pytest.importorskip('mmseg.evaluation', reason='mmsegmentation is not installed')
    data = samples(1, drawn=(0, 2, 3))
    data[0]['pred_sem_seg']['data'][0, :5] = 1
    data[1]['pred_sem_seg']['data'][data[1]['gt_sem_seg']['data'] == 2] = 0
    for one in data:  # class 3 is never found
        labels = one['pred_sem_seg']['data']
        labels[labels == 3] = 5
    expected = evaluate(mmseg.IoUMetric(iou_metrics=ALL), data)
    found = evaluate(quiet(iou_metrics=ALL), data)
    assert found == pytest.approx({**expected, 'fwIoU': found['fwIoU']}, abs=0.0101)
    assert found['mDice'] < found['mFscore']


@pytest.mark.slow
def test_mmseg_miscounts_a_large_image_on_one_thread() -> None:
    mmseg = pytest.importorskip('mmseg.evaluation', reason='mmsegmentation is not installed')
    threads = torch.get_num_threads()
    target = torch.zeros(1, 4500, 4500, dtype=torch.uint8)
    target[:, :450] = 1
    predicted = torch.zeros_like(target)
    data = [sample(predicted[0], target[0])]
    try:
        torch.set_num_threads(1)
        theirs = evaluate(mmseg.IoUMetric(), data, CLASSES[:2])
    finally:
        torch.set_num_threads(threads)
    exact = 90.0
    assert evaluate(quiet(), data, CLASSES[:2])['aAcc'] == exact
    assert theirs['aAcc'] != pytest.approx(exact, abs=0.1)


def test_mmseg_counts_predictions_of_pixels_whose_label_is_no_class() -> None:
    mmseg = pytest.importorskip('mmseg.evaluation', reason='mmsegmentation is not installed')
    target = torch.tensor([[0, 0, 1, 1]])
    predicted = torch.tensor([[0, 0, 1, 1]])
    assert evaluate(mmseg.IoUMetric(), [sample(predicted, target)], CLASSES[:2])['mIoU'] == 100
    target[0, 3] = 7  # the label is left out, its prediction counts against class 1
    assert evaluate(mmseg.IoUMetric(), [sample(predicted, target)], CLASSES[:2])['mIoU'] == 75
    with pytest.raises(ValueError, match=r'target must be in \[0, 2\) or 255 \(ignored\), got 7'):
        evaluate(quiet(), [sample(predicted, target)], CLASSES[:2])


def test_figures_by_hand() -> None:
    target = torch.tensor([[0, 0, 0, 0], [1, 1, 255, 255]])
    predicted = torch.tensor([[0, 0, 0, 1], [1, 1, 1, 0]])
    found = evaluate(quiet(iou_metrics=ALL), [sample(predicted, target)], CLASSES[:2])
    assert found == {
        'aAcc': 83.33,
        'fwIoU': 72.22,  # 2/3 of 3/4 and 1/3 of 2/3
        'mIoU': 70.83,
        'mAcc': 87.5,
        'mDice': 82.86,  # 6/7 and 4/5
        'mFscore': 82.86,
        'mPrecision': 83.33,
        'mRecall': 87.5,
    }


def test_the_figures_asked_for_are_reported_also_per_class() -> None:
    data = samples(drawn=(0, 1))
    assert list(evaluate(quiet(), data)) == ['aAcc', 'fwIoU', 'mIoU', 'mAcc']
    assert list(evaluate(quiet(iou_metrics='mDice'), data)) == ['aAcc', 'fwIoU', 'mDice', 'mAcc']
    found = evaluate(quiet(classwise=True), data, ('road', 'wall', 'tree'))
    assert list(found)[4:] == [
        f'{key}_{name}' for name in ('road', 'wall', 'tree') for key in ('IoU', 'Acc')
    ]
    both = (found['IoU_road'] + found['IoU_wall']) / 2
    assert found['mIoU'] == pytest.approx(both, abs=0.01) and math.isnan(found['IoU_tree'])
    assert 'mine/mIoU' in evaluate(quiet(prefix='mine'), data)


def test_order_and_batches_change_nothing_and_repeats_of_ranks_count_once() -> None:
    data = samples()
    expected = evaluate(quiet(), data)
    assert evaluate(quiet(), data[::-1]) == expected
    evaluator = Evaluator(quiet())
    evaluator.dataset_meta = {'classes': CLASSES}
    evaluator.process([*data, *data[:2]])  # as ranks repeat samples to have equally many
    assert evaluator.evaluate(len(data)) == expected


def test_labels_of_binary_heads_of_mmdet_of_numpy_and_of_mmengine_count() -> None:
    data = samples(drawn=(0, 1))
    expected = evaluate(quiet(), data, CLASSES[:2])
    floats = [
        {**one, 'pred_sem_seg': {'data': one['pred_sem_seg']['data'].float()}} for one in data
    ]
    assert evaluate(quiet(), floats, CLASSES[:2]) == expected
    boolean = [{**one, 'pred_sem_seg': {'data': one['pred_sem_seg']['data'] == 1}} for one in data]
    assert evaluate(quiet(), boolean, CLASSES[:2]) == expected
    named = [
        {key: {'sem_seg': one[key]['data']} for key in ('pred_sem_seg', 'gt_sem_seg')}
        for one in data
    ]
    assert evaluate(quiet(), named, CLASSES[:2]) == expected
    arrays = [
        {**one, 'gt_sem_seg': {'data': one['gt_sem_seg']['data'][0].byte().numpy()}} for one in data
    ]
    assert evaluate(quiet(), arrays, CLASSES[:2]) == expected
    elements = []
    for one in data:
        element = BaseDataElement(metainfo={'img_path': one['img_path']})
        for key in ('pred_sem_seg', 'gt_sem_seg'):
            element.set_data({key: PixelData(data=one[key]['data'])})
        elements.append(element)
    assert evaluate(quiet(), elements, CLASSES[:2]) == expected


def test_classes_that_are_left_out_of_a_mean_are_named(logged: list[str]) -> None:
    target = torch.tensor([[0, 0, 1, 1]])
    predicted = torch.tensor([[0, 2, 0, 2]])
    found = evaluate(quiet(iou_metrics=ALL), [sample(predicted, target)], CLASSES[:4])
    assert logged[:3] == [
        'absent from ground truth and predictions: sky; left out of mIoU, mAcc, mDice, mFscore, '
        'mPrecision, mRecall',
        'absent from the ground truth, but predicted (IoU 0): tree; left out of mAcc, mFscore, '
        'mRecall',
        'never right: wall, left out of mFscore as by mmseg, which is higher for it; mDice counts '
        'them as 0',
    ]
    assert found['mIoU'] == pytest.approx(100 / 9, abs=0.01)
    logged.clear()
    evaluate(quiet(nan_to_num=0), [sample(predicted, target)], CLASSES[:4])
    assert logged[0] == 'absent from ground truth and predictions: sky; nan_to_num in mIoU, mAcc'


def test_the_table_per_class_is_logged(logged: list[str]) -> None:
    target = torch.tensor([[0, 0, 0, 1]])
    predicted = torch.tensor([[0, 0, 1, 1]])
    evaluate(quiet(), [sample(predicted, target)], ('road', 'wall', 'tree'))
    assert logged[-1].splitlines() == [
        'figures per class',
        'class        IoU        Acc      share',
        'road       66.67      66.67      75.00',
        'wall       50.00     100.00      25.00',
        'tree           -          -       0.00',
    ]


def test_files_hold_the_exact_counts_and_the_figure(tmp_path: Path) -> None:
    data = samples(2, drawn=(0, 1, 4))
    found = evaluate(SegmentationMetric(out_dir=str(tmp_path / 'out')), data)
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'confusion_matrix.png',
        'segmentation.json',
    ]
    content = json.loads((tmp_path / 'out' / 'segmentation.json').read_text())
    expected = sum(
        confusion_matrix(one['pred_sem_seg']['data'], one['gt_sem_seg']['data'], 7) for one in data
    )
    assert content['confusion'] == expected.tolist()
    ignored = sum(int((one['gt_sem_seg']['data'] == 255).sum()) for one in data)
    assert (content['images'], content['ignored_pixels']) == (5, ignored)
    assert content['pixels'] == int(expected.sum())
    assert content['classes'] == list(CLASSES)
    assert {key: round(value, 2) for key, value in content['figures'].items()} == found
    assert content['per_class']['tree'] == {'IoU': None, 'Acc': None, 'share': 0.0}
    assert content['per_class']['bus']['share'] == pytest.approx(
        100 * float(expected[4].sum() / expected.sum())
    )
    assert cv2.imread(str(tmp_path / 'out' / 'confusion_matrix.png')).shape[2] == 3


def test_files_lie_beside_the_log_of_the_run(tmp_path: Path) -> None:
    log = tmp_path / 'run' / 'run.log'
    log.parent.mkdir()
    MMLogger.get_instance(f'logger of {tmp_path}', log_file=str(log))
    evaluate(SegmentationMetric(), samples())
    names = {path.name for path in log.parent.iterdir()}
    assert names == {'run.log', 'confusion_matrix.png', 'segmentation.json'}
    assert 'road' in log.read_text() and 'written to' in log.read_text()
    evaluate(SegmentationMetric(out_dir=None), samples())
    assert {path.name for path in tmp_path.iterdir()} == {'run'}


def test_without_a_log_no_file_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MMLogger, 'get_current_instance', lambda: logging.getLogger('bare'))
    assert module._log_folder() is None


def test_files_that_cannot_be_written_leave_the_figures(
    tmp_path: Path, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError('disk full')

    monkeypatch.setattr(module, 'write_json', fail)
    found = evaluate(SegmentationMetric(out_dir=str(tmp_path / 'out')), samples())
    assert found == evaluate(quiet(), samples())
    assert any('OSError: disk full' in text for text in logged)


def test_samples_that_cannot_be_used_are_named() -> None:
    good = torch.zeros(4, 6, dtype=torch.int64)
    for key in ('pred_sem_seg', 'gt_sem_seg'):
        lacking = sample(good, good, 7)
        del lacking[key]
        with pytest.raises(KeyError, match=f'images/7.jpg has no .{key}.*must give.*img_path'):
            evaluate(quiet(), [lacking])
    with pytest.raises(
        ValueError,
        match='images/7.jpg: the prediction has 6 x 4 pixels, the ground truth 5 x 4.*'
        'LoadAnnotations comes after Resize',
    ):
        evaluate(quiet(), [sample(good, good[:, :5], 7)])
    with pytest.raises(
        ValueError,
        match=r'images/7.jpg: target must be in \[0, 7\) or 255 \(ignored\), got 8. do '
        'classes, reduce_zero_label and ignore_index fit',
    ):
        evaluate(quiet(), [sample(good, good + 8, 7)])
    with pytest.raises(
        ValueError, match=r'predicted must be in \[0, 7\), got 9. the head has more classes'
    ):
        evaluate(quiet(), [sample(good + 9, good, 7)])
    with pytest.raises(ValueError, match='pred_sem_seg must hold labels, which are whole, got 0.3'):
        evaluate(quiet(), [sample(good + 0.3, good, 7)])
    scores = {**sample(good, good, 7), 'pred_sem_seg': {'data': torch.zeros(3, 4, 6)}}
    with pytest.raises(ValueError, match=r'one label per pixel, \(1, H, W\), got \(3, 4, 6\)'):
        evaluate(quiet(), [scores])


def test_an_evaluation_of_nothing_is_an_error() -> None:
    metric = quiet()
    metric.dataset_meta = {'classes': CLASSES}
    with pytest.raises(ValueError, match='no pixel counts, 0 images were evaluated'):
        metric.compute_metrics([])
    ignored = torch.full((4, 6), 255)
    with pytest.raises(ValueError, match='1 images were evaluated and 24 pixels are ignored'):
        evaluate(quiet(), [sample(ignored, ignored)])
    for meta in (None, {}, {'classes': ()}, {'classes': 'road'}):
        metric.dataset_meta = meta
        with pytest.raises(ValueError, match=r"metainfo\['classes'\]"):
            metric.process({}, samples())


def test_options_are_checked(tmp_path: Path) -> None:
    assert_misspelt_options_are_named(SegmentationMetric, SegmentationMetric)
    with pytest.raises(ValueError, match="iou_metrics must be 'mIoU', 'mDice' or 'mFscore'"):
        SegmentationMetric(iou_metrics=['mIoU', 'IoU'])
    with pytest.raises(ValueError, match='beta must be above 0'):
        SegmentationMetric(beta=0)
    with pytest.raises(ValueError, match='nan_to_num must be a finite number'):
        SegmentationMetric(nan_to_num=float('nan'))
    (tmp_path / 'file').write_text('')
    with pytest.raises(NotADirectoryError, match='is no folder'):
        SegmentationMetric(out_dir=str(tmp_path / 'file' / 'out'))
    assert METRICS.build(dict(type='mmdet_ext.SegmentationMetric', beta=2)).beta == 2


WORKER = """
import json, sys
from pathlib import Path
import torch
import torch.distributed as dist
from mmengine.evaluator import Evaluator
from mmdet_ext.segmentation.metrics import SegmentationMetric
from tests.segmentation.metrics.test_segmentation import CLASSES, samples

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
evaluator = Evaluator(SegmentationMetric(out_dir=str(folder / 'out')))
evaluator.dataset_meta = {'classes': CLASSES}
data = samples()
data = [*data, data[0]]  # five images on two ranks: the first is repeated
evaluator.process(data[rank::2])
(folder / f'{rank}.json').write_text(json.dumps(evaluator.evaluate(5)))
"""


@pytest.mark.subprocess
def test_two_ranks_count_what_one_counts(tmp_path: Path) -> None:
    run_on_two_ranks(WORKER, tmp_path)
    expected = evaluate(SegmentationMetric(out_dir=str(tmp_path / 'one')), samples())
    for rank in range(2):
        assert json.loads((tmp_path / f'{rank}.json').read_text()) == expected
    one, two = (
        json.loads((tmp_path / name / 'segmentation.json').read_text()) for name in ('one', 'out')
    )
    assert one == two
