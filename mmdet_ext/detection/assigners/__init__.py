"""Registered label assigners."""

from mmdet_ext.detection.assigners.atss import ATSSAssigner
from mmdet_ext.detection.assigners.base import BatchAssigner

__all__ = ['ATSSAssigner', 'BatchAssigner']
