"""Registered face backbones."""

from mmdet_ext.face.backbones.iresnet import IResNet
from mmdet_ext.face.backbones.mobilefacenet import MobileFaceNet

__all__ = ['IResNet', 'MobileFaceNet']
