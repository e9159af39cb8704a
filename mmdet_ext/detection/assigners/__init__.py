"""Registered label assigners and overlap measures."""

from mmdet_ext.detection.assigners.atss import ATSSAssigner
from mmdet_ext.detection.assigners.base import BatchAssigner
from mmdet_ext.detection.assigners.centernet import CenterNetAssigner
from mmdet_ext.detection.assigners.dynamic_k import DynamicSoftLabelAssigner, SimOTAAssigner
from mmdet_ext.detection.assigners.fcos import FCOSAssigner
from mmdet_ext.detection.assigners.iou_calculators import NWDCalculator
from mmdet_ext.detection.assigners.max_iou import MaxIoUAssigner
from mmdet_ext.detection.assigners.rfla import RFLAAssigner
from mmdet_ext.detection.assigners.task_aligned import (
    OneToOneTaskAlignedAssigner,
    TaskAlignedAssigner,
)
from mmdet_ext.detection.assigners.yolo import YOLOv3Assigner, YOLOv4Assigner, YOLOv5Assigner

__all__ = [
    'ATSSAssigner',
    'BatchAssigner',
    'CenterNetAssigner',
    'DynamicSoftLabelAssigner',
    'FCOSAssigner',
    'MaxIoUAssigner',
    'NWDCalculator',
    'OneToOneTaskAlignedAssigner',
    'RFLAAssigner',
    'SimOTAAssigner',
    'TaskAlignedAssigner',
    'YOLOv3Assigner',
    'YOLOv4Assigner',
    'YOLOv5Assigner',
]
