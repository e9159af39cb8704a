"""Cases of detection: assigners, overlap measures, samplers, heads and data sets."""

from __future__ import annotations

from mmdet_ext.catalog.case import Case

CASES = (
    Case('assigner', 'ATSSAssigner', {'topk': 9}, twin=True),
    Case(
        'assigner',
        'MaxIoUAssigner',
        {'pos_iou_thr': 0.5, 'neg_iou_thr': 0.4, 'min_pos_iou': 0.01},
        twin=True,
        later_wins=True,
    ),
    Case(
        'assigner',
        'MaxIoUAssigner',
        {'pos_iou_thr': 0.4, 'neg_iou_thr': (0.1, 0.3), 'match_low_quality': False},
        twin=True,
        every_box=False,
    ),
    Case('assigner', 'SimOTAAssigner', twin=True, priors='points', predicts=True),
    Case(
        'assigner',
        'DynamicSoftLabelAssigner',
        twin=True,
        priors='points',
        predicts=True,
        every_box=False,
    ),
    Case(
        'assigner',
        'TaskAlignedAssigner',
        {'topk': 13},
        twin=True,
        predicts=True,
        every_box=False,
    ),
    Case('assigner', 'OneToOneTaskAlignedAssigner', predicts=True, every_box=False),
    Case('assigner', 'FCOSAssigner', priors='points', every_box=False),
    Case('assigner', 'FCOSAssigner', {'center_sampling': True}, priors='points', every_box=False),
    Case('assigner', 'YOLOv3Assigner', priors='cells', predicts=True),
    Case('assigner', 'YOLOv3Assigner', {'ignore_by': 'prior'}, priors='cells'),
    Case('assigner', 'YOLOv4Assigner', priors='cells', predicts=True),
    Case('assigner', 'YOLOv5Assigner', priors='cells'),
    Case('assigner', 'CenterNetAssigner', priors='heatmap'),
    Case('assigner', 'RFLAAssigner', priors='points'),
    Case('assigner', 'RFLAAssigner', {'receptive_fields': None, 'distance': 'wasserstein'}),
    Case('data set', 'CocoDataset', twin=True),
    Case('sampler', 'HardNegativeSampler'),
    Case('overlap measure', 'NWDCalculator'),
    Case('head', 'ATSSHead', twin=True),
    Case('head', 'FCOSHead', twin=True),
    Case('head', 'GFLHead', twin=True),
    Case('head', 'RTMDetHead', twin=True),
    Case('head', 'RTMDetSepBNHead', twin=True),
    Case('head', 'RetinaHead', twin=True),
    Case('head', 'SSDHead', twin=True),
    Case('head', 'TOODHead', twin=True),
    Case('head', 'YOLOV3Head', twin=True),
    Case('head', 'YOLOXHead', twin=True),
)
