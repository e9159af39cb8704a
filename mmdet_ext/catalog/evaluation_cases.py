"""Cases of the contract table for metrics of detectors."""

from __future__ import annotations

from mmdet_ext.catalog.case import Case

CASES = (
    Case('detection metric', 'CocoMetric', twin=True),
    Case('detection metric', 'CocoMetric', {'metric': ['bbox', 'segm', 'proposal']}, twin=True),
    Case('detection metric', 'LVISMetric', twin=True),
    Case('detection metric', 'VOCAPMetric'),
    Case('detection metric', 'VOCAPMetric', {'metric': ['mAP', 'recall'], 'eval_mode': '11points'}),
    Case('detection metric', 'OperatingPointMetric'),
    Case(
        'detection metric',
        'OperatingPointMetric',
        {'iou_thresholds': [0.5, 0.75], 'precision': [0.9], 'classwise': True, 'resamples': 0},
    ),
)
