"""Registered losses: thin shells over :mod:`mmdet_ext.functional`."""

from mmdet_ext.losses.base import ElementwiseLoss
from mmdet_ext.losses.iou import CIoULoss

__all__ = ['CIoULoss', 'ElementwiseLoss']
