"""Registered data sets of detection."""

from mmdet_ext.detection.datasets.coco import CocoDataset

__all__ = ['CocoDataset']
