"""The contract table: one case a registered component, and its behaviours are tested for all.

A test holds the table and the registries equal as sets, so that a component without a case, or a
case without a component, fails.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from mmdet_ext.catalog.face_cases import (
    BACKBONES,
    DATA_SAMPLERS,
    FACE_DATASETS,
    FACE_HEADS,
    FEATURE_LOSSES,
    HOOKS,
    MARGINS,
    METRICS,
    PREPROCESSORS,
    TRANSFORMS,
    BackboneCase,
    FaceDatasetCase,
    FeatureLossCase,
    MarginCase,
    PartCase,
)
from mmdet_ext.catalog.loss_cases import LOSSES, LossCase

__all__ = [
    'ASSIGNERS',
    'BACKBONES',
    'CALCULATORS',
    'DATASETS',
    'DATA_SAMPLERS',
    'FACE_DATASETS',
    'FACE_HEADS',
    'FEATURE_LOSSES',
    'HEADS',
    'HOOKS',
    'LOSSES',
    'MARGINS',
    'METRICS',
    'PREPROCESSORS',
    'SAMPLERS',
    'TABLE',
    'TRANSFORMS',
    'AssignerCase',
    'BackboneCase',
    'CalculatorCase',
    'DatasetCase',
    'FaceDatasetCase',
    'FeatureLossCase',
    'HeadCase',
    'LossCase',
    'MarginCase',
    'PartCase',
    'SamplerCase',
]


@dataclass(frozen=True)
class AssignerCase:
    """How to call an assigner.

    Attributes:
        name: registered name.
        options: config beside ``type``.
        twin: name of the stock assigner that it replaces, None for a new one.
        priors: what they are: 'anchors' one a place, 'points' with strides, those of one
            'heatmap', or 'cells' of three anchors each.
        predicts: whether it goes by what the head predicts.
        every_box: whether each box has a prior, however small it is.
        later_wins: of boxes that want the same prior the later one gets it, by rule.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    twin: str | None = None
    priors: Literal['anchors', 'points', 'heatmap', 'cells'] = 'anchors'
    predicts: bool = False
    every_box: bool = True
    later_wins: bool = False


@dataclass(frozen=True)
class DatasetCase:
    """A data set, by the stock class whose samples it gives.

    Attributes:
        name: registered name.
        twin: name of the stock data set.
    """

    name: str
    twin: str | None = None


@dataclass(frozen=True)
class CalculatorCase:
    """An overlap measure with stock's call.

    Attributes:
        name: registered name.
        twin: name of the stock measure, None for a new one.
    """

    name: str
    twin: str | None = None


@dataclass(frozen=True)
class SamplerCase:
    """How to call a sampler.

    Attributes:
        name: registered name.
        options: config beside ``type``, ``num`` and ``pos_fraction``.
        twin: name of the stock sampler that it replaces, None for a new one.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    twin: str | None = None


@dataclass(frozen=True)
class HeadCase:
    """A dense head, by the stock head whose losses it gives.

    Attributes:
        name: registered name.
        twin: name of the stock head.
    """

    name: str
    twin: str | None = None


ASSIGNERS = (
    AssignerCase('ATSSAssigner', {'topk': 9}, twin='ATSSAssigner'),
    AssignerCase(
        'MaxIoUAssigner',
        {'pos_iou_thr': 0.5, 'neg_iou_thr': 0.4, 'min_pos_iou': 0.01},
        twin='MaxIoUAssigner',
        later_wins=True,
    ),
    AssignerCase(
        'MaxIoUAssigner',
        {'pos_iou_thr': 0.4, 'neg_iou_thr': (0.1, 0.3), 'match_low_quality': False},
        twin='MaxIoUAssigner',
        every_box=False,
    ),
    AssignerCase('SimOTAAssigner', twin='SimOTAAssigner', priors='points', predicts=True),
    AssignerCase(
        'DynamicSoftLabelAssigner',
        twin='DynamicSoftLabelAssigner',
        priors='points',
        predicts=True,
        every_box=False,
    ),
    AssignerCase(
        'TaskAlignedAssigner',
        {'topk': 13},
        twin='TaskAlignedAssigner',
        predicts=True,
        every_box=False,
    ),
    AssignerCase('OneToOneTaskAlignedAssigner', predicts=True, every_box=False),
    AssignerCase('FCOSAssigner', priors='points', every_box=False),
    AssignerCase('FCOSAssigner', {'center_sampling': True}, priors='points', every_box=False),
    AssignerCase('YOLOv3Assigner', priors='cells', predicts=True),
    AssignerCase('YOLOv3Assigner', {'ignore_by': 'prior'}, priors='cells'),
    AssignerCase('YOLOv4Assigner', priors='cells', predicts=True),
    AssignerCase('YOLOv5Assigner', priors='cells'),
    AssignerCase('CenterNetAssigner', priors='heatmap'),
    AssignerCase('RFLAAssigner', priors='points'),
    AssignerCase('RFLAAssigner', {'receptive_fields': None, 'distance': 'wasserstein'}),
)
DATASETS = (DatasetCase('CocoDataset', twin='CocoDataset'),)
SAMPLERS = (SamplerCase('HardNegativeSampler'),)
CALCULATORS = (CalculatorCase('NWDCalculator'),)
HEADS = tuple(
    HeadCase(name, twin=name)
    for name in (
        'ATSSHead',
        'FCOSHead',
        'GFLHead',
        'RTMDetHead',
        'RTMDetSepBNHead',
        'RetinaHead',
        'SSDHead',
        'TOODHead',
        'YOLOV3Head',
        'YOLOXHead',
    )
)
#: All rows, by the name of the registry in which their components are.
TABLE: dict[str, tuple[Any, ...]] = {
    'model': (*LOSSES, *HEADS, *FACE_HEADS, *FEATURE_LOSSES, *BACKBONES, *PREPROCESSORS),
    'task util': (*ASSIGNERS, *CALCULATORS, *SAMPLERS),
    'dataset': (*DATASETS, *FACE_DATASETS),
    'transform': TRANSFORMS,
    'data sampler': DATA_SAMPLERS,
    'metric': METRICS,
    'hook': HOOKS,
    'margin': MARGINS,
}
