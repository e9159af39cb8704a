"""Registered dense heads."""

from mmdet_ext.detection.heads.atss import ATSSHead
from mmdet_ext.detection.heads.batch_targets import BatchTargets
from mmdet_ext.detection.heads.fcos import FCOSHead
from mmdet_ext.detection.heads.gfl import GFLHead
from mmdet_ext.detection.heads.retina import RetinaHead
from mmdet_ext.detection.heads.rtmdet import RTMDetHead, RTMDetSepBNHead
from mmdet_ext.detection.heads.ssd import SSDHead
from mmdet_ext.detection.heads.tood import TOODHead
from mmdet_ext.detection.heads.yolov3 import YOLOV3Head
from mmdet_ext.detection.heads.yolox import YOLOXHead

__all__ = [
    'ATSSHead', 'BatchTargets', 'FCOSHead', 'GFLHead', 'RTMDetHead', 'RTMDetSepBNHead',
    'RetinaHead', 'SSDHead', 'TOODHead', 'YOLOV3Head',
    'YOLOXHead',
]
