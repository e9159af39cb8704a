"""Cases of the contract table for semantic segmentation."""

from __future__ import annotations

from mmdet_ext.catalog.case import Case

CASES = (
    Case('segmentation metric', 'SegmentationMetric'),
    Case(
        'segmentation metric',
        'SegmentationMetric',
        {'iou_metrics': ['mIoU', 'mDice', 'mFscore'], 'beta': 2},
    ),
)
