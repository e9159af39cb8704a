"""Registered dense heads."""

from mmdet_ext.detection.heads.dense.atss import ATSSHead
from mmdet_ext.detection.heads.dense.batch_targets import BatchTargets
from mmdet_ext.detection.heads.dense.fcos import FCOSHead
from mmdet_ext.detection.heads.dense.gfl import GFLHead
from mmdet_ext.detection.heads.dense.retina import RetinaHead
from mmdet_ext.detection.heads.dense.rtmdet import RTMDetHead, RTMDetSepBNHead
from mmdet_ext.detection.heads.dense.ssd import SSDHead
from mmdet_ext.detection.heads.dense.tood import TOODHead
from mmdet_ext.detection.heads.dense.yolov3 import YOLOV3Head
from mmdet_ext.detection.heads.dense.yolox import YOLOXHead

__all__ = [
    'ATSSHead',
    'BatchTargets',
    'FCOSHead',
    'GFLHead',
    'RTMDetHead',
    'RTMDetSepBNHead',
    'RetinaHead',
    'SSDHead',
    'TOODHead',
    'YOLOV3Head',
    'YOLOXHead',
]
