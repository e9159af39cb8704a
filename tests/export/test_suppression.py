"""Suppression within a network against that of the program, in two runtimes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdet_ext.deploy import Detector
from mmdet_ext.deploy.metadata import ModelInfo, SelectionInfo
from mmdet_ext.deploy.runtimes import RUNTIMES
from mmdet_ext.export.onnx_file import ExportError, write_onnx
from mmdet_ext.export.onnx_suppression import append_suppression, check_inside
from tests._helpers.model_files import INFO, SIDE, fixed_network

IMAGE = np.zeros((SIDE, SIDE, 3), np.uint8)
#: Sizes of three levels of 60 priors.
LEVELS = (40, 15, 5)

SELECTIONS: dict[str, dict[str, Any]] = {
    'pairs of each level': dict(score_thr=0.1, nms_pre=20, max_per_image=15),
    'one class': dict(rule='one_class', score_thr=0.3, nms_pre=9, max_per_image=10),
    'best class': dict(rule='best_class', score_thr=0.4, max_per_image=0),
    'all': dict(score_thr=0.0, max_per_image=100),
    'class-agnostic': dict(
        score_thr=0.1, nms=dict(type='nms', iou_threshold=0.4, class_agnostic=True)
    ),
    'never clipped': dict(score_thr=0.1, clip='never', max_per_image=20),
    'clipped last': dict(score_thr=0.1, clip='last', max_per_image=20),
    'boxes with an area': dict(score_thr=0.1, min_box_size=0.0, max_per_image=20),
}


def table(count: int = 60, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes that overlap each other and the border, some without an area, and scores."""
    generator = np.random.default_rng(0)
    low = generator.uniform(-6, 28, (count, 2))
    boxes = np.concatenate([low, low + generator.uniform(3, 14, (count, 2))], 1)
    boxes[::7, 2] = boxes[::7, 0]
    return boxes.astype(np.float32), generator.uniform(0, 1, (count, classes)).astype(np.float32)


def both(
    path: Path,
    boxes: np.ndarray,
    scores: np.ndarray,
    selection: SelectionInfo,
    levels: tuple[int, ...],
) -> tuple[ModelInfo, ModelInfo]:
    """Write a network with the suppression outside (x.onnx) and inside (y.onnx)."""
    names = tuple(f'class{number}' for number in range(scores.shape[1]))
    outside = dataclasses.replace(INFO, classes=names, selection=selection, level_sizes=levels)
    inside = dataclasses.replace(outside, outputs='detections')
    write_onnx(fixed_network(boxes, scores), path / 'x.onnx', outside)
    model = fixed_network(boxes, scores)
    append_suppression(model, inside, levels)
    write_onnx(model, path / 'y.onnx', inside)
    return outside, inside


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
@pytest.mark.parametrize('name', SELECTIONS)
def test_a_network_suppresses_as_the_program_does(name: str, runtime: str, tmp_path: Path) -> None:
    pytest.importorskip(RUNTIMES[runtime].package)
    options = {'nms': dict(type='nms', iou_threshold=0.5), **SELECTIONS[name]}
    both(tmp_path, *table(), SelectionInfo(**options), LEVELS)
    (expected,) = Detector(tmp_path / 'x.onnx', 'onnxruntime', threads=1)([IMAGE])
    (found,) = Detector(tmp_path / 'y.onnx', runtime, threads=1)([IMAGE])
    assert len(expected) > 5
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-4)


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
@pytest.mark.parametrize('share', [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_both_runtimes_keep_a_box_at_an_overlap_of_exactly_the_threshold(
    share: float, runtime: str, tmp_path: Path
) -> None:
    pytest.importorskip(RUNTIMES[runtime].package)
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10 * share, 10]], np.float32)
    scores = np.array([[0.9], [0.8]], np.float32)
    selection = SelectionInfo(nms=dict(type='nms', iou_threshold=share), max_per_image=5)
    both(tmp_path, boxes, scores, selection, (2,))
    (found,) = Detector(tmp_path / 'y.onnx', runtime, threads=1)([IMAGE])
    np.testing.assert_allclose(found.scores, [0.9, 0.8])


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        (dict(nms=None), 'no nms in test_cfg'),
        (dict(nms=dict(type='soft_nms')), 'nms is of type soft_nms'),
        (dict(nms=dict(type='nms', iou_threshold=0.5, offset=1)), 'offset or score_threshold'),
        (
            dict(min_box_size=2.0, nms=dict(type='nms', iou_threshold=0.5)),
            'min_bbox_size is above 0',
        ),
    ],
)
def test_a_suppression_that_runtimes_do_not_have_is_named(
    changes: dict[str, Any], named: str
) -> None:
    info = dataclasses.replace(INFO, selection=SelectionInfo(**changes))
    with pytest.raises(ExportError, match=f'{named}.*--suppression outside'):
        check_inside(info)
