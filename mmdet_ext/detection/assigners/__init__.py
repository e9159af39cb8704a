"""Registered label assigners."""

from mmdet_ext.detection.assigners.atss import ATSSAssigner
from mmdet_ext.detection.assigners.base import BatchAssigner
from mmdet_ext.detection.assigners.dynamic_k import DynamicSoftLabelAssigner, SimOTAAssigner
from mmdet_ext.detection.assigners.fcos import FCOSAssigner
from mmdet_ext.detection.assigners.iou_calculators import NWDCalculator
from mmdet_ext.detection.assigners.max_iou import MaxIoUAssigner
from mmdet_ext.detection.assigners.task_aligned import (
    OneToOneTaskAlignedAssigner,
    TaskAlignedAssigner,
)

__all__ = [
    'ATSSAssigner',
    'BatchAssigner',
    'DynamicSoftLabelAssigner',
    'FCOSAssigner',
    'MaxIoUAssigner',
    'NWDCalculator',
    'OneToOneTaskAlignedAssigner',
    'SimOTAAssigner',
    'TaskAlignedAssigner',
]
