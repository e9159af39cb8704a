"""Detections of exported detectors in onnxruntime against those of mmdet, for every dense head."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests._helpers.exported import built, config_of, difference, export, image_files, model_config

pytest.importorskip('onnxscript')
pytest.importorskip('onnxruntime')

OURS = [
    'ATSSHead',
    'FCOSHead',
    'GFLHead',
    'RetinaHead',
    'RTMDetHead',
    'RTMDetSepBNHead',
    'SSDHead',
    'TOODHead',
    'YOLOXHead',
    'nanodet_plus',
    'yolov1',
    'yolov2',
    'yolov4',
    'yolov5',
]
STOCK = ['ATSSHead', 'FCOSHead', 'GFLHead', 'RetinaHead', 'RTMDetHead', 'TOODHead', 'YOLOXHead']
HEADS = [(name, 'mmdet_ext') for name in OURS] + [(name, 'mmdet') for name in STOCK]
SIZES = ((90, 120), (140, 70))


@pytest.mark.slow
@pytest.mark.parametrize(('head', 'scope'), HEADS, ids=[f'{scope}.{name}' for name, scope in HEADS])
def test_a_file_finds_what_torch_finds(head: str, scope: str, tmp_path: Path) -> None:
    config = config_of(model_config(head, scope))
    model = built(config)
    files = image_files(tmp_path, SIZES)
    size = None if head == 'yolov1' else (128, 128)
    export(model, config, tmp_path / 'x.onnx', size=size)
    found = difference(model, config, tmp_path / 'x.onnx', files)
    assert found.equal, found.lines()
    assert found.detections > 5


@pytest.mark.slow
@pytest.mark.parametrize('head', ['ATSSHead', 'yolov1', 'yolov4', 'yolov5', 'YOLOXHead'])
def test_suppression_within_the_network_finds_the_same(head: str, tmp_path: Path) -> None:
    config = config_of(model_config(head))
    model = built(config)
    files = image_files(tmp_path, SIZES)
    size = None if head == 'yolov1' else (128, 128)
    export(model, config, tmp_path / 'x.onnx', suppression='inside', size=size)
    found = difference(model, config, tmp_path / 'x.onnx', files)
    assert found.equal, found.lines()
    assert found.detections > 5


@pytest.mark.slow
@pytest.mark.parametrize('suppression', ['inside', 'outside'])
@pytest.mark.parametrize('head', ['ATSSHead', 'TOODHead', 'yolov5'])
def test_a_network_of_any_batch_and_size(head: str, suppression: str, tmp_path: Path) -> None:
    config = config_of(model_config(head))
    model = built(config)
    files = image_files(tmp_path, SIZES)
    options = dict(suppression=suppression, size='dynamic', batch='dynamic')
    export(model, config, tmp_path / 'x.onnx', **options)
    found = difference(model, config, tmp_path / 'x.onnx', files)
    assert found.equal, found.lines()
