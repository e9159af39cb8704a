"""Suppression names the argument or option that is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from mmdet_ext.functional.boxes.suppression import batched_diou_nms, batched_soft_nms
from tests.functional.boxes.detections import SQUARE, detections

BOXES, SCORES, LABELS = detections(10, 3)
BAD_BOX = BOXES.clone()
BAD_BOX[1, 0] = math.nan


@pytest.mark.parametrize('suppression', [batched_soft_nms, batched_diou_nms])
@pytest.mark.parametrize(
    ('change', 'error', 'message'),
    [
        (dict(boxes=[SQUARE]), TypeError, 'boxes must be a tensor, got list'),
        (dict(scores=0.5), TypeError, 'scores must be a tensor, got float'),
        (dict(labels=[0]), TypeError, 'labels must be a tensor, got list'),
        (dict(labels=SCORES), TypeError, 'labels must be whole numbers, got torch.float32'),
        (dict(boxes=BOXES[:, :3]), ValueError, r'boxes must be corners \(N, 4\), got \(3, 3\)'),
        (dict(boxes=BOXES[0]), ValueError, r'boxes must be corners \(N, 4\), got \(4,\)'),
        (dict(scores=SCORES[:2]), ValueError, r'scores must be one per box, \(3,\), got \(2,\)'),
        (dict(labels=LABELS[:1]), ValueError, r'labels must be one per box, \(3,\), got \(1,\)'),
        (dict(boxes=BAD_BOX), ValueError, r'boxes must be finite, got \[nan, .*\] in row 1'),
        (
            dict(scores=torch.tensor([0.5, 0.2, math.inf])),
            ValueError,
            'scores must be finite, got inf in row 2',
        ),
        (
            dict(boxes=BOXES[:, [2, 1, 0, 3]]),
            ValueError,
            'boxes must be corners x1, y1, x2, y2 with x1 <= x2 and y1 <= y2, got .* in row 0',
        ),
    ],
)
def test_wrong_input_is_named(
    suppression: Callable[..., object],
    change: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        suppression(**(dict(boxes=BOXES, scores=SCORES, labels=LABELS) | change))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(method='linaer'), r"method must be one of .*linear.*, got 'linaer'"),
        (dict(iou_threshold=1.5), r'iou_threshold must be in \[0, 1\], got 1.5'),
        (dict(iou_threshold=0, method='naive'), 'iou_threshold must be above 0, got 0'),
        (dict(sigma=0), 'sigma must be above 0 and finite, got 0'),
        (dict(sigma=math.nan), 'sigma must be above 0 and finite, got nan'),
        (dict(min_score=-1), 'min_score must be at least 0 and finite, got -1'),
        (dict(offset=2), 'offset must be 0 or 1, got 2'),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batched_soft_nms(BOXES, SCORES, LABELS, **options)
    if 'iou_threshold' in options:
        with pytest.raises(ValueError, match='iou_threshold must be above 0'):
            batched_diou_nms(BOXES, SCORES, LABELS, 0)
