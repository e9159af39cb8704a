"""Registered dense heads."""

from mmdet_ext.detection.heads.ssd import SSDHead

__all__ = ['SSDHead']
