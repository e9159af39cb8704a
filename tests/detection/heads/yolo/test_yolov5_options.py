"""YOLOv5Head: the report of its anchors, wrong options, and input that does not fit."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from torch import Tensor

from tests.detection.heads.yolo.yolov5_loops import (
    ANCHORS,
    HEIGHT,
    META,
    STRIDES,
    WIDTH,
    batch,
    head,
    maps,
    sample,
)


class Lines(logging.Handler):
    """Handler that keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append((record.levelno, record.getMessage()))


@pytest.fixture
def lines() -> Iterator[list[tuple[int, str]]]:
    logger = MMLogger.get_instance('anchors', log_level='INFO')
    handler = Lines()
    logger.addHandler(handler)
    yield handler.found
    logger.removeHandler(handler)


def test_the_log_says_how_many_boxes_have_an_anchor(lines: list[tuple[int, str]]) -> None:
    model, pred_maps = head(anchor_boxes=6), maps(1)
    tiny = InstanceData(
        bboxes=torch.tensor([[4.0, 4.0, 6.0, 6.0], [9.0, 9.0, 9.0, 20.0], [0.0, 0.0, 30.0, 40.0]]),
        labels=torch.zeros(3, dtype=torch.long),
    )
    model.eval().loss_by_feat(pred_maps, [tiny], [META])
    model.train()
    for _ in range(4):
        with pytest.warns(UserWarning, match='without area'):
            model.loss_by_feat(pred_maps, [tiny], [META])
    # Of the two boxes with area in each image, one has anchors: 6 boxes after three images.
    ((level, text),) = [line for line in lines if 'Anchors' in line[1]]
    assert level == logging.WARNING
    assert text.startswith('Anchors: 50.0% of the first 6 boxes have one') and 'anchors.py' in text
    assert model.watch.found.recall == 0.5
    good = head(anchor_boxes=1)
    good.loss_by_feat(pred_maps, [tiny[2:]], [META])
    level, text = [line for line in lines if 'Anchors' in line[1]][-1]
    assert level == logging.INFO and '100.0% of the first 1 boxes' in text
    head(anchor_boxes=0).loss_by_feat(pred_maps, [tiny[2:]], [META])
    assert sum('Anchors' in text for _, text in lines) == 2


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(num_classes=0), 'num_classes must be at least 1'),
        (
            dict(in_channels=(4, 4)),
            r'in_channels must be one entry per level, .* has 3, got \(4, 4\)',
        ),
        (dict(anchors=ANCHORS[:2]), 'anchors must be one entry per level'),
        (dict(anchors=[[(8, 0)]] * 3), 'anchors must be pairs of width and height in px, above 0'),
        (dict(anchors=[[], [(1, 1)], [(1, 1)]]), 'anchors must be pairs'),
        (dict(level_weights=(1.0, -1.0, 1.0)), 'level_weights must be at least 0'),
        (dict(strides=(8, 0, 32)), 'strides must be at least 1'),
        (dict(image_size=0), 'image_size must be above 0'),
        (dict(anchor_boxes=-1), 'anchor_boxes must be a whole number from 0 on'),
        (
            dict(loss_cls=dict(type='mmdet_ext.CrossEntropyLoss')),
            'loss_cls must be a loss over sigmoids, got .a softmax loss',
        ),
        (
            dict(
                train_cfg=ConfigDict(
                    assigner=dict(type='mmdet.MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5)
                )
            ),
            'train_cfg.assigner must be an assigner of mmdet_ext',
        ),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        head(**options)


def features(channels: int = 4) -> list[Tensor]:
    return [torch.zeros(1, channels, HEIGHT // stride, WIDTH // stride) for stride in STRIDES]


def test_input_that_does_not_fit_is_named_with_both_numbers() -> None:
    model = head()
    with pytest.raises(ValueError, match='YOLOv5Head has 3 levels, .* of 2 levels'):
        model(features()[:2])
    with pytest.raises(
        ValueError, match=r'has in_channels=\[4, 4, 4\], but got maps of \[6, 6, 6\]'
    ):
        model(features(6))
    with pytest.raises(ValueError, match=r'stride \(8, 8\) in level 0, which makes 24 x 32 cells'):
        model.loss(features(), [sample(batch(2)[0], (2 * HEIGHT, 2 * WIDTH))])
    with pytest.raises(ValueError, match=r'stride \(8, 8\) in level 0, which makes 24 x 32 cells'):
        model.predict(features(), [sample(batch(2)[0], (2 * HEIGHT, 2 * WIDTH))])
    gts = batch(2)[0]
    gts.labels[1] = 7
    message = 'num_classes=3, but the ground truth has the label 7, so that .* at least 8 classes'
    with pytest.raises(ValueError, match=message):
        model.loss(features(), [sample(gts)])
    gts.labels[1], gts.bboxes[0, 2] = 0, math.nan
    with pytest.raises(ValueError, match='must be finite, got 1'):
        model.loss(features(), [sample(gts)])
