"""Results and ground truth read from files: what tests of mmdet write, and files of other kinds."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.evaluation.metrics import DumpDetResults

from mmdet_ext.analysis.detection.columns import ResultError
from mmdet_ext.detection.metrics.sources import (
    detections_of_file,
    ground_truth,
    read_results,
)
from tests._helpers.results.detections import coco_content, made_set
from tests.detection.metrics.test_operating_points import samples_of


def dumped(samples: list[dict[str, Any]], path: Path) -> Path:
    """Write data samples as a test of mmdet does."""
    metric = DumpDetResults(str(path))
    metric.process(None, samples)
    metric.evaluate(len(samples))
    return path


def test_what_mmdet_dumps_is_read_whole(tmp_path: Path) -> None:
    data, found = made_set(1, images=6)
    samples = samples_of(data, found)
    samples[0] |= {'scale_factor': (1.0, np.float64(2)), 'extra': np.arange(3.0)}
    (tmp_path / 'truth.json').write_text(json.dumps(coco_content(data)), 'utf-8')
    read = ground_truth(tmp_path / 'truth.json', images=tmp_path)
    detections = detections_of_file(dumped(samples, tmp_path / 'a.pkl'), read)
    np.testing.assert_allclose(detections.box, found.box, atol=1e-9)
    for name in ('image', 'label', 'score'):
        np.testing.assert_array_equal(getattr(detections, name), getattr(found, name))
    for name in ('image', 'label', 'crowd', 'box', 'area'):
        np.testing.assert_array_equal(getattr(read.truth, name), getattr(data.truth, name))
    assert read.paths[0] == str(tmp_path / '10.jpg')


class Bad:
    """Object whose pickle runs a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_names_anything_else_is_refused_and_does_not_run(tmp_path: Path) -> None:
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps([{'img_id': Bad(tmp_path / 'made')}]))
    with pytest.raises(ResultError, match=r'a.pkl was refused: it names .*mkdir'):
        read_results(tmp_path / 'a.pkl')
    (tmp_path / 'b.pkl').write_bytes(pickle.dumps([{'img_id': np.array([None])}]))
    with pytest.raises(ResultError, match='it holds an array of object'):
        read_results(tmp_path / 'b.pkl')
    assert not (tmp_path / 'made').exists()


OTHER = {
    'a dict': ({'a': 1}, 'a list of data samples is needed, got dict'),
    'nothing': ([], 'no image; an empty test'),
    'no detections': ([{'img_id': 3}], 'a result has no pred_instances; it has img_id'),
    'no scores': (
        [{'img_id': 3, 'pred_instances': {'bboxes': torch.zeros(0, 4)}}],
        'image 3: pred_instances has no scores, labels',
    ),
}


@pytest.mark.parametrize(('content', 'message'), OTHER.values(), ids=OTHER)
def test_files_of_another_kind_are_named(content: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps(content))
    with pytest.raises(ResultError, match=message):
        read_results(tmp_path / 'a.pkl')


def test_absent_and_cut_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match='no such file of results'):
        read_results(tmp_path / 'a.pkl')
    (tmp_path / 'b.pkl').write_bytes(pickle.dumps([{'img_id': 3}])[:-4])
    with pytest.raises(ResultError, match='cannot be read as a pickle'):
        read_results(tmp_path / 'b.pkl')
    with pytest.raises(ResultError, match='no such file of annotations'):
        ground_truth(tmp_path / 'c.json')
    with pytest.raises(ValueError, match='no such config'):
        ground_truth(tmp_path / 'c.py')
    (tmp_path / 'd.json').write_text('[]', 'utf-8')
    with pytest.raises(ResultError, match='a json object is needed, got list'):
        ground_truth(tmp_path / 'd.json')
    (tmp_path / 'e.json').write_text('{"images": []}', 'utf-8')
    with pytest.raises(ResultError, match="no list 'annotations'; is it a COCO annotation file"):
        ground_truth(tmp_path / 'e.json')


def changed(samples: list[dict[str, Any]], how: str) -> list[dict[str, Any]]:
    if how == 'other images':
        return [{**sample, 'img_id': sample['img_id'] + 500} for sample in samples]
    if how == 'cut':
        return samples[:-2]
    if how == 'twice':
        return [*samples, samples[0]]
    samples[1]['pred_instances']['scores'][:] = float('nan')
    return samples


@pytest.mark.parametrize(
    ('how', 'message'),
    [
        ('other images', '6 of 6 images are not in the ground truth .*another data set'),
        ('cut', '2 of 6 images of the ground truth have no result'),
        ('twice', 'images that come twice: 10'),
        ('NaN', r'image 13: \d+ of \d+ scores are not finite'),
    ],
)
def test_results_that_do_not_fit_are_named(how: str, message: str, tmp_path: Path) -> None:
    data, found = made_set(2, images=6)
    path = dumped(changed(samples_of(data, found), how), tmp_path / 'a.pkl')
    with pytest.raises(ResultError, match=message):
        detections_of_file(path, data)


def test_classes_of_a_file_can_be_chosen_and_unknown_ones_are_named(tmp_path: Path) -> None:
    data, _ = made_set(3, images=6)
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(coco_content(data)), 'utf-8')
    chosen = ground_truth(path, ['class 2', 'class 0'])
    assert len(chosen.truth) == np.isin(data.truth.label, [0, 2]).sum()
    twos = chosen.truth.box[chosen.truth.label == 0]
    np.testing.assert_array_equal(twos, data.truth.box[data.truth.label == 2])
    with pytest.raises(ResultError, match=r"has no class \['cat'\]; its classes are \['class 0'"):
        ground_truth(path, ['cat'])
