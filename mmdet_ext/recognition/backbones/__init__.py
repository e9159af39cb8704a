"""Backbones of face recognition."""

from mmdet_ext.recognition.backbones.iresnet import IResNet
from mmdet_ext.recognition.backbones.mobilefacenet import MobileFaceNet

__all__ = ['IResNet', 'MobileFaceNet']
