"""Suppression in NumPy against mmcv's, which decides in training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import mmdet_ext.detection  # noqa: F401  (makes our rules types of nms)
from mmdet_ext.catalog.synthetic import random_boxes
from mmdet_ext.deploy.errors import ModelFileError
from mmdet_ext.deploy.suppression import checked_options, suppress

batched_nms = pytest.importorskip('mmcv.ops').batched_nms

OPTIONS: list[dict[str, Any]] = [
    dict(type='nms', iou_threshold=0.5),
    dict(type='nms', iou_threshold=0.3, class_agnostic=True),
    dict(type='nms', iou_threshold=0.5, offset=1, score_threshold=0.4),
    dict(type='nms', iou_threshold=0.5, split_thr=50),
    dict(type='nms', iou_threshold=0.6, max_num=7),
    dict(type='soft_nms', iou_threshold=0.4, min_score=0.05),
    dict(type='soft_nms', iou_threshold=0.4, method='gaussian', sigma=0.4),
    dict(type='soft_nms', iou_threshold=0.4, method='naive', offset=1),
    dict(type='mmdet_ext.soft_nms', iou_threshold=0.4, max_num=20),
    dict(type='mmdet_ext.diou_nms', iou_threshold=0.5),
]


def detections(count: int = 200) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    boxes = random_boxes(generator, count, 100, 80, 8, 40)
    scores = torch.rand(count, generator=generator)
    return boxes, scores, torch.randint(3, (count,), generator=generator)


@pytest.mark.parametrize('options', OPTIONS, ids=lambda each: ' '.join(map(str, each.values())))
def test_boxes_are_kept_as_mmcv_keeps_them(options: dict[str, Any]) -> None:
    boxes, scores, labels = detections()
    expected, index = batched_nms(boxes, scores, labels, dict(options))
    kept, found = suppress(boxes.numpy(), scores.numpy(), labels.numpy(), checked_options(options))
    assert 3 < len(kept) < len(boxes)
    np.testing.assert_array_equal(kept, index.numpy())
    np.testing.assert_allclose(found, expected[:, 4].numpy(), rtol=1e-6)


@pytest.mark.parametrize('options', OPTIONS, ids=lambda each: ' '.join(map(str, each.values())))
def test_the_search_for_a_number_of_boxes_finds_the_first_of_all(options: dict[str, Any]) -> None:
    parts = [each.numpy() for each in detections()]
    every, scores = suppress(*parts, checked_options(options))
    kept, found = suppress(*parts, checked_options(options), most=5)
    np.testing.assert_array_equal(kept, every[:5])
    np.testing.assert_array_equal(found, scores[:5])


@pytest.mark.parametrize('share', [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_a_box_stays_at_an_overlap_of_exactly_the_threshold(share: float) -> None:
    # Both boxes have 10 rows; the second has a share of the columns of the first.
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10 * share, 10]], np.float32)
    scores, labels = np.array([0.9, 0.8], np.float32), np.zeros(2, np.int64)
    options = checked_options(dict(type='nms', iou_threshold=share))
    assert list(suppress(boxes, scores, labels, options)[0]) == [0, 1]
    below = checked_options(dict(type='nms', iou_threshold=share - 1e-6))
    assert list(suppress(boxes, scores, labels, below)[0]) == [0]


def test_of_equal_scores_the_first_box_is_kept() -> None:
    boxes = np.tile(np.array([[0, 0, 10, 10]], np.float32), (20, 1))
    options = checked_options(dict(type='nms', iou_threshold=0.5))
    kept, _ = suppress(boxes, np.full(20, 0.5, np.float32), np.zeros(20, np.int64), options)
    assert list(kept) == [0]


def test_an_image_without_candidates_has_no_detections() -> None:
    options = checked_options(dict(type='nms', iou_threshold=0.5))
    kept, found = suppress(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), options)
    assert len(kept) == len(found) == 0


def test_an_unknown_type_and_an_unknown_option_are_named() -> None:
    with pytest.raises(ModelFileError, match="the type 'nms_match'.*Take one of nms, soft_nms"):
        checked_options(dict(type='nms_match'))
    with pytest.raises(ModelFileError, match="nms of type nms has no option 'sigma'"):
        checked_options(dict(type='nms', iou_threshold=0.5, sigma=1.0))
    with pytest.raises(ModelFileError, match='needs iou_threshold'):
        checked_options(dict(type='nms'))


@pytest.mark.parametrize('kind', ['soft_nms', 'mmdet_ext.soft_nms'])
def test_a_score_of_exactly_the_least_stays(kind: str) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])
    scores, labels = torch.tensor([0.75, 0.5, 0.25]), torch.zeros(3, dtype=torch.long)
    options = dict(type=kind, iou_threshold=0.5, min_score=0.5)
    _, expected = batched_nms(boxes, scores, labels, dict(options))
    kept, _ = suppress(boxes.numpy(), scores.numpy(), labels.numpy(), checked_options(options))
    assert kept.tolist() == expected.tolist() == [0, 1]
